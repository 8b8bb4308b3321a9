// What the SSD kernels are given, and which part of it a block works on.
#pragma once
#include "common.cuh"

// Sums of delta, [batch, heads]; null where not wanted.
struct Sums {
    double *delta_sum;
    double *kept_sum;
    u64 *kept;
};

// Token t of sequence s is row s * len + t of x, dt_raw, b, c and y.
template <typename T>
struct Ssd {
    Rows<const T> x;        // [heads * head_dim]
    Rows<const T> dt_raw;   // [heads]
    Rows<const T> b;        // [groups * d_state]
    Rows<const T> c;        // [groups * d_state]
    Rows<T> y;              // [heads * head_dim]
    float *state;           // [batch, heads, d_state, head_dim]
    const float *a;         // [heads]
    const float *d;         // [heads] or [heads, head_dim]; null: 0
    const float *dt_bias;   // [heads]; null: 0
    const float *delta_min; // [heads]; null: 0
    const u32 *lengths;     // [batch]; null: len
    // With one segment the sums themselves, which are added to, else [segments, batch, heads], which
    // are written.
    Sums sums;
    float *carries; // [segments, batch, heads, d_state, head_dim]: the state before each segment
    float *decays;  // [segments, batch, heads]: what a segment leaves of the state before it
    u64 len;
    u64 segment; // tokens of a segment, whole chunks
    Selection limits;
    u32 batch;
    u32 heads;
    u32 heads_per_group;
    u32 head_dim;
    u32 d_state;
    u32 d_per_element; // whether d has head_dim values for a head
    u32 segments;
    u32 padding;
};

// A sequence, a head, and `width` elements of head_dim from `p` on.
struct Place {
    u32 sequence;
    u32 head;
    u32 group;
    u32 p;
    u64 line;   // sequence * heads + head
    u64 row;    // of the sequence's first token
    u64 length; // tokens of the sequence

    // Of the block: the parts of all heads along x, the sequences along z.
    template <typename T>
    __device__ Place(const Ssd<T> &args, u32 width) {
        // Without elements there is still delta to be summed.
        u32 parts = args.head_dim > width ? (args.head_dim + width - 1) / width : 1;
        head = blockIdx.x / parts;
        p = blockIdx.x % parts * width;
        group = head / args.heads_per_group;
        sequence = blockIdx.z;
        line = (u64)sequence * args.heads + head;
        row = sequence * args.len;
        length = args.len;
        if (args.lengths && args.lengths[sequence] < length) length = args.lengths[sequence];
    }
};

// delta of one token before the mask, and whether the mask keeps it.
struct Token {
    float delta;
    bool kept;

    __device__ float masked() const { return kept ? delta : 0.0f; }
};

// The selection of one head.
struct Selector {
    float bias;
    float delta_min;
    Selection limits;

    template <typename T>
    __device__ Selector(const Ssd<T> &args, u32 head)
        : bias(args.dt_bias ? args.dt_bias[head] : 0.0f),
          delta_min(args.delta_min ? args.delta_min[head] : 0.0f), limits(args.limits) {}

    __device__ Token token(float dt_raw) const {
        float delta = select_delta(dt_raw, bias, limits);
        return {delta, keeps(delta, delta_min)};
    }
};

template <typename T>
__device__ __forceinline__ float skip_of(const Ssd<T> &args, u32 head, u32 p) {
    if (!args.d || p >= args.head_dim) return 0.0f;
    return args.d_per_element ? args.d[(u64)head * args.head_dim + p] : args.d[head];
}
