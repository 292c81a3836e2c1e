// Decoding on CPU: products of few rows with many weights, and attention over slots of any length.
//
// Both are as fast as memory can be read, so weights, keys and values are laid out in the order in
// which they are read: in panels of LANES columns (of a matrix) or positions (of keys). Weights,
// keys and values are float or bfloat16, weights may be 8-bit integers with a scale for each column;
// what is computed with them is float.
//
// Every number of a result has an accumulator of its own, which adds up in one order. So it depends
// neither on the other rows, nor on how many there are, nor on the number of threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#ifdef __AMX_BF16__
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

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

#ifdef __AMX_BF16__
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
#endif

// Keys and values of float stand alone; those of bfloat16 in pairs, as matrix units read them: two
// neighbouring dimensions of a key, two neighbouring positions of a value. `size` is even then.
template <class Number>
constexpr long PAIR = sizeof(Number) == 2 ? 2 : 1;

inline void load_pair(const BFloat16* from, Floats& even, Floats& odd) {
    Words both;
    std::memcpy(&both, from, sizeof both);
    even = (Floats)(both << 16);
    odd = (Floats)(both & 0xffff0000u);
}

template <class Number>
struct Cache {
    Number* keys;    // (S, Hkv, capacity / LANES, D / PAIR, LANES, PAIR)
    Number* values;  // (S, Hkv, capacity / PAIR, D, PAIR)
    long n_kv_heads, capacity, size;

    void put(long slot, long position, const float* key, const float* value) const {
        constexpr long P = PAIR<Number>;
        for (long head = 0; head < n_kv_heads; ++head) {
            const long at = (slot * n_kv_heads + head) * capacity;
            Number* panel = keys + (at + position / LANES * LANES) * size + position % LANES * P;
            Number* row = values + (at + position / P * P) * size + position % P;
            for (long d = 0; d < size; ++d) {
                store(panel + d / P * P * LANES + d % P, key[head * size + d]);
                store(row + d * P, value[head * size + d]);
            }
        }
    }

    // The first `length` keys and values of a slot's head.
    const Number* keys_of(long slot, long head) const {
        return keys + (slot * n_kv_heads + head) * capacity * size;
    }
    const Number* values_of(long slot, long head) const {
        return values + (slot * n_kv_heads + head) * capacity * size;
    }
};

// Turns scores into shares, which are not divided by their sum yet, and returns that.
inline float soften(float* scores, long length, long room) {
    for (long t = length; t < room; ++t) scores[t] = -INFINITY;
    Floats best = load(scores);
    for (long t = LANES; t < room; t += LANES) best = larger(load(scores + t), best);
    float largest = best[0];
    for (long j = 1; j < LANES; ++j) largest = best[j] > largest ? best[j] : largest;
    Floats sums = {};
    for (long t = 0; t < room; t += LANES) {
        const Floats share = exponential(load(scores + t) - largest);
        store(scores + t, share);
        sums += share;
    }
    return sum_of(sums);
}

template <int HEADS, int PANELS>
void score(const float* query, const float* key, long size, float scale, long room, float* scores) {
    Floats sums[HEADS][PANELS] = {};
    for (long d = 0; d < size; ++d, key += LANES)
        for (int j = 0; j < PANELS; ++j) {
            const Floats k = load(key + j * LANES * size);
            ask(key + j * LANES * size);
            for (int i = 0; i < HEADS; ++i) sums[i][j] += k * query[i * size + d];
        }
    for (int i = 0; i < HEADS; ++i)
        for (int j = 0; j < PANELS; ++j) store(scores + i * room + j * LANES, sums[i][j] * scale);
}

