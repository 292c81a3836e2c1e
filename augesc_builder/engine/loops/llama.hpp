// All layers of a model of Llama's family, and what stands between their products.

#pragma once

#include <cmath>
#include <vector>

#include "attention.hpp"

namespace {

// Rows of `out` are `out_row` numbers apart.
void rms_norm(const float* x, const float* weight, float* out, long out_row, long n_rows, long n,
              float eps) {
    for (long row = 0; row < n_rows; ++row, x += n, out += out_row) {
        Floats squares = {};
        long i = 0;
        for (; i + LANES <= n; i += LANES) squares += load(x + i) * load(x + i);
        float sum = sum_of(squares);
        for (; i < n; ++i) sum += x[i] * x[i];
        const float scale = 1 / std::sqrt(sum / n + eps);
        for (i = 0; i < n; ++i) out[i] = weight[i] * (x[i] * scale);
    }
}

// Turns the first 2 * half numbers of each head by its row's position: `x` is (n_rows, n_heads, size)
// within rows of `stride` numbers. Number i goes with number i + half.
void rotate(float* x, const float* cosines, const float* sines, const int64_t* positions, long n_rows,
            long n_heads, long size, long half, long stride) {
    for (long row = 0; row < n_rows; ++row) {
        const float *c = cosines + positions[row] * half, *s = sines + positions[row] * half;
        for (long head = 0; head < n_heads; ++head) {
            float *a = x + row * stride + head * size, *b = a + half;
            for (long i = 0; i < half; ++i) {
                const float first = a[i], second = b[i];
                a[i] = first * c[i] - second * s[i];
                b[i] = second * c[i] + first * s[i];
            }
        }
    }
}

// Writes silu(x[:, :n]) * x[:, n:], in rows that are `out_row` numbers apart.
void gate(const float* x, float* out, long out_row, long n_rows, long n) {
#pragma omp parallel for schedule(static)
    for (long row = 0; row < n_rows; ++row) {
        const float *a = x + row * 2 * n, *b = a + n;
        float* to = out + row * out_row;
        long i = 0;
        for (; i + LANES <= n; i += LANES) {
            const Floats z = load(a + i);
            store(to + i, z / (1.0f + exponential(-z)) * load(b + i));
        }
        for (; i < n; ++i) to[i] = a[i] / (1 + std::exp(-a[i])) * b[i];
    }
}

// Makes each number x times the normal distribution's share below it, by the usual tanh: x / (1 + e^-z).
void gelu(float* x, long n_rows, long n) {
#pragma omp parallel for schedule(static)
    for (long row = 0; row < n_rows; ++row) {
        float* own = x + row * n;
        const auto doubled = [](auto y) { return y * (1.595769122f + 0.071354816f * y * y); };
        long i = 0;
        for (; i + LANES <= n; i += LANES) {
            const Floats y = load(own + i);
            store(own + i, y / (1.0f + exponential(-doubled(y))));
        }
        for (; i < n; ++i) own[i] /= 1 + std::exp(-doubled(own[i]));
    }
}

// A linear layer: the product of its type's panels.
struct Linear {
    void (*product)(const float* x, const void* panels, const float* scales, const float* bias,
                    float* out, long n_rows, long n_in, long n_out, int adds);
    const void* panels;
    const float *scales, *bias;
    long n_in, n_out;

    void operator()(const float* x, float* out, long n_rows, bool adds) const {
        product(x, panels, scales, bias, out, n_rows, n_in, n_out, adds);
    }
};

struct LlamaLayer {
    const float *norm, *mlp_norm;
    Linear qkv, out, mlp_in, mlp_out;
    void *keys, *values;
};

struct Llama {
    const LlamaLayer* layers;
    const float *cosines, *sines;  // (T, D / 2)
    long n_layers, width, n_heads, n_kv_heads, size, capacity;
    float eps;
};

// Takes the embeddings of `n_rows` tokens through all layers, in place; the first `n` have a place in
// the cache.
template <class Number>
void run_llama(const Llama& model, float* x, const int64_t* turns, const int64_t* slots,
               const int64_t* positions, long n_rows, long n) {
    const long size = model.size, n_turned = model.n_heads + model.n_kv_heads;
    static thread_local std::vector<float> memory[4];
    const auto rows_of = [&](int which, long row) {  // zeros where a layer's input is filled up
        memory[which].assign(n_rows * row, 0.0f);
        return memory[which].data();
    };
    for (const LlamaLayer* layer = model.layers; layer < model.layers + model.n_layers; ++layer) {
        const long width = layer->qkv.n_in, states = layer->qkv.n_out;
        float* normed = rows_of(0, width);
        rms_norm(x, layer->norm, normed, width, n_rows, model.width, model.eps);
        float* query = rows_of(1, states);
        layer->qkv(normed, query, n_rows, false);
        rotate(query, model.cosines, model.sines, turns, n_rows, n_turned, size, size / 2, states);
        const float *key = query + model.n_heads * size, *value = query + n_turned * size;
        const Cache<Number> cache{(Number*)layer->keys, (Number*)layer->values, model.n_kv_heads,
                                  model.capacity, size};
        const Tokens tokens{query, key, value, states, states, states, slots, positions, n, model.n_heads};
        float* attended = rows_of(2, layer->out.n_in);
        attend_all(cache, tokens, 1 / std::sqrt(float(size)), attended, layer->out.n_in);
        layer->out(attended, x, n_rows, true);
        normed = rows_of(0, layer->mlp_in.n_in);
        rms_norm(x, layer->mlp_norm, normed, layer->mlp_in.n_in, n_rows, model.width, model.eps);
        float* both = rows_of(3, layer->mlp_in.n_out);
        layer->mlp_in(normed, both, n_rows, false);
        float* gated = rows_of(2, layer->mlp_out.n_in);
        gate(both, gated, layer->mlp_out.n_in, n_rows, layer->mlp_in.n_out / 2);
        layer->mlp_out(gated, x, n_rows, true);
    }
}

}  // namespace
