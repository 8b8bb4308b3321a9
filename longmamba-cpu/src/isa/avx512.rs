//! AVX-512: sixteen lanes, thirty-two registers.

use super::{Isa, IsaKind, avx2::transpose8, covers_block};
use crate::dispatch::Kernel;
use half::{bf16, f16};
use std::arch::x86_64::*;

/// The token of [`IsaKind::Avx512`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// `None` where the processor lacks one of the features.
    pub(crate) fn new() -> Option<Self> {
        let supported = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        supported.then_some(Avx512(()))
    }

    /// Runs `kernel`, compiled for this instruction set.
    #[inline]
    pub(crate) fn call<K: Kernel>(self, kernel: K) -> K::Out {
        // SAFETY: the token proves that the features are there.
        unsafe { run(self, kernel) }
    }

    /// The first `count` lanes.
    #[inline(always)]
    fn first(self, count: usize) -> __mmask16 {
        assert!(count <= Self::LANES);
        ((1u32 << count) - 1) as __mmask16
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn run<K: Kernel>(isa: Avx512, kernel: K) -> K::Out {
    kernel.run(isa)
}

/// One intrinsic that takes and returns registers only.
macro_rules! op {
    ($($body:tt)*) => {
        // SAFETY: `self` proves AVX-512 F, BW, DQ and VL; registers in, registers out.
        unsafe { $($body)* }
    };
}

// SAFETY: the operations use AVX-512 F and DQ, AVX2, FMA and F16C, which `new` has checked.
unsafe impl Isa for Avx512 {
    type V = __m512;
    const KIND: IsaKind = IsaKind::Avx512;
    const LANES: usize = 16;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        op!(_mm512_set1_ps(value))
    }
    #[inline(always)]
    unsafe fn load_ptr(self, src: *const f32) -> __m512 {
        // SAFETY: the caller vouches for sixteen floats; `self` proves AVX-512 F.
        unsafe { _mm512_loadu_ps(src) }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, v: __m512, dst: *mut f32) {
        // SAFETY: the caller vouches for sixteen floats; `self` proves AVX-512 F.
        unsafe { _mm512_storeu_ps(dst, v) }
    }
    #[inline(always)]
    fn load_part(self, src: &[f32]) -> __m512 {
        let mask = self.first(src.len());
        // SAFETY: only the first `src.len()` lanes are read; `self` proves AVX-512 F.
        unsafe { _mm512_maskz_loadu_ps(mask, src.as_ptr()) }
    }
    #[inline(always)]
    fn store_part(self, v: __m512, dst: &mut [f32]) {
        let mask = self.first(dst.len());
        // SAFETY: only the first `dst.len()` lanes are written; `self` proves AVX-512 F.
        unsafe { _mm512_mask_storeu_ps(dst.as_mut_ptr(), mask, v) }
    }
    #[inline(always)]
    fn load_f16(self, src: &[f16]) -> __m512 {
        assert!(src.len() >= Self::LANES);
        // SAFETY: `src` has the 32 bytes that are read; `self` proves AVX-512 F.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(src.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_bf16(self, src: &[bf16]) -> __m512 {
        assert!(src.len() >= Self::LANES);
        // SAFETY: `src` has the 32 bytes that are read; `self` proves AVX-512 F.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(src.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        op!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn nfma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        op!(_mm512_fnmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        op!(_mm512_andnot_ps(_mm512_set1_ps(-0.0), a))
    }
    #[inline(always)]
    fn neg(self, a: __m512) -> __m512 {
        op!(_mm512_xor_ps(_mm512_set1_ps(-0.0), a))
    }
    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        op!(_mm512_sqrt_ps(a))
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        op!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT }>(a))
    }
    #[inline(always)]
    fn scale_pow2(self, a: __m512, n: __m512) -> __m512 {
        op!(_mm512_scalef_ps(a, n))
    }
    #[inline(always)]
    fn select_gt(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
        op!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b), no, yes))
    }
    #[inline(always)]
    fn select_le(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
        op!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, b), no, yes))
    }
    #[inline(always)]
    fn zero_where_gt(self, a: __m512, b: __m512, v: __m512) -> __m512 {
        op!(_mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NGT_UQ>(a, b), v))
    }
    #[inline(always)]
    fn reduce_sum(self, a: __m512) -> f32 {
        op!({
            let eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        })
    }
    #[inline(always)]
    fn prefetch<T>(self, address: *const T) {
        // SAFETY: a hint never faults, whatever the address; every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[inline(always)]
    fn transpose(self, src: &[f32], src_stride: usize, dst: &mut [f32], dst_stride: usize) {
        assert!(covers_block(src, src_stride, 16) && covers_block(dst, dst_stride, 16));
        // Four quarters of 8 × 8: as many shuffles as one transposition of full vectors would take.
        for (i, k) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
            // SAFETY: both slices cover their blocks of 16 × 16, and so all quarters; `self` proves
            // AVX2, and with it AVX.
            unsafe {
                let src = src.as_ptr().add(i * src_stride + k);
                let dst = dst.as_mut_ptr().add(k * dst_stride + i);
                transpose8(src, src_stride, dst, dst_stride);
            }
        }
    }
}