template <int HEADS, int PANELS>
void score(const float* query, const BFloat16* key, long size, float scale, long room, float* scores) {
    Floats sums[HEADS][PANELS] = {};
    for (long d = 0; d < size; d += 2, key += 2 * LANES)
        for (int j = 0; j < PANELS; ++j) {
            Floats even, odd;
            load_pair(key + j * LANES * size, even, odd);
            ask(key + j * LANES * size);
            for (int i = 0; i < HEADS; ++i) {
                sums[i][j] += even * query[i * size + d];
                sums[i][j] += odd * query[i * size + d + 1];
            }
        }
    for (int i = 0; i < HEADS; ++i)
        for (int j = 0; j < PANELS; ++j) store(scores + i * room + j * LANES, sums[i][j] * scale);
}

template <int HEADS, int WIDE>
void mean(const float* value, long size, const float* shares, long room, long length,
          const float* totals, float* out) {
    Floats sums[HEADS][WIDE] = {};
    for (long t = 0; t < length; ++t, value += size) {
        for (int j = 0; j < WIDE; ++j) ask(value + j * LANES);
        for (int j = 0; j < WIDE; ++j) {
            const Floats v = load(value + j * LANES);
            for (int i = 0; i < HEADS; ++i) sums[i][j] += v * shares[i * room + t];
        }
    }
    for (int i = 0; i < HEADS; ++i)
        for (int j = 0; j < WIDE; ++j)
            store(out + i * size + j * LANES, sums[i][j] / totals[i]);
}

template <int HEADS, int WIDE>
void mean(const BFloat16* value, long size, const float* shares, long room, long length,
          const float* totals, float* out) {
    Floats sums[HEADS][WIDE] = {};
    for (long t = 0; t < length; t += 2, value += 2 * size) {
        for (int j = 0; j < WIDE; ++j) ask(value + j * 2 * LANES);
        for (int j = 0; j < WIDE; ++j) {
            Floats even, odd;
            load_pair(value + j * 2 * LANES, even, odd);
            for (int i = 0; i < HEADS; ++i) sums[i][j] += even * shares[i * room + t];
            if (t + 1 < length)  // what stands behind may be anything
                for (int i = 0; i < HEADS; ++i) sums[i][j] += odd * shares[i * room + t + 1];
        }
    }
    for (int i = 0; i < HEADS; ++i)
        for (int j = 0; j < WIDE; ++j)
            store(out + i * size + j * LANES, sums[i][j] / totals[i]);
}

inline float number_of(float x) { return x; }

inline float number_of(BFloat16 x) {
    const uint32_t bits = uint32_t(x.bits) << 16;
    float number;
    std::memcpy(&number, &bits, sizeof number);
    return number;
}

// Fills `out` (HEADS, D) for queries (HEADS, D) that share keys, the first `length` of a slot.
template <int HEADS, class Number>
void attend(const Cache<Number>& cache, const float* query, long slot, long head, long length,
            float scale, float* out) {
    constexpr long P = PAIR<Number>;
    const long size = cache.size, room = (length + LANES - 1) / LANES * LANES;
    static thread_local std::vector<float> all;
    all.resize(HEADS * room);
    float* scores = all.data();
    const Number* key = cache.keys_of(slot, head);
    long t = 0;
    for (; t + LANES < length; t += 2 * LANES, key += 2 * LANES * size)
        score<HEADS, 2>(query, key, size, scale, room, scores + t);
    if (t < length) score<HEADS, 1>(query, key, size, scale, room, scores + t);
    float totals[HEADS];
    for (int i = 0; i < HEADS; ++i) totals[i] = soften(scores + i * room, length, room);
    const Number* value = cache.values_of(slot, head);
    long d = 0;
    for (; d + 4 * LANES <= size; d += 4 * LANES)
        mean<HEADS, 4>(value + d * P, size, scores, room, length, totals, out + d);
    for (; d + LANES <= size; d += LANES)
        mean<HEADS, 1>(value + d * P, size, scores, room, length, totals, out + d);
    for (; d < size; ++d)
        for (int i = 0; i < HEADS; ++i) {
            float sum = 0;
            for (t = 0; t < length; ++t)
                sum += number_of(value[(t / P * size + d) * P + t % P]) * scores[i * room + t];
            out[i * size + d] = sum / totals[i];
        }
}

