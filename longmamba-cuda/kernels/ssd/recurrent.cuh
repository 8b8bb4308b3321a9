// Token by token: the recurrence itself, in f32, with the state in registers.
//
// A block has one sequence, one head and 32 elements of head_dim, one to a lane, so that the state, x and y
// are read and written 128 bytes at a time. Each warp holds ROWS states of its elements. For a few tokens
// at a time B, C, x and delta go to shared memory; each warp then writes its part of y there, and the parts
// are added up once for all those tokens.
//
// Decoding: the state is read and written once, 2 * 4 bytes an element, and is all that counts (2.7b:
// 2 * 32 KiB a head). The state is asked for before anything else, so that all of it is in flight at once.
// Longer runs: 3 operations for a token and element of the state, one 16-byte read of shared memory for
// every 4 to 8 of them; so the FMA units are the limit. There are 2 * heads blocks of 256 threads for
// head_dim 64 and d_state 128.
#pragma once
#include "ssd/count.cuh"

constexpr int RECURRENT_WIDTH = 32;
constexpr int RECURRENT_WARPS = 8;

template <int ROWS>
struct RecurrentTile {
    static constexpr int TOKENS = 256 / ROWS;
    static constexpr int STATES = RECURRENT_WARPS * ROWS;
    float b[TOKENS][STATES];
    float c[TOKENS][STATES];
    float x[TOKENS][RECURRENT_WIDTH];
    float y[TOKENS][RECURRENT_WARPS][RECURRENT_WIDTH];
    float delta[TOKENS];
    float decay[TOKENS];
};

// A row of B or C, zeros after its end.
template <int STATES, typename T>
__device__ __forceinline__ void stage_states(float *to, const T *from, u32 d_state, u32 lane) {
#pragma unroll
    for (u32 i = lane; i < STATES; i += 32) to[i] = i < d_state ? widen(from[i]) : 0.0f;
}

// ROWS states: h = decay * h + update * b; returns this warp's part of the sum of c * h.
template <int ROWS>
__device__ __forceinline__ float recur(float (&h)[ROWS], float decay, float update, const float *b,
                                       const float *c) {
    // Two sums: one would be a chain of ROWS dependent operations.
    float even = 0.0f, odd = 0.0f;
#pragma unroll
    for (int i = 0; i < ROWS; i += 4) {
        float4 in = *(const float4 *)(b + i), out = *(const float4 *)(c + i);
        h[i] = fmaf(decay, h[i], update * in.x);
        h[i + 1] = fmaf(decay, h[i + 1], update * in.y);
        h[i + 2] = fmaf(decay, h[i + 2], update * in.z);
        h[i + 3] = fmaf(decay, h[i + 3], update * in.w);
        even = fmaf(out.x, h[i], even);
        odd = fmaf(out.y, h[i + 1], odd);
        even = fmaf(out.z, h[i + 2], even);
        odd = fmaf(out.w, h[i + 3], odd);
    }
    return even + odd;
}

template <typename T, int ROWS>
__device__ void recurrent(const Ssd<T> &args) {
    using Tile = RecurrentTile<ROWS>;
    __shared__ __align__(16) Tile tile;
    const Place at(args, RECURRENT_WIDTH);
    const Selector selector(args, at.head);
    const u32 warp = threadIdx.x / 32, warps = blockDim.x / 32, lane = threadIdx.x % 32;
    const u32 p = at.p + lane, row = warp * ROWS;
    const bool inside = p < args.head_dim;
    // Columns of this lane in x and y, and of this block's group in B and C.
    const u64 column = (u64)at.head * args.head_dim + p;
    const u64 states = (u64)at.group * args.d_state;

    float h[ROWS];
    u64 first_state = (at.line * args.d_state + row) * args.head_dim + p;
    const u32 rows = inside && row < args.d_state ? args.d_state - row : 0;
    u64 element = first_state;
#pragma unroll
    for (u32 i = 0; i < ROWS; ++i, element += args.head_dim) h[i] = i < rows ? args.state[element] : 0.0f;
    const float a = args.a[at.head], skip = skip_of(args, at.head, p);
    Count count;
#pragma unroll 1
    for (u64 first = 0; first < at.length; first += Tile::TOKENS) {
        const u32 tokens = min((u64)Tile::TOKENS, at.length - first);
#pragma unroll 1
        for (u32 i = warp; i < 2 * tokens; i += warps) {
            u64 from = at.row + first + i / 2;
            const T *source = (i % 2 ? args.c : args.b).row(from) + states;
            float *target = i % 2 ? tile.c[i / 2] : tile.b[i / 2];
            stage_states<Tile::STATES>(target, source, args.d_state, lane);
        }
#pragma unroll 1
        for (u32 t = warp; t < tokens; t += warps) {
            tile.x[t][lane] = inside ? widen(args.x.row(at.row + first + t)[column]) : 0.0f;
        }
        // The last warp, which has the least to fetch where tokens are few.
        if (warp == warps - 1 && lane < tokens) {
            Token token = selector.token(widen(args.dt_raw.row(at.row + first + lane)[at.head]));
            count.add(token);
            tile.delta[lane] = token.masked();
            tile.decay[lane] = expf(token.masked() * a);
        }
        __syncthreads();
#pragma unroll 1
        for (u32 t = 0; t < tokens; ++t) {
            float x = tile.x[t][lane];
            float y = recur<ROWS>(h, tile.decay[t], tile.delta[t] * x, tile.b[t] + row, tile.c[t] + row);
            tile.y[t][warp][lane] = warp == 0 ? fmaf(skip, x, y) : y;
        }
        __syncthreads();
#pragma unroll 1
        for (u32 t = warp; t < tokens; t += warps) {
            float y = 0.0f;
            for (u32 part = 0; part < warps; ++part) y += tile.y[t][part][lane];
            if (inside) args.y.row(at.row + first + t)[column] = narrow<T>(y);
        }
    }
#pragma unroll 1
    for (u64 t = at.length + warp; t < args.len; t += warps) {
        if (inside) args.y.row(at.row + t)[column] = narrow<T>(0.0f);
    }
    // Else the compiler keeps all addresses since the loads, and has no registers left for it.
    asm volatile("" : "+l"(first_state));
    element = first_state;
#pragma unroll
    for (u32 i = 0; i < ROWS; ++i, element += args.head_dim) {
        if (i < rows) args.state[element] = h[i];
    }
    if (args.sums.kept && at.p == 0 && warp == warps - 1) count.flush(args.sums, at.line, true);
}
