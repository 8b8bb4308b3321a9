// What the kernels of attention share.
#pragma once
#include "../common.cuh"

// Positions to a page.
#define KV_PAGE 256

#define NOTHING __uint_as_float(0xff800000u)  // -inf, the maximum of no scores

struct Attention {
    // [rows, heads * head_dim]
    Rows<const float> q;
    Rows<float> out;
    // The address of each page: keys [KV_PAGE, kv_heads, head_dim], and values after them.
    const u64 *pages;
    // Where the keys are divided among several blocks: what each has found, for `combine`.
    // [rows * heads, splits, head_dim], and [rows * heads, splits, 2]: the maximum and the total.
    float *sums, *stats;
    u64 rows;
    // Of the first query, counted from the first page's first row.
    u64 position;
    u64 window;
    u32 heads, kv_heads, head_dim, splits;
    float scale;
    u32 unused;
};

// The positions that a query sees: from..to.
struct Seen {
    u64 from, to;
    __device__ static Seen of(const Attention &a, u64 row) {
        u64 to = a.position + row + 1;
        return {to > a.window ? to - a.window : 0, to};
    }
};

__device__ __forceinline__ const float *keys_of(const Attention &a, u64 position, u32 kv_head) {
    const float *page = reinterpret_cast<const float *>(a.pages[position / KV_PAGE]);
    return page + (position % KV_PAGE * a.kv_heads + kv_head) * a.head_dim;
}

// From a key to its value.
__device__ __forceinline__ u64 to_values(const Attention &a) { return (u64)KV_PAGE * a.kv_heads * a.head_dim; }

// exp(score - maximum). Not more than 1, except that a NaN stays one.
__device__ __forceinline__ float weight(float score, float maximum) {
    float x = score - maximum;
    // exp_fast would make a NaN of -inf.
    return exp_fast(x < -126.0f ? -126.0f : x);
}

// What earlier sums are to be multiplied with when the maximum has risen.
__device__ __forceinline__ float shrink(float before, float maximum) {
    return maximum > before ? weight(before, maximum) : 1.0f;
}

__device__ __forceinline__ void write_stats(const Attention &a, u64 unit, u32 split, float maximum, float total) {
    float *to = a.stats + (unit * a.splits + split) * 2;
    to[0] = maximum;
    to[1] = total;
}
