// Many rows on tensor cores: operands of 16 bits, sums in f32.
#pragma once

#include "matmul/arguments.cuh"
#include "matmul/load.cuh"
#include "matmul/mma.cuh"
#include "matmul/put.cuh"

// A block makes a tile of ROWS rows and OUTPUTS outputs, in parts of PART × PART, one to each warp: two along
// the rows. x, in f32, is most of what is read, so that a tile twice as wide reads a third less for a product.
//
// The inputs come in steps of 32 through a ring of three stages. The weight is copied there as it lies in
// memory, two steps ahead (on 7.5 through registers, as x is). x is f32: it is loaded to registers two
// steps ahead too, and rounded to the weight's type when the multiplications that hide the loads are done.
//
// A row of a stage is 32 values, four pieces of 16 bytes. Piece p of row r lies at p ^ (r / 2 % 4): any 8
// rows of one piece, as load_matrices takes them, then touch all banks once, and so do the stores.
//
// A sum is taken over the inputs in order, 16 at a time, whatever the tile is.
template <typename T, int ROWS, int OUTPUTS, bool ALIGNED>
struct TensorTile {
    static constexpr int STAGES = 3, STEP = 32, PART = ROWS / 2, PARTS = OUTPUTS / PART, THREADS = 64 * PARTS;
    // Of a step, the rows whose four pieces of the weight, or eight fours of x, the threads take at once.
    static constexpr int WEIGHT_LINES = THREADS / 4, X_LINES = THREADS / 8;
    static constexpr u32 ROW_BYTES = STEP * 2;
    static constexpr bool ASYNC = __CUDA_ARCH__ >= 800;

    union Shared {
        struct alignas(ROW_BYTES) Stages {
            unsigned char x[STAGES][ROWS * ROW_BYTES];
            unsigned char weight[STAGES][OUTPUTS * ROW_BYTES];
        } stages;
        Sums<ROWS, PART> sums;
    };

    const Matmul &m;
    Shared &shared;
    Place at;
    float4 next_x[ROWS / X_LINES];
    uint4 next_weight[ASYNC ? 1 : OUTPUTS / WEIGHT_LINES];
    // [rows / 16, outputs / 8] of a warp, each of 16 × 8.
    float sums[PART / 16][PART / 8][4];

    __device__ __forceinline__ TensorTile(const Matmul &m, Shared &shared)
        : m(m), shared(shared), at(place<ROWS, OUTPUTS>(m)), sums() {}

    static __device__ __forceinline__ u32 offset(u32 row, u32 piece) {
        return row * ROW_BYTES + (piece ^ row / 2 % 4) * 16;
    }

    __device__ __forceinline__ void fetch_weight(u32 step, int stage) {
        u32 piece = threadIdx.x % 4, line = threadIdx.x / 4, k = step + piece * 8, output = at.output + line;
        const T *from = weight_row<T>(m, output) + k;
        u32 to = shared_address(shared.stages.weight[stage]) + offset(line, piece);
#pragma unroll
        for (int i = 0; i < OUTPUTS / WEIGHT_LINES; i++) {
            bool inside = k < m.inputs && output + WEIGHT_LINES * i < m.outputs;
#if __CUDA_ARCH__ >= 800
            copy_async(to + WEIGHT_LINES * i * ROW_BYTES, from + WEIGHT_LINES * i * m.weight_stride, inside);
#else
            const uint4 *source = (const uint4 *)(from + WEIGHT_LINES * i * m.weight_stride);
            next_weight[i] = inside ? __ldg(source) : make_uint4(0, 0, 0, 0);
#endif
        }
        commit_copies();
    }

    __device__ __forceinline__ void fetch_x(u32 step) {
        u32 k = step + threadIdx.x % 8 * 4, row = at.row + threadIdx.x / 8, count = inputs_from(m, k);
        const float *x = m.x.row(row) + k;
#pragma unroll
        for (int i = 0; i < ROWS / X_LINES; i++)
            next_x[i] = load_x<ALIGNED>(x + X_LINES * i * m.x.stride, row + X_LINES * i < m.rows ? count : 0);
    }

