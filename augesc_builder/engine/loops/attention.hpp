// Attention over slots of any length, with their keys and values.

#pragma once

#include <vector>

#include "numbers.hpp"

namespace {

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

}  // namespace
