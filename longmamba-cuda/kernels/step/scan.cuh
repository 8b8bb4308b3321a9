// Mamba-1, from what x_proj selects to y: norms of the low-rank delta, B and C where there are any, dt_proj, and
// the scan of one token a sequence.
#pragma once

#include "matmul/lanes.cuh"
#include "matmul/load.cuh"
#include "scan/step.cuh"
#include "step/sequences.cuh"

struct SelectiveStep {
    // Row s is sequence s. dt_raw, delta_min, lengths, state and the sums are not there: see below.
    ScanArguments<float> scan;
    // [sequences, dt_rank]
    Rows<const float> low;
    // [d_inner, dt_rank]; rows as those of Matmul
    const void *weight;
    u64 weight_stride;
    // Norms: [dt_rank], and of B and of C [d_state]; or null.
    const float *low_norm, *state_norm;
    // [sequences, d_inner]: delta before bias and softplus, which calibration reads.
    Rows<float> dt_raw;
    float low_eps, state_eps;
    u32 dt_rank;
    u32 padding;
    Sequences of;
};

__device__ __forceinline__ float norm_scale(float squares, u32 width, float eps) {
    return 1.0f / sqrtf(squares / (float)width + eps);
}

// B or C through their norm. Every warp finds the scale for itself: there are few states.
struct NormedStates {
    const float *norm;
    float scale;

    __device__ __forceinline__ NormedStates(const SelectiveStep &a, const float *values)
        : norm(a.state_norm), scale(1) {
        if (!norm) return;
        float squares = 0;
        for (u32 n = threadIdx.x % 32; n < a.scan.d_state; n += 32) squares = fmaf(values[n], values[n], squares);
        scale = norm_scale(warp_sum(squares), a.scan.d_state, a.state_eps);
    }

    __device__ __forceinline__ float operator()(float value, u32 n) const {
        return norm ? value * scale * norm[n] : value;
    }
};

// Channels of a block for which a warp makes delta.
constexpr int DELTAS = 32 / WARPS;

// dt_proj of this warp's channels, of which the first is `channel`; for lane l, that of channel l / (32 / DELTAS).
template <typename W>
__device__ __forceinline__ float low_to_delta(const SelectiveStep &a, const float *low, u32 channel) {
    const u32 lane = threadIdx.x % 32;
    const W *weight[DELTAS];
#pragma unroll
    for (int i = 0; i < DELTAS; ++i) {
        weight[i] = (const W *)a.weight + min(channel + i, a.scan.d_inner - 1) * a.weight_stride;
    }
    float sums[DELTAS] = {}, squares = 0;
    for (u32 k = lane * 4; k < a.dt_rank; k += 128) {
        const u32 count = a.dt_rank - k;
        float4 v = load_x<false>(low + k, count);
        if (a.low_norm) {
            const float4 w = load_x<false>(a.low_norm + k, count);
            squares = fmaf(v.x, v.x, fmaf(v.y, v.y, fmaf(v.z, v.z, fmaf(v.w, v.w, squares))));
            v = make_float4(v.x * w.x, v.y * w.y, v.z * w.z, v.w * w.w);
        }
#pragma unroll
        for (int i = 0; i < DELTAS; ++i) {
            const float4 w = widen(load_weight(weight[i] + k, true));
            sums[i] = fmaf(v.x, w.x, sums[i]);
            sums[i] = fmaf(v.y, w.y, sums[i]);
            sums[i] = fmaf(v.z, w.z, sums[i]);
            sums[i] = fmaf(v.w, w.w, sums[i]);
        }
    }
    const float sum = sums_over_lanes(sums, lane);
    return a.low_norm ? sum * norm_scale(warp_sum(squares), a.dt_rank, a.low_eps) : sum;
}

template <typename W>
__device__ __forceinline__ void selective_step(const SelectiveStep &a) {
    __shared__ float deltas[32];
    const u32 blocks = (a.scan.d_inner + 31) / 32, sequence = blockIdx.x / blocks;
    const u32 first = blockIdx.x % blocks * 32, lane = threadIdx.x % 32, warp = threadIdx.x / 32, at = first + lane;
    const Sequence &own = a.of.sequence[sequence];
    const Memory memory = {own.state, own.delta_sum, own.kept_sum, own.kept};
    const OneToken<float> token(a.scan, memory, sequence, at, true);

    const float delta = low_to_delta<W>(a, a.low.row(sequence), first + warp * DELTAS);
    if (lane % (32 / DELTAS) == 0) deltas[warp * DELTAS + lane / (32 / DELTAS)] = delta;
    const NormedStates b(a, a.scan.b.row(sequence)), c(a, a.scan.c.row(sequence));
    __syncthreads();
    const float dt_raw = deltas[lane];
    if (warp == 0 && token.real) a.dt_raw.row(sequence)[at] = dt_raw;
    Channel channel(a.scan, at);
    if (token.real && own.delta_min && own.delta_min[at] > 0.0f) channel.threshold = own.delta_min[at];
    token.run(channel, dt_raw, b, c);
}
