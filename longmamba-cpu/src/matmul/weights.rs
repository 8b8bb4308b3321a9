//! Where the weights of a product come from: what [`decode`](super::decode) and [`prefill`](super::prefill) ask
//! of them, and weights that lie in memory as they are.

use super::operand::Operand;
use crate::check;
use crate::dispatch::Block;
use crate::isa::tile::{Add, Coming, Factor, Left, Meets, tile_columns};
use crate::isa::{Isa, LINE_BYTES};
use crate::widen::Weight;
use longmamba_core::View;

/// Sums that a dot product goes to in turn, so that one multiply-add need not wait for the last.
const CHAINS: usize = 4;

/// A matrix of weights, `[outputs, inputs]`.
pub(super) trait Weights: Copy + Send + Sync {
    /// Rows.
    fn outputs(&self) -> usize;
    /// Columns.
    fn inputs(&self) -> usize;
    /// What is read of a row.
    fn row_bytes(&self) -> usize;
    /// The outputs before and from `at` on.
    fn cut(self, at: usize) -> (Self, Self);
}

/// Weights along which dot products with factors `F` are taken.
pub(super) trait Dots<F: Factor>: Weights {
    /// The dot products of row `output` with some rows of x, all of the weights' length, in factors. Each is
    /// taken in the same order, whatever is beside it: a few chains of multiply-adds over its vectors in turn,
    /// added at the end.
    fn dots<I: Isa, const ROWS: usize>(
        self,
        isa: I,
        output: usize,
        xs: [&[F]; ROWS],
    ) -> [f32; ROWS];
}

/// Some of the weights, at most a panel and a stretch of it.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// The first output.
    pub(super) output: usize,
    /// How many outputs.
    pub(super) count: usize,
    /// The first factor of each.
    pub(super) first: usize,
    /// How many factors.
    pub(super) len: usize,
}

impl Part {
    /// The same part, of floats, in pairs: it begins with a vector's lanes, whose number is even.
    #[inline(always)]
    pub(super) fn pairs(self) -> Part {
        Part { first: self.first / 2, len: self.len.div_ceil(2), ..self }
    }
}

/// Weights that come in panels of factors `F`.
pub(super) trait Panels<F: Factor>: Weights {
    /// Whether panels are there and need no room: work can then be cut into small pieces.
    const READY: bool = false;

    /// Outputs of a panel.
    fn columns<I: Isa>(&self) -> usize {
        const { tile_columns::<I>() }
    }

    /// A part of the weights: element `k · columns + j` is factor `first + k` of output `output + j`. Zeros up to whole
    /// vectors. `first` is a multiple of `LANES`. `room` is for panels that are made anew.
    fn panel<'p, I: Isa>(&'p self, isa: I, room: &'p mut [F], part: Part) -> &'p [F];

    /// What is read for the panel after this part.
    fn coming(&self, part: Part) -> Coming {
        let _ = part;
        Coming::NOTHING
    }

    /// What [`panel`](Panels::panel) gives, and for how many of the first rows the product with it was taken on the way. If
    /// that is all of them, there may be no panel.
    #[inline(always)]
    fn begin<'p, I: Isa, L: Meets<F>>(
        &'p self,
        isa: I,
        room: &'p mut [F],
        left: Left<'_, L>,
        part: Part,
        out: &mut Block<'_, f32, 2>,
        ending: Add,
    ) -> (usize, &'p [F]) {
        let _ = (left, out, ending);
        (0, self.panel(isa, room, part))
    }
}

/// Weights as they are.
#[derive(Clone, Copy)]
pub(super) struct Dense<'a, T>(pub(super) View<'a, T, 2>);

impl<T: Weight> Weights for Dense<'_, T> {
    fn outputs(&self) -> usize {
        self.0.shape()[0]
    }
    fn inputs(&self) -> usize {
        self.0.shape()[1]
    }
    fn row_bytes(&self) -> usize {
        self.inputs() * size_of::<T>()
    }
    fn cut(self, at: usize) -> (Self, Self) {
        let (before, after) = check::cut(self.0, 0, at);
        (Dense(before), Dense(after))
    }
}

impl<T: Weight, F: Operand<T>> Dots<F> for Dense<'_, T> {
    #[inline(always)]
    fn dots<I: Isa, const ROWS: usize>(
        self,
        isa: I,
        output: usize,
        xs: [&[F]; ROWS],
    ) -> [f32; ROWS] {
        let [_, inputs] = self.0.shape();
        let w = &self.0.row([output, 0])[..inputs];
        let depth = inputs.div_ceil(F::INPUTS);
        let mut sums = [[isa.zero(); CHAINS]; ROWS];
        let mut k = 0;
        while depth - k >= CHAINS * I::LANES {
            let mut chain = 0;
            while chain < CHAINS {
                let at = k + chain * I::LANES;
                let weights = &w[at * F::INPUTS..][..I::LANES * F::INPUTS];
                if (chain * size_of_val(weights)).is_multiple_of(LINE_BYTES) {
                    isa.ask_ahead(weights.as_ptr());
                }
                let weights = F::load_weights(isa, weights);
                for (sums, x) in sums.iter_mut().zip(&xs) {
                    let x = F::load(isa, &x[at..at + I::LANES]);
                    sums[chain] = F::multiply_add(isa, weights, x, sums[chain]);
                }
                chain += 1;
            }
            k += CHAINS * I::LANES;
        }
        let mut chain = 0;
        while k < depth {
            let end = depth.min(k + I::LANES);
            let weights = &w[k * F::INPUTS..inputs.min(end * F::INPUTS)];
            let weights = if weights.len() == I::LANES * F::INPUTS {
                F::load_weights(isa, weights)
            } else {
                F::load_weights_part(isa, weights)
            };
            for (sums, x) in sums.iter_mut().zip(&xs) {
                let x = F::load_part(isa, &x[k..end]);
                sums[chain] = F::multiply_add(isa, weights, x, sums[chain]);
            }
            k = end;
            chain += 1;
        }
        let mut totals = [0.0; ROWS];
        for (total, sums) in totals.iter_mut().zip(&sums) {
            let sum = isa.add(isa.add(sums[0], sums[1]), isa.add(sums[2], sums[3]));
            *total = isa.reduce_sum(sum);
        }
        totals
    }
}

impl<T: Weight, F: Operand<T>> Panels<F> for Dense<'_, T> {
    #[inline(always)]
    fn panel<'p, I: Isa>(
        &'p self,
        isa: I,
        panel: &'p mut [F],
        Part { output, count, first, len }: Part,
    ) -> &'p [F] {
        let w = self.0;
        let columns = const { tile_columns::<I>() };
        let (stride, [_, inputs]) = (w.layout().strides()[0], w.shape());
        let first = first * F::INPUTS;
        let end = inputs.min(first + len * F::INPUTS);
        for j in (0..count).step_by(I::LANES) {
            let rows = I::LANES.min(count - j);
            for (k, at) in (first..end).step_by(I::LANES * F::INPUTS).enumerate() {
                let inputs = (end - at).min(I::LANES * F::INPUTS);
                let weights = &w.data()[(output + j) * stride + at..];
                let panel = &mut panel[k * I::LANES * columns + j..];
                F::fill(isa, weights, stride, rows, inputs, panel);
            }
        }
        panel
    }
}
