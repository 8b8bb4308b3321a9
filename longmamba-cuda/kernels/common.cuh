// What all kernels share: 16-bit types without NVIDIA's headers, and the functions of the mixers.
#pragma once

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;
typedef unsigned short u16;

// Rows of neighbouring elements: row r begins at data + r * stride.
template <typename T>
struct Rows {
    T *data;
    u64 stride;
    __device__ T *row(u64 r) const { return data + r * stride; }
};

// IEEE half precision, and bfloat16, as bits.
struct f16 {
    u16 bits;
};
struct bf16 {
    u16 bits;
};

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(f16 x) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
    return wide;
}
__device__ __forceinline__ float widen(bf16 x) { return __uint_as_float((u32)x.bits << 16); }

// To the nearest value of type T, ties to even.
template <typename T>
__device__ __forceinline__ T narrow(float x);
template <>
__device__ __forceinline__ float narrow<float>(float x) {
    return x;
}
template <>
__device__ __forceinline__ f16 narrow<f16>(float x) {
    f16 half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half.bits) : "f"(x));
    return half;
}
template <>
__device__ __forceinline__ bf16 narrow<bf16>(float x) {
    bf16 half;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(half.bits) : "f"(x));
#else
    u32 bits = __float_as_uint(x);
    // A NaN stays one, also where its mantissa is all in the lower half.
    bits = x != x ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u);
    half.bits = (u16)(bits >> 16);
#endif
    return half;
}

// 2^x, within 2 ulp; 0 where x < -126.
__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#define LOG2_E 1.4426950408889634f

// exp(x) for x <= 0 and moderate x > 0. The product is split, so that the error stays that of 2^x.
__device__ __forceinline__ float exp_fast(float x) {
    float high = x * LOG2_E;
    float low = fmaf(x, LOG2_E, -high);
    return exp2_fast(high) * (1.0f + low * 0.69314718f);
}

// log(1 + exp(x)); x from 20 on, where they are the same in f32.
__device__ __forceinline__ float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

__device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }

// Of LongMamba: softplus, limits, and the threshold. delta_min of 0 keeps every token.
struct Selection {
    float dt_min;
    float dt_max;
};

__device__ __forceinline__ float select_delta(float dt_raw, float bias, Selection limits) {
    float delta = softplus(dt_raw + bias);
    // In this order a NaN stays one.
    delta = delta < limits.dt_min ? limits.dt_min : delta;
    return delta > limits.dt_max ? limits.dt_max : delta;
}

__device__ __forceinline__ bool keeps(float delta, float delta_min) {
    // Not "delta > delta_min": a NaN is to be seen, not dropped.
    return !(delta <= delta_min) || delta_min <= 0.0f;
}

__device__ __forceinline__ float warp_sum(float x) {
    for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(0xffffffffu, x, lane);
    return x;
}
