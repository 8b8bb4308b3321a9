// What the kernels of matmul.cu are given, and which part of it a block does.
#pragma once

#include "common.cuh"

// out = x · wᵀ + bias, or out += x · wᵀ + bias.
struct Matmul {
    // [rows, inputs]
    Rows<const float> x;
    // [outputs, inputs]. Rows begin at multiples of 16 bytes, and are zero from `inputs` on to the next.
    const void *weight;
    u64 weight_stride;
    // [outputs], or null
    const float *bias;
    // [rows, outputs]
    Rows<float> out;
    u32 rows;
    u32 inputs;
    u32 outputs;
    u32 accumulate;
    // few_rows: 2^halvings warps share a sum
    u32 halvings;
    u32 padding;
};

template <typename T>
__device__ __forceinline__ const T *weight_row(const Matmul &m, u32 output) {
    return (const T *)m.weight + output * m.weight_stride;
}

// How many inputs there are from the k-th on.
__device__ __forceinline__ u32 inputs_from(const Matmul &m, u32 k) { return k < m.inputs ? m.inputs - k : 0; }

// The first row and the first output of a block's tile. The row tiles go in groups of GROUP, and through
// a group row by row before the next outputs: blocks that run together then share what they read of x
// and of the weight, and both fit L2.
struct Place {
    u32 row;
    u32 output;
};

template <u32 ROWS, u32 OUTPUTS>
__device__ __forceinline__ Place place(const Matmul &m) {
    constexpr u32 GROUP = 16;
    u32 row_tiles = (m.rows + ROWS - 1) / ROWS;
    u32 output_tiles = (m.outputs + OUTPUTS - 1) / OUTPUTS;
    u32 first = blockIdx.x / (GROUP * output_tiles) * GROUP;
    u32 within = blockIdx.x - first * output_tiles;
    u32 size = min(row_tiles - first, GROUP);
    return {(first + within % size) * ROWS, within / size * OUTPUTS};
}
