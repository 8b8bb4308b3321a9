// Few queries: a block takes a share of the keys for one query and one head of the keys, and as many heads
// of the query as share that. A warp takes KEYS neighbouring keys at a time, a lane every 32nd element of
// them.
//
// Bytes per key and head: 8 * head_dim, once. To keep the memory busy a multiprocessor needs some 15 KB on
// their way; a warp has KEYS * 8 * head_dim of them, 3.5 KB where head_dim is 224, and 16 warps are there.
// Instructions: some 12 * ELEMENTS / 4 + 20 a key and warp, a fifth of what can be issued meanwhile.
#pragma once
#include "args.cuh"

#define DECODE_WARPS 4

// HEADS: those that a block takes of the heads that share their keys. ELEMENTS: of a head, for each lane.
template <int HEADS, int ELEMENTS, int KEYS>
__device__ __forceinline__ void decode(const Attention &a) {
    constexpr int WIDTH = 32 * ELEMENTS;
    __shared__ float sums[DECODE_WARPS][HEADS][WIDTH];
    __shared__ float stats[DECODE_WARPS][HEADS][2];
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, split = blockIdx.x;
    u32 sharing = a.heads / a.kv_heads, parts = (sharing + HEADS - 1) / HEADS;
    u32 kv_head = blockIdx.y / parts, first = blockIdx.y % parts * HEADS;
    u64 row = blockIdx.z;

    float q[HEADS][ELEMENTS], sum[HEADS][ELEMENTS] = {}, maximum[HEADS], total[HEADS];
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        // A block's last heads may be none; they repeat another and are not written.
        u32 head = kv_head * sharing + min(first + h, sharing - 1);
#pragma unroll
        for (int e = 0; e < ELEMENTS; e++) {
            u32 d = lane + 32 * e;
            q[h][e] = d < a.head_dim ? a.q.row(row)[head * a.head_dim + d] : 0.0f;
        }
        maximum[h] = NOTHING;
        total[h] = 0.0f;
    }

    Seen seen = Seen::of(a, row);
    u64 count = seen.to - seen.from;
    u64 begin = seen.from + count * split / a.splits, end = seen.from + count * (split + 1) / a.splits;
    for (u64 key = begin + warp * KEYS; key < end; key += DECODE_WARPS * KEYS) {
        float k[KEYS][ELEMENTS], v[KEYS][ELEMENTS], score[HEADS][KEYS];
#pragma unroll
        for (int i = 0; i < KEYS; i++) {
            bool here = key + i < end;
            const float *from = keys_of(a, here ? key + i : key, kv_head), *values = from + to_values(a);
#pragma unroll
            for (int e = 0; e < ELEMENTS; e++) {
                u32 d = lane + 32 * e;
                bool inside = here && d < a.head_dim;
                k[i][e] = inside ? from[d] : 0.0f;
                v[i][e] = inside ? values[d] : 0.0f;
            }
        }
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            float highest = maximum[h];
#pragma unroll
            for (int i = 0; i < KEYS; i++) {
                float dot = 0.0f;
#pragma unroll
                for (int e = 0; e < ELEMENTS; e++) dot = fmaf(q[h][e], k[i][e], dot);
                score[h][i] = warp_sum(dot) * a.scale;
                if (key + i < end) highest = fmaxf(highest, score[h][i]);
            }
            float less = shrink(maximum[h], highest);
            maximum[h] = highest;
            total[h] *= less;
#pragma unroll
            for (int e = 0; e < ELEMENTS; e++) sum[h][e] *= less;
#pragma unroll
            for (int i = 0; i < KEYS; i++) {
                float w = key + i < end ? weight(score[h][i], highest) : 0.0f;
                total[h] += w;
#pragma unroll
                for (int e = 0; e < ELEMENTS; e++) sum[h][e] = fmaf(w, v[i][e], sum[h][e]);
            }
        }
    }

    // What the warps have found, together.
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
#pragma unroll
        for (int e = 0; e < ELEMENTS; e++) sums[warp][h][lane + 32 * e] = sum[h][e];
        if (lane == 0) {
            stats[warp][h][0] = maximum[h];
            stats[warp][h][1] = total[h];
        }
    }
    __syncthreads();
    for (u32 h = 0; h < HEADS && first + h < sharing; h++) {
        u32 head = kv_head * sharing + first + h;
        u64 unit = row * a.heads + head;
        float highest = NOTHING, all = 0.0f, share[DECODE_WARPS];
        for (int w = 0; w < DECODE_WARPS; w++) highest = fmaxf(highest, stats[w][h][0]);
#pragma unroll
        for (int w = 0; w < DECODE_WARPS; w++) {
            // A warp without a key has the total 0, whatever the maximum of the others.
            share[w] = stats[w][h][1] == 0.0f ? 0.0f : weight(stats[w][h][0], highest);
            all += share[w] * stats[w][h][1];
        }
        for (u32 d = threadIdx.x; d < a.head_dim; d += 32 * DECODE_WARPS) {
            float value = 0.0f;
#pragma unroll
            for (int w = 0; w < DECODE_WARPS; w++) value = fmaf(share[w], sums[w][h][d], value);
            if (a.splits == 1)
                a.out.row(row)[head * a.head_dim + d] = value / all;
            else
                a.sums[(unit * a.splits + split) * a.head_dim + d] = value;
        }
        if (a.splits > 1 && threadIdx.x == 0) write_stats(a, unit, split, highest, all);
    }
}
