// Kernels that go over rows x columns: threads side by side along the columns, V neighbouring columns each.
#pragma once
#include "common.cuh"

// V neighbouring elements, moved in one instruction; data is aligned to all of them.
template <typename T, int V>
struct __align__(sizeof(T) * V) Pack {
    T at[V];
};

template <int V, typename T>
__device__ __forceinline__ Pack<T, V> load(const T *from) {
    return *reinterpret_cast<const Pack<T, V> *>(from);
}

template <int V, typename T>
__device__ __forceinline__ void store(T *to, const Pack<T, V> &values) {
    *reinterpret_cast<Pack<T, V> *>(to) = values;
}

// Calls work(row, column) for every V columns. V divides width. A block is a rectangle of threads; grid.x
// goes over rows, grid.y over columns, and both go round again where there is more.
template <int V, typename Work>
__device__ __forceinline__ void over_plane(u64 rows, u64 width, const Work &work) {
    u64 row_step = (u64)gridDim.x * blockDim.y, column_step = (u64)gridDim.y * blockDim.x * V;
    u64 first = ((u64)blockIdx.y * blockDim.x + threadIdx.x) * V;
    for (u64 row = (u64)blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += row_step)
        for (u64 column = first; column < width; column += column_step) work(row, column);
}
