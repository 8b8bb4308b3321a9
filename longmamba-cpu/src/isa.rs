//! The instruction sets. A kernel is written once, generic over [`Isa`]; the modules below map its
//! two dozen operations to instructions.
//!
//! A value of a type that implements [`Isa`] is a *token*: it can only be made by the type's `new`,
//! which asks the processor. Whoever holds one may use the instructions, which is why the operations
//! are safe.
//!
//! Every operation is `#[inline(always)]`: it must end up inside the one `#[target_feature]`
//! function of its instruction set (see `dispatch`), because only there can the intrinsics be
//! inlined. For the same reason kernels are `#[inline(always)]` down to their leaves and keep vectors
//! out of closures, which cannot carry the attribute.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) mod amx;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
#[path = "isa/no_amx.rs"]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod compact;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod scalar;
pub(crate) mod tile;

use crate::dispatch::Kernel;
use amx::Amx;
use compact::Step;
use half::{bf16, f16};
use std::fmt;

/// Lanes of the longest vector.
pub(crate) const MOST_LANES: usize = 16;

/// Bytes of a cache line.
pub(crate) const LINE_BYTES: usize = 64;

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IsaKind {
    /// Plain Rust, on every processor: four lanes that the compiler may or may not vectorise.
    Scalar,
    /// aarch64, four lanes.
    Neon,
    /// x86-64 with AVX2, FMA and F16C, eight lanes.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL, sixteen lanes.
    Avx512,
    /// The same with AVX-512 BF16: products of `bf16` pairs, on AMD's processors at twice the rate.
    Avx512Bf16,
    /// The same with AMX for `bf16`, under Linux: products of pairs in tiles of 16 × 16, at many times the rate.
    Amx,
}

impl fmt::Display for IsaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            IsaKind::Scalar => "scalar",
            IsaKind::Neon => "neon",
            IsaKind::Avx2 => "avx2",
            IsaKind::Avx512 => "avx512",
            IsaKind::Avx512Bf16 => "avx512_bf16",
            IsaKind::Amx => "amx",
        })
    }
}

/// Neighbours in a sum of products, multiplied and added by one instruction where there is one.
pub(crate) type Pair = [bf16; 2];

/// The four bytes of a pair.
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(dead_code))]
#[inline(always)]
fn bits([first, second]: Pair) -> i32 {
    (u32::from(first.to_bits()) | u32::from(second.to_bits()) << 16) as i32
}

/// Elements of four bytes, for operations that only move them.
///
/// # Safety
/// Every pattern of four bytes must be a value.
pub(crate) unsafe trait Word: Copy {}
// SAFETY: every pattern of bits is a float.
unsafe impl Word for f32 {}
// SAFETY: every pattern of bits is two `bf16`.
unsafe impl Word for Pair {}

