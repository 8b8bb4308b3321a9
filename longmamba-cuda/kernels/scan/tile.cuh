// What the two halves of a block hand each other in shared memory.
#pragma once

#include "arguments.cuh"

// Neighbouring channels of a block: in 16 bits one sector of memory, 32 bytes, of every row.
constexpr int CHANNELS = 16;

// States that are worked on at a time.
constexpr int STATES = 16;

// Tokens of a tile that a thread of the selecting half takes.
constexpr int ITEMS = 8;

// LANES threads share the states of a channel.
template <int LANES>
struct Shape {
    // Threads of either half.
    static constexpr int HALF = CHANNELS * LANES;
    static constexpr int THREADS = 2 * HALF;
    static constexpr int TOKENS = ITEMS * LANES;
};

template <int LANES>
struct Tile {
    // Delta, masked, and delta * x; both 0 where there is no token.
    float2 update[Shape<LANES>::TOKENS][CHANNELS];
    // First D * x, then y before the gate.
    float y[Shape<LANES>::TOKENS][CHANNELS];
};

template <int LANES>
struct alignas(16) StateTile {
    float b[Shape<LANES>::TOKENS][STATES];
    float c[Shape<LANES>::TOKENS][STATES];
};

// Of the threads of a channel.
template <int LANES>
struct Sums {
    double delta_sum[LANES][CHANNELS], kept_sum[LANES][CHANNELS];
    u64 kept[LANES][CHANNELS];
};

template <int LANES>
struct Shared {
    StateTile<LANES> states[2];
    Tile<LANES> tile[2];
    Sums<LANES> sums;
};

// A step of the pipeline: one group of states of one tile of tokens.
struct Step {
    u32 index, tile, group;

    __device__ Step after(u32 groups) const {
        bool last = group + 1 == groups;
        return {index + 1, tile + last, last ? 0 : group + 1};
    }
};

// Both halves of a block: what was written before is there to be read.
template <int LANES>
__device__ __forceinline__ void meet() {
    asm volatile("bar.sync 0, %0;" ::"n"(Shape<LANES>::THREADS) : "memory");
}
