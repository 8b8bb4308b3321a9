// Many rows, all in f32: the multipliers' speed is the limit.
#pragma once

#include "matmul/arguments.cuh"
#include "matmul/load.cuh"
#include "matmul/put.cuh"

// A block of 256 threads makes a tile of 64 · FOLD rows and as many outputs; a thread makes 4 × 4 of
// them, FOLD · FOLD times, 64 apart. The inputs come in steps of 16 / FOLD, a thread carrying 4 of each
// operand through registers into one of two buffers while the other is in use. There the rows lie along a
// line, where a thread reads its 4 at once: 8 · FOLD values read for 16 · FOLD² multiplications.
//
// Line k of a buffer has place c at c ^ swizzle(k), which keeps fours together: what a warp stores at a
// time, 4 inputs of some rows and the next 4 of the same rows and so on, would else meet in a few banks.
//
// A sum is taken over the inputs in order, whatever FOLD is.
template <typename T, int FOLD, bool ALIGNED>
struct ExactTile {
    static constexpr int TILE = 64 * FOLD, STEP = 16 / FOLD, THREADS = 256;

    union Shared {
        struct Buffers {
            alignas(16) float x[2][STEP][TILE];
            alignas(16) float weight[2][STEP][TILE];
        } buffers;
        Sums<TILE, 64> sums;
    };

    const Matmul &m;
    Shared &shared;
    Place at;
    // On their way to a buffer: 4 inputs of one row, and of one output.
    float4 next_x;
    Four<T> next_weight;
    // [rows, outputs] of this thread.
    float sums[4 * FOLD][4 * FOLD];

    __device__ __forceinline__ ExactTile(const Matmul &m, Shared &shared)
        : m(m), shared(shared), at(place<TILE, TILE>(m)), sums() {}

    // The threads that carry a line, neighbours in a warp.
    static constexpr u32 CARRIERS = STEP / 4;

    static __device__ __forceinline__ u32 swizzle(u32 k) { return k / 4 * (32 / CARRIERS); }

    __device__ __forceinline__ void fetch(u32 step) {
        u32 k = step + threadIdx.x % CARRIERS * 4, line = threadIdx.x / CARRIERS;
        u32 row = at.row + line, output = at.output + line, count = inputs_from(m, k);
        next_x = load_x<ALIGNED>(m.x.row(row) + k, row < m.rows ? count : 0);
        next_weight = load_weight(weight_row<T>(m, output) + k, count > 0 && output < m.outputs);
    }

    __device__ __forceinline__ void store(int buffer) {
        u32 k = threadIdx.x % CARRIERS * 4, line = threadIdx.x / CARRIERS ^ swizzle(k);
        float4 x = next_x, w = widen(next_weight);
        shared.buffers.x[buffer][k][line] = x.x;
        shared.buffers.x[buffer][k + 1][line] = x.y;
        shared.buffers.x[buffer][k + 2][line] = x.z;
        shared.buffers.x[buffer][k + 3][line] = x.w;
        shared.buffers.weight[buffer][k][line] = w.x;
        shared.buffers.weight[buffer][k + 1][line] = w.y;
        shared.buffers.weight[buffer][k + 2][line] = w.z;
        shared.buffers.weight[buffer][k + 3][line] = w.w;
    }

    // The threads are a 16 × 16 square, and a warp 4 × 8 of it: together its lanes read 4 and 8 fours.
    static __device__ __forceinline__ u32 thread_row() {
        u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        return warp / 2 * 4 + lane / 8;
    }
    static __device__ __forceinline__ u32 thread_output() {
        u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        return warp % 2 * 8 + lane % 8;
    }

    __device__ __forceinline__ void multiply(int buffer) {
#pragma unroll 1
        for (int fours = 0; fours < STEP; fours += 4) {
            u32 row = thread_row() * 4 ^ swizzle(fours), output = thread_output() * 4 ^ swizzle(fours);
#pragma unroll
            for (int k = fours; k < fours + 4; k++) {
                float x[4 * FOLD], w[4 * FOLD];
#pragma unroll
                for (int f = 0; f < FOLD; f++) {
                    *(float4 *)&x[4 * f] = *(float4 *)&shared.buffers.x[buffer][k][row + 64 * f];
                    *(float4 *)&w[4 * f] = *(float4 *)&shared.buffers.weight[buffer][k][output + 64 * f];
                }
#pragma unroll
                for (int i = 0; i < 4 * FOLD; i++)
#pragma unroll
                    for (int j = 0; j < 4 * FOLD; j++) sums[i][j] = fmaf(x[i], w[j], sums[i][j]);
            }
        }
    }

    // Through the buffers, which nobody needs any more.
    __device__ __forceinline__ void finish() {
#pragma unroll
        for (int f = 0; f < FOLD; f++) {
#pragma unroll
            for (int i = 0; i < 4 * FOLD; i++) {
                u32 row = thread_row() * 4 + i / 4 * 64 + i % 4;
                float *four = &sums[i][4 * f];
                *(float4 *)shared.sums.at(row, thread_output() * 4) =
                    make_float4(four[0], four[1], four[2], four[3]);
            }
            __syncthreads();
            shared.sums.template put_all<THREADS>(m, at.row, at.output + 64 * f);
            __syncthreads();
        }
    }

    __device__ __forceinline__ void run() {
        fetch(0);
        store(0);
        __syncthreads();
        int buffer = 0;
        for (u32 step = 0; step < m.inputs; step += STEP) {
            // Zeros after the last.
            fetch(step + STEP);
            multiply(buffer);
            buffer ^= 1;
            store(buffer);
            __syncthreads();
        }
        finish();
    }
};
