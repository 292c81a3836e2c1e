// What is computed with at once: LANES numbers side by side, and how they are read and written.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr long LANES = 16;
#ifdef __AVX512F__
constexpr long ROWS = 16;  // accumulators that stay in registers
#else
constexpr long ROWS = 6;
#endif

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef int8_t Bytes __attribute__((vector_size(LANES)));

struct BFloat16 {
    uint16_t bits;
};

inline Floats load(const float* from) {
    Floats x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

inline Floats load(const BFloat16* from) {
    Halves x;
    std::memcpy(&x, from, sizeof x);
    return (Floats)(__builtin_convertvector(x, Words) << 16);
}

inline void store(float* to, Floats x) { std::memcpy(to, &x, sizeof x); }

inline void store(float* to, float x) { *to = x; }

inline void store(BFloat16* to, float x) {  // to the nearest, ties to even; a NaN stays one
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    to->bits = x == x ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fc0;
}

inline Floats every(float x) { return x - Floats{}; }

inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

// e to the power of x: 2^n times a polynomial of what is left; relative error below 2e-7.
inline Floats exponential(Floats x) {
    const Ints known = x == x;
    const Floats bounded = larger(x < 88.0f ? x : every(88.0f), every(-87.0f));
    const Floats scaled = bounded * 1.44269504f;
    const Ints n = __builtin_convertvector(scaled + (scaled < 0.0f ? every(-0.5f) : every(0.5f)), Ints);
    const Floats whole = __builtin_convertvector(n, Floats);
    const Floats r = bounded - whole * 0.693359375f + whole * 2.12194440e-4f;
    Floats p = every(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const Floats result = p * (Floats)((n + 127) << 23);
    return known ? (x < -87.0f ? every(0.0f) : result) : x;
}

inline bool any(Ints x) {
    int32_t some = 0;
    for (long i = 0; i < LANES; ++i) some |= x[i];
    return some;
}

inline float sum_of(Floats x) {
    float sum = 0;
    for (long i = 0; i < LANES; ++i) sum += x[i];
    return sum;
}

// Asks for what is AHEAD bytes behind: memory is read in long runs, and across pages only if asked.
constexpr long AHEAD = 2048;

inline void ask(const void* from) { __builtin_prefetch((const char*)from + AHEAD); }

}  // namespace
