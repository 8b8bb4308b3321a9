// Sums over the lanes of a warp.
#pragma once

#include "common.cuh"

// The sum of a value over the 32 lanes, or over groups of 2 · mask.
__device__ __forceinline__ float sums_over_lanes(const float (&value)[1], u32 lane, int mask = 16) {
    float sum = value[0];
    for (; mask > 0; mask /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
    return sum;
}

// The sums of N values over the 32 lanes: lane l ends with sum l / (32 / N). Each step adds pairs of lanes and
// halves the values that a lane keeps, so it takes about N exchanges, not 5 · N. The order of the additions
// is that of warp_sum, whatever N is.
template <int N>
__device__ __forceinline__ float sums_over_lanes(const float (&values)[N], u32 lane, int mask = 16) {
    float half[N / 2];
    bool upper = lane & mask;
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        float give = upper ? values[i] : values[i + N / 2];
        float keep = upper ? values[i + N / 2] : values[i];
        half[i] = keep + __shfl_xor_sync(0xffffffffu, give, mask);
    }
    return sums_over_lanes(half, lane, mask / 2);
}
