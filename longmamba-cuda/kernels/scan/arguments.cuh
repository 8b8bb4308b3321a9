// The one argument of the kernels of the Mamba-1 scan; src/scan.rs has the same struct.
#pragma once

#include "fast.cuh"

template <typename T>
struct ScanArguments {
    // Row s * len + t is token t of sequence s; d_inner wide, B and C d_state. z may be null.
    Rows<const T> x, dt_raw, b, c, z;
    Rows<T> y;
    // [d_state, d_inner]
    const float *a;
    // [d_inner] each, or null.
    const float *d, *dt_bias, *delta_min;
    // [batch], or null: every sequence has len tokens, less than 2^31.
    const u32 *lengths;
    // [batch, d_state, d_inner]: before the first token, and then after the last one.
    float *state;
    // [batch, d_inner] each, added to; or all null.
    double *delta_sum, *kept_sum;
    u64 *kept;
    u32 len, d_inner, d_state;
    Selection limits;
    u32 padding;
};

// What a channel has of its own. Past the last channel: nothing.
struct Channel {
    float bias, skip, threshold;

    template <typename T>
    __device__ Channel(const ScanArguments<T> &args, u32 channel) : bias(0), skip(0), threshold(-1) {
        if (channel >= args.d_inner) return;
        if (args.dt_bias) bias = args.dt_bias[channel];
        if (args.d) skip = args.d[channel];
        // Without one not even a delta of 0 is dropped; below 0 it never is.
        if (args.delta_min && args.delta_min[channel] > 0.0f) threshold = args.delta_min[channel];
    }

    // Before the mask. In this order a NaN stays one.
    __device__ __forceinline__ float delta(float dt_raw, Selection limits) const {
        const float delta = softplus_fast(dt_raw + bias);
        const float raised = delta < limits.dt_min ? limits.dt_min : delta;
        return raised > limits.dt_max ? limits.dt_max : raised;
    }

    // Not "delta > threshold": a NaN is to be seen, not dropped.
    __device__ __forceinline__ bool keeps(float delta) const { return !(delta <= threshold); }
};

template <typename T>
__device__ __forceinline__ u32 tokens_of(const ScanArguments<T> &args, u32 sequence) {
    return args.lengths && args.lengths[sequence] < args.len ? args.lengths[sequence] : args.len;
}

// One state, one token later: decays at the rate A * log2(e), and takes in delta * x * B.
__device__ __forceinline__ float recur(float h, float delta, float rate, float input) {
    return fmaf(exp2_fast(delta * rate), h, input);
}