    __device__ __forceinline__ void store(int stage) {
        u32 half = threadIdx.x % 8, line = threadIdx.x / 8;
        unsigned char *to = shared.stages.x[stage] + offset(line, half / 2) + half % 2 * 8;
#pragma unroll
        for (int i = 0; i < ROWS / X_LINES; i++) {
            float4 x = next_x[i];
            uint2 rounded = make_uint2(narrow_pair<T>(x.x, x.y), narrow_pair<T>(x.z, x.w));
            *(uint2 *)(to + X_LINES * i * ROW_BYTES) = rounded;
        }
#if __CUDA_ARCH__ < 800
        u32 piece = threadIdx.x % 4;
        line = threadIdx.x / 4;
#pragma unroll
        for (int i = 0; i < OUTPUTS / WEIGHT_LINES; i++)
            *(uint4 *)(shared.stages.weight[stage] + offset(line + WEIGHT_LINES * i, piece)) = next_weight[i];
#endif
    }

    __device__ __forceinline__ void multiply_stage(int stage) {
        u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        // The matrices of load_matrices, in the order in which `multiply` takes them: for x the lower rows
        // of both halves of the inputs come first, for the weight both halves of the lower outputs.
        u32 x_line = warp / PARTS * PART + lane % 16, w_line = warp % PARTS * PART + lane % 8 + lane / 16 * 8;
        u32 x = shared_address(shared.stages.x[stage]) + offset(x_line, lane / 16);
        u32 w = shared_address(shared.stages.weight[stage]) + offset(w_line, lane / 8 % 2);
#pragma unroll
        for (int k = 0; k < STEP / 16; k++) {
            u32 a[PART / 16][4], b[PART / 16][4];
            // Two pieces on: that flips bit 1 of the piece, and so bit 5 of the address, as every row begins at
            // a multiple of 64.
#pragma unroll
            for (int i = 0; i < PART / 16; i++) load_matrices(a[i], (x ^ k * 32) + i * 16 * ROW_BYTES);
#pragma unroll
            for (int j = 0; j < PART / 16; j++) load_matrices(b[j], (w ^ k * 32) + j * 16 * ROW_BYTES);
#pragma unroll
            for (int i = 0; i < PART / 16; i++)
#pragma unroll
                for (int j = 0; j < PART / 8; j++)
                    multiply(T(), sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        }
    }

    // Through the stages, which nobody needs any more: the parts side by side one after the other.
    __device__ __forceinline__ void finish() {
        u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll 1
        for (u32 side = 0; side < PARTS; side++) {
            __syncthreads();
            if (warp % PARTS == side) {
                u32 row = warp / PARTS * PART + lane / 4, column = lane % 4 * 2;
#pragma unroll
                for (int i = 0; i < PART / 16; i++)
#pragma unroll
                    for (int j = 0; j < PART / 8; j++) {
                        const float *four = sums[i][j];
                        u32 r = row + 16 * i, c = column + 8 * j;
                        *(float2 *)shared.sums.at(r, c) = make_float2(four[0], four[1]);
                        *(float2 *)shared.sums.at(r + 8, c) = make_float2(four[2], four[3]);
                    }
            }
            __syncthreads();
            shared.sums.template put_all<THREADS>(m, at.row, at.output + side * PART);
        }
    }

    __device__ __forceinline__ void run() {
        fetch_weight(0, 0);
        fetch_x(0);
        store(0);
        fetch_weight(STEP, 1);
        fetch_x(STEP);
        int stage = 0;
        for (u32 step = 0; step < m.inputs; step += STEP) {
            int next = stage == STAGES - 1 ? 0 : stage + 1, after = next == STAGES - 1 ? 0 : next + 1;
            store(next);
            wait_copies<1>();
            // This stage is there for all warps, and all are done with the one before, which is the one
            // after the next.
            __syncthreads();
            fetch_weight(step + 2 * STEP, after);
            fetch_x(step + 2 * STEP);
            multiply_stage(stage);
            stage = next;
        }
        wait_copies<0>();
        finish();
    }
};
