// Rows of x, B or C of a chunk, as 16-bit operands in shared memory.
#pragma once
#include "ssd/tensor.cuh"

#if __CUDA_ARCH__ >= 800

constexpr int CHUNK = 64;         // tokens that are done as matrix products
constexpr int CHUNK_THREADS = 128; // of a block

// CHUNK tokens of COLUMNS values. Eight values between rows keep the eight rows of a matrix in different
// banks.
template <int COLUMNS>
struct Tile {
    u16 rows[CHUNK][COLUMNS + 8];

    // Rows from `from` on. Zeros beyond `tokens` rows and `columns` columns: what is not there must not
    // meet a zero of another factor as a NaN.
    template <typename T>
    __device__ void fill(const T *from, u64 stride, u32 tokens, u32 columns);

  private:
    template <typename T>
    __device__ void fill_vectors(const T *from, u64 stride, u32 tokens, u32 columns);
};

// 16 bytes of global memory at a time; whole vectors of which begin on their alignment.
__device__ __forceinline__ void copy_vector(u16 *to, const f16 *from) { copy_async(to, from); }
__device__ __forceinline__ void copy_vector(u16 *to, const bf16 *from) { copy_async(to, from); }
__device__ __forceinline__ void copy_vector(u16 *to, const float *from) {
    float4 x = *(const float4 *)from;
    *(uint2 *)to = {pack<bf16>(x.x, x.y), pack<bf16>(x.z, x.w)};
}

template <typename T>
__device__ __forceinline__ bool in_vectors(const T *from, u64 stride, u32 columns) {
    return (((u64)from | stride * sizeof(T) | columns * sizeof(T)) & 15) == 0;
}

template <int COLUMNS>
template <typename T>
__device__ void Tile<COLUMNS>::fill_vectors(const T *from, u64 stride, u32 tokens, u32 columns) {
    constexpr u32 VECTOR = 16 / sizeof(T), VECTORS = COLUMNS / VECTOR, STEP = CHUNK_THREADS / VECTORS;
    const u32 first = threadIdx.x / VECTORS, column = threadIdx.x % VECTORS * VECTOR;
    const u32 end = column < columns ? tokens : 0;
    from += first * stride + column;
    u16 *to = &rows[first][column];
#pragma unroll 4
    for (u32 t = 0; t < CHUNK; t += STEP, from += STEP * stride, to += STEP * (COLUMNS + 8)) {
        if (first + t < end) {
            copy_vector(to, from);
        } else {
            for (u32 k = 0; k < VECTOR; k += 4) *(uint2 *)(to + k) = {0, 0};
        }
    }
}

template <int COLUMNS>
template <typename T>
__device__ void Tile<COLUMNS>::fill(const T *from, u64 stride, u32 tokens, u32 columns) {
    if (in_vectors(from, stride, columns)) {
        fill_vectors(from, stride, tokens, columns);
        return;
    }
    using O = typename OperandOf<T>::Type;
#pragma unroll 1
    for (u32 i = threadIdx.x; i < CHUNK * COLUMNS; i += CHUNK_THREADS) {
        u32 t = i / COLUMNS, column = i % COLUMNS;
        bool there = t < tokens && column < columns;
        rows[t][column] = narrow<O>(there ? widen(from[t * stride + column]) : 0.0f).bits;
    }
}

// Fragments of 16 x 16 values. `row` and `column`: where the block of the tile begins.
//
// As the left factor: rows of the tile are its rows.
template <int COLUMNS>
__device__ __forceinline__ void load_left(u32 (&to)[4], const Tile<COLUMNS> &tile, u32 row, u32 column) {
    u32 lane = threadIdx.x % 32;
    load_matrices(to, &tile.rows[row + lane % 16][column + lane / 16 * 8]);
}

// As two right factors, (0, 1) and (2, 3), of 8 columns each: columns of the tile are theirs.
template <int COLUMNS>
__device__ __forceinline__ void load_right(u32 (&to)[4], const Tile<COLUMNS> &tile, u32 row, u32 column) {
    u32 lane = threadIdx.x % 32;
    load_transposed(to, &tile.rows[row + lane % 16][column + lane / 16 * 8]);
}

// As two right factors, (0, 1) and (2, 3), of 8 columns each: rows of the tile are their columns.
template <int COLUMNS>
__device__ __forceinline__ void load_right_of_rows(u32 (&to)[4], const Tile<COLUMNS> &tile, u32 row,
                                                   u32 column) {
    u32 lane = threadIdx.x % 32;
    load_matrices(to, &tile.rows[row + lane % 8 + lane / 16 * 8][column + lane / 8 % 2 * 8]);
}

// As the left factor: columns of the tile are its rows. As two right factors, (0, 2) and (1, 3), of 8
// columns each, these are the columns of the tile.
template <int COLUMNS>
__device__ __forceinline__ void load_left_of_columns(u32 (&to)[4], const Tile<COLUMNS> &tile, u32 row,
                                                     u32 column) {
    u32 lane = threadIdx.x % 32;
    load_transposed(to, &tile.rows[row + lane % 8 + lane / 16 * 8][column + lane / 8 % 2 * 8]);
}

#endif
