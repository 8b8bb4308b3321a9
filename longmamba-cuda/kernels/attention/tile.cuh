// Many queries: a block takes QUERIES neighbouring ones of a head, and goes over the keys that they see, or
// a share of them, KEYS at a time, with a running maximum and sum of each query's softmax (arXiv 1805.02867).
//
// Operations: 4 * head_dim a query, key and head, all in f32, which is the limit: 15 us for 10^9 of them at
// 67 TFLOP/s. A thread has 4 x 4 scores, and of the output 4 queries x 4 columns out of every 64. From shared memory it loads 8 times 16 bytes for 64 multiply-adds of the scores, and for those of the
// values 4 + head_dim / 16 times for head_dim: the two units are about equally busy.
// Keys and values come through the L2 cache: 8 * head_dim bytes a key serve QUERIES queries.
#pragma once
#include "args.cuh"

// Keys of a step; elements of a head that are in shared memory at a time, of the keys and of the values.
#define KEYS 64
#define CHUNK 64
// Values of a step in shared memory: with all KEYS the total would be beyond what a 7.5 has, 64 KiB.
#define VALUES 32
// Neighbouring rows lie 4 banks apart, so that 16 bytes of each of 8 rows take all banks once.
#define PAD 4

template <int QUERIES, int WIDTH>
struct Tile {
    float q[QUERIES][WIDTH + PAD];
    // Keys, later the weights of their values.
    float k[KEYS][CHUNK + PAD];
    float v[VALUES][CHUNK];
};

__device__ __forceinline__ float4 read4(const float *from) { return *reinterpret_cast<const float4 *>(from); }

