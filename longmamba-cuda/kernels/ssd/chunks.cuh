// The chunked form of the scan, on tensor cores. With h the state before a chunk of tokens:
//
//     y[t,p] = 2^u[t] * sum_n C[t,n] * h[n,p]
//            + sum_{s <= t} (G[t,s] * 2^(u[t]-u[s]) * delta[s]) * x[s,p]      G = C B^T
//            + D * x[t,p]
//     h[n,p] = 2^u[end] * h[n,p] + sum_s B[s,n] * (2^(u[end]-u[s]) * delta[s] * x[s,p])
//
// A block has one sequence, one head, 64 elements of head_dim (16 to a warp) and one segment of the tokens,
// which it goes through chunk by chunk with the state in registers.
#pragma once
#include "ssd/state.cuh"

#if __CUDA_ARCH__ >= 800

// G of a chunk with the decay and delta in it, zero above the diagonal.
using Scores = Tile<CHUNK>;

// The 10 blocks of 16 x 16 on and below the diagonal, shared out to the warps.
template <int STATES, typename O>
__device__ __forceinline__ void find_scores(const Tile<STATES> &c, const Tile<STATES> &b,
                                            const Decay &decay, Scores &scores) {
    constexpr u32 BLOCKS = CHUNK / 16;
    const u32 lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
#pragma unroll 1
    for (u32 block = threadIdx.x / 32; block < BLOCKS * (BLOCKS + 1) / 2; block += CHUNK_THREADS / 32) {
        u32 row = block < 1 ? 0 : block < 3 ? 1 : block < 6 ? 2 : 3;
        u32 column = block - row * (row + 1) / 2;
        float sums[2][4] = {};
#pragma unroll 4
        for (int k = 0; k < STATES / 16; ++k) {
            u32 left[4], right[4];
            load_left(left, c, 16 * row, 16 * k);
            load_right_of_rows(right, b, 16 * column, 16 * k);
            multiply<O>(sums[0], left, right[0], right[1]);
            multiply<O>(sums[1], left, right[2], right[3]);
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const u32 s = 16 * column + 8 * half + 2 * q;
            const Earlier earlier(decay, s);
#pragma unroll
            for (int lower = 0; lower < 2; ++lower) {
                const u32 t = 16 * row + 8 * lower + g;
                float2 weight = earlier.until(decay.high[t], decay.low[t]);
                float first = sums[half][2 * lower] * weight.x, second = sums[half][2 * lower + 1] * weight.y;
                *(u32 *)&scores.rows[t][s] = pack<O>(t >= s ? first : 0.0f, t > s ? second : 0.0f);
            }
        }
    }
}

// What the tokens of the chunk give to the y of those from `first` on. `slice`: the first of the warp's
// elements in x.
template <typename O>
__device__ __forceinline__ void add_tokens(const Inputs &x, const Scores &scores, u32 first, u32 slice,
                                           Outputs &y) {
#pragma unroll 1
    for (u32 s = 0; s < first + BAND; s += 16) {
        u32 inputs[4];
        load_left_of_columns(inputs, x, s, slice);
#pragma unroll
        for (int i = 0; i < BAND / 16; ++i) {
            if (first + 16 * i < s) continue;
            u32 rows[4];
            load_left(rows, scores, first + 16 * i, s);
            multiply<O>(y[i][0], rows, inputs[0], inputs[2]);
            multiply<O>(y[i][1], rows, inputs[1], inputs[3]);
        }
    }
}

template <typename T>
__device__ __forceinline__ void store_pair(T *to, float first, float second) {
    *(u32 *)to = pack<T>(first, second);
}
__device__ __forceinline__ void store_pair(float *to, float first, float second) {
    *(float2 *)to = {first, second};
}