/// A vector of `LANES` floats and what can be done with it.
///
/// # Safety
/// A value of the implementing type must prove that the processor supports every instruction that
/// its operations use.
pub(crate) unsafe trait Isa: Copy + Send + Sync + 'static {
    /// `LANES` floats.
    type V: Copy;
    /// `LANES` pairs of `bf16`.
    type P: Copy;
    /// Which one this is; [`IsaKind::Avx512Bf16`] also with AMX.
    const KIND: IsaKind;
    /// Floats in a vector: 4, 8 or 16.
    const LANES: usize;

    /// Runs `kernel`, compiled for this instruction set, in a function of its own. Inside of another kernel that
    /// is for parts that are long and that many have.
    fn call<K: Kernel>(self, kernel: K) -> K::Out;

    /// AMX, where products of pairs are to be taken with it.
    #[inline(always)]
    fn amx(self) -> Option<Amx> {
        None
    }

    /// `value` in every lane.
    fn splat(self, value: f32) -> Self::V;

    /// Reads `LANES` floats.
    ///
    /// # Safety
    /// `src` must be valid for reading `LANES` floats. No alignment is needed.
    unsafe fn load_ptr(self, src: *const f32) -> Self::V;

    /// Writes `LANES` floats.
    ///
    /// # Safety
    /// `dst` must be valid for writing `LANES` floats. No alignment is needed.
    unsafe fn store_ptr(self, v: Self::V, dst: *mut f32);

    /// The first `LANES` elements of `src`.
    ///
    /// # Panics
    /// Where `src` is shorter.
    #[inline(always)]
    fn load(self, src: &[f32]) -> Self::V {
        assert!(src.len() >= Self::LANES);
        // SAFETY: `src` has at least `LANES` elements.
        unsafe { self.load_ptr(src.as_ptr()) }
    }

    /// Overwrites the first `LANES` elements of `dst`.
    ///
    /// # Panics
    /// Where `dst` is shorter.
    #[inline(always)]
    fn store(self, v: Self::V, dst: &mut [f32]) {
        assert!(dst.len() >= Self::LANES);
        // SAFETY: `dst` has at least `LANES` elements.
        unsafe { self.store_ptr(v, dst.as_mut_ptr()) }
    }

    /// All of `src`, at most `LANES` elements; the other lanes are zero.
    ///
    /// # Panics
    /// Where `src` is longer than a vector.
    fn load_part(self, src: &[f32]) -> Self::V;

    /// Fills `dst`, at most `LANES` elements, from the first lanes.
    ///
    /// # Panics
    /// Where `dst` is longer than a vector.
    fn store_part(self, v: Self::V, dst: &mut [f32]);

    /// The elements of `row` from `at` on, as many as there are; the other lanes are zero.
    #[inline(always)]
    fn load_at(self, row: &[f32], at: usize) -> Self::V {
        match row.get(at..at + Self::LANES) {
            Some(whole) => self.load(whole),
            None => self.load_part(row.get(at..).unwrap_or(&[])),
        }
    }

    /// Overwrites the elements of `row` from `at` on, as many as there are.
    #[inline(always)]
    fn store_at(self, v: Self::V, row: &mut [f32], at: usize) {
        match row.get_mut(at..at + Self::LANES) {
            Some(whole) => self.store(v, whole),
            None => self.store_part(v, row.get_mut(at..).unwrap_or(&mut [])),
        }
    }

    /// The first `LANES` elements of `src`, widened.
    ///
    /// # Panics
    /// Where `src` is shorter.
    fn load_f16(self, src: &[f16]) -> Self::V;

    /// The first `LANES` elements of `src`, widened.
    ///
    /// # Panics
    /// Where `src` is shorter.
    fn load_bf16(self, src: &[bf16]) -> Self::V;

    /// All of `src`, at most `LANES` elements, widened; the other lanes are zero.
    ///
    /// # Panics
    /// Where `src` is longer than a vector.
    #[inline(always)]
    fn load_f16_part(self, src: &[f16]) -> Self::V {
        let mut buffer = [f16::ZERO; 16];
        buffer[..Self::LANES][..src.len()].copy_from_slice(src);
        self.load_f16(&buffer)
    }

    /// All of `src`, at most `LANES` elements, widened; the other lanes are zero.
    ///
    /// # Panics
    /// Where `src` is longer than a vector.
    #[inline(always)]
    fn load_bf16_part(self, src: &[bf16]) -> Self::V {
        let mut buffer = [bf16::ZERO; 16];
        buffer[..Self::LANES][..src.len()].copy_from_slice(src);
        self.load_bf16(&buffer)
    }

    /// The first `LANES` bytes of `src` as signed whole numbers.
    ///
    /// # Panics
    /// Where `src` is shorter.
    fn load_i8(self, src: &[u8]) -> Self::V;

    /// The lower and the upper four bits of the first `LANES` bytes of `src`, each less 8: -8 to 7.
    ///
    /// # Panics
    /// Where `src` is shorter.
    fn load_nibbles(self, src: &[u8]) -> [Self::V; 2];

    /// The lower and the upper four bits of the first `2 · LANES` bytes of `src`, each less 8, as pairs of
    /// neighbours.
    ///
    /// # Panics
    /// Where `src` is shorter.
    #[inline(always)]
    fn load_nibble_pairs(self, src: &[u8]) -> [Self::P; 2] {
        let mut lanes = [[[bf16::ZERO; 2]; 16]; 2];
        let [low, high] = lanes.each_mut().map(|pairs| pairs.as_flattened_mut());
        for ((low, high), byte) in low.iter_mut().zip(high).zip(&src[..2 * Self::LANES]) {
            *low = bf16::from_f32(f32::from(byte & 15) - 8.0);
            *high = bf16::from_f32(f32::from(byte >> 4) - 8.0);
        }
        // SAFETY: sixteen pairs are at least a vector.
        unsafe { [self.load_pairs_ptr(lanes[0].as_ptr()), self.load_pairs_ptr(lanes[1].as_ptr())] }
    }

    /// Vectors `part` and `part + 16 / LANES` of the pairs of a step of weights in twelve bits ([`compact`]).
    ///
    /// # Panics
    /// Where a step has fewer.
    #[inline(always)]
    fn load_compact(self, step: &Step, exponents: &[u8; 16], part: usize) -> [Self::P; 2] {
        let pairs = compact::pairs(step, exponents);
        let (first, second) = pairs.split_at(pairs.len() / 2);
        let range = part * Self::LANES..(part + 1) * Self::LANES;
        // SAFETY: the ranges are vectors.
        unsafe {
            let [first, second] = [first, second].map(|pairs| pairs[range.clone()].as_ptr());
            [self.load_pairs_ptr(first), self.load_pairs_ptr(second)]
        }
    }

    /// Reads `LANES` pairs.
    ///
    /// # Safety
    /// `src` must be valid for reading `LANES` pairs. No alignment is needed.
    unsafe fn load_pairs_ptr(self, src: *const Pair) -> Self::P;

    /// All of `src`, at most `LANES` pairs, the last of which may lack its second; what is missing is zero.
    ///
    /// # Panics
    /// Where `src` is longer than a vector.
    #[inline(always)]
    fn load_pairs_part(self, src: &[bf16]) -> Self::P {
        let mut pairs = [[bf16::ZERO; 2]; 16];
        pairs[..Self::LANES].as_flattened_mut()[..src.len()].copy_from_slice(src);
        // SAFETY: sixteen pairs are at least a vector.
        unsafe { self.load_pairs_ptr(pairs.as_ptr()) }
    }

    /// `pair` in every lane.
    fn splat_pair(self, pair: Pair) -> Self::P;

    /// The pairs `[a, b]`, rounded to nearest, ties away from 0. A NaN other than what the processor makes may
    /// be lost.
    fn join(self, a: Self::V, b: Self::V) -> Self::P;

    /// Writes `LANES` pairs.
    ///
    /// # Safety
    /// `dst` must be valid for writing `LANES` pairs. No alignment is needed.
    unsafe fn store_pairs_ptr(self, v: Self::P, dst: *mut Pair);

    /// Overwrites the first `LANES` elements of `dst`.
    ///
    /// # Panics
    /// Where `dst` is shorter.
    #[inline(always)]
    fn store_pairs(self, v: Self::P, dst: &mut [Pair]) {
        assert!(dst.len() >= Self::LANES);
        // SAFETY: `dst` has at least `LANES` elements.
        unsafe { self.store_pairs_ptr(v, dst.as_mut_ptr()) }
    }

    /// The first and the second of each pair.
    fn widen(self, a: Self::P) -> [Self::V; 2];

    /// `sum + a₁·b₁ + a₀·b₀`, rounded after each addition; subnormal values may count as 0.
    #[inline(always)]
    fn dot_pairs(self, a: Self::P, b: Self::P, sum: Self::V) -> Self::V {
        dot_widened(self, a, b, sum)
    }

    /// Overwrites all of `dst`, at most `LANES` elements, with the first lanes, rounded to nearest, ties to
    /// even. Subnormal values may become 0.
    ///
    /// # Panics
    /// Where `dst` is longer than a vector.
    #[inline(always)]
    fn store_rounded(self, v: Self::V, dst: &mut [bf16]) {
        let mut lanes = [0.0; 16];
        self.store(v, &mut lanes);
        for (value, &lane) in dst.iter_mut().zip(&lanes[..Self::LANES]) {
            *value = bf16::from_f32(lane);
        }
    }

    /// `a + b`
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b`
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b + c`, rounded once, except that [`IsaKind::Scalar`] rounds twice.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c - a · b`, rounded as [`Isa::fma`].
    fn nfma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger. Where `b` is NaN, `b`; a NaN in `a` may be lost.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller. Where `b` is NaN, `b`; a NaN in `a` may be lost.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `|a|`
    fn abs(self, a: Self::V) -> Self::V;
    /// `-a`
    fn neg(self, a: Self::V) -> Self::V;
    /// `√a`
    fn sqrt(self, a: Self::V) -> Self::V;
    /// `a · 2ⁿ` for the integer n that the lowest bits of `n` hold, where `a` and the result are normal; any
    /// value elsewhere.
    fn shift_exponent(self, a: Self::V, n: Self::V) -> Self::V;
    /// `yes` where `a > b`, else (also where either is NaN) `no`.
    fn select_gt(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// `yes` where `a ≤ b`, else (also where either is NaN) `no`.
    fn select_le(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// 0 where `a > b`, else (also where either is NaN) `v`: cheaper than a general choice.
    fn zero_where_gt(self, a: Self::V, b: Self::V, v: Self::V) -> Self::V;
    /// The sum of the lanes, in pairs: halves added, then quarters, and so on.
    fn reduce_sum(self, a: Self::V) -> f32;

    /// Transposes a block of `LANES × LANES`: `dst[k · dst_stride + i] = src[i · src_stride + k]`.
    ///
    /// # Panics
    /// Where a slice is shorter than the block.
    #[inline(always)]
    fn transpose<W: Word>(self, src: &[W], src_stride: usize, dst: &mut [W], dst_stride: usize) {
        assert!(covers_block(src, src_stride, Self::LANES));
        assert!(covers_block(dst, dst_stride, Self::LANES));
        // SAFETY: both slices cover their blocks, and words may be moved as floats.
        unsafe {
            let (src, dst) = (src.as_ptr().cast(), dst.as_mut_ptr().cast());
            self.transpose_ptr(src, src_stride, dst, dst_stride);
        }
    }

    /// [`Isa::transpose`] of any words, bits kept.
    ///
    /// # Safety
    /// `src` must be valid for reading and `dst` for writing `LANES` rows of `LANES` words, their strides
    /// apart. No alignment is needed.
    #[inline(always)]
    unsafe fn transpose_ptr(
        self,
        src: *const f32,
        src_stride: usize,
        dst: *mut f32,
        dst_stride: usize,
    ) {
        for i in 0..Self::LANES {
            for k in 0..Self::LANES {
                // SAFETY: the caller vouches.
                unsafe {
                    let word = src.add(i * src_stride + k).cast::<u32>().read_unaligned();
                    dst.add(k * dst_stride + i).cast::<u32>().write_unaligned(word);
                }
            }
        }
    }

    /// Asks for the cache line at `address`, which need not be valid: a hint, and nothing at all where
    /// it is not known to help.
    #[inline(always)]
    fn prefetch<T>(self, address: *const T) {
        let _ = address;
    }

    /// The same, for the second cache: for what is needed later.
    #[inline(always)]
    fn prefetch_for_later<T>(self, address: *const T) {
        self.prefetch(address);
    }

    /// Asks for what lies some KiB after `address`, which someone who reads on from here will need: as much as comes
    /// within the time that it takes to come. By itself a Zen 3 core asks for too little; half or twice as much is nearly
    /// as good there (`benches/record/2026-11-29-cpu-zen3.md`).
    #[inline(always)]
    fn ask_ahead<T>(self, address: *const T) {
        self.prefetch(address.wrapping_byte_add(2048));
    }

    /// Asks for every cache line of `row`.
    #[inline(always)]
    fn prefetch_row(self, row: &[f32]) {
        self.prefetch_rows(row.as_ptr(), 0, 1, row.len());
    }

    /// Asks for every cache line of `rows` rows of `width` floats, `stride` apart.
    #[inline(always)]
    fn prefetch_rows(self, first: *const f32, stride: usize, rows: usize, width: usize) {
        for row in 0..rows {
            let row = first.wrapping_add(row.wrapping_mul(stride));
            for line in (0..width).step_by(LINE_BYTES / size_of::<f32>()) {
                self.prefetch(row.wrapping_add(line));
            }
        }
    }

    /// Zero in every lane.
    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(0.0)
    }
}

/// [`Isa::dot_pairs`] where no instruction does it.
#[inline(always)]
fn dot_widened<I: Isa>(isa: I, a: I::P, b: I::P, sum: I::V) -> I::V {
    let ([a0, a1], [b0, b1]) = (isa.widen(a), isa.widen(b));
    isa.fma(a0, b0, isa.fma(a1, b1, sum))
}

/// Whether `slice` has `lanes` rows of `lanes` elements, `stride` apart.
#[inline(always)]
fn covers_block<W>(slice: &[W], stride: usize, lanes: usize) -> bool {
    let last = stride.checked_mul(lanes - 1).and_then(|at| at.checked_add(lanes));
    last.is_some_and(|end| end <= slice.len())
}

#[cfg(test)]
mod tests;
