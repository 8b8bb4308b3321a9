//! A few rows: dot products along the weights' own rows, which are gone through once and in order, as
//! memory likes it.

use super::weights::Dots;
use crate::dispatch::{Block, Cpu, Divide, Kernel, parallel};
use crate::isa::Isa;
use crate::isa::tile::Factor;
use longmamba_core::View;

/// Outputs to a unit of work.
const GROUP: usize = 8;

/// What an output costs beside its weights, in bytes that could be read meanwhile.
const OUTPUT: usize = 256;

/// The arguments of one thread: some of the outputs.
pub(super) struct Decode<'a, W, F> {
    cpu: Cpu,
    /// `[rows, inputs]`, as factors.
    x: View<'a, F, 2>,
    /// `[outputs, inputs]`
    w: W,
    /// `[rows, outputs]`
    out: Block<'a, f32, 2>,
    accumulate: bool,
}

impl<'a, W: Dots<F>, F: Factor> Decode<'a, W, F> {
    /// Runs it on all threads.
    pub(super) fn run(cpu: Cpu, x: View<'a, F, 2>, w: W, out: Block<'a, f32, 2>, accumulate: bool) {
        // The groups of outputs that are worth a thread: some 4 µs of reading weights.
        let least = (1usize << 17).div_ceil((w.row_bytes() + OUTPUT) * GROUP);
        parallel(Decode { cpu, x, w, out, accumulate }, least);
    }
}

impl<W: Dots<F>, F: Factor> Divide for Decode<'_, W, F> {
    fn units(&self) -> usize {
        self.w.outputs().div_ceil(GROUP)
    }

    fn divide(self, at: usize) -> (Self, Self) {
        let Decode { cpu, x, accumulate, .. } = self;
        let (w, w_) = self.w.cut(at * GROUP);
        let (out, out_) = self.out.split_at(1, at * GROUP);
        (Decode { cpu, x, w, out, accumulate }, Decode { cpu, x, w: w_, out: out_, accumulate })
    }

    fn run(self) {
        self.cpu.call(self)
    }
}

impl<W: Dots<F>, F: Factor> Kernel for Decode<'_, W, F> {
    type Out = ();
    const PAIRS: bool = F::PAIRS;

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let [rows, _] = self.x.shape();
        let outputs = self.w.outputs();
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

impl<W: Dots<F>, F: Factor> Decode<'_, W, F> {
    /// The dot products of `ROWS` rows of `x` with one row of `w`.
    #[inline(always)]
    fn dots<I: Isa, const ROWS: usize>(&mut self, isa: I, row: usize, output: usize) {
        let [_, depth] = self.x.shape();
        let mut xs: [&[F]; ROWS] = [&[]; ROWS];
        for (r, x) in xs.iter_mut().enumerate() {
            *x = &self.x.row([row + r, 0])[..depth];
        }
        for (r, sum) in self.w.dots(isa, output, xs).into_iter().enumerate() {
            let value = &mut self.out.row_mut([row + r, output], 1)[0];
            *value = if self.accumulate { *value + sum } else { sum };
        }
    }
}
