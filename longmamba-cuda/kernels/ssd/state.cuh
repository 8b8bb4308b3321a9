// The state of one head for the 16 elements of head_dim that a warp has, in registers: transposed, as sums
// of 16 elements by 8 states. In f32 from the first token to the last; the tensor cores see it rounded.
#pragma once
#include "ssd/decay.cuh"

#if __CUDA_ARCH__ >= 800

constexpr u32 SLICE = 16; // elements of head_dim of a warp
constexpr u32 CHUNK_WIDTH = CHUNK_THREADS / 32 * SLICE;

using Inputs = Tile<CHUNK_WIDTH>;

// y of BAND tokens and the elements of a warp: half a chunk, so that registers are left for the state.
constexpr u32 BAND = 32;
typedef float Outputs[BAND / 16][2][4];

template <int STATES, typename O>
struct State {
    float h[STATES / 8][4];

    __device__ State() {
#pragma unroll
        for (int i = 0; i < STATES / 8; ++i) h[i][0] = h[i][1] = h[i][2] = h[i][3] = 0.0f;
    }

    // To and from memory, [d_state, head_dim]; the warp's elements begin at p.
    __device__ void load(const float *from, u32 p, u32 d_state, u32 head_dim) {
        each(from, p, d_state, head_dim, [](const float &there, float &here) { here = there; });
    }
    __device__ void store(float *to, u32 p, u32 d_state, u32 head_dim) {
        each(to, p, d_state, head_dim, [](float &there, float &here) { there = here; });
    }

    // y[t, p] = 2^u[t] * sum over n of C[t, n] * h[n, p], of the tokens from `first` on.
    __device__ void read(const Tile<STATES> &c, const Decay &decay, u32 first, Outputs &y) const {
#pragma unroll
        for (int k = 0; k < STATES / 16; ++k) {
            const float(&left)[4] = h[2 * k], (&right)[4] = h[2 * k + 1];
            u32 upper[2] = {pack<O>(left[0], left[1]), pack<O>(right[0], right[1])};
            u32 lower[2] = {pack<O>(left[2], left[3]), pack<O>(right[2], right[3])};
#pragma unroll
            for (int i = 0; i < BAND / 16; ++i) {
                u32 rows[4];
                load_left(rows, c, first + 16 * i, 16 * k);
                multiply<O>(y[i][0], rows, upper[0], upper[1]);
                multiply<O>(y[i][1], rows, lower[0], lower[1]);
            }
        }
        const u32 g = threadIdx.x % 32 / 4;
#pragma unroll
        for (int k = 0; k < BAND / 8; ++k) {
            float since_start = decay.since_start[first + 8 * k + g];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float *pair = &y[k / 2][half][k % 2 * 2];
                pair[0] *= since_start;
                pair[1] *= since_start;
            }
        }
    }

    // h[n, p] = 2^u[end] * h[n, p] + sum over s of B[s, n] * (late[s] * x[s, p]), over the chunk. `slice`:
    // the first of the warp's elements in x.
    __device__ void advance(const Tile<STATES> &b, const Inputs &x, const Decay &decay, u32 slice) {
#pragma unroll
        for (int i = 0; i < STATES / 8; ++i) {
#pragma unroll
            for (int k = 0; k < 4; ++k) h[i][k] *= decay.whole;
        }
        const u32 q = threadIdx.x % 4;
#pragma unroll 1
        for (u32 s = 0; s < CHUNK; s += 16) {
            u32 updates[4];
            load_left_of_columns(updates, x, s, slice);
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                float2 late = *(const float2 *)&decay.late[s + k / 2 * 8 + 2 * q];
                float2 both = unpack<O>(updates[k]);
                updates[k] = pack<O>(both.x * late.x, both.y * late.y);
            }
#pragma unroll
            for (int i = 0; i < STATES / 16; ++i) {
                u32 columns[4];
                load_right(columns, b, s, 16 * i);
                multiply<O>(h[2 * i], updates, columns[0], columns[1]);
                multiply<O>(h[2 * i + 1], updates, columns[2], columns[3]);
            }
        }
    }

  private:
    template <typename V, typename F>
    __device__ __forceinline__ void each(V *memory, u32 p, u32 d_state, u32 head_dim, F visit) {
        const u32 lane = threadIdx.x % 32, q = lane % 4, element = p + lane / 4;
        const bool first = element < head_dim, second = element + 8 < head_dim;
        V *row = memory + (u64)(2 * q) * head_dim + element;
#pragma unroll
        for (int i = 0; i < STATES / 8; ++i) {
#pragma unroll
            for (int k = 0; k < 2; ++k) {
                bool inside = 8 * i + 2 * q + k < d_state;
                if (inside && first) visit(row[0], h[i][k]);
                if (inside && second) visit(row[8], h[i][k + 2]);
                row += k ? 7 * head_dim : head_dim;
            }
        }
    }
};

#endif
