//! A few rows: dot products along the weights' own rows.
//!
//! Every dot product is taken in the same order, whatever surrounds it: one chain of multiply-adds
//! over its vectors, whose lanes are added at the end. Eight chains run at a time, which is what it
//! takes to keep two multiply-adds of four cycles' latency busy.

use crate::check;
use crate::dispatch::{Block, Cpu, Divide, Kernel};
use crate::isa::Isa;
use crate::widen::Weight;
use longmamba_core::View;

/// Outputs that are computed side by side.
const GROUP: usize = 8;

/// The arguments of one thread: some of the outputs.
pub(super) struct Decode<'a, T> {
    pub(super) cpu: Cpu,
    /// `[rows, inputs]`
    pub(super) x: View<'a, f32, 2>,
    /// `[outputs, inputs]`
    pub(super) w: View<'a, T, 2>,
    /// `[rows, outputs]`
    pub(super) out: Block<'a, f32, 2>,
    pub(super) accumulate: bool,
}

/// The groups of outputs that are worth a thread: some 20 µs of reading weights.
pub(super) fn least_units(inputs: usize) -> usize {
    ((1 << 17) / (inputs * GROUP)).max(1)
}

impl<T: Weight> Divide for Decode<'_, T> {
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

impl<T: Weight> Kernel for Decode<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let [rows, _] = self.x.shape();
        let [outputs, _] = self.w.shape();
        let mut o = 0;
        while outputs - o >= GROUP {
            // The first rows of `x` bring the group from memory, the others find it in the cache.
            let mut r = 0;
            while rows - r >= 2 {
                self.dots::<I, 2, 4>(isa, r, o);
                self.dots::<I, 2, 4>(isa, r, o + 4);
                r += 2;
            }
            if r < rows {
                self.dots::<I, 1, GROUP>(isa, r, o);
            }
            o += GROUP;
        }
        while o < outputs {
            for r in 0..rows {
                self.dots::<I, 1, 1>(isa, r, o);
            }
            o += 1;
        }
    }
}

impl<T: Weight> Decode<'_, T> {
    /// The dot products of `ROWS` rows of `x` and `OUTPUTS` rows of `w`.
    #[inline(always)]
    fn dots<I: Isa, const ROWS: usize, const OUTPUTS: usize>(
        &mut self,
        isa: I,
        row: usize,
        output: usize,
    ) {
        let [_, inputs] = self.x.shape();
        let mut xs: [&[f32]; ROWS] = [&[]; ROWS];
        for (r, x) in xs.iter_mut().enumerate() {
            *x = &self.x.row([row + r, 0])[..inputs];
        }
        let mut ws: [&[T]; OUTPUTS] = [&[]; OUTPUTS];
        for (o, w) in ws.iter_mut().enumerate() {
            *w = &self.w.row([output + o, 0])[..inputs];
        }
        let mut sums = [[isa.zero(); OUTPUTS]; ROWS];
        let mut k = 0;
        // The processor's own prefetching starts anew at each row, and short rows end before it has
        // found its pace: the next rows are asked for while these are read.
        let ahead = OUTPUTS * self.w.layout().strides()[0];
        while inputs - k >= 2 * I::LANES {
            for w in ws {
                isa.prefetch(w.as_ptr().wrapping_add(ahead + k));
            }
            step(isa, &xs, &ws, k, &mut sums);
            step(isa, &xs, &ws, k + I::LANES, &mut sums);
            k += 2 * I::LANES;
        }
        if inputs - k >= I::LANES {
            step(isa, &xs, &ws, k, &mut sums);
            k += I::LANES;
        }
        if k < inputs {
            for (sums, x) in sums.iter_mut().zip(xs) {
                let x = isa.load_part(&x[k..]);
                for (sum, w) in sums.iter_mut().zip(ws) {
                    *sum = isa.fma(x, T::load_part(isa, &w[k..]), *sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            let line = self.out.row_mut([row + r, output], OUTPUTS);
            for (value, &sum) in line.iter_mut().zip(sums) {
                let sum = isa.reduce_sum(sum);
                *value = if self.accumulate { *value + sum } else { sum };
            }
        }
    }
}

/// One vector of every row, from input `k` on.
#[inline(always)]
fn step<I: Isa, T: Weight, const ROWS: usize, const OUTPUTS: usize>(
    isa: I,
    xs: &[&[f32]; ROWS],
    ws: &[&[T]; OUTPUTS],
    k: usize,
    sums: &mut [[I::V; OUTPUTS]; ROWS],
) {
    let mut part = [isa.zero(); ROWS];
    for (part, x) in part.iter_mut().zip(xs) {
        *part = isa.load(&x[k..k + I::LANES]);
    }
    for (o, w) in ws.iter().enumerate() {
        let weight = T::load(isa, &w[k..k + I::LANES]);
        for (sums, &x) in sums.iter_mut().zip(&part) {
            sums[o] = isa.fma(weight, x, sums[o]);
        }
    }
}
