// Causal softmax attention over keys and values in pages, and what fills the pages.
//
// Many queries: attention/tile.cuh. Few: attention/decode.cuh. Where those would leave multiprocessors
// without work, several blocks share the keys of a query, and attention/combine.cuh puts together what they
// found.
#include "attention/combine.cuh"
#include "attention/decode.cuh"
#include "attention/tile.cuh"
#include "plane.cuh"

// QUERIES x 4 threads; a second block fits beside each but the widest.
#define TILE(QUERIES, WIDTH, BLOCKS)                                                                       \
    extern "C" __global__ void __launch_bounds__(4 * QUERIES, BLOCKS) attention_tile_##WIDTH(Attention a) { \
        if (settle(a)) tile<QUERIES, WIDTH>(a);                                                            \
    }

TILE(64, 64, 2)
TILE(64, 128, 2)
TILE(32, 256, 3)

#define DECODE(HEADS, WIDTH, KEYS)                                                                     \
    extern "C" __global__ void __launch_bounds__(32 * DECODE_WARPS)                                    \
        attention_decode_##WIDTH##_##HEADS(Attention a) {                                              \
        if (settle(a)) decode<HEADS, WIDTH / 32, KEYS>(a);                                             \
    }

DECODE(1, 64, 8)
DECODE(1, 128, 4)
DECODE(1, 256, 2)
DECODE(4, 64, 8)
DECODE(4, 128, 4)
DECODE(4, 256, 2)

extern "C" __global__ void __launch_bounds__(256) attention_combine(Attention a) {
    if (settle(a)) combine(a);
}

struct Fill {
    Rows<const float> keys, values;
    Pages pages;
    // Of the first row.
    Position position;
    // From a key to its value.
    u64 to_values;
    u64 rows, width;
};

template <int V>
struct Filled {
    Fill a;
    // Of the first row, counted from the first page's first row.
    u64 begin;
    __device__ __forceinline__ void operator()(u64 row, u64 column) const {
        u64 at = begin + row;
        float *to = a.pages.page(at) + at % KV_PAGE * a.width + column;
        store(to, load<V>(a.keys.row(row) + column));
        store(to + a.to_values, load<V>(a.values.row(row) + column));
    }
};

// As for attention, a replay may find its rows outside of the pages.
template <int V>
__device__ __forceinline__ void fill(const Fill &a) {
    u64 position = a.position.now();
    if (a.pages.hold(position, a.rows)) over_plane<V>(a.rows, a.width, Filled<V>{a, position - a.pages.first()});
}

extern "C" __global__ void __launch_bounds__(256) fill_pages_4(Fill a) { fill<4>(a); }
extern "C" __global__ void __launch_bounds__(256) fill_pages_1(Fill a) { fill<1>(a); }
