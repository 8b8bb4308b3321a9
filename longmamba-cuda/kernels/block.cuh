// What the threads of a block know together.
#pragma once
#include "common.cuh"

// Sum over a block of whole warps, the same bits in every thread. shared: 32 elements, which a later call
// may use again.
template <typename T>
__device__ __forceinline__ T block_sum(T x, T *shared) {
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    // Those of the last call have been read.
    __syncthreads();
    if (lane == 0) shared[warp] = x;
    __syncthreads();
    x = lane < warps ? shared[lane] : T(0);
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}
