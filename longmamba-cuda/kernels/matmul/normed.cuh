// few_rows of normed rows, and the causal convolution of some of the outputs.
#pragma once

#include "matmul/few.cuh"
#include "scan/fast.cuh"

// The most rows, and groups of inputs with a norm of their own.
constexpr u32 NORMED_ROWS_MOST = 8;
constexpr u32 NORMED_GROUPS = 8;

// The convolution of one new input of each channel, which are neighbouring outputs of the product.
struct NewInputs {
    // The output that is channel 0, and how many channels there are.
    u32 first, channels;
    u32 width;
    // Whether to end with SiLU.
    u32 silu;
    // [width, channels]
    const float *weight;
    // [channels], or null.
    const float *bias;
    // [rows, channels]
    Rows<float> out;
    // Of each row, [width - 1, channels], oldest first.
    float *history[NORMED_ROWS_MOST];

    __device__ __forceinline__ void convolve(u32 row, u32 channel, float input) const {
        float *before = history[row] + channel;
        float sum = bias ? bias[channel] : 0.0f;
        for (u32 k = 0; k + 1 < width; k++) {
            const float x = before[(u64)k * channels];
            sum = fmaf(weight[(u64)k * channels + channel], x, sum);
            if (k > 0) before[(u64)(k - 1) * channels] = x;
        }
        if (width > 1) before[(u64)(width - 2) * channels] = input;
        sum = fmaf(weight[(u64)(width - 1) * channels + channel], input, sum);
        out.row(row)[channel] = silu ? silu_fast(sum) : sum;
    }
};

struct NormedMatmul {
    // x begins at a multiple of 16 bytes in every row, and so do the groups.
    Matmul m;
    // [inputs]
    const float *norm;
    // Inputs of a group; groups * group are all.
    u32 group, groups;
    float eps;
    u32 padding;
    NewInputs conv;
};

// x times the norm's weight, and the sum of its squares.
template <int ROWS>
struct Normed {
    const float *norm;
    float4 weight;
    float squares[ROWS] = {};

    __device__ __forceinline__ Normed(const float *norm) : norm(norm) {}

    __device__ __forceinline__ void fetch(u32 k, bool inside) { weight = load_x<true>(norm + k, inside ? 4 : 0); }

    __device__ __forceinline__ float4 take(float4 x, int row) {
        float &sum = squares[row];
        sum = fmaf(x.x, x.x, sum);
        sum = fmaf(x.y, x.y, sum);
        sum = fmaf(x.z, x.z, sum);
        sum = fmaf(x.w, x.w, sum);
        return make_float4(x.x * weight.x, x.y * weight.y, x.z * weight.z, x.w * weight.w);
    }
};

template <typename T, int ROWS, int OUTPUTS, int AHEAD>
__device__ __forceinline__ void normed_rows(const NormedMatmul &a) {
    using Few = FewRows<T, ROWS, OUTPUTS, true, AHEAD>;
    __shared__ typename Few::Parts parts[NORMED_GROUPS];
    __shared__ float squares[NORMED_GROUPS][FEW_WARPS][ROWS];
    const Few few(a.m);
#pragma unroll 1
    for (u32 g = 0; g < a.groups; g++) {
        float sums[Few::SUMS] = {};
        Normed<ROWS> normed(a.norm);
        few.add(sums, g * a.group, (g + 1) * a.group, normed);
        few.leave(sums, parts[g]);
        few.leave(normed.squares, squares[g]);
    }
    __syncthreads();
    const u32 group = threadIdx.x / Few::SUMS, which = threadIdx.x % Few::SUMS;
    const u32 row = which / OUTPUTS, output = (few.first_group + group) * OUTPUTS + which % OUTPUTS;
    if (group >= few.groups || row >= a.m.rows || output >= a.m.outputs) return;
    float total = 0;
#pragma unroll 1
    for (u32 g = 0; g < a.groups; g++) {
        const float square = few.total(squares[g], group, row) / (float)a.group;
        total = fmaf(few.total(parts[g], group, which), 1.0f / sqrtf(square + a.eps), total);
    }
    const u32 channel = output - a.conv.first;
    if (channel < a.conv.channels) {
        a.conv.convolve(row, channel, a.m.bias ? total + a.m.bias[output] : total);
    } else {
        put(a.m, row, output, total);
    }
}
