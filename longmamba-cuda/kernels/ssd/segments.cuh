// Where there are too few heads to fill the device, the tokens are cut into segments that are scanned side
// by side. Before that: what each segment would leave behind had its state been zero, and then, element by
// element, the state before each segment.
#pragma once
#include "ssd/state.cuh"

// The state before each segment. Before: carries[i + 1] is what segment i leaves of a state of zero.
__device__ __forceinline__ void carry_states(const Ssd<float> &args) {
    const u64 size = (u64)args.d_state * args.head_dim, lines = (u64)args.batch * args.heads;
    const u64 element = (u64)blockIdx.x * blockDim.x + threadIdx.x, elements = lines * size;
    if (element >= elements) return;
    const u64 line = element / size;
    float h = args.state[element];
    args.carries[element] = h;
#pragma unroll 4
    for (u32 i = 1; i < args.segments; ++i) {
        float *carry = &args.carries[i * elements + element];
        h = fmaf(args.decays[(i - 1) * lines + line], h, *carry);
        *carry = h;
    }
}

// Adds the sums of the segments, which are given in the place of carries; in their order.
__device__ __forceinline__ void add_sums(const Sums &parts, const Sums &sums, u64 lines, u32 segments) {
    const u64 line = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (line >= lines) return;
    for (u32 i = 0; i < segments; ++i) {
        sums.delta_sum[line] += parts.delta_sum[i * lines + line];
        sums.kept_sum[line] += parts.kept_sum[i * lines + line];
        sums.kept[line] += parts.kept[i * lines + line];
    }
}

#if __CUDA_ARCH__ >= 800

template <int STATES>
struct SegmentShared {
    Tile<STATES> b;
    Inputs x;
    Decay decay;
};

// What segment blockIdx.y leaves of a state of zero, to carries[blockIdx.y + 1]; and its decay.
template <typename T, int STATES>
__device__ void end_of_segment(const Ssd<T> &args) {
    using O = typename OperandOf<T>::Type;
    __shared__ __align__(16) SegmentShared<STATES> shared;
    const Place at(args, CHUNK_WIDTH);
    const u32 warp = threadIdx.x / 32, slice = warp * SLICE, p = at.p + slice;
    const u32 d_state = args.d_state, head_dim = args.head_dim;
    const u64 column = (u64)at.head * head_dim + at.p, states = (u64)at.group * d_state;
    const u64 first = blockIdx.y * args.segment, end = min(first + args.segment, at.length);
    const u64 size = (u64)d_state * head_dim, lines = (u64)args.batch * args.heads;

    State<STATES, O> state;
    float left = 1.0f; // of a state before the segment
    Count count;       // the scan counts
#pragma unroll 1
    for (u64 token = first; token < end; token += CHUNK) {
        const u32 tokens = min((u64)CHUNK, at.length - token);
        const u64 row = at.row + token;
        shared.x.fill(args.x.row(row) + column, args.x.stride, tokens, min(head_dim - at.p, CHUNK_WIDTH));
        shared.b.fill(args.b.row(row) + states, args.b.stride, tokens, d_state);
        if (warp == 0) shared.decay.find(args, at, row, tokens, count);
        finish_copies();
        __syncthreads();
        left *= shared.decay.whole;
        if (p < head_dim) state.advance(shared.b, shared.x, shared.decay, slice);
        __syncthreads();
    }
    state.store(args.carries + ((blockIdx.y + 1) * lines + at.line) * size, p, d_state, head_dim);
    if (at.p == 0 && threadIdx.x == 0) args.decays[blockIdx.y * lines + at.line] = left;
}

#endif
