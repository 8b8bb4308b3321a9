// The sums of delta. One warp counts the tokens of a sequence (or of a segment of it) and head, each lane
// some of them, always in the same order: the sums do not change from run to run.
#pragma once
#include "ssd/arguments.cuh"

template <typename V>
__device__ __forceinline__ V sum_of_lanes(V x) {
    for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(0xffffffffu, x, lane);
    return x;
}

struct Count {
    double delta_sum = 0.0;
    double kept_sum = 0.0;
    u64 kept = 0;

    __device__ void add(Token token) {
        delta_sum += token.delta;
        kept_sum += token.masked();
        kept += token.kept;
    }

    // By a whole warp. `add`: to what is there.
    __device__ void flush(const Sums &sums, u64 at, bool add) {
        double all = sum_of_lanes(delta_sum), part = sum_of_lanes(kept_sum);
        u64 tokens = sum_of_lanes(kept);
        if (threadIdx.x % 32) return;
        sums.delta_sum[at] = (add ? sums.delta_sum[at] : 0.0) + all;
        sums.kept_sum[at] = (add ? sums.kept_sum[at] : 0.0) + part;
        sums.kept[at] = (add ? sums.kept[at] : 0) + tokens;
    }
};
