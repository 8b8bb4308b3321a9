// Tokens by rank, most likely first and of equals the first, without sorting them.
#pragma once
#include "best.cuh"

// exp((logit - top) / temperature) as a whole number of `unit`s.
struct Weight {
    float top, scale, scale_rest, unit;
    // To some 2 ulp: what the difference and the product lose to rounding is added again.
    __device__ __forceinline__ float share(u32 key) const {
        float logit = logit_of(key), apart = logit - top, x = apart * scale;
        float most = apart - logit, lost = (logit - (apart - most)) - (top + most);
        float rest = fmaf(apart, scale, -x) + fmaf(apart, scale_rest, lost * scale);
        return x < -100.0f ? 0.0f : expf(x) * (1.0f + rest);
    }
    // The weight of all keys below is 0, of however small a unit.
    __device__ u32 lowest() const { return key_of(top - 70.0f / scale); }
    __device__ __forceinline__ u64 whole(float share) const { return __float2ull_rn(share * unit); }
    __device__ __forceinline__ u64 operator()(u32 key) const { return whole(share(key)); }
};

// For counting.
struct One {
    __device__ __forceinline__ u64 operator()(u32) const { return 1; }
};
struct Equal {
    u32 key;
    __device__ __forceinline__ u64 operator()(u32 other) const { return other == key; }
};

template <typename Measure>
struct Summed {
    Measure measure;
    // Of keys from here on, and up to here.
    u32 from, to;
    u64 sum;
    __device__ __forceinline__ void operator()(u32, float logit) {
        u32 key = key_of(logit);
        if (key >= from && key <= to) sum += measure(key);
    }
};

template <typename Measure>
__device__ __forceinline__ u64 sum_of(const float *logits, u32 count, Measure measure, u64 *shared, u32 from = 0) {
    Summed<Measure> summed = {measure, from, 0xffffffffu, 0};
    over_tokens(logits, count, summed);
    return block_sum(summed.sum, shared);
}

// A place among the tokens: `equals` of those with this key, and all with a larger one.
struct Rank {
    u32 key;
    u64 equals;
};

#define WAYS 8

// Sums of keys from each of WAYS - 1 places on.
template <typename Measure>
struct Divided {
    Measure measure;
    u32 low, step;
    u64 sums[WAYS - 1];
    __device__ __forceinline__ void operator()(u32, float logit) {
        u32 key = key_of(logit);
        if (key < low + step) return;
        u64 size = measure(key);
#pragma unroll
        for (u32 i = 0; i < WAYS - 1; i++)
            if (key - low >= (i + 1) * step) sums[i] += size;
    }
};

// The first rank at which the measure of all before and at it is at least `wanted`, which is at least 1 and
// at most that of all tokens. Neither its key nor the largest are outside of low..=top.
template <typename Measure>
__device__ __forceinline__ Rank rank_of(const float *logits, u32 count, Measure measure, u64 wanted, u32 low,
                                        u32 top, u64 *shared) {
    // Keys from `low` on reach it, those from low + width on do not: their sum is `above`.
    u64 width = (u64)top - low + 1, above = 0;
    while (width > 1) {
        u32 step = (u32)((width + WAYS - 1) / WAYS);
        Divided<Measure> divided = {measure, low, step, {}};
        over_tokens(logits, count, divided);
        u32 place = 0;
#pragma unroll
        for (u32 i = 0; i < WAYS - 1; i++) {
            if ((i + 1) * (u64)step >= width) break;
            u64 sum = block_sum(divided.sums[i], shared);
            if (sum >= wanted)
                place = i + 1;
            else if (place == i)
                above = sum;
        }
        low += place * step;
        width = min((u64)step, width - (u64)place * step);
    }
    // Equals have the same measure, which is not 0: without them it was not reached.
    u64 size = measure(low);
    return {low, (wanted - above + size - 1) / size};
}

// The weight of all tokens up to that rank.
__device__ __forceinline__ u64 mass_until(const float *logits, u32 count, Weight weight, Rank last, u64 *shared) {
    Summed<Weight> summed = {weight, last.key + 1, 0xffffffffu, 0};
    over_tokens(logits, count, summed);
    return block_sum(summed.sum, shared) + last.equals * weight(last.key);
}

// The first token, in order of their numbers, at which the measure of all before and at it is more than
// `target`; there is one.
template <typename Measure>
__device__ __forceinline__ u32 token_at(const float *logits, u32 count, Measure measure, u64 target, u64 *shared) {
    __shared__ u32 found;
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u64 before = 0;
    for (u64 first = 0; first < count; first += blockDim.x) {
        u64 token = first + threadIdx.x;
        u64 size = token < count ? measure(key_of(logits[token])) : 0;
        u64 sum = block_sum(size, shared);
        if (before + sum <= target) {
            before += sum;
            continue;
        }
        // It is among these: sums within the warp, and of the warps before.
        u64 until = size;
        for (u32 step = 1; step < 32; step *= 2) {
            u64 left = __shfl_up_sync(0xffffffffu, until, step);
            if (lane >= step) until += left;
        }
        // block_sum left the sums of the warps there.
        for (u32 w = 0; w < warp; w++) before += shared[w];
        if (before + until > target && before + until - size <= target) found = (u32)token;
        break;
    }
    __syncthreads();
    return found;
}
