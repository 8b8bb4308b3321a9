// The next token of a row of logits: the most likely one, or one drawn.
//
// A block has a row. It is read again in every step, from the second one on out of the L2 cache: 200 KB for
// 50000 tokens, some 2 us a step. The most likely token takes one step. Drawing takes two and an exponential
// of each logit, each of top-k and top-p up to eleven more, and so does the draw itself; most tokens are
// below what is searched after the first of those, and cost a load and a comparison.
//
// Weights are whole numbers, of which all fit into 62 bits together. So their sums are exact and do not
// depend on the order, and one that is kept by top-k, top-p and min-p, which each keep the most likely so
// many, is known by its rank.
#include "sample/draw.cuh"

struct Argmax {
    Rows<const float> logits;
    u32 *tokens;
    u64 rows;
    u32 count;
    u32 unused;
};

extern "C" __global__ void __launch_bounds__(BLOCK) argmax(Argmax a) {
    __shared__ u64 shared[32];
    for (u64 row = blockIdx.x; row < a.rows; row += gridDim.x) {
        Best best = most_likely<false>(a.logits.row(row), a.count, shared);
        if (threadIdx.x == 0) a.tokens[row] = best.wrong ? NOT_A_NUMBER : best.token;
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK) sample(Sample a) {
    __shared__ u64 shared[32];
    for (u64 row = blockIdx.x; row < a.rows; row += gridDim.x) {
        u32 token = sample_row(a, a.logits.row(row), a.uniform[row], shared);
        if (threadIdx.x == 0) a.tokens[row] = token;
    }
}

struct Ban {
    Rows<float> logits;
    const u32 *banned;
    u64 rows, banned_count;
    u32 count;
    u32 unused;
};

// -inf, but not where a logit is no number or +inf: that is to be seen.
extern "C" __global__ void __launch_bounds__(256) ban(Ban a) {
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < a.rows * a.banned_count; i += step) {
        u32 token = a.banned[i % a.banned_count];
        if (token >= a.count) continue;
        float *logit = a.logits.row(i / a.banned_count) + token;
        if (*logit < __uint_as_float(0x7f800000u)) *logit = __uint_as_float(0xff800000u);
    }
}