// y + D * x of the tokens from `first` on, of `tokens` in the chunk, of the warp's elements, which begin at
// `slice` in x. `to`: the first of them in y; `columns`: how many there are; `skip`: D of the lane's.
template <typename O, typename T>
__device__ __forceinline__ void store_outputs(const Outputs &y, const Inputs &x, const float (&skip)[4], T *to,
                                              u64 stride, u32 slice, u32 first, u32 tokens, u32 columns) {
    const u32 lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    const bool pairs = columns >= SLICE && (((u64)to | stride * sizeof(T)) & (2 * sizeof(T) - 1)) == 0;
    to += (first + g) * stride + 2 * q;
#pragma unroll
    for (u32 k = 0; k < BAND / 8; ++k, to += 8 * stride) {
        const u32 t = first + 8 * k + g;
        if (t >= tokens) continue;
#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
            const u32 column = 8 * half + 2 * q;
            const float *sum = &y[k / 2][half][k % 2 * 2];
            float2 input = unpack<O>(*(const u32 *)&x.rows[t][slice + column]);
            float left = fmaf(skip[2 * half], input.x, sum[0]);
            float right = fmaf(skip[2 * half + 1], input.y, sum[1]);
            if (pairs) {
                store_pair(to + 8 * half, left, right);
                continue;
            }
            if (column < columns) to[8 * half] = narrow<T>(left);
            if (column + 1 < columns) to[8 * half + 1] = narrow<T>(right);
        }
    }
}

template <int STATES>
struct ScanShared {
    Tile<STATES> b;
    Tile<STATES> c;
    Inputs x;
    Scores scores;
    Decay decay;
};

// The rows of this block's segment that are past the end of the sequence.
template <typename T>
__device__ __forceinline__ void clear_rows(T *y, u64 stride, u64 first, u64 end, u32 columns) {
#pragma unroll 1
    for (u64 t = first + threadIdx.x / CHUNK_WIDTH; t < end; t += CHUNK_THREADS / CHUNK_WIDTH) {
        u32 column = threadIdx.x % CHUNK_WIDTH;
        if (column < columns) y[t * stride + column] = narrow<T>(0.0f);
    }
}

template <typename T, int STATES>
__device__ void scan_segment(const Ssd<T> &args) {
    using O = typename OperandOf<T>::Type;
    extern __shared__ uint4 dynamic[];
    auto &shared = *(ScanShared<STATES> *)dynamic;
    const Place at(args, CHUNK_WIDTH);
    const u32 warp = threadIdx.x / 32, slice = warp * SLICE, p = at.p + slice;
    const u32 d_state = args.d_state, head_dim = args.head_dim;
    const u64 column = (u64)at.head * head_dim + at.p, states = (u64)at.group * d_state;
    const u64 first = blockIdx.y * args.segment, end = min(first + args.segment, args.len);
    const u64 size = (u64)d_state * head_dim, lines = (u64)args.batch * args.heads;

    State<STATES, O> state;
    const float *initial = args.segments == 1 ? args.state : args.carries + blockIdx.y * lines * size;
    state.load(initial + at.line * size, p, d_state, head_dim);
    float skip[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) skip[i] = skip_of(args, at.head, p + i / 2 * 8 + threadIdx.x % 4 * 2 + i % 2);
    Count count;
#pragma unroll 1
    for (u64 token = first; token < min(end, at.length); token += CHUNK) {
        const u32 tokens = min((u64)CHUNK, at.length - token);
        const u64 row = at.row + token;
        shared.x.fill(args.x.row(row) + column, args.x.stride, tokens, min(head_dim - at.p, CHUNK_WIDTH));
#pragma unroll 1
        for (int i = 0; i < 2; ++i) {
            const Rows<const T> &rows = i ? args.c : args.b;
            (i ? shared.c : shared.b).fill(rows.row(row) + states, rows.stride, tokens, d_state);
        }
        if (warp == 0) shared.decay.find(args, at, row, tokens, count);
        finish_copies();
        __syncthreads();
        find_scores<STATES, O>(shared.c, shared.b, shared.decay, shared.scores);
        __syncthreads();
        if (p < head_dim) {
#pragma unroll 1
            for (u32 t = 0; t < tokens; t += BAND) {
                Outputs y = {};
                state.read(shared.c, shared.decay, t, y);
                add_tokens<O>(shared.x, shared.scores, t, slice, y);
                T *to = args.y.row(row) + column + slice;
                store_outputs<O>(y, shared.x, skip, to, args.y.stride, slice, t, tokens, head_dim - p);
            }
            state.advance(shared.b, shared.x, shared.decay, slice);
        }
        __syncthreads();
    }
    const u32 columns = min(head_dim - at.p, CHUNK_WIDTH);
    clear_rows(args.y.row(at.row) + column, args.y.stride, max(first, at.length), end, columns);
    if (blockIdx.y + 1 == args.segments) state.store(args.state + at.line * size, p, d_state, head_dim);
    if (args.sums.kept && at.p == 0 && warp == 0) {
        count.flush(args.sums, blockIdx.y * lines + at.line, args.segments == 1);
    }
}

#endif
