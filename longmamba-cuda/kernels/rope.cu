// Rotary position embedding, in place (arXiv 2104.09864).
//
// Bytes per rotated element: 8. The sine and cosine of an angle, some 40 instructions of which 4 are f64,
// serve all heads of a row that a thread has: memory is the limit. Frequencies come from the host: they
// are rounded step by step as the models' own code rounds, and far out a unit in the last place of one is
// an angle that can be felt.
#include "position.cuh"

#define PAIRS 64

struct Rope {
    Rows<float> x;
    u64 rows, heads, head_dim;
    // Of the first row.
    Position position;
    // Of the pairs from `first` on, `count` of them.
    float frequency[PAIRS];
    u32 count, first;
    // Between the two elements of a pair, and between pairs.
    u32 apart, step;
};

// Sine and cosine within 1 ulp, for 0 <= angle < 2^40: what is left of the angle after multiples of pi/2 is
// exact to f32, because they are taken off in f64 and in two steps.
__device__ __forceinline__ void sine_cosine(float angle, float *sine, float *cosine) {
    double turns = rint((double)angle * 0.63661977236758134);
    double left = fma(turns, -1.5707963267948966, (double)angle);
    float r = (float)fma(turns, -6.123233995736766e-17, left);
    u32 quadrant = (u32)(i64)turns & 3;
    float r2 = r * r;
    // (sin r - r) / r^3 and (cos r - 1) / r^2 on [-pi/4, pi/4], fitted at Chebyshev's nodes.
    float s = fmaf(fmaf(fmaf(2.7249896e-6f, r2, -1.9840087e-4f), r2, 8.33333191e-3f), r2, -1.66666672e-1f);
    float c = fmaf(fmaf(fmaf(2.4463754e-5f, r2, -1.38875889e-3f), r2, 4.16666493e-2f), r2, -0.5f);
    s = fmaf(r * r2, s, r);
    c = fmaf(r2, c, 1.0f);
    bool swap = quadrant & 1;
    float a = swap ? c : s, b = swap ? s : c;
    *sine = quadrant & 2 ? -a : a;
    *cosine = (quadrant + 1) & 2 ? -b : b;
}

#define ANGLES 1099511627776.0f

// Threads: pairs side by side, then heads. grid.x goes over rows, grid.y over heads.
extern "C" __global__ void __launch_bounds__(256) rope(Rope a) {
    u32 pair = threadIdx.x;
    if (pair >= a.count) return;
    u64 position = a.position.now();
    for (u64 row = blockIdx.x; row < a.rows; row += gridDim.x) {
        float sine, cosine, angle = (float)(position + row) * a.frequency[pair];
        // The host refuses these, but cannot where a launch is replayed.
        if (!(angle < ANGLES)) angle = __uint_as_float(0x7fc00000u);
        sine_cosine(angle, &sine, &cosine);
        float *pairs = a.x.row(row) + (u64)(a.first + pair) * a.step;
        u64 head_step = (u64)gridDim.y * blockDim.y;
        for (u64 head = (u64)blockIdx.y * blockDim.y + threadIdx.y; head < a.heads; head += head_step) {
            float *at = pairs + head * a.head_dim;
            float u = at[0], v = at[a.apart];
            at[0] = u * cosine - v * sine;
            at[a.apart] = v * cosine + u * sine;
        }
    }
}
