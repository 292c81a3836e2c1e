// Products of few rows with panels of weights, wherever there is no matrix unit.

#pragma once

#include <vector>

#include "numbers.hpp"

namespace {

struct Shape {
    long n_rows, n_in, n_out;
};

// Adds a panel's columns of a row's result to what is there, or writes them.
inline void finish(Floats sums, const Shape& shape, long row, long first, const float* bias,
                   bool adds, float* out) {
    const long width = shape.n_out - first < LANES ? shape.n_out - first : LANES;
    float* to = out + row * shape.n_out + first;
    if (width == LANES) {
        if (bias) sums += load(bias + first);
        store(to, adds ? sums + load(to) : sums);
        return;
    }
    for (long i = 0; i < width; ++i) {
        const float sum = bias ? sums[i] + bias[first + i] : sums[i];
        to[i] = adds ? sum + to[i] : sum;
    }
}

// Weights of 16 columns, of STEP neighbouring inputs: float panels are (n_in, LANES), those of
// bfloat16 (n_in / 2, LANES, 2) and of bytes (n_in / 4, LANES, 4), as matrix units read them. `n_in`
// is a multiple of STEP.
template <class Weight>
constexpr long STEP = sizeof(Weight) == 1 ? 4 : 2;

inline void load_step(const float* from, Floats* weights) {
    weights[0] = load(from);
    weights[1] = load(from + LANES);
    ask(from);
    ask(from + LANES);
}

inline void load_step(const BFloat16* from, Floats* weights) {
    Words both;
    std::memcpy(&both, from, sizeof both);
    weights[0] = (Floats)(both << 16);
    weights[1] = (Floats)(both & 0xffff0000u);
    ask(from);
}

inline void load_step(const int8_t* from, Floats* weights) {
    Ints four;
    std::memcpy(&four, from, sizeof four);
    for (long i = 0; i < 4; ++i)
        weights[i] = __builtin_convertvector(four << (24 - 8 * i) >> 24, Floats);
    ask(from);
}

template <class Weight>
void product(const float* x, const Weight* panels, const float* scales, const float* bias, float* out,
             const Shape& shape, bool adds) {
    constexpr long step = STEP<Weight>;
    const long n_in = shape.n_in, n_blocks = (shape.n_rows + ROWS - 1) / ROWS;
    static thread_local std::vector<float> turned;  // blocks of rows, each (n_in, ROWS)
    turned.assign(n_blocks * n_in * ROWS, 0.0f);
    for (long row = 0; row < shape.n_rows; ++row) {
        float* to = turned.data() + row / ROWS * n_in * ROWS + row % ROWS;
        for (long k = 0; k < n_in; ++k) to[k * ROWS] = x[row * n_in + k];
    }
    const float* rows = turned.data();
#pragma omp parallel for schedule(static)
    for (long first = 0; first < shape.n_out; first += LANES) {
        for (long block = 0; block < n_blocks; ++block) {
            const Weight* weights = panels + first * n_in;
            const float* from = rows + block * n_in * ROWS;
            Floats sums[ROWS] = {};
            for (long k = 0; k < n_in; k += step, from += step * ROWS, weights += step * LANES) {
                Floats w[step];
                load_step(weights, w);
#pragma GCC unroll 4
                for (long i = 0; i < step; ++i)
#pragma GCC unroll 16
                    for (long row = 0; row < ROWS; ++row) sums[row] += w[i] * from[i * ROWS + row];
            }
#pragma GCC unroll 16
            for (long row = 0; row < ROWS; ++row) {
                if (block * ROWS + row >= shape.n_rows) break;
                if (scales) sums[row] *= load(scales + first);
                finish(sums[row], shape, block * ROWS + row, first, bias, adds, out);
            }
        }
    }
}

}  // namespace
