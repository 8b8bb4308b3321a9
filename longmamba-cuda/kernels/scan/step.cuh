// The scan of a single token a sequence, as when generating: nothing but the recurrence. A warp has 32
// neighbouring channels and every WARPS-th state of them.
#pragma once

#include "arguments.cuh"

constexpr int WARPS = 16;

// What a sequence keeps of its tokens; the sums may be null.
struct Memory {
    // [d_state, d_inner]
    float *state;
    // [d_inner] each
    double *delta_sum, *kept_sum;
    u64 *kept;
};

// Of B or C: the values themselves.
struct Values {
    __device__ __forceinline__ float operator()(float value, u32 n) const { return value; }
};

// A channel, and of its states those of this warp.
template <typename T>
struct OneToken {
    const ScanArguments<T> &args;
    const Memory memory;
    // The row of every operand.
    u32 row;
    u32 lane, warp;
    // The channel, and whether it is one and has a token.
    u32 at;
    bool real, live;
    float x;
    // The first of its states.
    float first, first_rate;

    // Asks for what does not wait for delta.
    __device__ __forceinline__ OneToken(const ScanArguments<T> &args, const Memory &memory, u32 row, u32 channel,
                                        bool token)
        : args(args), memory(memory), row(row), lane(threadIdx.x % 32), warp(threadIdx.x / 32), at(channel),
          real(channel < args.d_inner), live(real && token), x(0), first(0), first_rate(0) {
        if (!live) return;
        x = widen(args.x.row(row)[at]);
        if (warp >= args.d_state) return;
        const u64 index = (u64)warp * args.d_inner + at;
        first = memory.state[index];
        first_rate = args.a[index];
    }

    // By all threads of the block.
    template <typename B, typename C>
    __device__ __forceinline__ void run(const Channel &channel, float dt_raw, const B &b_of, const C &c_of) const {
        __shared__ float shares[WARPS][32];
        float delta = 0, share = 0;
        bool keep = false;
        if (live) {
            delta = channel.delta(dt_raw, args.limits);
            keep = channel.keeps(delta);
            const float kept_delta = keep ? delta : 0.0f;
            const T *b = args.b.row(row), *c = args.c.row(row);
            float h = first, rate = first_rate;
            for (u32 n = warp; n < args.d_state; n += WARPS) {
                const u64 index = (u64)n * args.d_inner + at;
                if (n != warp) {
                    h = memory.state[index];
                    rate = args.a[index];
                }
                h = recur(h, kept_delta, rate * LOG2_E, kept_delta * x * b_of(widen(b[n]), n));
                memory.state[index] = h;
                share = fmaf(c_of(widen(c[n]), n), h, share);
            }
        }
        shares[warp][lane] = share;
        __syncthreads();
        if (warp != 0 || !real) return;
        float y = channel.skip * x;
        for (int i = 0; i < WARPS; ++i) y += shares[i][lane];
        if (live && args.z.data) y *= silu_fast(widen(args.z.row(row)[at]));
        args.y.row(row)[at] = narrow<T>(live ? y : 0.0f);
        if (live && memory.kept) {
            memory.delta_sum[at] += delta;
            memory.kept_sum[at] += keep ? delta : 0.0f;
            memory.kept[at] += keep;
        }
    }
};

template <typename T>
__device__ __forceinline__ void selective_step(const ScanArguments<T> &args) {
    const u32 blocks = (args.d_inner + 31) / 32;
    const u32 sequence = blockIdx.x / blocks, at = blockIdx.x % blocks * 32 + threadIdx.x % 32;
    const u64 first = (u64)sequence * args.d_inner;
    Memory memory = {args.state + first * args.d_state, nullptr, nullptr, nullptr};
    if (args.kept) memory = {memory.state, args.delta_sum + first, args.kept_sum + first, args.kept + first};
    const OneToken<T> token(args, memory, sequence, at, tokens_of(args, sequence) != 0);
    const float dt_raw = token.live ? widen(args.dt_raw.row(sequence)[at]) : 0.0f;
    token.run(Channel(args, at), dt_raw, Values(), Values());
}
