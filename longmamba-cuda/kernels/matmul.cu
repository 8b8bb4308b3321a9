// Matrix products: out[rows, outputs] = x[rows, inputs] · weight[outputs, inputs]ᵀ + bias, x and out in
// f32, the weight in f32, f16 or bf16.
//
// few_rows_TYPE_R  up to R rows. The limit is memory: outputs · inputs · sizeof(weight) bytes, read once; at
//                  3.35 TB/s with 132 multiprocessors that is 14 bytes a clock for each, and of x, out of L1,
//                  16 to 32 bytes for every 8 of the weight.
// exact_TYPE_N     tiles of N × N. The limit is the multipliers: rows · outputs · inputs FMAs, 128 a clock and
//                  multiprocessor. 8 inputs of a tile of 128 are 131072 FMAs, 1024 clocks, for 6 to 8 KiB
//                  from L2.
// tensor_TYPE_N    tiles of N × N, or 128 × 256. The limit is L2, then shared memory, then the tensor cores.
//                  32 inputs of a tile of 128 are 524288 FMAs, 512 clocks at an A100's 1024; for them 16 KiB
//                  of x and 8 KiB of the weight come from L2, 16 KiB go into shared memory and 32 KiB come
//                  out (384 clocks). 128 × 256: twice the FMAs for 16 KiB of x and 16 KiB of the weight.
// ..._any          x may begin, and have rows, anywhere. The others take x in vectors of 16 bytes.
#include "matmul/exact.cuh"
#include "matmul/few.cuh"
#include "matmul/tensor.cuh"

// In all of these BLOCKS is how many a multiprocessor is to hold.

#define FEW_ROWS(NAME, BLOCKS, ...)                                                       \
    extern "C" __global__ void __launch_bounds__(32 * FEW_WARPS, BLOCKS) NAME(Matmul m) { \
        few_rows<__VA_ARGS__>(m);                                                         \
    }

#define TILE(NAME, BLOCKS, ...)                                                                 \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__::THREADS, BLOCKS) NAME(Matmul m) { \
        __shared__ __VA_ARGS__::Shared shared;                                                  \
        __VA_ARGS__(m, shared).run();                                                           \
    }

// With more shared memory than a kernel may declare: it is given at the launch. 7.5 does not have it.
#define LARGE_TILE(NAME, BLOCKS, ...)                                                           \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__::THREADS, BLOCKS) NAME(Matmul m) { \
        extern __shared__ __align__(128) unsigned char shared[];                                \
        __VA_ARGS__(m, *(__VA_ARGS__::Shared *)shared).run();                                   \
    }

#define EXACT(TYPE, T)                                   \
    FEW_ROWS(few_rows_##TYPE##_1, 4, T, 1, 1, true)      \
    FEW_ROWS(few_rows_##TYPE##_2, 4, T, 2, 1, true)      \
    FEW_ROWS(few_rows_##TYPE##_4, 2, T, 4, 2, true)      \
    FEW_ROWS(few_rows_##TYPE##_8, 2, T, 8, 4, true)      \
    FEW_ROWS(few_rows_##TYPE##_1_any, 4, T, 1, 1, false) \
    FEW_ROWS(few_rows_##TYPE##_2_any, 4, T, 2, 1, false) \
    FEW_ROWS(few_rows_##TYPE##_4_any, 2, T, 4, 2, false) \
    FEW_ROWS(few_rows_##TYPE##_8_any, 2, T, 8, 4, false) \
    TILE(exact_##TYPE##_128, 2, ExactTile<T, 2, true>)   \
    TILE(exact_##TYPE##_64, 3, ExactTile<T, 1, true>)    \
    TILE(exact_##TYPE##_any, 3, ExactTile<T, 1, false>)

#define TENSOR(TYPE, T)                                         \
    TILE(tensor_##TYPE##_128, 2, TensorTile<T, 128, 128, true>) \
    TILE(tensor_##TYPE##_64, 4, TensorTile<T, 64, 64, true>)    \
    TILE(tensor_##TYPE##_any, 4, TensorTile<T, 64, 64, false>)

EXACT(f32, float)
EXACT(f16, f16)
EXACT(bf16, bf16)

TENSOR(f16, f16)
#if __CUDA_ARCH__ >= 800
TENSOR(bf16, bf16)
LARGE_TILE(tensor_f16_256, 1, TensorTile<f16, 128, 256, true>)
LARGE_TILE(tensor_bf16_256, 1, TensorTile<bf16, 128, 256, true>)
#endif
