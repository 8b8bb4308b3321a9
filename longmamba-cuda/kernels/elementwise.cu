// Gate, residual, embedding, delta and rounding: memory traffic with little arithmetic.
//
// Bytes per element: copy 8, accumulate 12, gate 12, delta 8, rounding 6, embedding 4 and what an
// entry of the table takes. The gates need some 20 (SiLU) and 40 (GELU) instructions an element, where 3.35 TB/s of 12 bytes
// each leave room for 100 on 132 multiprocessors: memory is the limit. A thread moves 16 bytes of each
// operand, so that a full multiprocessor has 32 KiB a stream on its way, of which 15 would do.
//
// Each kernel comes for four columns a thread, where everything is aligned to that, and for one.
#include "plane.cuh"

struct Copy {
    Rows<const float> x;
    Rows<float> out;
    u64 rows, width;
};

template <int V, bool ACCUMULATE>
struct Copied {
    Copy a;
    __device__ __forceinline__ void operator()(u64 row, u64 column) const {
        float *to = a.out.row(row) + column;
        Pack<float, V> x = load<V>(a.x.row(row) + column);
        if (ACCUMULATE) {
            Pack<float, V> sum = load<V>(to);
            for (int i = 0; i < V; i++) x.at[i] += sum.at[i];
        }
        store(to, x);
    }
};

struct Gate {
    Rows<const float> y, z;
    Rows<float> out;
    u64 rows, width;
};

struct Silu {
    __device__ static float of(float z) { return silu(z); }
};

// z * Phi(z), with the normal distribution's own Phi, to some 2 ulp also where z is very negative.
struct Gelu {
    __device__ static float of(float z) { return z * normcdff(z); }
};

template <int V, typename Activation>
struct Gated {
    Gate a;
    __device__ __forceinline__ void operator()(u64 row, u64 column) const {
        Pack<float, V> y = load<V>(a.y.row(row) + column), z = load<V>(a.z.row(row) + column);
        for (int i = 0; i < V; i++) y.at[i] *= Activation::of(z.at[i]);
        store(a.out.row(row) + column, y);
    }
};

struct Delta {
    Rows<const float> dt_raw;
    // [width], or null.
    const float *bias;
    Rows<float> out;
    Selection limits;
    u64 rows, width;
};

template <int V>
struct Selected {
    Delta a;
    __device__ __forceinline__ void operator()(u64 row, u64 column) const {
        Pack<float, V> x = load<V>(a.dt_raw.row(row) + column), bias = {};
        if (a.bias) bias = load<V>(a.bias + column);
        for (int i = 0; i < V; i++) x.at[i] = select_delta(x.at[i], bias.at[i], a.limits);
        store(a.out.row(row) + column, x);
    }
};

template <typename T>
struct Gather {
    Rows<const T> table;
    const u32 *tokens;
    Rows<float> out;
    u64 entries, rows, width;
};

template <int V, typename T>
struct Gathered {
    Gather<T> a;
    __device__ __forceinline__ void operator()(u64 row, u64 column) const {
        u32 token = a.tokens[row];
        Pack<float, V> out;
        // The host checks its tokens; those that a kernel drew may be marks of an error.
        for (int i = 0; i < V; i++) out.at[i] = __uint_as_float(0x7fffffffu);
        if (token < a.entries) {
            Pack<T, V> entry = load<V>(a.table.row(token) + column);
            for (int i = 0; i < V; i++) out.at[i] = widen(entry.at[i]);
        }
        store(a.out.row(row) + column, out);
    }
};

template <typename T>
struct Narrow {
    Rows<const float> x;
    Rows<T> out;
    u64 rows, width;
};

template <int V, typename T>
struct Narrowed {
    Narrow<T> a;
    __device__ __forceinline__ void operator()(u64 row, u64 column) const {
        Pack<float, V> x = load<V>(a.x.row(row) + column);
        Pack<T, V> out;
        for (int i = 0; i < V; i++) out.at[i] = narrow<T>(x.at[i]);
        store(a.out.row(row) + column, out);
    }
};

// NAME_4 and NAME_1: WORK<4, ..> and WORK<1, ..> over the plane.
#define KERNEL(NAME, ARGUMENTS, V, ...)                                   \
    extern "C" __global__ void __launch_bounds__(256) NAME(ARGUMENTS a) { \
        over_plane<V>(a.rows, a.width, __VA_ARGS__{a});                   \
    }
#define KERNELS(NAME, ARGUMENTS, WORK, ...)                       \
    KERNEL(NAME##_4, ARGUMENTS, 4, WORK<4, ##__VA_ARGS__>)        \
    KERNEL(NAME##_1, ARGUMENTS, 1, WORK<1, ##__VA_ARGS__>)

KERNELS(copy_rows, Copy, Copied, false)
KERNELS(add_rows, Copy, Copied, true)
KERNELS(gate_silu, Gate, Gated, Silu)
KERNELS(gate_gelu, Gate, Gated, Gelu)
KERNELS(delta_rows, Delta, Selected)
KERNELS(gather_rows_f32, Gather<float>, Gathered, float)
KERNELS(gather_rows_f16, Gather<f16>, Gathered, f16)
KERNELS(gather_rows_bf16, Gather<bf16>, Gathered, bf16)
KERNELS(narrow_rows_f16, Narrow<f16>, Narrowed, f16)
KERNELS(narrow_rows_bf16, Narrow<bf16>, Narrowed, bf16)