__device__ __forceinline__ float dot(float4 a, float4 b, float sum) {
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

// Where from..to lies in the KEYS positions from `first` on, or in as many as `count`.
struct Part {
    u32 from, to;
    __device__ Part(Seen seen, u64 first, u32 count) {
        from = seen.from > first ? (u32)min(seen.from - first, (u64)count) : 0;
        to = seen.to > first ? (u32)min(seen.to - first, (u64)count) : 0;
    }
    __device__ bool has(u32 key) const { return key >= from && key < to; }
};

// CHUNK elements of ROWS heads that are `stride` apart, and of each the `width` that are left; zeros for the
// rest and for rows outside of `part`, because even a weight of zero would not hide a NaN.
template <int ROWS, int STRIDE, int THREADS>
__device__ __forceinline__ void load_rows(float *tile, const float *from, u64 stride, u32 width, Part part, bool aligned) {
    if (aligned) {
#pragma unroll 4
        for (u32 i = threadIdx.x; i < ROWS * CHUNK / 4; i += THREADS) {
            u32 r = i / (CHUNK / 4), d = i % (CHUNK / 4) * 4;
            float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (part.has(r) && d < width) x = read4(from + r * stride + d);
            *reinterpret_cast<float4 *>(tile + r * STRIDE + d) = x;
        }
    } else {
#pragma unroll 2
        for (u32 i = threadIdx.x; i < ROWS * CHUNK; i += THREADS) {
            u32 r = i / CHUNK, d = i % CHUNK;
            tile[r * STRIDE + d] = part.has(r) && d < width ? from[r * stride + d] : 0.0f;
        }
    }
}

// What the 16 threads of a query make of their values.
template <typename Join>
__device__ __forceinline__ float over_query(float x, Join join) {
    for (int lane = 8; lane > 0; lane /= 2) x = join(x, __shfl_xor_sync(0xffffffffu, x, lane));
    return x;
}

struct Larger {
    __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct Sum {
    __device__ float operator()(float a, float b) const { return a + b; }
};

// A thread's part of the work: 4 neighbouring queries from 4 * down on, keys across + 16 * j, and columns
// 4 * across .. + 4 out of every CHUNK of the values.
template <int QUERIES, int WIDTH>
struct Worker {
    typedef Tile<QUERIES, WIDTH> Shared;
    static constexpr int THREADS = 4 * QUERIES, CHUNKS = WIDTH / CHUNK;

    const Attention &a;
    Shared &shared;
    // The block's first query, and its heads.
    u64 row;
    u32 head, kv_head;
    u32 across, down;
    float sums[CHUNKS][4][4], maximum[4], total[4];

    __device__ __forceinline__ Worker(const Attention &a, Shared &shared) : a(a), shared(shared), sums() {
        // The last queries see most and come first.
        row = (u64)(gridDim.x - 1 - blockIdx.x) * QUERIES;
        head = blockIdx.y;
        kv_head = head / (a.heads / a.kv_heads);
        across = threadIdx.x % 16;
        down = threadIdx.x / 16;
        for (int i = 0; i < 4; i++) {
            maximum[i] = NOTHING;
            total[i] = 0.0f;
        }
    }

    __device__ __forceinline__ void load_queries() {
#pragma unroll 1
        for (u32 at = 0; at < WIDTH; at += CHUNK) {
            Part part({0, a.rows}, row, QUERIES);
            u32 width = at < a.head_dim ? a.head_dim - at : 0;
            const float *from = a.q.row(row) + head * a.head_dim + at;
            load_rows<QUERIES, WIDTH + PAD, THREADS>(&shared.q[0][at], from, a.q.stride, width, part, false);
        }
    }

    // scores = q . k, of the positions from `first` on.
    __device__ __forceinline__ void score(float (&scores)[4][4], Seen seen, u64 first, u64 stride, bool aligned) {
        const float *keys = keys_of(a, first, kv_head);
        Part part(seen, first, KEYS);
#pragma unroll 1
        for (u32 at = 0; at < a.head_dim; at += CHUNK) {
            u32 depth = min(CHUNK, a.head_dim - at);
            __syncthreads();
            load_rows<KEYS, CHUNK + PAD, THREADS>(&shared.k[0][0], keys + at, stride, depth, part, aligned);
            __syncthreads();
#pragma unroll 1
            for (u32 d = 0; d < depth; d += 4) {
                float4 q[4], k[4];
#pragma unroll
                for (int i = 0; i < 4; i++) q[i] = read4(&shared.q[4 * down + i][at + d]);
#pragma unroll
                for (int j = 0; j < 4; j++) k[j] = read4(&shared.k[across + 16 * j][d]);
#pragma unroll
                for (int i = 0; i < 4; i++)
#pragma unroll
                    for (int j = 0; j < 4; j++) scores[i][j] = dot(q[i], k[j], scores[i][j]);
            }
        }
    }

    // Makes weights of the scores, relative to the largest so far, and leaves them where the keys were;
    // what was summed before shrinks where that has grown.
    __device__ __forceinline__ void soften(float (&scores)[4][4], u64 first) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 4; i++) {
            Part sees(Seen::of(a, row + 4 * down + i), first, KEYS);
            float highest = maximum[i];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                scores[i][j] *= a.scale;
                if (sees.has(across + 16 * j)) highest = fmaxf(highest, scores[i][j]);
            }
            highest = over_query(highest, Larger());
            float less = shrink(maximum[i], highest);
            maximum[i] = highest;
            total[i] *= less;
#pragma unroll
            for (int c = 0; c < CHUNKS; c++)
#pragma unroll
                for (int e = 0; e < 4; e++) sums[c][i][e] *= less;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                float w = sees.has(across + 16 * j) ? weight(scores[i][j], highest) : 0.0f;
                // Each thread has the total of its own keys; they are added at the end.
                total[i] += w;
                shared.k[4 * down + i][across + 16 * j] = w;
            }
        }
    }

    // sums += weights . values
    __device__ __forceinline__ void add_values(Seen seen, u64 first, u64 stride, bool aligned) {
        const float *values = keys_of(a, first, kv_head) + to_values(a);
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            if (c * CHUNK >= a.head_dim) break;
#pragma unroll 1
            for (u32 half = 0; half < KEYS; half += VALUES) {
                const float *from = values + half * stride + c * CHUNK;
                Part part(seen, first + half, VALUES);
                load_rows<VALUES, CHUNK, THREADS>(&shared.v[0][0], from, stride, a.head_dim - c * CHUNK, part, aligned);
                __syncthreads();
#pragma unroll 1
                for (u32 key = 0; key < VALUES; key += 4) add_four(sums[c], half + key, key);
                __syncthreads();
            }
        }
    }

    // The values of four keys.
    __device__ __forceinline__ void add_four(float (&sums)[4][4], u32 key, u32 value) {
        float4 w[4];
#pragma unroll
        for (int i = 0; i < 4; i++) w[i] = read4(&shared.k[4 * down + i][key]);
#pragma unroll
        for (int e = 0; e < 4; e++) {
            float4 v = read4(&shared.v[value + e][4 * across]);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float x = e == 0 ? w[i].x : e == 1 ? w[i].y : e == 2 ? w[i].z : w[i].w;
                sums[i][0] = fmaf(x, v.x, sums[i][0]);
                sums[i][1] = fmaf(x, v.y, sums[i][1]);
                sums[i][2] = fmaf(x, v.z, sums[i][2]);
                sums[i][3] = fmaf(x, v.w, sums[i][3]);
            }
        }
    }

    // The output, or what this share of the keys gives to it.
    __device__ __forceinline__ void write(u32 split) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            u64 query = row + 4 * down + i, unit = query * a.heads + head;
            float all = over_query(total[i], Sum());
            if (query >= a.rows) continue;
            float *out = a.out.row(query) + head * a.head_dim;
            if (a.splits > 1) {
                out = a.sums + (unit * a.splits + split) * a.head_dim;
                if (across == 0) write_stats(a, unit, split, maximum[i], all);
            }
#pragma unroll
            for (int c = 0; c < CHUNKS; c++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    u32 d = c * CHUNK + 4 * across + e;
                    if (d < a.head_dim) out[d] = a.splits > 1 ? sums[c][i][e] : sums[c][i][e] / all;
                }
        }
    }
};

template <int QUERIES, int WIDTH>
__device__ __forceinline__ void tile(const Attention &a) {
    extern __shared__ float4 dynamic[];
    Worker<QUERIES, WIDTH> worker(a, *reinterpret_cast<Tile<QUERIES, WIDTH> *>(dynamic));
    worker.load_queries();
    u64 last = min(worker.row + QUERIES, a.rows) - 1, stride = (u64)a.kv_heads * a.head_dim;
    Seen seen = {Seen::of(a, worker.row).from, Seen::of(a, last).to};
    bool aligned = a.head_dim % 4 == 0;
    // Steps of KEYS positions, which divide the page; this block's share of them.
    u32 split = blockIdx.z;
    u64 step = seen.from / KEYS, steps = (seen.to + KEYS - 1) / KEYS - step;
    u64 end = step + steps * (split + 1) / a.splits;
    for (step += steps * split / a.splits; step < end; step++) {
        float scores[4][4] = {};
        worker.score(scores, seen, step * KEYS, stride, aligned);
        worker.soften(scores, step * KEYS);
        worker.add_values(seen, step * KEYS, stride, aligned);
    }
    worker.write(split);
}
