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
        tile<QUERIES, WIDTH>(a);                                                                           \
    }

TILE(64, 64, 2)
TILE(64, 128, 2)
TILE(32, 256, 3)

#define DECODE(HEADS, WIDTH, KEYS)                                                                     \
    extern "C" __global__ void __launch_bounds__(32 * DECODE_WARPS)                                    \
        attention_decode_##WIDTH##_##HEADS(Attention a) {                                              \
        decode<HEADS, WIDTH / 32, KEYS>(a);                                                            \
    }

DECODE(1, 64, 8)
DECODE(1, 128, 4)
DECODE(1, 256, 2)
DECODE(4, 64, 8)
DECODE(4, 128, 4)
DECODE(4, 256, 2)

extern "C" __global__ void __launch_bounds__(256) attention_combine(Attention a) { combine(a); }

struct Fill {
    Rows<const float> keys, values;
    // The row of a page that the first goes to.
    Rows<float> page;
    // From a key to its value.
    u64 to_values;
    u64 rows, width;
};

template <int V>
struct Filled {
    Fill a;
    __device__ __forceinline__ void operator()(u64 row, u64 column) const {
        float *to = a.page.row(row) + column;
        store(to, load<V>(a.keys.row(row) + column));
        store(to + a.to_values, load<V>(a.values.row(row) + column));
    }
};

extern "C" __global__ void __launch_bounds__(256) fill_page_4(Fill a) { over_plane<4>(a.rows, a.width, Filled<4>{a}); }
extern "C" __global__ void __launch_bounds__(256) fill_page_1(Fill a) { over_plane<1>(a.rows, a.width, Filled<1>{a}); }
