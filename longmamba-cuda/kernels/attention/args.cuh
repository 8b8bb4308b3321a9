// What the kernels of attention share.
#pragma once
#include "../position.cuh"

// Positions to a page.
#define KV_PAGE 256

#define NOTHING __uint_as_float(0xff800000u)  // -inf, the maximum of no scores

// Keys and values of a sequence, as the host keeps them up to date: the position of the first row, the
// number of pages, and the address of each: keys [KV_PAGE, kv_heads, head_dim], and values after them.
struct Pages {
    const u64 *table;
    __device__ u64 first() const { return table[0]; }
    __device__ bool hold(u64 position, u64 rows) const {
        u64 held = table[1] * KV_PAGE;
        return position >= first() && rows <= held && position - first() <= held - rows;
    }
    // `at` counts from the first row.
    __device__ float *page(u64 at) const { return reinterpret_cast<float *>(table[2 + at / KV_PAGE]); }
};

struct Attention {
    // [rows, heads * head_dim]
    Rows<const float> q;
    Rows<float> out;
    Pages pages;
    // Where the keys are divided among several blocks: what each has found, for `combine`.
    // [rows * heads, splits, head_dim], and [rows * heads, splits, 2]: the maximum and the total.
    float *sums, *stats;
    u64 rows;
    // Of the first query.
    Position position;
    // The same, counted from the first page's first row: `settle` finds it.
    u64 begin;
    u64 window;
    u32 heads, kv_heads, head_dim, splits;
    float scale;
    u32 unused;
};

// Comes before all else. `false` where the pages do not hold the queries' own positions: then there is
// nothing to do. The host has made sure of that for a launch, but not for its replays.
__device__ __forceinline__ bool settle(Attention &a) {
    u64 position = a.position.now();
    a.begin = position - a.pages.first();
    return a.pages.hold(position, a.rows);
}

// The positions that a query sees: from..to.
struct Seen {
    u64 from, to;
    __device__ static Seen of(const Attention &a, u64 row) {
        u64 to = a.begin + row + 1;
        return {to > a.window ? to - a.window : 0, to};
    }
};

__device__ __forceinline__ const float *keys_of(const Attention &a, u64 position, u32 kv_head) {
    return a.pages.page(position) + (position % KV_PAGE * a.kv_heads + kv_head) * a.head_dim;
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
