// A few rows: decode. The weight is read once and nothing else is large, so its way from memory is all
// the time there is.
#pragma once

#include "matmul/arguments.cuh"
#include "matmul/lanes.cuh"
#include "matmul/load.cuh"
#include "matmul/put.cuh"

constexpr int FEW_WARPS = 8;

// x as it is. Others see four neighbouring inputs of each row before they are multiplied.
struct Unchanged {
    // The next are inputs k .. k + 4, if `inside`.
    __device__ __forceinline__ void fetch(u32 k, bool inside) {}
    __device__ __forceinline__ float4 take(float4 x, int row) { return x; }
};

// One warp takes OUTPUTS rows of the weight with ROWS rows of x, or 2^halvings warps do, each taking every
// 2^halvings-th CHUNK of inputs. A lane takes 4 neighbours of each 128: so x comes from L1 in whole lines
// without conflicts, and 4 values of the weight are 8 or 16 bytes. AHEAD times 128 inputs of the weight are
// asked for before the first is used: at least 1 KiB for each warp, of which a multiprocessor has 16 to 48.
// More OUTPUTS for more ROWS, so that what is read from L1 stays below what it can give.
//
// A sum is taken in the same order whatever ROWS, OUTPUTS and AHEAD are.
template <typename T, int ROWS, int OUTPUTS, bool ALIGNED,
          int AHEAD = ALIGNED ? (OUTPUTS == 4 ? 4 : 8) / sizeof(T) : 1>
struct FewRows {
    static constexpr int SUMS = ROWS * OUTPUTS, RUN = 128, CHUNK = 4 * RUN;
    // Of each warp: sum row * OUTPUTS + output.
    using Parts = float[FEW_WARPS][SUMS];

    const Matmul &m;
    u32 lane, warp;
    // Warps to a sum, and groups of outputs to a block.
    u32 split, groups;
    u32 first_group, first_row;
    // Beyond the last, the last is read again: what is made of it is not stored.
    const T *weight[OUTPUTS];
    u64 x[ROWS];

    __device__ __forceinline__ FewRows(const Matmul &m)
        : m(m), lane(threadIdx.x % 32), warp(threadIdx.x / 32), split(1 << m.halvings),
          groups(FEW_WARPS >> m.halvings), first_group(blockIdx.x * groups), first_row(blockIdx.y * ROWS) {
        u32 first_output = (first_group + (warp >> m.halvings)) * OUTPUTS;
#pragma unroll
        for (int o = 0; o < OUTPUTS; o++)
            weight[o] = weight_row<T>(m, min(first_output + o, m.outputs - 1));
#pragma unroll
        for (int r = 0; r < ROWS; r++) x[r] = min(first_row + r, m.rows - 1) * m.x.stride;
    }

    // Adds this warp's share of the products of inputs `begin`, a multiple of 4, to `end`.
    template <typename Inputs>
    __device__ __forceinline__ void add(float (&sums)[SUMS], u32 begin, u32 end, Inputs &inputs) const {
        for (u32 chunk = begin + warp % split * CHUNK; chunk < end; chunk += split * CHUNK)
#pragma unroll 1
            for (u32 ahead = 0; ahead < CHUNK; ahead += AHEAD * RUN) {
                u32 k = chunk + ahead + lane * 4, count = k < end ? end - k : 0;
                Four<T> ws[AHEAD][OUTPUTS];
#pragma unroll
                for (int a = 0; a < AHEAD; a++)
#pragma unroll
                    for (int o = 0; o < OUTPUTS; o++)
                        ws[a][o] = load_weight(weight[o] + k + a * RUN, count > a * RUN);
#pragma unroll
                for (int a = 0; a < AHEAD; a++) {
                    float4 w[OUTPUTS];
#pragma unroll
                    for (int o = 0; o < OUTPUTS; o++) w[o] = widen(ws[a][o]);
                    inputs.fetch(k + a * RUN, count > a * RUN);
#pragma unroll
                    for (int r = 0; r < ROWS; r++) {
                        const float *from = m.x.data + x[r] + k + a * RUN;
                        float4 v = load_x<ALIGNED>(from, count > a * RUN ? count - a * RUN : 0);
                        v = inputs.take(v, r);
#pragma unroll
                        for (int o = 0; o < OUTPUTS; o++) {
                            float &sum = sums[r * OUTPUTS + o];
                            sum = fmaf(v.x, w[o].x, sum);
                            sum = fmaf(v.y, w[o].y, sum);
                            sum = fmaf(v.z, w[o].z, sum);
                            sum = fmaf(v.w, w[o].w, sum);
                        }
                    }
                }
            }
    }

    // Leaves what the warp has found of N sums for the threads that put warps together.
    template <int N>
    __device__ __forceinline__ void leave(const float (&sums)[N], float (&parts)[FEW_WARPS][N]) const {
        constexpr u32 SHARE = 32 / N;
        float sum = sums_over_lanes(sums, lane);
        if (lane % SHARE == 0) parts[warp][lane / SHARE] = sum;
    }

    // Of a group of outputs, sum `which` of all its warps.
    template <int N>
    __device__ __forceinline__ float total(const float (&parts)[FEW_WARPS][N], u32 group, u32 which) const {
        float total = 0;
#pragma unroll 1
        for (u32 p = 0; p < split; p++) total += parts[(group << m.halvings) + p][which];
        return total;
    }
};

template <typename T, int ROWS, int OUTPUTS, bool ALIGNED>
__device__ __forceinline__ void few_rows(const Matmul &m) {
    using Few = FewRows<T, ROWS, OUTPUTS, ALIGNED>;
    __shared__ typename Few::Parts parts;
    const Few few(m);
    float sums[Few::SUMS] = {};
    Unchanged unchanged;
    few.add(sums, 0, m.inputs, unchanged);
    few.leave(sums, parts);
    __syncthreads();
    u32 group = threadIdx.x / Few::SUMS, which = threadIdx.x % Few::SUMS;
    if (group >= few.groups) return;
    float total = few.total(parts, group, which);
    put(m, few.first_row + which / OUTPUTS, (few.first_group + group) * OUTPUTS + which % OUTPUTS, total);
}
