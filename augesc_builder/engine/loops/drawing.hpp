// The choice of the next token, by candidates.

#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "numbers.hpp"

namespace {

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
