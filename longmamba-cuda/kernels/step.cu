// One token of each of up to 8 sequences through the scans of both families, with the stages beside them that
// need no other block: but for the large weights a kernel of a decode step moves next to nothing, and takes as
// long as it takes to begin and end one. So there are to be few. Launches a layer, of one sequence or of 8:
//
//     Mamba-1, 7 or 21:  norm, in_proj, conv (each sequence) | x_proj | dt_proj, scan (each) | out_proj    -> 4
//     Falcon-Mamba:      three norms more in front of dt_proj                                              -> 4
//     Mamba-2, 6 or 20:  norm, in_proj, conv (each) | scan (each), gate and norm | out_proj                -> 3
//
// where | is what stays apart, because what follows needs all channels: normed.cu is the first kernel of either
// and the last of Mamba-2, here are selective_step_projected and ssd_step_gated. x_proj could only join the scan
// if every block computed all of it: its weight (1.3 MB of mamba-1.4b in bf16) for each 32 channels.
//
// selective_step_projected: bytes of mamba-1.4b in bf16: state both ways and A 0.8 MB, dt_proj's weight 1 MB, once
// for each sequence, of which all but the first come from L2. 0.5 us at 3.35 TB/s: 128 blocks of 512 threads, one
// for each multiprocessor of 132, so their way through latencies counts. The state is asked for first, a warp then
// makes two of the block's 32 deltas, and one barrier later the recurrence goes on as in selective_step.
//
// ssd_step_gated: the state of mamba2-1.3b both ways 4 MB, 1.3 us, and nothing else of size. The gate is here and
// not in front of out_proj: there each of 1024 blocks would need all 4096 of it, 4.7 us of exponentials.
#include "step/scan.cuh"
#include "step/ssd.cuh"

#define SELECTIVE(TYPE, T)                                                                         \
    extern "C" __global__ void __launch_bounds__(32 * WARPS) selective_step_projected_##TYPE(      \
        const __grid_constant__ SelectiveStep a) {                                                 \
        selective_step<T>(a);                                                                      \
    }

SELECTIVE(f32, float)
SELECTIVE(f16, f16)
SELECTIVE(bf16, bf16)

#define SSD(STATES, ROWS)                                                                          \
    extern "C" __global__ void __launch_bounds__(32 * RECURRENT_WARPS) ssd_step_gated_n##STATES(   \
        const __grid_constant__ SsdStep a) {                                                       \
        ssd_step<ROWS>(a);                                                                         \
    }

SSD(128, 16)
SSD(256, 32)
