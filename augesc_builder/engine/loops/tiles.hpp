// The same products in matrix units (AMX), for weights of 16 and of 8 bits.

#pragma once

#ifdef __AMX_BF16__
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "products.hpp"

namespace {

constexpr long DEPTH = 32;  // inputs in a tile of bfloat16; each tile has 16 rows of 64 bytes

struct alignas(64) Tiles {
    uint8_t palette = 1, begin = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

struct alignas(64) Line {  // of a cache: rows of tiles begin with one, else each takes two loads
    uint8_t bytes[64];
};

// Asks for weights that the matrix unit reads: into the cache behind the nearest, which has more room
// for what is on its way.
inline void ask_early(const void* from) { __builtin_prefetch((const char*)from + 2 * AHEAD, 0, 2); }

// Calls `work` for every 16 rows and `step` columns, by threads that have set up their matrix units.
// Rows take turns over columns whose weights a cache holds, before the next are read.
template <class Work>
void over_tiles(const Shape& shape, long step, long bytes_of_weights, const Work& work) {
    constexpr long cached = 1 << 19;
    const long column = bytes_of_weights * shape.n_in;
    const long most = shape.n_rows <= 16 ? shape.n_out : std::max(step, cached / column / step * step);
#pragma omp parallel
    {
        const Tiles tiles;
        _tile_loadconfig(&tiles);
        for (long begin = 0; begin < shape.n_out; begin += most)
            for (long row = 0; row < shape.n_rows; row += 16) {
                const long end = std::min(begin + most, shape.n_out);
#pragma omp for schedule(static) nowait
                for (long first = begin; first < end; first += step) work(row, first);
            }
        _tile_release();
    }
}

inline void split(Floats x, Halves& high, Halves& low) {  // x is high + low, but for 2^-16 of it
    const auto rounded = [](Floats y) {
        const Words bits = (Words)y;
        return y == y ? (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u : Words{} + 0x7fc00000u;
    };
    const Words bits = rounded(x);
    high = __builtin_convertvector(bits >> 16, Halves);
    low = __builtin_convertvector(rounded(x - (Floats)bits) >> 16, Halves);
}

// A block of 16 rows as tiles: for each DEPTH inputs the high parts, then the low ones.
constexpr long TILE = 16 * DEPTH;

// Products of 16 rows with PANELS panels. The matrix unit's numbers are bfloat16, so each of `x` is
// given as two of them.
template <int PANELS>
void multiply(const uint16_t* rows, const BFloat16* weights, const Shape& shape, long row, long first,
              const float* bias, bool adds, float* out) {
    const long n_in = shape.n_in, panel = LANES * n_in;
    rows += row * 2 * n_in;
    _tile_zero(0);
    if constexpr (PANELS == 2) _tile_zero(1);
    for (long k = 0; k < n_in; k += DEPTH, weights += DEPTH * LANES) {
        if (row == 0)
            for (long line = 0; line < DEPTH / 2 * PANELS; ++line)
                ask(weights + line % PANELS * panel + 2 * LANES * (line / PANELS));
        _tile_loadd(4, weights, 64);
        if constexpr (PANELS == 2) _tile_loadd(5, weights + panel, 64);
        for (long part = 0; part < 2; ++part, rows += TILE) {
            _tile_loadd(6, rows, 64);
            _tile_dpbf16ps(0, 6, 4);
            if constexpr (PANELS == 2) _tile_dpbf16ps(1, 6, 5);
        }
    }
    alignas(64) float sums[PANELS][16 * LANES];
    _tile_stored(0, sums[0], 64);
    if constexpr (PANELS == 2) _tile_stored(1, sums[1], 64);
    for (long i = 0; i < 16 && row + i < shape.n_rows; ++i)
        for (long j = 0; j < PANELS; ++j)
            finish(load(sums[j] + i * LANES), shape, row + i, first + j * LANES, bias, adds, out);
}

void product_with_tiles(const float* x, const BFloat16* panels, const float* bias, float* out,
                        const Shape& shape, bool adds) {
    const long n_in = shape.n_in, padded = (shape.n_rows + 15) / 16 * 16;
    static thread_local std::vector<Line> parts;
    parts.assign(2 * padded * n_in / DEPTH, Line{});
    uint16_t* rows = (uint16_t*)parts.data();
    for (long row = 0; row < shape.n_rows; ++row)
        for (long k = 0; k < n_in; k += LANES) {
            Halves high, low;
            split(load(x + row * n_in + k), high, low);
            uint16_t* to = rows + row / 16 * 2 * 16 * n_in + k / DEPTH * 2 * TILE +
                           row % 16 * DEPTH + k % DEPTH;
            std::memcpy(to, &high, sizeof high);
            std::memcpy(to + TILE, &low, sizeof low);
        }
    over_tiles(shape, 2 * LANES, sizeof *panels, [&](long row, long first) {
        const BFloat16* weights = panels + first * n_in;
        if (first + LANES < shape.n_out)
            multiply<2>(rows, weights, shape, row, first, bias, adds, out);
        else
            multiply<1>(rows, weights, shape, row, first, bias, adds, out);
    });
}

#ifdef __AMX_INT8__
// The matrix unit adds up products of bytes exactly. A row of `x` is whole numbers of 23 bits times
// a power of two, as exact as floats are beside the row's largest; each has three digits of 8 bits,
// from -128 to 127, and each digit a sum of its own: 32 bits hold those of 130,000 inputs.
constexpr long DIGITS = 3, DEPTH_OF_BYTES = 64, TILE_OF_BYTES = 16 * DEPTH_OF_BYTES;

// Writes the digits of a row, those of equal place together in tiles; returns the power of two, or
// NaN where the row is not finite.
float write_digits(const float* x, long n_in, int8_t* to) {
    Words bits = {};
    for (long k = 0; k < n_in; k += LANES) {
        const Words own = (Words)load(x + k) & 0x7fffffffu;
        bits = own > bits ? own : bits;
    }
    uint32_t largest = bits[0];
    for (long j = 1; j < LANES; ++j) largest = bits[j] > largest ? bits[j] : largest;
    const uint32_t exponent = largest >> 23 < 22 ? 22 : largest >> 23;
    const uint32_t unit_bits = (exponent - 21) << 23, inverse_bits = (275 - exponent) << 23;
    float unit, inverse;
    std::memcpy(&unit, &unit_bits, sizeof unit);
    std::memcpy(&inverse, &inverse_bits, sizeof inverse);
    for (long k = 0; k < n_in; k += LANES) {
        // Added to 1.5 * 2^23 a number is rounded to a whole one, which its lowest bits are.
        const Ints whole = (Ints)(load(x + k) * inverse + 0x1.8p23f) - 0x4b400000;
        const Ints digits = (whole + 0x808080) ^ 0x808080;
        int8_t* place = to + k / DEPTH_OF_BYTES * DIGITS * TILE_OF_BYTES + k % DEPTH_OF_BYTES;
        for (long i = 0; i < DIGITS; ++i, place += TILE_OF_BYTES) {
            const Bytes digit = __builtin_convertvector(digits >> 8 * i, Bytes);
            std::memcpy(place, &digit, sizeof digit);
        }
    }
    return largest < 0x7f800000u ? unit : NAN;
}

// Products of 16 rows with a panel.
void multiply(const int8_t* rows, const float* units, const int8_t* weights, const float* scales,
              const Shape& shape, long row, long first, const float* bias, bool adds, float* out) {
    const long n_in = shape.n_in;
    rows += row * DIGITS * n_in;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    for (long k = 0; k < n_in; k += DEPTH_OF_BYTES) {
        if (row == 0)
            for (long line = 0; line < 16; ++line) ask_early(weights + line * 64);
        _tile_loadd(4, weights, 64);
        _tile_loadd(5, rows, 64);
        _tile_dpbssd(0, 5, 4);
        _tile_loadd(6, rows + TILE_OF_BYTES, 64);
        _tile_dpbssd(1, 6, 4);
        _tile_loadd(7, rows + 2 * TILE_OF_BYTES, 64);
        _tile_dpbssd(2, 7, 4);
        weights += TILE_OF_BYTES;
        rows += DIGITS * TILE_OF_BYTES;
    }
    alignas(64) Ints sums[DIGITS][16];
    _tile_stored(0, sums[0], 64);
    _tile_stored(1, sums[1], 64);
    _tile_stored(2, sums[2], 64);
    const Floats scale = load(scales + first);
    for (long i = 0; i < 16 && row + i < shape.n_rows; ++i) {
        Floats digits[DIGITS];
        for (long j = 0; j < DIGITS; ++j) digits[j] = __builtin_convertvector(sums[j][i], Floats);
        const Floats sum = digits[2] * 65536.0f + (digits[1] * 256.0f + digits[0]);
        finish(sum * units[row + i] * scale, shape, row + i, first, bias, adds, out);
    }
}

void product_with_tiles(const float* x, const int8_t* panels, const float* scales, const float* bias,
                        float* out, const Shape& shape, bool adds) {
    const long n_in = shape.n_in, padded = (shape.n_rows + 15) / 16 * 16;
    static thread_local std::vector<Line> parts;
    static thread_local std::vector<float> powers;
    parts.assign(DIGITS * padded * n_in / DEPTH_OF_BYTES, Line{});
    powers.resize(padded);
    int8_t* rows = (int8_t*)parts.data();
    float* units = powers.data();
    for (long row = 0; row < shape.n_rows; ++row)
        units[row] = write_digits(
            x + row * n_in, n_in, rows + row / 16 * DIGITS * 16 * n_in + row % 16 * DEPTH_OF_BYTES);
    over_tiles(shape, LANES, sizeof *panels, [&](long row, long first) {
        multiply(rows, units, panels + first * n_in, scales, shape, row, first, bias, adds, out);
    });
}
#endif

// Whether the system lets this process use the matrix unit: Linux wants to be asked.
bool may_use_tiles() {
    static const bool may = syscall(SYS_arch_prctl, 0x1023, 18) == 0;
    return may;
}

}  // namespace
#endif
