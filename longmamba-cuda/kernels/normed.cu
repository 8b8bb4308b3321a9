// A few rows through a norm and a matrix product in one launch: what every layer of a decode step begins with,
// and, after Mamba-2's scan, ends with. Of those outputs that are channels of the causal convolution, the new
// input goes on through that.
//
//     out[r,o] = sum over groups g of scale[r,g] * (sum over i in g of x[r,i] * norm[i] * weight[o,i]) + bias[o]
//     scale[r,g] = 1 / sqrt(mean of x[r,i]^2 over i in g + eps)
//
// A scale is a factor of a whole sum. So nothing waits for it: every warp squares the x that it multiplies, and
// the scale comes in when the warps' sums are put together. That is also why the norm costs no barrier.
//
// Counted for one row and bf16. The limit is the weight's way from memory, as of few_rows; its bytes are read
// once: in_proj of mamba-130m 4.7 MB, 1.4 us at 3.35 TB/s; of mamba-1.4b 34 MB, of mamba2-1.3b 35 MB, of
// zamba2-1.2b 34 MB, all 10 us. For 8 bytes of it a lane takes 16 of x and 16 of the norm's weight from L1, so 56
// beside its own 14 of the 128 bytes a clock that a multiprocessor gives there; and 19 instructions instead of 10,
// 2.8 of the 10 us. Of 8 rows it is 221 instructions for four outputs instead of 156, 8.1 of the 10 us. What is
// saved: the launch of the norm and those of the convolution, one a sequence, which move next to nothing and take
// as long as it takes to begin and end a kernel.
//
// The convolution's history is read and written by the thread that has the channel's new input: of each of its
// rows a block has 4 or 8 neighbours, half a sector of 32 bytes or a whole one.
#include "matmul/normed.cuh"

#define NORMED_ROWS(NAME, BLOCKS, ...)                                   \
    extern "C" __global__ void __launch_bounds__(32 * FEW_WARPS, BLOCKS) \
        NAME(const __grid_constant__ NormedMatmul a) {                   \
        normed_rows<__VA_ARGS__>(a);                                     \
    }

// As few_rows, but of 8 rows: their squares take the registers of half the weight that is on its way there.
#define NORMED(TYPE, T)                                            \
    NORMED_ROWS(normed_rows_##TYPE##_1, 4, T, 1, 1, 8 / sizeof(T)) \
    NORMED_ROWS(normed_rows_##TYPE##_2, 4, T, 2, 1, 8 / sizeof(T)) \
    NORMED_ROWS(normed_rows_##TYPE##_4, 2, T, 4, 2, 8 / sizeof(T)) \
    NORMED_ROWS(normed_rows_##TYPE##_8, 2, T, 8, 4, 1)

NORMED(f32, float)
NORMED(f16, f16)
NORMED(bf16, bf16)