// New keys and values of `n` tokens are stored, then each attends to its slot's up to its own.
struct Tokens {
    const float *query, *key, *value;
    long query_row, key_row, value_row;  // numbers from one token's to the next one's
    const int64_t *slots, *positions;
    long n, n_heads;
};

template <class Number>
void attend_all(const Cache<Number>& cache, const Tokens& tokens, float scale, float* out, long out_row) {
    const long share = tokens.n_heads / cache.n_kv_heads, size = cache.size;
    for (long i = 0; i < tokens.n; ++i)
        if (tokens.slots[i] >= 0)
            cache.put(tokens.slots[i], tokens.positions[i], tokens.key + i * tokens.key_row,
                      tokens.value + i * tokens.value_row);
#pragma omp parallel for collapse(2) schedule(dynamic)
    for (long i = 0; i < tokens.n; ++i) {
        for (long head = 0; head < cache.n_kv_heads; ++head) {
            const long slot = tokens.slots[i], length = tokens.positions[i] + 1;
            if (slot < 0) continue;
            const float* q = tokens.query + i * tokens.query_row + head * share * size;
            float* to = out + i * out_row + head * share * size;
            long left = share;
            for (; left >= 4; left -= 4, q += 4 * size, to += 4 * size)
                attend<4>(cache, q, slot, head, length, scale, to);
            if (left == 3) attend<3>(cache, q, slot, head, length, scale, to);
            if (left == 2) attend<2>(cache, q, slot, head, length, scale, to);
            if (left == 1) attend<1>(cache, q, slot, head, length, scale, to);
        }
    }
}

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

struct Nucleus {
    float temperature;
    long top_k;  // 0 for none
    double top_p, min_p;
};

struct Candidate {
    float logit;
    int32_t id;

    // Of which a smaller one stands further in front.
    uint32_t rank() const {
        uint32_t bits;
        std::memcpy(&bits, &logit, sizeof bits);
        return bits >> 31 ? bits : bits ^ 0x7fffffffu;
    }
};

// Sorts by logit, largest first, and where these are equal as they stand: digit after digit.
void sort(std::vector<Candidate>& all, std::vector<Candidate>& other) {
    constexpr int DIGITS = 4, BITS = 8;
    uint32_t ends[DIGITS][1 << BITS] = {};
    for (const Candidate& one : all)
        for (int digit = 0; digit < DIGITS; ++digit) ++ends[digit][one.rank() >> BITS * digit & 0xff];
    other.resize(all.size());
    for (int digit = 0; digit < DIGITS; ++digit) {
        uint32_t begin = 0;
        for (uint32_t& count : ends[digit]) {
            const uint32_t own = count;
            count = begin;
            begin += own;
        }
        for (const Candidate& one : all) other[ends[digit][one.rank() >> BITS * digit & 0xff]++] = one;
        all.swap(other);
    }
}

