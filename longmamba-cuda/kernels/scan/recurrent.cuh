// The half of a block that runs the recurrence. LANES threads share the states of a channel, a few each,
// which stay in registers; they go through the tokens one after the other, so that the state is the same to
// the last bit however a sequence is cut.
#pragma once

#include "tile.cuh"

template <typename T, int LANES>
struct Recurrent {
    static constexpr int OWN = STATES / LANES;

    struct alignas(4 * OWN) Own {
        float of[OWN];
    };

    const ScanArguments<T> &args;
    int column, part;
    u64 at;     // of the channel
    u64 first;  // of the sequence's state
    float rate[OWN], h[OWN];

    // Neighbouring lanes have neighbouring channels, and the next but one other states: so a load of 8 or 16
    // bytes, of either kind, finds lanes that ask for the same, and takes no more than two passes.
    __device__ Recurrent(const ScanArguments<T> &args, int thread, u32 sequence, u32 first_channel)
        : args(args), column(thread % 2 + thread / (2 * LANES) * 2), part(thread / 2 % LANES),
          at(first_channel + column), first((u64)sequence * args.d_state * args.d_inner) {}

    // The same number of meetings as of the other half.
    __device__ __forceinline__ void run(Shared<LANES> &shared, int tokens, u32 steps, u32 groups) {
        meet<LANES>();
        for (Step now = {0, 0, 0}; now.index < steps; now = now.after(groups)) {
            // One group stays in registers from the first token to the last.
            if (groups > 1 || now.index == 0) load(now.group);
            const int rest = tokens - (int)now.tile * Shape<LANES>::TOKENS;
            scan(shared.tile[now.tile % 2], shared.states[now.index % 2], rest);
            if (groups > 1 || now.index + 1 == steps) store(now.group);
            meet<LANES>();
        }
    }

    // A state past the last, or of a channel past the last, stays 0: its B is 0, or its delta.
    __device__ __forceinline__ void load(u32 group) {
#pragma unroll
        for (int i = 0; i < OWN; ++i) {
            u64 n = group * STATES + part * OWN + i;
            bool real = n < args.d_state && at < args.d_inner;
            u64 index = n * args.d_inner + at;
            rate[i] = real ? args.a[index] * LOG2_E : 0.0f;
            h[i] = real ? args.state[first + index] : 0.0f;
        }
    }

    __device__ __forceinline__ void store(u32 group) const {
#pragma unroll
        for (int i = 0; i < OWN; ++i) {
            u64 n = group * STATES + part * OWN + i;
            if (n < args.d_state && at < args.d_inner) args.state[first + n * args.d_inner + at] = h[i];
        }
    }

    // A tile, with `tokens` from its first on. Where it is not full, what follows changes nothing.
    __device__ __forceinline__ void scan(Tile<LANES> &tile, const StateTile<LANES> &states, int tokens) {
#pragma unroll 1
        for (int first = 0; first < tokens && first < Shape<LANES>::TOKENS; first += 2 * LANES) {
#pragma unroll
            for (int t = first; t < first + 2 * LANES; t += LANES) {
                float y[LANES];
#pragma unroll
                for (int i = 0; i < LANES; ++i) {
                    Own b = *(const Own *)&states.b[t + i][part * OWN];
                    Own c = *(const Own *)&states.c[t + i][part * OWN];
                    y[i] = token(tile.update[t + i][column], b, c);
                }
                tile.y[t + part][column] += own_token(y);
            }
        }
    }

    // Returns these states' share of y.
    __device__ __forceinline__ float token(float2 update, const Own &b, const Own &c) {
        float y = 0;
#pragma unroll
        for (int i = 0; i < OWN; ++i) {
            h[i] = recur(h[i], update.x, rate[i], update.y * b.of[i]);
            y = i == 0 ? c.of[i] * h[i] : fmaf(c.of[i], h[i], y);
        }
        return y;
    }

    // Of the sums over the lanes of a channel, that of token `part`: in every round a lane hands over half
    // of its tokens for the other half.
    __device__ __forceinline__ float own_token(float (&y)[LANES]) const {
#pragma unroll
        for (int half = LANES / 2; half > 0; half /= 2) {
            const bool upper = part & half;
#pragma unroll
            for (int i = 0; i < half; ++i) {
                const float given = upper ? y[i] : y[i + half];
                const float kept = upper ? y[i + half] : y[i];
                y[i] = kept + __shfl_xor_sync(0xffffffffu, given, 2 * half);
            }
        }
        return y[0];
    }
};
