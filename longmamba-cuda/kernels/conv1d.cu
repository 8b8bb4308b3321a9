// The depthwise causal convolution in front of both scans, with history in front of x:
//
//     out[t,c] = silu(bias[c] + sum over k of weight[k,c] * x[t - (width - 1) + k, c])
//
// Memory is the limit: x is read once and out written once, 4 bytes a token and channel in 16 bits, which is
// 3.7 of them a clock and processor of an H100, at 3.35 TB/s. Each takes some 25 instructions with 4 taps, of
// 128 / 3.7 = 34 that there is time for. The width - 1 rows before a thread's own come from the cache. A thread
// has two neighbouring channels and 32 tokens, and asks for 8 of them at a time; with 64 registers 1024 threads
// fit, so that up to 32 KiB a processor are on their way, where 10 hide the latency of memory.
#include "scan/fast.cuh"

// Tokens of a thread, and how many of them it reads at a time.
constexpr u32 RUN = 32;
constexpr int BATCH = 8;

// Warps of a block, each with a run of tokens of its own; a warp has two channels a lane.
constexpr u32 WARPS = 4;
constexpr u32 CHANNELS = 64;

template <typename T>
struct Conv1dArguments {
    // Row s * len + t is token t of sequence s.
    Rows<const T> x;
    Rows<T> out;
    // [width, channels]
    const float *weight;
    // [channels], or null.
    const float *bias;
    // [batch, width - 1, channels], oldest first: before x, and then after it.
    float *history;
    // [batch], or null: every sequence has len tokens.
    const u32 *lengths;
    u64 len;
    u32 channels, width;
    // Whether to end with SiLU.
    u32 silu;
    // Whether two neighbours of x, and of out, can be read or written at once.
    u32 x_paired, out_paired;
    u32 padding;
};

template <typename T>
struct alignas(2 * sizeof(T)) Pair {
    T first, second;
};

// Two neighbouring channels; the second may be missing.
template <typename T>
__device__ __forceinline__ float2 get(const T *from, bool paired, bool both) {
    if (paired) {
        const Pair<T> pair = *(const Pair<T> *)from;
        return make_float2(widen(pair.first), widen(pair.second));
    }
    return make_float2(widen(from[0]), both ? widen(from[1]) : 0.0f);
}

template <typename T>
__device__ __forceinline__ void put(T *to, float2 value, bool paired, bool both) {
    if (paired) {
        *(Pair<T> *)to = {narrow<T>(value.x), narrow<T>(value.y)};
        return;
    }
    to[0] = narrow<T>(value.x);
    if (both) to[1] = narrow<T>(value.y);
}

// Two channels of a sequence.
template <typename T, int TAPS>
struct Convolution {
    const Conv1dArguments<T> &args;
    u64 sequence, tokens;
    u32 channel;
    // Whether there is a second channel, and whether x, and out, have both in one word.
    bool both, x_paired, out_paired;
    // Taps that the filter has not are the first ones, and left out of every sum.
    u32 missing;
    float2 weight[TAPS], bias;
    // The inputs before the next token, oldest first, and then those of the next tokens.
    float2 inputs[TAPS - 1 + BATCH];

    __device__ Convolution(const Conv1dArguments<T> &args, u64 sequence, u32 channel)
        : args(args), sequence(sequence), tokens(args.len), channel(channel), both(channel + 1 < args.channels),
          x_paired(both && args.x_paired), out_paired(both && args.out_paired), missing(TAPS - args.width) {
        if (args.lengths && args.lengths[sequence] < tokens) tokens = args.lengths[sequence];
        bias = args.bias ? get(args.bias + channel, false, both) : make_float2(0, 0);
#pragma unroll
        for (u32 k = 0; k < TAPS; ++k) {
            weight[k] = make_float2(0, 0);
            if (k < missing) continue;
            weight[k] = get(args.weight + (u64)(k - missing) * args.channels + channel, false, both);
        }
    }

    __device__ const T *x(u64 token) const { return args.x.row(sequence * args.len + token) + channel; }

    __device__ float *history(u64 row) const {
        return args.history + (sequence * (args.width - 1) + row) * args.channels + channel;
    }

