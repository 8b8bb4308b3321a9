//! A few rows: dot products along the weights' own rows, which are gone through once and in order, as
//! memory likes it.
//!
//! Every dot product is taken in the same order, whatever surrounds it: `CHAINS` chains of
//! multiply-adds over its vectors in turn, added at the end.

use super::operand::Operand;
use crate::check;
use crate::dispatch::{Block, Cpu, Divide, Kernel, parallel};
use crate::isa::Isa;
use crate::widen::Weight;
use longmamba_core::View;

/// Outputs to a unit of work.
const GROUP: usize = 8;

/// What an output costs beside its weights, in bytes that could be read meanwhile.
const OUTPUT: usize = 256;

/// Sums that a dot product goes to in turn, so that one multiply-add need not wait for the last.
const CHAINS: usize = 4;

/// The arguments of one thread: some of the outputs.
pub(super) struct Decode<'a, T, F> {
    cpu: Cpu,
    /// `[rows, inputs]`, as factors.
    x: View<'a, F, 2>,
    /// `[outputs, inputs]`
    w: View<'a, T, 2>,
    /// `[rows, outputs]`
    out: Block<'a, f32, 2>,
    accumulate: bool,
}

impl<'a, T: Weight, F: Operand<T>> Decode<'a, T, F> {
    /// Runs it on all threads.
    pub(super) fn run(
        cpu: Cpu,
        x: View<'a, F, 2>,
        w: View<'a, T, 2>,
        out: Block<'a, f32, 2>,
        accumulate: bool,
    ) {
        // The groups of outputs that are worth a thread: some 4 µs of reading weights.
        let least = (1usize << 17).div_ceil((w.shape()[1] * size_of::<T>() + OUTPUT) * GROUP);
        parallel(Decode { cpu, x, w, out, accumulate }, least);
    }
}

impl<T: Weight, F: Operand<T>> Divide for Decode<'_, T, F> {
    fn units(&self) -> usize {
        self.w.shape()[0].div_ceil(GROUP)
    }

    fn divide(self, at: usize) -> (Self, Self) {
        let Decode { cpu, x, accumulate, .. } = self;
        let (w, w_) = check::cut(self.w, 0, at * GROUP);
        let (out, out_) = self.out.split_at(1, at * GROUP);
        (Decode { cpu, x, w, out, accumulate }, Decode { cpu, x, w: w_, out: out_, accumulate })
    }

    fn run(self) {
        self.cpu.call(self)
    }
}

impl<T: Weight, F: Operand<T>> Kernel for Decode<'_, T, F> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let [rows, _] = self.x.shape();
        let [outputs, _] = self.w.shape();
        for o in 0..outputs {
            // The first rows of `x` bring the weights from memory, the others find them in the cache.
            let mut r = 0;
            while rows - r >= 4 {
                self.dots::<I, 4>(isa, r, o);
                r += 4;
            }
            if rows - r >= 2 {
                self.dots::<I, 2>(isa, r, o);
                r += 2;
            }
            if r < rows {
                self.dots::<I, 1>(isa, r, o);
            }
        }
    }
}

impl<T: Weight, F: Operand<T>> Decode<'_, T, F> {
    /// The dot products of `ROWS` rows of `x` with one row of `w`.
    #[inline(always)]
    fn dots<I: Isa, const ROWS: usize>(&mut self, isa: I, row: usize, output: usize) {
        let [_, depth] = self.x.shape();
        let [_, inputs] = self.w.shape();
        let mut xs: [&[F]; ROWS] = [&[]; ROWS];
        for (r, x) in xs.iter_mut().enumerate() {
            *x = &self.x.row([row + r, 0])[..depth];
        }
        let w = &self.w.row([output, 0])[..inputs];
        let mut sums = [[isa.zero(); CHAINS]; ROWS];
        let mut k = 0;
        while depth - k >= CHAINS * I::LANES {
            let mut chain = 0;
            while chain < CHAINS {
                let at = k + chain * I::LANES;
                let weights = F::load_weights(isa, &w[at * F::INPUTS..][..I::LANES * F::INPUTS]);
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
        for (r, sums) in sums.iter().enumerate() {
            let sum = isa.add(isa.add(sums[0], sums[1]), isa.add(sums[2], sums[3]));
            let sum = isa.reduce_sum(sum);
            let value = &mut self.out.row_mut([row + r, output], 1)[0];
            *value = if self.accumulate { *value + sum } else { sum };
        }
    }
}
