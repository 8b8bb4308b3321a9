// The scan of a single token a sequence, as when generating: nothing but the recurrence. A warp has 32
// neighbouring channels and every WARPS-th state of them.
#pragma once

#include "arguments.cuh"

constexpr int WARPS = 16;

template <typename T>
__device__ __forceinline__ void selective_step(const ScanArguments<T> &args) {
    __shared__ float shares[WARPS][32];
    const u32 blocks = (args.d_inner + 31) / 32;
    const u32 sequence = blockIdx.x / blocks;
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u32 at = blockIdx.x % blocks * 32 + lane;
    const bool real = at < args.d_inner, live = real && tokens_of(args, sequence) != 0;
    const Channel channel(args, at);

    float x = 0, delta = 0, share = 0;
    bool keep = false;
    if (live) {
        x = widen(args.x.row(sequence)[at]);
        delta = channel.delta(widen(args.dt_raw.row(sequence)[at]), args.limits);
        keep = channel.keeps(delta);
        const float kept_delta = keep ? delta : 0.0f;
        const T *b = args.b.row(sequence), *c = args.c.row(sequence);
        float *state = args.state + (u64)sequence * args.d_state * args.d_inner;
        for (u32 n = warp; n < args.d_state; n += WARPS) {
            const u64 index = (u64)n * args.d_inner + at;
            const float h = recur(state[index], kept_delta, args.a[index] * LOG2_E, kept_delta * x * widen(b[n]));
            state[index] = h;
            share = fmaf(widen(c[n]), h, share);
        }
    }
    shares[warp][lane] = share;
    __syncthreads();
    if (warp != 0 || !real) return;
    float y = channel.skip * x;
    for (int i = 0; i < WARPS; ++i) y += shares[i][lane];
    if (live && args.z.data) y *= silu_fast(widen(args.z.row(sequence)[at]));
    args.y.row(sequence)[at] = narrow<T>(live ? y : 0.0f);
    if (live && args.kept) {
        const u64 to = (u64)sequence * args.d_inner + at;
        args.delta_sum[to] += delta;
        args.kept_sum[to] += keep ? delta : 0.0f;
        args.kept[to] += keep;
    }
}
