// The scan of Mamba-2, state-space duality (SSD).
//
// Two forms of it:
// - ssd/recurrent.cuh, token by token in f32: decoding, everything that is to be exact, and devices without
//   16-bit tensor cores of this shape.
// - ssd/chunks.cuh, chunks of 64 tokens as products of matrices; ssd/segments.cuh lets several parts of a
//   sequence go at once.
//
// Counted for 2.7b (80 heads of 64, d_state 128, one group), per head and chunk:
// - 752 products of the tensor cores, 3.1 MFLOP: 160 for the scores G = C B^T, 256 to read the state, 80 for
//   the chunk's own tokens, 256 to renew the state; 1200 clocks of a multiprocessor of an H100.
// - 2400 clocks of shared memory, which is the limit: 1100 for the fragments of B and C that each of the four
//   warps reads, 640 for those of the scores, 320 for the scores and x, 400 to fill the tiles.
// - 2000 clocks to issue some 2000 instructions of each warp, a quarter of them to weigh the scores.
// - 40 KiB from L2 (f32: 80) and 8 KiB of y.
// At 2048 tokens, 132 multiprocessors and 1.7 GHz that is 27 us, and 35 with segments, against 13 us for x
// and y in 16 bits at 3.3 TB/s.
//
// G is the same for all heads of a group. To compute it for each head is a quarter of the work; to compute it
// once would be another launch, and 8 KiB more to read per head and chunk. The state never leaves the
// registers: written after each chunk, as it usually is, it would be 32 KiB a head and chunk, four times x
// and y together.
//
// Parallel: heads * segments blocks of 128 threads; three of them run at once on a multiprocessor (158
// registers, 53 KiB of shared memory), four for 64 states. Segments cost the renewal of the state once more,
// and a pass over one state a segment. Their number follows from the device and not from len, and so does
// the scratch memory.
#include "ssd/chunks.cuh"
#include "ssd/recurrent.cuh"
#include "ssd/segments.cuh"

struct AddSums {
    Sums parts;
    Sums sums;
    u64 lines;
    u32 segments;
    u32 padding;
};

extern "C" __global__ void __launch_bounds__(256) ssd_carry(const Ssd<float> args) { carry_states(args); }

extern "C" __global__ void __launch_bounds__(256) ssd_add_sums(const AddSums args) {
    add_sums(args.parts, args.sums, args.lines, args.segments);
}

#define RECURRENT(NAME, T)                                                                              \
    extern "C" __global__ void __launch_bounds__(256) ssd_recurrent_n128_##NAME(const Ssd<T> args) {    \
        recurrent<T, 16>(args);                                                                         \
    }                                                                                                   \
    extern "C" __global__ void __launch_bounds__(256) ssd_recurrent_n256_##NAME(const Ssd<T> args) {    \
        recurrent<T, 32>(args);                                                                         \
    }
RECURRENT(f32, float)
RECURRENT(f16, f16)
RECURRENT(bf16, bf16)

#if __CUDA_ARCH__ >= 800
#define CHUNKED(NAME, T, STATES, BLOCKS)                                                           \
    extern "C" __global__ void __launch_bounds__(CHUNK_THREADS, BLOCKS)                            \
        ssd_scan_n##STATES##_##NAME(const Ssd<T> args) {                                           \
        scan_segment<T, STATES>(args);                                                             \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(CHUNK_THREADS, BLOCKS)                            \
        ssd_segment_n##STATES##_##NAME(const Ssd<T> args) {                                        \
        end_of_segment<T, STATES>(args);                                                           \
    }
CHUNKED(f32, float, 64, 4)
CHUNKED(f16, f16, 64, 4)
CHUNKED(bf16, bf16, 64, 4)
CHUNKED(f32, float, 128, 3)
CHUNKED(f16, f16, 128, 3)
CHUNKED(bf16, bf16, 128, 3)
#endif
