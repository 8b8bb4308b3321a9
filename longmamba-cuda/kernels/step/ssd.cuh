// Mamba-2: the scan of one token a sequence, and the gate. As ssd/recurrent.cuh does it, with the same shape of
// blocks; a lane has its own x.
#pragma once

#include "ssd/recurrent.cuh"
#include "step/sequences.cuh"

struct SsdStep {
    // Row s is sequence s, one token each. delta_min, lengths, state and sums are not there: see below.
    Ssd<float> scan;
    // [sequences, heads * head_dim]
    Rows<const float> z;
    Sequences of;
};

template <int ROWS>
struct StepTile {
    float b[RECURRENT_WARPS * ROWS];
    float c[RECURRENT_WARPS * ROWS];
    float y[RECURRENT_WARPS][RECURRENT_WIDTH];
    float delta, decay;
};

template <int ROWS>
__device__ __forceinline__ void ssd_step(const SsdStep &a) {
    __shared__ __align__(16) StepTile<ROWS> tile;
    const Ssd<float> &args = a.scan;
    const Place at(args, RECURRENT_WIDTH);
    const Sequence &own = a.of.sequence[at.sequence];
    const u32 warp = threadIdx.x / 32, warps = blockDim.x / 32, lane = threadIdx.x % 32;
    const u32 p = at.p + lane, row = warp * ROWS, d_state = args.d_state;
    const bool inside = p < args.head_dim;
    const u64 column = (u64)at.head * args.head_dim + p;

    // All of the state is asked for before anything else.
    float h[ROWS];
    float *state = own.state + ((u64)at.head * d_state + row) * args.head_dim + p;
    const u32 rows = inside && row < d_state ? d_state - row : 0;
#pragma unroll
    for (u32 i = 0; i < ROWS; ++i) h[i] = i < rows ? state[(u64)i * args.head_dim] : 0.0f;
    const float x = inside ? args.x.row(at.row)[column] : 0.0f;
    for (u32 i = warp; i < 2; i += warps) {
        const float *from = (i ? args.c : args.b).row(at.row) + (u64)at.group * d_state;
        stage_states<RECURRENT_WARPS * ROWS>(i ? tile.c : tile.b, from, d_state, lane);
    }
    if (threadIdx.x == blockDim.x - 1) {
        Selector selector(args, at.head);
        if (own.delta_min) selector.delta_min = own.delta_min[at.head];
        const Token token = selector.token(args.dt_raw.row(at.row)[at.head]);
        tile.delta = token.masked();
        tile.decay = expf(token.masked() * args.a[at.head]);
        if (own.kept && at.p == 0) {
            own.delta_sum[at.head] += token.delta;
            own.kept_sum[at.head] += token.masked();
            own.kept[at.head] += token.kept;
        }
    }
    __syncthreads();
    const float y = recur<ROWS>(h, tile.decay, tile.delta * x, tile.b + row, tile.c + row);
    tile.y[warp][lane] = warp == 0 ? fmaf(skip_of(args, at.head, p), x, y) : y;
#pragma unroll
    for (u32 i = 0; i < ROWS; ++i) {
        if (i < rows) state[(u64)i * args.head_dim] = h[i];
    }
    __syncthreads();
    if (warp != 0 || !inside) return;
    float sum = 0.0f;
    for (u32 part = 0; part < warps; ++part) sum += tile.y[part][lane];
    args.y.row(at.row)[column] = sum * silu(a.z.row(at.row)[column]);
}
