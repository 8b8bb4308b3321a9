// What every kernel does with its sums: bias, and storing or adding.
#pragma once

#include "matmul/arguments.cuh"

__device__ __forceinline__ void put(const Matmul &m, u32 row, u32 output, float sum) {
    if (row >= m.rows || output >= m.outputs) return;
    if (m.bias) sum += m.bias[output];
    float *out = m.out.row(row) + output;
    *out = m.accumulate ? *out + sum : sum;
}

// Four neighbours of one row, of which the last may be beyond the outputs.
__device__ __forceinline__ void put(const Matmul &m, u32 row, u32 output, float4 sums) {
    bool aligned = ((u64)m.out.data | m.out.stride * sizeof(float)) % sizeof(float4) == 0;
    if (!aligned || output + 4 > m.outputs) {
        put(m, row, output, sums.x);
        put(m, row, output + 1, sums.y);
        put(m, row, output + 2, sums.z);
        put(m, row, output + 3, sums.w);
        return;
    }
    if (row >= m.rows) return;
    if (m.bias) {
        sums.x += m.bias[output];
        sums.y += m.bias[output + 1];
        sums.z += m.bias[output + 2];
        sums.w += m.bias[output + 3];
    }
    float4 *out = (float4 *)(m.out.row(row) + output);
    if (m.accumulate) {
        float4 old = *out;
        sums.x = old.x + sums.x;
        sums.y = old.y + sums.y;
        sums.z = old.z + sums.z;
        sums.w = old.w + sums.w;
    }
    *out = sums;
}

// Sums of ROWS rows and WIDTH outputs in shared memory, on their way from the threads that made them to
// whole lines of `out`. Column c of row r lies at c ^ (r % 4 * 8): tensor cores leave 2 columns of each of 8
// rows to a warp, which would else meet in a quarter of the banks.
template <int ROWS, int WIDTH>
struct Sums {
    alignas(16) float values[ROWS][WIDTH];

    __device__ __forceinline__ float *at(u32 row, u32 column) {
        return &values[row][column ^ row % 4 * 8];
    }

    template <int THREADS>
    __device__ __forceinline__ void put_all(const Matmul &m, u32 row, u32 output) {
#pragma unroll 1
        for (u32 i = threadIdx.x; i < ROWS * WIDTH / 4; i += THREADS) {
            u32 r = i / (WIDTH / 4), column = i % (WIDTH / 4) * 4;
            put(m, row + r, output + column, *(float4 *)at(r, column));
        }
    }
};
