// The decay of one head over a chunk, in powers of two: u[t] = A * log2(e) * (sum of delta up to t).
//
// Only differences u[t] - u[s] of a later and an earlier token, which are <= 0, are raised. They would
// cancel badly in f32 where u has grown large; so u is summed in f64 and kept in two floats: the difference
// of the leading parts is exact where the two are close.
#pragma once
#include "ssd/count.cuh"
#include "ssd/tile.cuh"

#if __CUDA_ARCH__ >= 800

struct Decay {
    // Pairs of these are read at once.
    float high[CHUNK]; // u, its leading and its trailing part
    float low[CHUNK];
    float delta[CHUNK];       // 0 where masked and after the last token
    float since_start[CHUNK]; // 2^u[t]
    float late[CHUNK];        // delta[t] * 2^(u[end] - u[t])
    float whole;              // 2^u[end]

    // Of `tokens` tokens from `row` on. By one warp; a lane has two neighbouring tokens.
    template <typename T>
    __device__ void find(const Ssd<T> &args, const Place &at, u64 row, u32 tokens, Count &count) {
        const Selector selector(args, at.head);
        const u32 lane = threadIdx.x % 32, t = 2 * lane;
        const T *dt_raw = args.dt_raw.row(row + t) + at.head;
        float deltas[2];
#pragma unroll
        for (u32 i = 0; i < 2; ++i) {
            deltas[i] = 0.0f;
            if (t + i < tokens) {
                Token token = selector.token(widen(dt_raw[i * args.dt_raw.stride]));
                count.add(token);
                deltas[i] = token.masked();
            }
        }
        double sum = (double)deltas[0] + deltas[1];
        for (u32 step = 1; step < 32; step *= 2) {
            double before = __shfl_up_sync(0xffffffffu, sum, step);
            if (lane >= step) sum += before;
        }
        const double before = __shfl_up_sync(0xffffffffu, sum, 1);
        const double sums[2] = {(lane ? before : 0.0) + deltas[0], sum};
        const double end = __shfl_sync(0xffffffffu, sum, 31);
        const double rate = (double)args.a[at.head] * 1.4426950408889634;
#pragma unroll
        for (u32 i = 0; i < 2; ++i) {
            double u = sums[i] * rate;
            high[t + i] = (float)u;
            low[t + i] = (float)(u - (double)high[t + i]);
            delta[t + i] = deltas[i];
            since_start[t + i] = exp2_fast((float)u);
            late[t + i] = deltas[i] * exp2_fast((float)(end * rate - u));
        }
        if (lane == 31) whole = exp2_fast((float)(end * rate));
    }
};

// Two neighbouring tokens, as seen from later ones.
struct Earlier {
    float2 high, low, delta;

    __device__ Earlier(const Decay &decay, u32 s)
        : high(*(const float2 *)&decay.high[s]), low(*(const float2 *)&decay.low[s]),
          delta(*(const float2 *)&decay.delta[s]) {}

    // delta[s] * 2^(u[t] - u[s]) of each, for the later token t whose u is given.
    __device__ float2 until(float later_high, float later_low) const {
        return {delta.x * exp2_fast((later_high - high.x) + (later_low - low.x)),
                delta.y * exp2_fast((later_high - high.y) + (later_low - low.y))};
    }
};

#endif
