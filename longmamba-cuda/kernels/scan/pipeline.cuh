// The scan of many tokens. A block has CHANNELS channels of a sequence and goes through its tokens tile by
// tile; while one half of it is at a tile, the other finishes the tile before and prepares the one after.
#pragma once

#include "recurrent.cuh"
#include "selecting.cuh"

template <typename T, int LANES>
__device__ __forceinline__ void selective_scan(const ScanArguments<T> &args) {
    constexpr int HALF = Shape<LANES>::HALF;
    __shared__ Shared<LANES> shared;
    const u32 blocks = (args.d_inner + CHANNELS - 1) / CHANNELS;
    const u32 sequence = blockIdx.x / blocks;
    const u32 first_channel = blockIdx.x % blocks * CHANNELS;
    const u32 tokens = tokens_of(args, sequence);
    const u32 groups = args.d_state == 0 ? 1 : (args.d_state + STATES - 1) / STATES;
    const u32 steps = (tokens + Shape<LANES>::TOKENS - 1) / Shape<LANES>::TOKENS * groups;
    // Whole warps are in either half.
    if (threadIdx.x < HALF) {
        if (steps == 0) return;
        Recurrent<T, LANES>(args, threadIdx.x, sequence, first_channel).run(shared, tokens, steps, groups);
    } else {
        Selecting<T, LANES> selecting(args, threadIdx.x - HALF, sequence, first_channel);
        if (steps != 0) selecting.run(shared, steps, groups);
        selecting.clear_rest();
    }
}
