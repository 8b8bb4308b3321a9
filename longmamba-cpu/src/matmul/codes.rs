//! Quantised weights in a product.
//!
//! Few rows: the codes of a block are widened and multiplied with x as they are; the block's sums, a vector,
//! are multiplied by its scale when they are added to the others. Many rows: panels of the weights themselves,
//! `scale · q`.

use super::weights::{Dots, Panels, Part, Weights};
use crate::isa::tile::{Factor, tile_columns};
use crate::isa::{Isa, Pair};
use crate::quantized::{BLOCK, CHUNK, Quantization, Quantized};
use half::bf16;

/// How codes are packed.
trait Coding {
    /// Bytes of a chunk.
    const BYTES: usize;

    /// Codes `at..at + LANES` of both blocks of a chunk.
    fn load<I: Isa>(isa: I, chunk: &[u8], at: usize) -> [I::V; 2];
}

/// A byte each.
struct Int8;

impl Coding for Int8 {
    const BYTES: usize = Quantization::Int8.chunk_bytes();

    #[inline(always)]
    fn load<I: Isa>(isa: I, chunk: &[u8], at: usize) -> [I::V; 2] {
        [isa.load_i8(&chunk[at..][..I::LANES]), isa.load_i8(&chunk[BLOCK + at..][..I::LANES])]
    }
}

/// Half a byte each.
struct Int4;

impl Coding for Int4 {
    const BYTES: usize = Quantization::Int4.chunk_bytes();

    #[inline(always)]
    fn load<I: Isa>(isa: I, chunk: &[u8], at: usize) -> [I::V; 2] {
        isa.load_nibbles(&chunk[at..][..I::LANES])
    }
}

/// Some rows of quantised weights.
#[derive(Clone, Copy)]
pub(super) struct Codes<'a> {
    kind: Quantization,
    outputs: usize,
    inputs: usize,
    /// `[outputs, chunks, chunk_bytes]`, or more
    codes: &'a [u8],
    /// `[outputs, chunks]`, or more
    scales: &'a [Pair],
}

impl<'a> Codes<'a> {
    /// All of `quantized`.
    pub(super) fn new(quantized: &'a Quantized) -> Self {
        let [outputs, inputs] = quantized.shape();
        let (codes, scales) = quantized.rows(0);
        Codes { kind: quantized.kind(), outputs, inputs, codes, scales }
    }

    /// Codes and scales of a row, by chunks.
    #[inline(always)]
    fn row(self, output: usize) -> (&'a [u8], &'a [Pair]) {
        let chunks = self.inputs.div_ceil(CHUNK);
        let bytes = chunks * self.kind.chunk_bytes();
        (&self.codes[output * bytes..][..bytes], &self.scales[output * chunks..][..chunks])
    }
}

impl Weights for Codes<'_> {
    fn outputs(&self) -> usize {
        self.outputs
    }
    fn inputs(&self) -> usize {
        self.inputs
    }
    fn row_bytes(&self) -> usize {
        self.inputs.div_ceil(CHUNK) * (self.kind.chunk_bytes() + size_of::<Pair>())
    }
    fn cut(self, at: usize) -> (Self, Self) {
        let chunks = at * self.inputs.div_ceil(CHUNK);
        let (codes, scales) =
            (&self.codes[chunks * self.kind.chunk_bytes()..], &self.scales[chunks..]);
        (Codes { outputs: at, ..self }, Codes { outputs: self.outputs - at, codes, scales, ..self })
    }
}

/// A scale in every lane.
#[inline(always)]
fn splat<I: Isa>(isa: I, scale: bf16) -> I::V {
    isa.splat(f32::from_bits(u32::from(scale.to_bits()) << 16))
}

impl Dots<f32> for Codes<'_> {
    #[inline(always)]
    fn dots<I: Isa, const ROWS: usize>(
        self,
        isa: I,
        output: usize,
        xs: [&[f32]; ROWS],
    ) -> [f32; ROWS] {
        match self.kind {
            Quantization::Int8 => self.dots_of::<I, Int8, ROWS>(isa, output, xs),
            Quantization::Int4 => self.dots_of::<I, Int4, ROWS>(isa, output, xs),
        }
    }
}