    // Input `index` of history and x, one after the other.
    __device__ float2 input(u64 index) const {
        if (index < args.width - 1) return get(history(index), false, both);
        return get(x(index - (args.width - 1)), x_paired, both);
    }

    // The tokens first .. first + RUN of out.
    __device__ __forceinline__ void run(u64 first) {
#pragma unroll
        for (u32 k = 0; k < TAPS - 1; ++k) {
            inputs[k] = make_float2(0, 0);
            if (k >= missing && first < tokens) inputs[k] = input(first + k - missing);
        }
        const u64 end = first + RUN < args.len ? first + RUN : args.len;
        for (u64 t = first; t < end; t += BATCH) {
            fetch(t);
            convolve(t);
#pragma unroll
            for (int k = 0; k < TAPS - 1; ++k) inputs[k] = inputs[k + BATCH];
        }
    }

    __device__ __forceinline__ void fetch(u64 first) {
        const T *from = x(first);
        // All loads before the first use: they are what the time goes to.
        Pair<T> pairs[BATCH];
        if (x_paired && first + BATCH <= tokens) {
#pragma unroll
            for (int i = 0; i < BATCH; ++i) pairs[i] = *(const Pair<T> *)(from + i * args.x.stride);
        } else {
#pragma unroll
            for (int i = 0; i < BATCH; ++i) {
                pairs[i] = {T{}, T{}};
                if (first + i < tokens) pairs[i].first = from[i * args.x.stride];
                if (first + i < tokens && both) pairs[i].second = from[i * args.x.stride + 1];
            }
        }
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            inputs[TAPS - 1 + i] = make_float2(widen(pairs[i].first), widen(pairs[i].second));
        }
    }

    __device__ __forceinline__ void convolve(u64 first) const {
        T *to = args.out.row(sequence * args.len + first) + channel;
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            float2 sum = bias;
#pragma unroll
            for (u32 k = 0; k < TAPS; ++k) {
                if (k < missing) continue;
                sum.x = fmaf(weight[k].x, inputs[i + k].x, sum.x);
                sum.y = fmaf(weight[k].y, inputs[i + k].y, sum.y);
            }
            if (args.silu) sum = make_float2(silu_fast(sum.x), silu_fast(sum.y));
            if (first + i >= tokens) sum = make_float2(0, 0);
            if (first + i < args.len) put(to, sum, out_paired, both);
            to += args.out.stride;
        }
    }

    // Moves the last width - 1 inputs into the history. Upwards, so that a row is read before it is written.
    __device__ void keep_history() const {
        for (u32 i = 0; i + 1 < args.width; ++i) put(history(i), input(tokens + i), false, both);
    }
};

template <typename T, int TAPS>
__device__ __forceinline__ void causal_conv1d(const Conv1dArguments<T> &args) {
    const u32 columns = (args.channels + CHANNELS - 1) / CHANNELS;
    const u64 runs = (args.len + RUN * WARPS - 1) / (RUN * WARPS);
    const u64 row = blockIdx.x / columns;
    const u32 channel = blockIdx.x % columns * CHANNELS + threadIdx.x % 32 * 2;
    const u64 first = (row % runs * WARPS + threadIdx.x / 32) * RUN;
    if (channel >= args.channels || first >= args.len) return;
    Convolution<T, TAPS> convolution(args, row / runs, channel);
    convolution.run(first);
    // Nobody else reads the history or writes it: only a sequence's first tokens need it.
    if (first == 0) convolution.keep_history();
}

#define CONV1D(T, SUFFIX)                                                                                      \
    extern "C" __global__ __launch_bounds__(32 * WARPS) void causal_conv1d_4_##SUFFIX(                         \
        const __grid_constant__ Conv1dArguments<T> args) {                                                     \
        causal_conv1d<T, 4>(args);                                                                             \
    }                                                                                                          \
    extern "C" __global__ __launch_bounds__(32 * WARPS) void causal_conv1d_8_##SUFFIX(                         \
        const __grid_constant__ Conv1dArguments<T> args) {                                                     \
        causal_conv1d<T, 8>(args);                                                                             \
    }

CONV1D(float, f32)
CONV1D(f16, f16)
CONV1D(bf16, bf16)
