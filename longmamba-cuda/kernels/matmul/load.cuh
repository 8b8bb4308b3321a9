// Four neighbouring values at a time, of any type.
#pragma once

#include "common.cuh"

// Four values of a weight as they lie in memory: widened only where they are used, so that many can be
// on their way in few registers.
template <typename T>
struct Four {
    uint2 bits;
};
template <>
struct Four<float> {
    uint4 bits;
};

// Zero where `inside` is false. The address is a multiple of four values.
template <typename T>
__device__ __forceinline__ Four<T> load_weight(const T *from, bool inside) {
    Four<T> four = {};
    if (inside) four.bits = __ldg((const decltype(four.bits) *)from);
    return four;
}

__device__ __forceinline__ float4 widen(Four<float> x) {
    return make_float4(__uint_as_float(x.bits.x), __uint_as_float(x.bits.y), __uint_as_float(x.bits.z),
                       __uint_as_float(x.bits.w));
}
template <typename T>
__device__ __forceinline__ float4 widen(Four<T> x) {
    T a = {(u16)x.bits.x}, b = {(u16)(x.bits.x >> 16)}, c = {(u16)x.bits.y}, d = {(u16)(x.bits.y >> 16)};
    return make_float4(widen(a), widen(b), widen(c), widen(d));
}

// Four values of x, of which only the first `count` are there; the others are zero. ALIGNED: the address is
// a multiple of 16 bytes, and `count` is 0 or at least 4.
template <bool ALIGNED>
__device__ __forceinline__ float4 load_x(const float *from, u32 count) {
    float4 x = make_float4(0, 0, 0, 0);
    if (ALIGNED) {
        if (count > 0) x = __ldg((const float4 *)from);
    } else {
        if (count > 0) x.x = __ldg(from);
        if (count > 1) x.y = __ldg(from + 1);
        if (count > 2) x.z = __ldg(from + 2);
        if (count > 3) x.w = __ldg(from + 3);
    }
    return x;
}
