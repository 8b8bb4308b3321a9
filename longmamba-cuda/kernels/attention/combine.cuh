// What several blocks have found for one query and head, together: a block to each.
#pragma once
#include "args.cuh"

__device__ __forceinline__ void combine(const Attention &a) {
    for (u64 unit = blockIdx.x; unit < a.rows * a.heads; unit += gridDim.x) {
        const float *stats = a.stats + unit * a.splits * 2;
        const float *sums = a.sums + unit * a.splits * a.head_dim;
        float highest = NOTHING, total = 0.0f;
        for (u32 s = 0; s < a.splits; s++) highest = fmaxf(highest, stats[2 * s]);
        for (u32 s = 0; s < a.splits; s++) {
            // Of a split in which the query sees nothing, the total is 0.
            float share = stats[2 * s + 1] == 0.0f ? 0.0f : weight(stats[2 * s], highest);
            total += share * stats[2 * s + 1];
        }
        float *out = a.out.row(unit / a.heads) + unit % a.heads * a.head_dim;
        for (u32 d = threadIdx.x; d < a.head_dim; d += blockDim.x) {
            float sum = 0.0f;
            for (u32 s = 0; s < a.splits; s++) {
                float share = stats[2 * s + 1] == 0.0f ? 0.0f : weight(stats[2 * s], highest);
                sum = fmaf(share, sums[(u64)s * a.head_dim + d], sum);
            }
            out[d] = sum / total;
        }
    }
}
