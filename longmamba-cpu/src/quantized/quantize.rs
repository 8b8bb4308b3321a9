//! From weights to codes and scales.

use super::{BLOCK, CHUNK, Quantization, rounded_up};
use crate::check;
use crate::dispatch::{Cpu, Divide, Kernel};
use crate::isa::{Isa, Pair};
use crate::widen::Weight;
use half::bf16;
use longmamba_core::View;

/// Rows that are worth a thread.
pub(super) const LEAST: usize = 16;

/// Weights are smaller than this, 2¹²⁷, so that no code times its scale overflows.
pub(super) const LIMIT: f32 = f32::from_bits(0x7f00_0000);

/// What a code is added to so that it is in the lowest bits of the sum, rounded to nearest: 1.5 · 2²³.
const MAGIC: f32 = 12_582_912.0;

/// The arguments of one thread: some of the rows.
pub(super) struct Quantize<'a, T> {
    cpu: Cpu,
    kind: Quantization,
    /// `[outputs, inputs]`, at least one input.
    w: View<'a, T, 2>,
    codes: &'a mut [u8],
    scales: &'a mut [Pair],
}

impl<'a, T: Weight> Quantize<'a, T> {
    pub(super) fn new(
        cpu: Cpu,
        kind: Quantization,
        w: View<'a, T, 2>,
        (codes, scales): (&'a mut [u8], &'a mut [Pair]),
    ) -> Self {
        Quantize { cpu, kind, w, codes, scales }
    }
}

impl<T: Weight> Divide for Quantize<'_, T> {
    fn units(&self) -> usize {
        self.w.shape()[0]
    }

    fn divide(self, at: usize) -> (Self, Self) {
        let Quantize { cpu, kind, w, .. } = self;
        let chunks = at * w.shape()[1].div_ceil(CHUNK);
        let (w, w_) = check::cut(w, 0, at);
        let (codes, codes_) = self.codes.split_at_mut(chunks * kind.chunk_bytes());
        let (scales, scales_) = self.scales.split_at_mut(chunks);
        (
            Quantize { cpu, kind, w, codes, scales },
            Quantize { cpu, kind, w: w_, codes: codes_, scales: scales_ },
        )
    }

    fn run(self) {
        self.cpu.call(self)
    }
}

impl<T: Weight> Kernel for Quantize<'_, T> {
    type Out = ();

    // Plain Rust, which the compiler makes vectors of for each instruction set: it is done once a model, and
    // must give the same everywhere.
    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let [outputs, inputs] = self.w.shape();
        let chunk_bytes = self.kind.chunk_bytes();
        let mut codes = self.codes.chunks_exact_mut(chunk_bytes);
        let mut scales = self.scales.iter_mut();
        for output in 0..outputs {
            let row = &self.w.row([output, 0])[..inputs];
            for chunk in row.chunks(CHUNK) {
                let mut values = [0.0; CHUNK];
                for (value, w) in values.iter_mut().zip(chunk) {
                    *value = w.to_f32();
                }
                let ([first, second], []) = values.as_chunks::<BLOCK>() else { continue };
                let (Some(codes), Some(scales)) = (codes.next(), scales.next()) else { continue };
                let (low, high) = codes.split_at_mut(BLOCK.min(chunk_bytes));
                match self.kind {
                    Quantization::Int8 => {
                        *scales = [int8(first, low), int8(second, high)];
                    }
                    Quantization::Int4 => {
                        let mut upper = [0; BLOCK];
                        *scales = [int4(first, low), int4(second, &mut upper)];
                        low.iter_mut().zip(upper).for_each(|(low, high)| *low |= high << 4);
                    }
                }
            }
        }
    }
}

/// The value of largest magnitude, the first of several; NaN where one is not below [`LIMIT`].
#[inline(always)]
fn largest(values: &[f32; BLOCK]) -> f32 {
    let size = |v: f32| v.to_bits() & 0x7fff_ffff;
    let most = values.iter().fold(0, |most, &v| size(v).max(most));
    if most >= LIMIT.to_bits() {
        return f32::NAN;
    }
    values.iter().copied().find(|&v| size(v) == most).unwrap_or(0.0)
}

/// Writes the codes of a block and returns its scale: NaN where a value is not below [`LIMIT`].
#[inline(always)]
fn int8(values: &[f32; BLOCK], codes: &mut [u8]) -> bf16 {
    let scale = rounded_up(largest(values).abs() / 127.0);
    let step = divisor(scale);
    for (code, value) in codes.iter_mut().zip(values) {
        *code = (value / step + MAGIC).to_bits() as u8;
    }
    scale
}

/// As [`int8`], with the lower four bits of codes, which have 8 added. Of the scales that make the largest value
/// -8 or 7 it takes the one with the smaller sum of squared errors.
#[inline(always)]
fn int4(values: &[f32; BLOCK], codes: &mut [u8]) -> bf16 {
    let largest = largest(values);
    // The sum makes a scale of -0 one of 0.
    let scales = [rounded_up(largest / -8.0 + 0.0), rounded_up(largest / 7.0 + 0.0)];
    let error = |scale: bf16| {
        let step = divisor(scale);
        values.iter().fold(0.0, |sum, value| {
            let ratio = value / step;
            let off = ratio - (rounded4(ratio) - MAGIC);
            sum + off * off * step * step
        })
    };
    let scale = if error(scales[1]) < error(scales[0]) { scales[1] } else { scales[0] };
    let step = divisor(scale);
    for (code, value) in codes.iter_mut().zip(values) {
        *code = ((rounded4(value / step) + 8.0).to_bits() & 15) as u8;
    }
    scale
}

/// A ratio as a code of four bits, [`MAGIC`] added.
#[inline(always)]
fn rounded4(ratio: f32) -> f32 {
    ratio.clamp(-8.0, 7.0) + MAGIC
}

/// What values are divided by: 1 in a block of zeros.
#[inline(always)]
fn divisor(scale: bf16) -> f32 {
    if scale == bf16::ZERO { 1.0 } else { scale.to_f32() }
}
