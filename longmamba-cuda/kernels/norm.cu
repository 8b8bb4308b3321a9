// RMS norm, layer norm, and Mamba-2's gated norm: a block to each group of neighbouring columns, which in
// the first two is the whole row.
//
// Bytes per element: 8, of the gated norm 12; the weight stays in the L2 cache. Memory is the limit. A
// group of up to 16 columns a thread (8192 at most, 2048 where it is not aligned) is read once and waits
// in registers for its sum; what is beyond that is read a second time.
#include "block.cuh"
#include "plane.cuh"

// Packs of columns that a thread keeps.
#define KEPT 4

struct Norm {
    // What is normalised: x, and if z is there, x * silu(z).
    Rows<const float> x, z;
    // [width]; the bias of a layer norm only.
    const float *weight, *bias;
    Rows<float> out;
    // width is groups * group.
    u64 rows, groups, group;
    float eps;
    u32 unused;
};

struct Plain {
    static constexpr bool gated = false, centred = false;
};
struct Layer {
    static constexpr bool gated = false, centred = true;
};
struct Gated {
    static constexpr bool gated = true, centred = false;
};

// The mean in two parts: what f32 holds of it, and the rest. Where it is large beside the distances from
// it, its last digit weighs as much as they do.
struct Mean {
    float high, rest;
    __device__ __forceinline__ float distance(float x) const { return x - high - rest; }
};

// One group: where it begins in each operand.
template <int V, typename Kind>
struct Group {
    const float *x, *z, *weight, *bias;
    float *out;

    __device__ Group(const Norm &a, u64 unit) {
        u64 row = unit / a.groups, column = unit % a.groups * a.group;
        x = a.x.row(row) + column;
        z = a.z.row(row) + column;
        weight = a.weight + column;
        bias = a.bias + column;
        out = a.out.row(row) + column;
    }

    __device__ __forceinline__ Pack<float, V> read(u64 at) const {
        Pack<float, V> value = load<V>(x + at);
        if (Kind::gated) {
            Pack<float, V> gate = load<V>(z + at);
            for (int i = 0; i < V; i++) value.at[i] *= silu(gate.at[i]);
        }
        return value;
    }

    __device__ __forceinline__ void write(u64 at, Pack<float, V> value, Mean mean, float scale) const {
        Pack<float, V> w = load<V>(weight + at), b = {};
        if (Kind::centred) b = load<V>(bias + at);
        for (int i = 0; i < V; i++) {
            float normed = mean.distance(value.at[i]) * scale;
            value.at[i] = Kind::centred ? fmaf(normed, w.at[i], b.at[i]) : normed * w.at[i];
        }
        store(out + at, value);
    }
};

// The sum over the group of each column's distance from the mean, or of its square.
template <int V, bool SQUARES>
__device__ __forceinline__ float add(float sum, Pack<float, V> value, Mean mean) {
    for (int i = 0; i < V; i++) {
        float x = mean.distance(value.at[i]);
        sum = SQUARES ? fmaf(x, x, sum) : sum + x;
    }
    return sum;
}

template <int V, typename Kind, bool SQUARES>
__device__ __forceinline__ float
sum_over(const Group<V, Kind> &group, const Pack<float, V> *kept, u64 width, u64 rest, Mean mean, float *shared) {
    float sum = 0.0f;
    u64 first = threadIdx.x * V, step = blockDim.x * V;
#pragma unroll
    for (int k = 0; k < KEPT; k++)
        if (first + k * step < width) sum = add<V, SQUARES>(sum, kept[k], mean);
    for (u64 at = rest; at < width; at += step) sum = add<V, SQUARES>(sum, group.read(at), mean);
    return block_sum(sum, shared);
}

template <int V, typename Kind>
__device__ __forceinline__ void norm(const Norm &a) {
    __shared__ float shared[32];
    u64 first = threadIdx.x * V, step = blockDim.x * V, rest = first + KEPT * step;
    for (u64 unit = blockIdx.x; unit < a.rows * a.groups; unit += gridDim.x) {
        Group<V, Kind> group(a, unit);
        Pack<float, V> kept[KEPT];
#pragma unroll
        for (int k = 0; k < KEPT; k++)
            if (first + k * step < a.group) kept[k] = group.read(first + k * step);
        Mean mean = {0.0f, 0.0f};
        float width = (float)a.group;
        if (Kind::centred) {
            mean.high = sum_over<V, Kind, false>(group, kept, a.group, rest, mean, shared) / width;
            mean.rest = sum_over<V, Kind, false>(group, kept, a.group, rest, mean, shared) / width;
        }
        float squares = sum_over<V, Kind, true>(group, kept, a.group, rest, mean, shared);
        float scale = 1.0f / sqrtf(squares / width + a.eps);
#pragma unroll
        for (int k = 0; k < KEPT; k++)
            if (first + k * step < a.group) group.write(first + k * step, kept[k], mean, scale);
        for (u64 at = rest; at < a.group; at += step) group.write(at, group.read(at), mean, scale);
    }
}

#define KERNELS(NAME, KIND)                                                                             \
    extern "C" __global__ void __launch_bounds__(512) NAME##_4(Norm a) { norm<4, KIND>(a); } \
    extern "C" __global__ void __launch_bounds__(512) NAME##_1(Norm a) { norm<1, KIND>(a); }

KERNELS(rms_norm, Plain)
KERNELS(layer_norm, Layer)
KERNELS(gated_rms_norm, Gated)
