// Drawing a token, as longmamba-model's Sampler does for the same number.
#pragma once
#include "search.cuh"

struct Sample {
    Rows<const float> logits;
    // [rows]: in [0, 1).
    const double *uniform;
    u32 *tokens;
    u64 rows;
    // Tokens of a row; how many of the most likely to keep, `count` for all.
    u32 count, top_k;
    // 1 / temperature in two parts, 0 for the most likely token.
    float scale, scale_rest;
    float top_p, min_p;
    // Weights are multiples of 2^-bits.
    u32 bits;
    u32 unused;
};

// Weights of the tokens that min-p keeps.
struct Kept {
    Weight weight;
    float min_p;
    __device__ __forceinline__ u64 operator()(u32 key) const {
        float share = weight.share(key);
        return share >= min_p ? weight.whole(share) : 0;
    }
};

__device__ __forceinline__ u32 sample_row(const Sample &a, const float *logits, double uniform, u64 *shared) {
    Best best = most_likely<true>(logits, a.count, shared);
    if (best.wrong) return NOT_A_NUMBER;
    if (best.key <= key_of(__uint_as_float(0xff800000u))) return NO_TOKEN;
    if (a.scale == 0.0f) return best.token;

    Weight weight = {logit_of(best.key), a.scale, a.scale_rest, (float)(1ull << a.bits)};
    Kept kept = {weight, a.min_p};
    u32 low = weight.lowest();
    bool ranked = a.top_k < a.count || a.top_p < 1.0f;
    // What is left of all weights after each filter.
    u64 mass = sum_of(logits, a.count, weight, shared);
    if (a.top_k < a.count) {
        Rank last = rank_of(logits, a.count, One(), a.top_k, 0, best.key, shared);
        low = max(low, last.key);
        mass = mass_until(logits, a.count, weight, last, shared);
    }
    if (a.top_p < 1.0f) {
        u64 wanted = __double2ull_ru((double)a.top_p * (double)mass);
        Rank last = rank_of(logits, a.count, weight, wanted, low, best.key, shared);
        low = last.key;
        mass = mass_until(logits, a.count, weight, last, shared);
    }
    if (a.min_p > 0.0f) mass = min(mass, sum_of(logits, a.count, kept, shared));

    u64 target = min((u64)(uniform * (double)mass), mass - 1);
    // By rank where tokens were ranked, else by their number, as the host does.
    if (!ranked) return token_at(logits, a.count, kept, target, shared);
    Rank drawn = rank_of(logits, a.count, weight, target + 1, low, best.key, shared);
    return token_at(logits, a.count, Equal{drawn.key}, drawn.equals - 1, shared);
}
