//! Weights of any element type, read as vectors of `f32`.

use crate::isa::Isa;
use half::{bf16, f16};
use longmamba_core::Element;

/// An element type that weights come in.
pub(crate) trait Weight: Element {
    /// The first `LANES` elements of `src`, widened.
    ///
    /// # Panics
    /// Where `src` is shorter.
    fn load<I: Isa>(isa: I, src: &[Self]) -> I::V;

    /// All of `src`, at most `LANES` elements, widened; the other lanes are zero.
    ///
    /// # Panics
    /// Where `src` is longer than a vector.
    fn load_part<I: Isa>(isa: I, src: &[Self]) -> I::V;

    /// The elements themselves, where they are `f32` already.
    fn floats(_src: &[Self]) -> Option<&[f32]> {
        None
    }
}

impl Weight for f32 {
    #[inline(always)]
    fn load<I: Isa>(isa: I, src: &[f32]) -> I::V {
        isa.load(src)
    }
    #[inline(always)]
    fn load_part<I: Isa>(isa: I, src: &[f32]) -> I::V {
        isa.load_part(src)
    }
    #[inline(always)]
    fn floats(src: &[f32]) -> Option<&[f32]> {
        Some(src)
    }
}

impl Weight for f16 {
    #[inline(always)]
    fn load<I: Isa>(isa: I, src: &[f16]) -> I::V {
        isa.load_f16(src)
    }
    #[inline(always)]
    fn load_part<I: Isa>(isa: I, src: &[f16]) -> I::V {
        isa.load_f16_part(src)
    }
}

impl Weight for bf16 {
    #[inline(always)]
    fn load<I: Isa>(isa: I, src: &[bf16]) -> I::V {
        isa.load_bf16(src)
    }
    #[inline(always)]
    fn load_part<I: Isa>(isa: I, src: &[bf16]) -> I::V {
        isa.load_bf16_part(src)
    }
}
