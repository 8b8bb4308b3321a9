// The selective scan of Mamba-1. For token t, channel c, state n:
//
//     delta[t,c] = clamp(softplus(dt_raw[t,c] + dt_bias[c])), 0 where it is <= delta_min[c]
//     h[t,c,n]   = exp(delta[t,c] * A[c,n]) * h[t-1,c,n] + delta[t,c] * B[t,n] * x[t,c]
//     y[t,c]     = (sum over n of C[t,n] * h[t,c,n] + D[c] * x[t,c]) * silu(z[t,c])
//
// One pass over memory: x, dt_raw and z are read once and y is written once, 8 bytes a token and channel in
// 16 bits; B and C are read once for 16 channels, another 64 bytes / 16 at 16 states, from the second-level
// cache; nothing grows with the length. A row of a block is one sector of 32 bytes.
//
// What limits it, at 16 states, per token and channel, on a processor of an H100:
//   * 16 exponentials, and 4 more for softplus and the gate, at 16 a clock: 1.25 clocks.
//   * Instructions, as assembled for sm_90: 120 of the recurrence (148 with 8 threads a channel) and 95 for
//     all else, at 128 a clock: 1.7 clocks (1.9).
//   * Memory: 8 bytes at 3.35 TB/s for 132 processors at 1.7 GHz: 0.54 clocks.
// So it is the issue of instructions: at best 130e9 tokens * channels a second, a third of the memory's speed.
// Exponentials by polynomials would relieve the wrong pipe: 10 instructions each.
//
// The time loop is not cut into segments that run beside each other: that costs one more multiply-add for
// every state, and a scan across the segments. Instead the states of a channel are spread over 4 or 8
// threads. For 4 or 8 tokens a thread has 16 independent exponentials, and its chain of multiply-adds is as
// long as there are tokens, so that a few warps keep a processor at work.
//   * selective_scan_8: for 16 channels 4 warps, one for each part of a processor, and 4 that deal with the
//     tokens. For few channels: 1536 of one sequence are 96 blocks, on 96 of 132 processors, each with 2 warps
//     a part.
//   * selective_scan_4: 2 and 2 warps; a load of delta serves twice the states. From 4 blocks a processor on.
//     Of either, 16 warps fit on a processor, with 128 registers a thread.
//   * selective_step: one token. Reads and writes the state, 8 bytes a channel and state, which is all there
//     is to it.
#include "scan/pipeline.cuh"
#include "scan/step.cuh"

#define SCAN(T, SUFFIX)                                                                           \
    extern "C" __global__ __launch_bounds__(Shape<4>::THREADS, 4) void selective_scan_4_##SUFFIX( \
        const __grid_constant__ ScanArguments<T> args) {                                          \
        selective_scan<T, 4>(args);                                                               \
    }                                                                                             \
    extern "C" __global__ __launch_bounds__(Shape<8>::THREADS, 2) void selective_scan_8_##SUFFIX( \
        const __grid_constant__ ScanArguments<T> args) {                                          \
        selective_scan<T, 8>(args);                                                               \
    }                                                                                             \
    extern "C" __global__ __launch_bounds__(32 * WARPS) void selective_step_##SUFFIX(             \
        const __grid_constant__ ScanArguments<T> args) {                                          \
        selective_step<T>(args);                                                                  \
    }

SCAN(float, f32)
SCAN(f16, f16)
SCAN(bf16, bf16)
