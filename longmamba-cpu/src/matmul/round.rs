//! x rounded to `bf16`, in pairs.

use crate::dispatch::{Cpu, Divide, Kernel};
use crate::isa::{Isa, Pair};
use longmamba_core::View;

/// The arguments of one thread: some of the rows.
pub(super) struct Round<'a> {
    pub(super) cpu: Cpu,
    /// `[rows, inputs]`
    pub(super) x: View<'a, f32, 2>,
    /// `[rows, pairs]`, `stride` apart; a last pair without a second ends in 0.
    pub(super) out: &'a mut [Pair],
    pub(super) pairs: usize,
    pub(super) stride: usize,
}

impl Round<'_> {
    /// The rows that are worth a thread: some 10 µs.
    pub(super) fn least_units(&self) -> usize {
        (1 << 17) / self.pairs
    }
}

impl Divide for Round<'_> {
    fn units(&self) -> usize {
        self.x.shape()[0]
    }

    fn divide(self, at: usize) -> (Self, Self) {
        let Round { cpu, x, pairs, stride, .. } = self;
        let (x, x_) = crate::check::cut(x, 0, at);
        let (out, out_) = self.out.split_at_mut(at * stride);
        (Round { cpu, x, out, pairs, stride }, Round { cpu, x: x_, out: out_, pairs, stride })
    }

    fn run(self) {
        self.cpu.call(self)
    }
}

impl Kernel for Round<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let [_, inputs] = self.x.shape();
        for (r, out) in self.out.chunks_exact_mut(self.stride).enumerate() {
            let x = &self.x.row([r, 0])[..inputs];
            let out = out[..self.pairs].as_flattened_mut();
            let mut k = 0;
            while k < out.len() {
                let end = out.len().min(k + I::LANES);
                isa.store_rounded(isa.load_at(x, k), &mut out[k..end]);
                k = end;
            }
        }
    }
}
