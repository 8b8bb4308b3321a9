// A few rows: decode. The weight is read once and nothing else is large, so its way from memory is all
// the time there is.
#pragma once

#include "matmul/arguments.cuh"
#include "matmul/load.cuh"
#include "matmul/put.cuh"

constexpr int FEW_WARPS = 8;

// The sum of a value over the 32 lanes, or over groups of 2 · mask.
__device__ __forceinline__ float sums_over_lanes(const float (&value)[1], u32 lane, int mask = 16) {
    float sum = value[0];
    for (; mask > 0; mask /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
    return sum;
}

// The sums of N values over the 32 lanes: lane l ends with sum l / (32 / N). Each step adds pairs of lanes and
// halves the values that a lane keeps, so it takes about N exchanges, not 5 · N. The order of the additions
// is that of warp_sum, whatever N is.
template <int N>
__device__ __forceinline__ float sums_over_lanes(const float (&values)[N], u32 lane, int mask = 16) {
    float half[N / 2];
    bool upper = lane & mask;
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        float give = upper ? values[i] : values[i + N / 2];
        float keep = upper ? values[i + N / 2] : values[i];
        half[i] = keep + __shfl_xor_sync(0xffffffffu, give, mask);
    }
    return sums_over_lanes(half, lane, mask / 2);
}

// One warp takes OUTPUTS rows of the weight with ROWS rows of x, or 2^halvings warps do, each taking every
// 2^halvings-th CHUNK of inputs. A lane takes 4 neighbours of each 128: so x comes from L1 in whole lines
// without conflicts, and 4 values of the weight are 8 or 16 bytes. AHEAD times 128 inputs of the weight are
// asked for before the first is used: at least 1 KiB for each warp, of which a multiprocessor has 16 to 48.
// More OUTPUTS for more ROWS, so that what is read from L1 stays below what it can give.
//
// A sum is taken in the same order whatever ROWS, OUTPUTS and AHEAD are.
template <typename T, int ROWS, int OUTPUTS, bool ALIGNED>
__device__ __forceinline__ void few_rows(const Matmul &m) {
    constexpr int SUMS = ROWS * OUTPUTS, RUN = 128, CHUNK = 4 * RUN;
    constexpr int AHEAD = ALIGNED ? (OUTPUTS == 4 ? 4 : 8) / sizeof(T) : 1;
    __shared__ float parts[FEW_WARPS][SUMS];
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, split = 1 << m.halvings;
    u32 part = warp % split, groups = FEW_WARPS >> m.halvings;
    u32 first_group = blockIdx.x * groups, first_row = blockIdx.y * ROWS;
    u32 first_output = (first_group + (warp >> m.halvings)) * OUTPUTS;

    // Beyond the last, the last is read again: what is made of it is not stored.
    const T *weight[OUTPUTS];
#pragma unroll
    for (int o = 0; o < OUTPUTS; o++)
        weight[o] = weight_row<T>(m, min(first_output + o, m.outputs - 1));
    u64 x[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) x[r] = min(first_row + r, m.rows - 1) * m.x.stride;

    float sums[SUMS] = {};
    for (u32 chunk = part * CHUNK; chunk < m.inputs; chunk += split * CHUNK)
#pragma unroll 1
        for (u32 ahead = 0; ahead < CHUNK; ahead += AHEAD * RUN) {
            u32 k = chunk + ahead + lane * 4, count = inputs_from(m, k);
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
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    const float *from = m.x.data + x[r] + k + a * RUN;
                    float4 v = load_x<ALIGNED>(from, count > a * RUN ? count - a * RUN : 0);
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

    float sum = sums_over_lanes(sums, lane);
    constexpr u32 SHARE = 32 / SUMS;
    if (lane % SHARE == 0) parts[warp][lane / SHARE] = sum;
    __syncthreads();
    u32 group = threadIdx.x / SUMS, which = threadIdx.x % SUMS;
    if (group >= groups) return;
    float total = 0;
#pragma unroll 1
    for (u32 p = 0; p < split; p++) total += parts[(group << m.halvings) + p][which];
    put(m, first_row + which / OUTPUTS, (first_group + group) * OUTPUTS + which % OUTPUTS, total);
}
