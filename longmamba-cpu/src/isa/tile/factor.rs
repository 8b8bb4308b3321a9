//! What factors are made of: floats, or pairs of neighbours in k, whose two products go to one sum.

use crate::isa::{Isa, Pair, Word};
use half::bf16;

/// What the right factor, and mostly the left one too, is made of.
pub(crate) trait Factor: Word + Send + Sync {
    /// 0, and also what stands in for a missing neighbour.
    const ZERO: Self;
    /// See [`Kernel::PAIRS`](crate::dispatch::Kernel::PAIRS).
    const PAIRS: bool;
    /// A vector of them.
    type Vector<I: Isa>: Copy;

    /// These, where they are pairs.
    #[inline(always)]
    fn pairs(factors: &[Self]) -> Option<&[Pair]> {
        let _ = factors;
        None
    }

    /// `self` in every lane.
    fn splat<I: Isa>(self, isa: I) -> Self::Vector<I>;

    /// Reads a vector.
    ///
    /// # Safety
    /// `src` must be valid for reading `LANES` elements. No alignment is needed.
    unsafe fn load_ptr<I: Isa>(isa: I, src: *const Self) -> Self::Vector<I>;

    /// The first `LANES` elements of `src`.
    ///
    /// # Panics
    /// Where `src` is shorter.
    #[inline(always)]
    fn load<I: Isa>(isa: I, src: &[Self]) -> Self::Vector<I> {
        assert!(src.len() >= I::LANES);
        // SAFETY: `src` has at least `LANES` elements.
        unsafe { Self::load_ptr(isa, src.as_ptr()) }
    }

    /// All of `src`, at most `LANES` elements; the other lanes are zero.
    ///
    /// # Panics
    /// Where `src` is longer than a vector.
    fn load_part<I: Isa>(isa: I, src: &[Self]) -> Self::Vector<I>;

    /// `sum + a · b`
    fn multiply_add<I: Isa>(isa: I, a: Self::Vector<I>, b: Self::Vector<I>, sum: I::V) -> I::V;
}

impl Factor for f32 {
    const ZERO: f32 = 0.0;
    const PAIRS: bool = false;
    type Vector<I: Isa> = I::V;

    #[inline(always)]
    fn splat<I: Isa>(self, isa: I) -> I::V {
        isa.splat(self)
    }
    #[inline(always)]
    unsafe fn load_ptr<I: Isa>(isa: I, src: *const f32) -> I::V {
        // SAFETY: the caller vouches.
        unsafe { isa.load_ptr(src) }
    }
    #[inline(always)]
    fn load_part<I: Isa>(isa: I, src: &[f32]) -> I::V {
        isa.load_part(src)
    }
    #[inline(always)]
    fn multiply_add<I: Isa>(isa: I, a: I::V, b: I::V, sum: I::V) -> I::V {
        isa.fma(a, b, sum)
    }
}

impl Factor for Pair {
    const ZERO: Pair = [bf16::ZERO; 2];
    const PAIRS: bool = true;
    type Vector<I: Isa> = I::P;

    #[inline(always)]
    fn pairs(factors: &[Pair]) -> Option<&[Pair]> {
        Some(factors)
    }
    #[inline(always)]
    fn splat<I: Isa>(self, isa: I) -> I::P {
        isa.splat_pair(self)
    }
    #[inline(always)]
    unsafe fn load_ptr<I: Isa>(isa: I, src: *const Pair) -> I::P {
        // SAFETY: the caller vouches.
        unsafe { isa.load_pairs_ptr(src) }
    }
    #[inline(always)]
    fn load_part<I: Isa>(isa: I, src: &[Pair]) -> I::P {
        isa.load_pairs_part(src.as_flattened())
    }
    #[inline(always)]
    fn multiply_add<I: Isa>(isa: I, a: I::P, b: I::P, sum: I::V) -> I::V {
        isa.dot_pairs(a, b, sum)
    }
}

/// What stands on the left of factors `F`.
pub(crate) trait Meets<F: Factor>: Copy + Send + Sync {
    /// See [`Kernel::PAIRS`](crate::dispatch::Kernel::PAIRS).
    const PAIRS: bool;
    /// It in every lane.
    type Vector<I: Isa>: Copy;

    /// These, where they are pairs.
    fn pairs(factors: &[Self]) -> Option<&[Pair]>;

    /// What `src` points to, in every lane.
    ///
    /// # Safety
    /// `src` must be valid for reading.
    unsafe fn splat_ptr<I: Isa>(isa: I, src: *const Self) -> Self::Vector<I>;

    /// `sum + left · right`
    fn multiply_add<I: Isa>(isa: I, left: Self::Vector<I>, right: F::Vector<I>, sum: I::V) -> I::V;
}

/// Factors of the same kind.
impl<F: Factor> Meets<F> for F {
    const PAIRS: bool = F::PAIRS;
    type Vector<I: Isa> = F::Vector<I>;

    #[inline(always)]
    fn pairs(factors: &[F]) -> Option<&[Pair]> {
        F::pairs(factors)
    }

    #[inline(always)]
    unsafe fn splat_ptr<I: Isa>(isa: I, src: *const F) -> F::Vector<I> {
        // SAFETY: the caller vouches.
        unsafe { *src }.splat(isa)
    }
    #[inline(always)]
    fn multiply_add<I: Isa>(isa: I, left: F::Vector<I>, right: F::Vector<I>, sum: I::V) -> I::V {
        F::multiply_add(isa, left, right, sum)
    }
}

/// Neighbours in k that are not rounded, and meet pairs that are widened.
pub(crate) type Floats = [f32; 2];

impl Meets<Pair> for Floats {
    /// They are widened.
    const PAIRS: bool = false;
    type Vector<I: Isa> = [I::V; 2];

    #[inline(always)]
    fn pairs(_: &[Floats]) -> Option<&[Pair]> {
        None
    }
    #[inline(always)]
    unsafe fn splat_ptr<I: Isa>(isa: I, src: *const Floats) -> [I::V; 2] {
        // One by one, straight into a vector: as one word they would have to be taken apart.
        let src = src.cast::<f32>();
        // SAFETY: the caller vouches for both.
        unsafe { [isa.splat(*src), isa.splat(*src.add(1))] }
    }
    #[inline(always)]
    fn multiply_add<I: Isa>(isa: I, left: [I::V; 2], right: I::P, sum: I::V) -> I::V {
        // The same for all rows of a tile: it is done once.
        let [first, second] = isa.widen(right);
        isa.fma(left[1], second, isa.fma(left[0], first, sum))
    }
}