impl Codes<'_> {
    /// [`Dots::dots`] of weights that are coded so.
    #[inline(always)]
    fn dots_of<I: Isa, C: Coding, const ROWS: usize>(
        self,
        isa: I,
        output: usize,
        xs: [&[f32]; ROWS],
    ) -> [f32; ROWS] {
        let (codes, scales) = self.row(output);
        let whole = self.inputs / CHUNK;
        let mut sums = [[isa.zero(); 2]; ROWS];
        let mut chunk = 0;
        while chunk < whole {
            let codes = &codes[chunk * C::BYTES..][..C::BYTES];
            isa.ask_ahead(codes.as_ptr());
            let mut parts = [[isa.zero(); 2]; ROWS];
            add_chunk::<I, C, ROWS>(isa, codes, &xs, chunk * CHUNK, &mut parts);
            scale_parts(isa, scales[chunk], &parts, &mut sums);
            chunk += 1;
        }
        if whole < scales.len() {
            // The rest of x, with zeros behind it.
            let mut rest = [[0.0; CHUNK]; ROWS];
            let mut ends: [&[f32]; ROWS] = [&[]; ROWS];
            for ((end, rest), x) in ends.iter_mut().zip(&mut rest).zip(&xs) {
                let x = &x[whole * CHUNK..self.inputs];
                rest[..x.len()].copy_from_slice(x);
                *end = rest;
            }
            let mut parts = [[isa.zero(); 2]; ROWS];
            add_chunk::<I, C, ROWS>(
                isa,
                &codes[whole * C::BYTES..][..C::BYTES],
                &ends,
                0,
                &mut parts,
            );
            scale_parts(isa, scales[whole], &parts, &mut sums);
        }
        total(isa, &sums)
    }
}

/// Codes of 4 bits, for x in pairs: both are exact in `bf16`, so that one instruction takes 32 of them.
#[derive(Clone, Copy)]
pub(super) struct Nibbles<'a>(Codes<'a>);

impl<'a> Nibbles<'a> {
    /// `None` for weights in 8 bits, which would have to be rounded first.
    pub(super) fn new(codes: Codes<'a>) -> Option<Self> {
        (codes.kind == Quantization::Int4).then_some(Nibbles(codes))
    }
}

impl Weights for Nibbles<'_> {
    fn outputs(&self) -> usize {
        self.0.outputs()
    }
    fn inputs(&self) -> usize {
        self.0.inputs()
    }
    fn row_bytes(&self) -> usize {
        self.0.row_bytes()
    }
    fn cut(self, at: usize) -> (Self, Self) {
        let (before, after) = self.0.cut(at);
        (Nibbles(before), Nibbles(after))
    }
}

impl Dots<Pair> for Nibbles<'_> {
    #[inline(always)]
    fn dots<I: Isa, const ROWS: usize>(
        self,
        isa: I,
        output: usize,
        xs: [&[Pair]; ROWS],
    ) -> [f32; ROWS] {
        let (codes, scales) = self.0.row(output);
        let pairs = CHUNK / 2;
        let whole = xs.first().map_or(0, |x| x.len() / pairs);
        let mut sums = [[isa.zero(); 2]; ROWS];
        let mut chunk = 0;
        while chunk < whole {
            let codes = &codes[chunk * Int4::BYTES..][..Int4::BYTES];
            isa.ask_ahead(codes.as_ptr());
            let mut parts = [[isa.zero(); 2]; ROWS];
            add_nibbles(isa, codes, &xs, chunk * pairs, &mut parts);
            scale_parts(isa, scales[chunk], &parts, &mut sums);
            chunk += 1;
        }
        if whole < scales.len() {
            let mut rest = [[Pair::ZERO; CHUNK / 2]; ROWS];
            let mut ends: [&[Pair]; ROWS] = [&[]; ROWS];
            for ((end, rest), x) in ends.iter_mut().zip(&mut rest).zip(&xs) {
                let x = &x[whole * pairs..];
                rest[..x.len()].copy_from_slice(x);
                *end = rest;
            }
            let mut parts = [[isa.zero(); 2]; ROWS];
            add_nibbles(isa, &codes[whole * Int4::BYTES..], &ends, 0, &mut parts);
            scale_parts(isa, scales[whole], &parts, &mut sums);
        }
        total(isa, &sums)
    }
}

/// As [`add_chunk`], of codes of 4 bits and pairs.
#[inline(always)]
fn add_nibbles<I: Isa, const ROWS: usize>(
    isa: I,
    codes: &[u8],
    xs: &[&[Pair]; ROWS],
    first: usize,
    parts: &mut [[I::V; 2]; ROWS],
) {
    let mut at = 0;
    while at < BLOCK / 2 {
        let loaded = isa.load_nibble_pairs(&codes[2 * at..][..2 * I::LANES]);
        for (parts, x) in parts.iter_mut().zip(xs) {
            let x = &x[first..][..CHUNK / 2];
            let (low, high) = (&x[at..][..I::LANES], &x[BLOCK / 2 + at..][..I::LANES]);
            parts[0] = isa.dot_pairs(loaded[0], Pair::load(isa, low), parts[0]);
            parts[1] = isa.dot_pairs(loaded[1], Pair::load(isa, high), parts[1]);
        }
        at += I::LANES;
    }
}

