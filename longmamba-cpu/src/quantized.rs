//! Weights in 8 or 4 bits, with a scale for each block of neighbours.

mod quantize;

use crate::check;
use crate::dispatch::{Cpu, parallel};
use crate::isa::Pair;
use half::bf16;
use longmamba_core::{AlignedVec, AnyView, Error, Result};
use quantize::Quantize;

/// Neighbouring inputs that share a scale.
pub(crate) const BLOCK: usize = 32;

/// Inputs that are stored together: two blocks. Rows are padded to whole ones, with zeros.
pub(crate) const CHUNK: usize = 2 * BLOCK;

/// In how many bits a weight is kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Quantization {
    /// 8 bits: `scale · q` with q from -127 to 127. With its share of the scale a weight takes 8.5 bits.
    Int8,
    /// 4 bits: `scale · q` with q from -8 to 7. With its share of the scale a weight takes 4.5 bits.
    Int4,
}

impl Quantization {
    /// Bytes of the codes of a chunk.
    pub(crate) const fn chunk_bytes(self) -> usize {
        match self {
            Quantization::Int8 => CHUNK,
            Quantization::Int4 => CHUNK / 2,
        }
    }
}

/// A matrix of weights, `[outputs, inputs]`, as whole numbers times scales: one `bf16` scale for each 32
/// neighbouring inputs of a row.
///
/// A weight differs from what it was made of by at most half of its block's scale; in 4 bits by up to the
/// whole of it where it is nearly as large as the block's largest and of the other sign. The scale of a block is
/// about 1/127 of its largest weight in 8 bits, and between 1/8 and 1/7 in 4.
///
/// ```
/// use longmamba_core::{AnyView, View};
/// use longmamba_cpu::{Quantization, Quantized};
/// let weights = [0.5f32, -1.0, 0.25, 0.0];
/// let quantized = Quantized::new(Quantization::Int8, AnyView::F32(View::new(&weights, [1, 4])?))?;
/// let mut row = [0.0; 4];
/// quantized.row(0, &mut row);
/// assert!(weights.iter().zip(row).all(|(w, q)| (w - q).abs() <= 0.5 / 126.0));
/// # Ok::<(), longmamba_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Quantized {
    kind: Quantization,
    shape: [usize; 2],
    /// `[outputs, chunks, chunk_bytes]`. In 8 bits an input a byte, in two's complement. In 4 bits, plus 8, the
    /// first block of a chunk in the lower halves of the bytes, the second in the upper.
    codes: AlignedVec<u8>,
    /// `[outputs, chunks]`: the scales of both blocks.
    scales: AlignedVec<Pair>,
}

impl Quantized {
    /// Quantises `w` `[outputs, inputs]`, rows contiguous.
    ///
    /// # Errors
    /// [`Error::NotContiguous`]; [`Error::Value`] with tensor `w` for a weight that is NaN or not below 2¹²⁷.
    pub fn new(kind: Quantization, w: AnyView<'_, 2>) -> Result<Self> {
        let [outputs, inputs] = w.shape();
        let chunks = inputs.div_ceil(CHUNK);
        let mut codes = AlignedVec::zeros(outputs * chunks * kind.chunk_bytes());
        let mut scales = AlignedVec::zeros(outputs * chunks);
        match w {
            AnyView::F32(w) => check::rows("w", &w, [outputs, inputs])?,
            AnyView::F16(w) => check::rows("w", &w, [outputs, inputs])?,
            AnyView::BF16(w) => check::rows("w", &w, [outputs, inputs])?,
        }
        let (cpu, at) = (Cpu::new(), (&mut codes[..], &mut scales[..]));
        if inputs > 0 {
            match w {
                AnyView::F32(w) => parallel(Quantize::new(cpu, kind, w, at), quantize::LEAST),
                AnyView::F16(w) => parallel(Quantize::new(cpu, kind, w, at), quantize::LEAST),
                AnyView::BF16(w) => parallel(Quantize::new(cpu, kind, w, at), quantize::LEAST),
            }
        }
        let blocks = scales.as_flattened();
        if let Some(block) = blocks.iter().position(|scale| scale.is_nan()) {
            let (row, first) = (block / (2 * chunks), block % (2 * chunks) * BLOCK);
            let columns = first..inputs.min(first + BLOCK);
            for column in columns {
                let value = w.get([row, column]).map_or(f64::NAN, f64::from);
                if value.is_nan() || value.abs() >= f64::from(quantize::LIMIT) {
                    let (index, allowed) = (row * inputs + column, "below 2^127 in magnitude");
                    return Err(Error::Value { tensor: "w", index, value, allowed });
                }
            }
        }
        Ok(Quantized { kind, shape: [outputs, inputs], codes, scales })
    }

    /// The bits of a weight.
    pub fn kind(&self) -> Quantization {
        self.kind
    }

    /// `[outputs, inputs]`
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// What it takes in memory, scales included.
    pub fn bytes(&self) -> usize {
        self.codes.len() + size_of_val(&self.scales[..])
    }

    /// The weights of an output, `scale · q`.
    ///
    /// # Panics
    /// Where there is no row `output`, or `out` is not as long as a row.
    pub fn row(&self, output: usize, out: &mut [f32]) {
        let [outputs, inputs] = self.shape;
        assert!(output < outputs && out.len() == inputs, "row {output} of {outputs}");
        let (codes, scales) = self.rows(output);
        for (i, value) in out.iter_mut().enumerate() {
            let (chunk, within) = (i / CHUNK, i % CHUNK);
            let codes = &codes[chunk * self.kind.chunk_bytes()..];
            let code = match (self.kind, within / BLOCK) {
                (Quantization::Int8, _) => f32::from(codes[within] as i8),
                (Quantization::Int4, 0) => f32::from(codes[within] & 15) - 8.0,
                (Quantization::Int4, _) => f32::from(codes[within - BLOCK] >> 4) - 8.0,
            };
            *value = code * scales[chunk][within / BLOCK].to_f32();
        }
    }

    /// Chunks to a row.
    pub(crate) fn chunks(&self) -> usize {
        self.shape[1].div_ceil(CHUNK)
    }

    /// Codes and scales from row `output` on.
    pub(crate) fn rows(&self, output: usize) -> (&[u8], &[Pair]) {
        let first = output * self.chunks();
        (&self.codes[first * self.kind.chunk_bytes()..], &self.scales[first..])
    }
}

impl std::fmt::Debug for Quantized {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Quantized({:?}, {:?})", self.kind, self.shape)
    }
}

/// `scale` with the precision that scales are kept in, no smaller: codes stay in their range.
fn rounded_up(scale: f32) -> bf16 {
    bf16::from_bits((scale.to_bits().saturating_add(0xffff) >> 16) as u16)
}