// Draws from a row of logits at `u`, as `sampling.py` says; -1 where they are not finite. Of all
// tokens those above one floor after another are sorted, until they hold the one that is drawn
// whatever the others are.
long draw(const float* logits, long n_tokens, double u, const Nucleus& nucleus) {
    Floats best = every(logits[0]);
    long i = 0;
    for (; i + LANES <= n_tokens; i += LANES) best = larger(load(logits + i), best);
    float largest = best[0];
    for (long j = 1; j < LANES; ++j) largest = best[j] > largest ? best[j] : largest;
    for (; i < n_tokens; ++i) largest = logits[i] > largest ? logits[i] : largest;
    largest /= nucleus.temperature;
    double total = 0;
    for (i = 0; i + 8 * LANES <= n_tokens; i += 8 * LANES) {
        Floats sums = {};
        for (long j = 0; j < 8 * LANES; j += LANES)
            sums += exponential(load(logits + i + j) / nucleus.temperature - largest);
        total += sum_of(sums);
    }
    for (; i < n_tokens; ++i) total += exponential(every(logits[i] / nucleus.temperature - largest))[0];
    if (!std::isfinite(total)) return -1;

    // A token below (1 - top_p) / V is never in the nucleus: all such together have less mass than
    // 1 - top_p. The bound is a little lower, for rounding.
    const double floors[] = {1.0 / (1 << 10), 1.0 / (1 << 14), 1.0 / (1 << 16),
                             0.999 * (1 - nucleus.top_p) / n_tokens, 0};
    static thread_local std::vector<Candidate> found, other;
    static thread_local std::vector<float> shares;  // times `total`
    static thread_local std::vector<double> masses;
    for (const double floor : floors) {
        const float cut = (largest + float(std::log(floor * total))) * nucleus.temperature;
        found.clear();
        for (long begin = 0; begin < n_tokens; begin += LANES) {
            const long end = std::min(begin + LANES, n_tokens);
            if (floor > 0 && end == begin + LANES && !any(load(logits + begin) >= cut)) continue;
            for (i = begin; i < end; ++i)
                if (floor == 0 || logits[i] >= cut)
                    found.push_back({logits[i] / nucleus.temperature + 0.0f, int32_t(i)});  // no -0
        }
        sort(found, other);
        const long n = found.size();
        if (n == 0) continue;
        shares.resize((n + LANES - 1) / LANES * LANES);
        masses.resize(n);
        for (i = 0; i < n; ++i) shares[i] = found[i].logit - largest;
        for (i = 0; i < n; i += LANES) store(shares.data() + i, exponential(load(shares.data() + i)));
        double mass = 0;
        for (i = 0; i < n; ++i) masses[i] = mass += shares[i] / total;
        const float lowest = found[n - 1].logit;  // tokens that are no candidates may be as likely
        const auto count = [&](const auto& holds) {  // of the first that hold
            long few = 0, many = n;
            while (few < many) {
                const long middle = (few + many) / 2;
                if (holds(middle)) few = middle + 1;
                else many = middle;
            }
            return few;
        };
        if (floor > 0) {
            bool enough;
            if (nucleus.top_k) {
                enough = n > nucleus.top_k && found[nucleus.top_k - 1].logit > lowest;
            } else {
                const double need = nucleus.top_p == 1 ? u : nucleus.top_p;
                const long reaches = count([&](long j) { return masses[j] <= need; });
                enough = reaches < n && found[reaches].logit > lowest &&
                         (nucleus.top_p < 1 || nucleus.min_p == 0);
                if (nucleus.min_p > 0 && shares[n - 1] < nucleus.min_p * shares[0]) enough = true;
            }
            if (!enough) continue;
        }
        long last = n - 1;
        double whole = 1;
        if (nucleus.top_k) {
            const float least = found[(nucleus.top_k < n ? nucleus.top_k : n) - 1].logit;
            last = count([&](long j) { return found[j].logit >= least; }) - 1;
            whole = masses[last];
        }
        if (nucleus.top_p < 1) {
            const long reaches = count([&](long j) { return masses[j] < nucleus.top_p * whole; });
            last = reaches < last ? reaches : last;
        }
        if (nucleus.min_p > 0) {
            const long likely = count([&](long j) { return shares[j] >= nucleus.min_p * shares[0]; });
            last = likely - 1 < last ? (likely > 0 ? likely - 1 : 0) : last;
        }
        const bool is_cut = nucleus.top_p < 1 || nucleus.top_k || nucleus.min_p > 0;
        const double target = u * (is_cut ? masses[last] : whole);
        const long index = count([&](long j) { return masses[j] <= target; });
        return found[index < last ? index : last].id;  // rounding may have gone one too far
    }
    return -1;
}

}  // namespace

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