/// Adds the products of the codes of a chunk and of x from `first` on to the sums of its blocks.
#[inline(always)]
fn add_chunk<I: Isa, C: Coding, const ROWS: usize>(
    isa: I,
    codes: &[u8],
    xs: &[&[f32]; ROWS],
    first: usize,
    parts: &mut [[I::V; 2]; ROWS],
) {
    let mut at = 0;
    while at < BLOCK {
        let loaded = C::load(isa, codes, at);
        for (parts, x) in parts.iter_mut().zip(xs) {
            let x = &x[first..][..CHUNK];
            parts[0] = isa.fma(loaded[0], isa.load(&x[at..][..I::LANES]), parts[0]);
            parts[1] = isa.fma(loaded[1], isa.load(&x[BLOCK + at..][..I::LANES]), parts[1]);
        }
        at += I::LANES;
    }
}

/// Adds the sums of a chunk's blocks, times their scales, to a chain each. Two are enough: each has a
/// multiply-add a chunk.
#[inline(always)]
fn scale_parts<I: Isa, const ROWS: usize>(
    isa: I,
    scales: Pair,
    parts: &[[I::V; 2]; ROWS],
    sums: &mut [[I::V; 2]; ROWS],
) {
    let scales = [splat(isa, scales[0]), splat(isa, scales[1])];
    for (sums, parts) in sums.iter_mut().zip(parts) {
        sums[0] = isa.fma(parts[0], scales[0], sums[0]);
        sums[1] = isa.fma(parts[1], scales[1], sums[1]);
    }
}

/// The sums of chains and lanes.
#[inline(always)]
fn total<I: Isa, const ROWS: usize>(isa: I, sums: &[[I::V; 2]; ROWS]) -> [f32; ROWS] {
    let mut totals = [0.0; ROWS];
    for (total, sums) in totals.iter_mut().zip(sums) {
        *total = isa.reduce_sum(isa.add(sums[0], sums[1]));
    }
    totals
}

/// A factor that quantised weights are given as.
trait Decoded: Factor {
    /// Writes the factors of row `output` from factor `at` on, `LANES` of them.
    fn decode<I: Isa>(isa: I, codes: Codes<'_>, output: usize, at: usize, into: &mut [Self]);
}

impl Decoded for f32 {
    #[inline(always)]
    fn decode<I: Isa>(isa: I, codes: Codes<'_>, output: usize, at: usize, into: &mut [f32]) {
        isa.store(codes.vector(isa, output, at), into);
    }
}

impl Decoded for Pair {
    #[inline(always)]
    fn decode<I: Isa>(isa: I, codes: Codes<'_>, output: usize, at: usize, into: &mut [Pair]) {
        let (left, right) = into.as_flattened_mut().split_at_mut(I::LANES);
        isa.store_rounded(codes.vector(isa, output, 2 * at), left);
        // Never in another chunk: those have a multiple of the inputs of a vector of pairs.
        isa.store_rounded(codes.vector(isa, output, 2 * at + I::LANES), right);
    }
}

impl<F: Decoded> Panels<F> for Codes<'_> {
    #[inline(always)]
    fn panel<'p, I: Isa>(
        &'p self,
        isa: I,
        panel: &'p mut [F],
        Part { output, count, first, len }: Part,
    ) -> &'p [F] {
        let columns = const { tile_columns::<I>() };
        for j in (0..count).step_by(I::LANES) {
            let rows = I::LANES.min(count - j);
            for k in (0..len).step_by(I::LANES) {
                let mut square = [F::ZERO; 16 * 16];
                for (i, square) in square.chunks_exact_mut(I::LANES).enumerate().take(rows) {
                    F::decode(isa, *self, output + j + i, first + k, square);
                }
                isa.transpose(&square, I::LANES, &mut panel[k * columns + j..], columns);
            }
        }
        panel
    }
}

impl Codes<'_> {
    /// The weights from `input` on, a multiple of `LANES`; behind the row's end they are zero.
    #[inline(always)]
    fn vector<I: Isa>(self, isa: I, output: usize, input: usize) -> I::V {
        let (codes, scales) = self.row(output);
        let (chunk, within) = (input / CHUNK, input % CHUNK);
        let codes = &codes[chunk * self.kind.chunk_bytes()..];
        let block = within / BLOCK;
        let codes = match self.kind {
            Quantization::Int8 => isa.load_i8(&codes[within..][..I::LANES]),
            Quantization::Int4 => {
                let [low, high] = isa.load_nibbles(&codes[within % BLOCK..][..I::LANES]);
                if block == 0 { low } else { high }
            }
        };
        isa.mul(codes, splat(isa, scales[chunk][block]))
    }
}
