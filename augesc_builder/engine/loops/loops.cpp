// Decoding on CPU: products of few rows with many weights, and attention over slots of any length.
//
// Both are as fast as memory can be read, so weights, keys and values are laid out in the order in
// which they are read: in panels of LANES columns (of a matrix) or positions (of keys). Weights,
// keys and values are float or bfloat16, weights may be 8-bit integers with a scale for each column;
// what is computed with them is float.
//
// Every number of a result has an accumulator of its own, which adds up in one order. So it depends
// neither on the other rows, nor on how many there are, nor on the number of threads.

#include "attention.hpp"
#include "drawing.hpp"
#include "llama.hpp"
#include "products.hpp"
#include "tiles.hpp"

extern "C" {

// `scales` are those of the columns of 8-bit weights, as many as all panels have, else null.
void product_float32(const float* x, const float* panels, const float* scales, const float* bias,
                     float* out, long n_rows, long n_in, long n_out, int adds) {
    product(x, panels, scales, bias, out, Shape{n_rows, n_in, n_out}, adds);
}

void product_bfloat16(const float* x, const BFloat16* panels, const float* scales, const float* bias,
                      float* out, long n_rows, long n_in, long n_out, int adds) {
    const Shape shape{n_rows, n_in, n_out};
#ifdef __AMX_BF16__
    if (n_in % DEPTH == 0 && may_use_tiles())
        return product_with_tiles(x, panels, bias, out, shape, adds);
#endif
    product(x, panels, scales, bias, out, shape, adds);
}

void product_int8(const float* x, const int8_t* panels, const float* scales, const float* bias,
                  float* out, long n_rows, long n_in, long n_out, int adds) {
    const Shape shape{n_rows, n_in, n_out};
#if defined __AMX_BF16__ && defined __AMX_INT8__
    if (n_in % DEPTH_OF_BYTES == 0 && may_use_tiles())
        return product_with_tiles(x, panels, scales, bias, out, shape, adds);
#endif
    product(x, panels, scales, bias, out, shape, adds);
}

void attend_float32(const float* query, const float* key, const float* value, float* keys,
                    float* values, const int64_t* slots, const int64_t* positions, float* out, long n,
                    long n_heads, long n_kv_heads, long size, long capacity, long query_row,
                    long key_row, long value_row, float scale) {
    const Cache<float> cache{keys, values, n_kv_heads, capacity, size};
    const Tokens tokens{query, key, value, query_row, key_row, value_row, slots, positions, n, n_heads};
    attend_all(cache, tokens, scale, out, n_heads * size);
}

void attend_bfloat16(const float* query, const float* key, const float* value, BFloat16* keys,
                     BFloat16* values, const int64_t* slots, const int64_t* positions, float* out,
                     long n, long n_heads, long n_kv_heads, long size, long capacity, long query_row,
                     long key_row, long value_row, float scale) {
    const Cache<BFloat16> cache{keys, values, n_kv_heads, capacity, size};
    const Tokens tokens{query, key, value, query_row, key_row, value_row, slots, positions, n, n_heads};
    attend_all(cache, tokens, scale, out, n_heads * size);
}

void rms_norm_float32(const float* x, const float* weight, float* out, long n_rows, long n, float eps) {
    rms_norm(x, weight, out, n, n_rows, n, eps);
}

void gelu_float32(float* x, long n_rows, long n) { gelu(x, n_rows, n); }

void run_llama_float32(const Llama* model, float* x, const int64_t* turns, const int64_t* slots,
                       const int64_t* positions, long n_rows, long n) {
    run_llama<float>(*model, x, turns, slots, positions, n_rows, n);
}

void run_llama_bfloat16(const Llama* model, float* x, const int64_t* turns, const int64_t* slots,
                        const int64_t* positions, long n_rows, long n) {
    run_llama<BFloat16>(*model, x, turns, slots, positions, n_rows, n);
}

void draw_float32(float* logits, const int64_t* seen, const double* u, int64_t* tokens, long n_rows,
                  long n_tokens, long n_seen, long seen_row, float penalty, float temperature,
                  long top_k, double top_p, double min_p) {
#pragma omp parallel for schedule(dynamic)
    for (long row = 0; row < n_rows; ++row) {
        float* own = logits + row * n_tokens;
        if (penalty != 1) {  // read before any is written: a token seen twice is penalized once
            std::vector<float> said(n_seen);
            const int64_t* ids = seen + row * seen_row;
            for (long i = 0; i < n_seen; ++i) said[i] = own[ids[i]];
            for (long i = 0; i < n_seen; ++i)
                own[ids[i]] = said[i] < 0 ? said[i] * penalty : said[i] / penalty;
        }
        tokens[row] = draw(own, n_tokens, u[row], Nucleus{temperature, top_k, top_p, min_p});
    }
}

}
