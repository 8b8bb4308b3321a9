//! What x and the weights enter a product as.

use crate::dispatch::Scratched;
use crate::isa::tile::{Factor, tile_columns};
use crate::isa::{Isa, Pair};
use crate::widen::Weight;
use half::bf16;

/// A factor that weights of type `T` can be given as: `f32` by widening, pairs as they are.
pub(super) trait Operand<T: Weight>: Factor + Scratched {
    /// Inputs in one of them.
    const INPUTS: usize;

    /// The first `LANES` of a row of weights.
    ///
    /// # Panics
    /// Where the row is shorter.
    fn load_weights<I: Isa>(isa: I, row: &[T]) -> Self::Vector<I>;

    /// All of a row of weights, of at most `LANES` factors; the other lanes are zero.
    ///
    /// # Panics
    /// Where the row is longer.
    fn load_weights_part<I: Isa>(isa: I, row: &[T]) -> Self::Vector<I>;

    /// Writes the factors of `rows` rows of `inputs` inputs each, at most `LANES` by `LANES` factors, side by
    /// side: `panel[k · columns + j]` is factor k of row j. Zeros up to whole vectors.
    fn fill<I: Isa>(
        isa: I,
        weights: &[T],
        stride: usize,
        rows: usize,
        inputs: usize,
        panel: &mut [Self],
    );
}

impl<T: Weight> Operand<T> for f32 {
    const INPUTS: usize = 1;

    #[inline(always)]
    fn load_weights<I: Isa>(isa: I, row: &[T]) -> I::V {
        T::load(isa, row)
    }
    #[inline(always)]
    fn load_weights_part<I: Isa>(isa: I, row: &[T]) -> I::V {
        T::load_part(isa, row)
    }
    #[inline(always)]
    fn fill<I: Isa>(
        isa: I,
        weights: &[T],
        stride: usize,
        rows: usize,
        inputs: usize,
        panel: &mut [f32],
    ) {
        let columns = const { tile_columns::<I>() };
        match T::floats(weights) {
            Some(floats) if rows == I::LANES && inputs == I::LANES => {
                isa.transpose(floats, stride, panel, columns);
            }
            _ => {
                let mut square = [0.0; 16 * 16];
                for i in 0..rows {
                    let row = &weights[i * stride..][..inputs];
                    let v =
                        if inputs == I::LANES { T::load(isa, row) } else { T::load_part(isa, row) };
                    isa.store(v, &mut square[i * I::LANES..]);
                }
                isa.transpose(&square, I::LANES, panel, columns);
            }
        }
    }
}

impl Operand<bf16> for Pair {
    const INPUTS: usize = 2;

    #[inline(always)]
    fn load_weights<I: Isa>(isa: I, row: &[bf16]) -> I::P {
        Pair::load(isa, row.as_chunks().0)
    }
    #[inline(always)]
    fn load_weights_part<I: Isa>(isa: I, row: &[bf16]) -> I::P {
        isa.load_pairs_part(row)
    }
    #[inline(always)]
    fn fill<I: Isa>(
        isa: I,
        weights: &[bf16],
        stride: usize,
        rows: usize,
        inputs: usize,
        panel: &mut [Pair],
    ) {
        let columns = const { tile_columns::<I>() };
        if rows == I::LANES && inputs == 2 * I::LANES && stride.is_multiple_of(2) {
            // The last row's end is the last that is needed, and it is even.
            let end = (rows - 1) * stride + inputs;
            isa.transpose(weights[..end].as_chunks().0, stride / 2, panel, columns);
            return;
        }
        let mut square = [Pair::ZERO; 16 * 16];
        for (i, square) in square.chunks_exact_mut(I::LANES).enumerate().take(rows) {
            let row = &weights[i * stride..][..inputs];
            square.as_flattened_mut()[..inputs].copy_from_slice(row);
        }
        isa.transpose(&square, I::LANES, panel, columns);
    }
}
