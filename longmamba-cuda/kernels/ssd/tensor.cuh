// Tensor cores: products of 16 x 16 by 16 x 8 with 16-bit operands and f32 sums.
//
// What a lane holds of a matrix, with g = lane / 4 and q = lane % 4:
//   Sum    16 x 8    rows g (0, 1) and g + 8 (2, 3), columns 2q and 2q + 1
//   Left   16 x 16   rows g (0, 2) and g + 8 (1, 3), columns 2q, 2q + 1 (0, 1) and those + 8 (2, 3)
//   Right  16 x 8    rows 2q, 2q + 1 (0) and those + 8 (1), column g
// So the two halves of a transposed Sum are a Right each, and two Sums side by side are a Left.
#pragma once
#include "common.cuh"

#if __CUDA_ARCH__ >= 800

// The 16-bit type that the tensor cores are given: T itself, and bfloat16 for f32.
template <typename T>
struct OperandOf {
    using Type = T;
};
template <>
struct OperandOf<float> {
    using Type = bf16;
};

// Two values in one register, `low` first in memory.
template <typename O>
__device__ __forceinline__ u32 pack(float low, float high);
template <>
__device__ __forceinline__ u32 pack<f16>(float low, float high) {
    u32 both;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}
template <>
__device__ __forceinline__ u32 pack<bf16>(float low, float high) {
    u32 both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

template <typename O>
__device__ __forceinline__ float2 unpack(u32 both) {
    O low, high;
    low.bits = (u16)both;
    high.bits = (u16)(both >> 16);
    return {widen(low), widen(high)};
}

// sum += left * right.
template <typename O>
__device__ __forceinline__ void multiply(float (&sum)[4], const u32 (&left)[4], u32 right0, u32 right1);
#define MULTIPLY(O, TYPE)                                                                                \
    template <>                                                                                          \
    __device__ __forceinline__ void multiply<O>(float (&sum)[4], const u32 (&left)[4], u32 right0,       \
                                                u32 right1) {                                            \
        asm("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE                                       \
            ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                       \
            : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])                                     \
            : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right0), "r"(right1));         \
    }
MULTIPLY(f16, "f16")
MULTIPLY(bf16, "bf16")
#undef MULTIPLY

// Four 8 x 8 matrices, from the rows of 8 values whose addresses the lanes give: lanes 0 to 7 of the first,
// and so on. A lane gets of each the row g, columns 2q and 2q + 1.
__device__ __forceinline__ void load_matrices(u32 (&to)[4], const u16 *row) {
    u32 address = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}

// The same of the transposed matrices.
__device__ __forceinline__ void load_transposed(u32 (&to)[4], const u16 *row) {
    u32 address = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}

// Copies 16 bytes from global to shared memory, past the registers.
__device__ __forceinline__ void copy_async(u16 *to, const void *from) {
    u32 address = (u32)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
}

// Waits for this thread's copies.
__device__ __forceinline__ void finish_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

#endif
