// The most likely token, and keys that order logits as whole numbers.
#pragma once
#include "../block.cuh"

// The most threads of a block.
#define BLOCK 1024

// Marks in place of a token.
#define NOT_A_NUMBER 0xffffffffu
#define NO_TOKEN 0xfffffffeu

// Larger for a larger logit; the two zeros are equals.
__device__ __forceinline__ u32 key_of(float logit) {
    u32 bits = __float_as_uint(logit + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float logit_of(u32 key) {
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

struct Best {
    u32 key, token;
    bool wrong;
};

// Calls work(token, logit) for all tokens, four loads at a time.
template <typename Work>
__device__ __forceinline__ void over_tokens(const float *logits, u32 count, Work &work) {
    // 64 bits, so that the end of a row of 2^32 tokens is not passed.
    for (u64 first = threadIdx.x; first < count; first += 4 * blockDim.x) {
        float logit[4];
#pragma unroll
        for (u32 i = 0; i < 4; i++) logit[i] = first + i * blockDim.x < count ? logits[first + i * blockDim.x] : 0.0f;
#pragma unroll
        for (u32 i = 0; i < 4; i++)
            if (first + i * blockDim.x < count) work((u32)first + i * blockDim.x, logit[i]);
    }
}

// The largest of a block's values, in every thread. shared as in block_sum.
__device__ __forceinline__ u64 block_max(u64 x, u64 *shared) {
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int step = 16; step > 0; step /= 2) x = max(x, __shfl_xor_sync(0xffffffffu, x, step));
    __syncthreads();
    if (lane == 0) shared[warp] = x;
    __syncthreads();
    x = lane < blockDim.x / 32 ? shared[lane] : 0;
    for (int step = 16; step > 0; step /= 2) x = max(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

// The key, and after it the token from the end, so that of equals the first is the largest.
template <bool FINITE>
struct Leader {
    u64 rank;
    __device__ __forceinline__ void operator()(u32 token, float logit) {
        bool wrong = logit != logit || (FINITE && logit == __uint_as_float(0x7f800000u));
        u64 here = wrong ? ~0ull : (u64)key_of(logit) << 32 | (u32)~token;
        rank = max(rank, here);
    }
};

// wrong: a logit is NaN or, where all must be FINITE or -inf, +inf.
template <bool FINITE>
__device__ __forceinline__ Best most_likely(const float *logits, u32 count, u64 *shared) {
    Leader<FINITE> leader = {0};
    over_tokens(logits, count, leader);
    u64 rank = block_max(leader.rank, shared);
    return {(u32)(rank >> 32), ~(u32)rank, rank == ~0ull};
}
