//! AVX2 with FMA and F16C: eight lanes, sixteen registers.

use super::{Isa, IsaKind, Pair, compact::Step};
use crate::dispatch::Kernel;
use half::{bf16, f16};
use std::arch::x86_64::*;

/// The token of [`IsaKind::Avx2`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// `None` where the processor lacks one of the three features.
    pub(crate) fn new() -> Option<Self> {
        let supported = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        supported.then_some(Avx2(()))
    }

    /// All ones in the first `count` lanes.
    #[inline(always)]
    fn first(self, count: usize) -> __m256i {
        assert!(count <= Self::LANES);
        // SAFETY: the token proves AVX2.
        unsafe {
            let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lane)
        }
    }
}

#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
fn run<K: Kernel>(isa: Avx2, kernel: K) -> K::Out {
    kernel.run(isa)
}

/// One intrinsic that takes and returns registers only.
macro_rules! op {
    ($($body:tt)*) => {
        // SAFETY: `self` proves AVX2 and FMA; registers in, registers out.
        unsafe { $($body)* }
    };
}

// SAFETY: the operations use AVX2, FMA and F16C, which `new` has checked.
unsafe impl Isa for Avx2 {
    type V = __m256;
    type P = __m256i;
    const KIND: IsaKind = IsaKind::Avx2;
    const LANES: usize = 8;

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Out {
        // SAFETY: the token proves that the features are there.
        unsafe { run(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        op!(_mm256_set1_ps(value))
    }
    #[inline(always)]
    unsafe fn load_ptr(self, src: *const f32) -> __m256 {
        // SAFETY: the caller vouches for eight floats; `self` proves AVX.
        unsafe { _mm256_loadu_ps(src) }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, v: __m256, dst: *mut f32) {
        // SAFETY: the caller vouches for eight floats; `self` proves AVX.
        unsafe { _mm256_storeu_ps(dst, v) }
    }
    #[inline(always)]
    fn load_part(self, src: &[f32]) -> __m256 {
        // Where the address is not mapped, as that of an empty slice may be, some processors take
        // hundreds of cycles to find that nothing is to be read; likewise in `store_part`.
        if src.is_empty() {
            return self.zero();
        }
        let mask = self.first(src.len());
        // SAFETY: only the first `src.len()` lanes are read; `self` proves AVX.
        unsafe { _mm256_maskload_ps(src.as_ptr(), mask) }
    }
    #[inline(always)]
    fn store_part(self, v: __m256, dst: &mut [f32]) {
        if dst.is_empty() {
            return;
        }
        let mask = self.first(dst.len());
        // SAFETY: only the first `dst.len()` lanes are written; `self` proves AVX.
        unsafe { _mm256_maskstore_ps(dst.as_mut_ptr(), mask, v) }
    }
    #[inline(always)]
    fn load_f16(self, src: &[f16]) -> __m256 {
        assert!(src.len() >= Self::LANES);
        // SAFETY: `src` has the 16 bytes that are read; `self` proves F16C.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(src.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_bf16(self, src: &[bf16]) -> __m256 {
        assert!(src.len() >= Self::LANES);
        // SAFETY: `src` has the 16 bytes that are read; `self` proves AVX2.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(src.as_ptr().cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    fn load_i8(self, src: &[u8]) -> __m256 {
        assert!(src.len() >= Self::LANES);
        // SAFETY: `src` has the 8 bytes that are read; `self` proves AVX2.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(src.as_ptr().cast()))) }
    }
    #[inline(always)]
    fn load_nibbles(self, src: &[u8]) -> [__m256; 2] {
        assert!(src.len() >= Self::LANES);
        // SAFETY: `src` has the 8 bytes that are read; `self` proves AVX2.
        unsafe {
            let bytes = _mm_loadl_epi64(src.as_ptr().cast());
            // Lower bits in the first eight bytes, upper ones in the others; then a table of -8 to 7.
            let both = _mm_unpacklo_epi64(bytes, _mm_srli_epi16::<4>(bytes));
            let table = _mm_setr_epi8(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
            let codes = _mm_shuffle_epi8(table, _mm_and_si128(both, _mm_set1_epi8(15)));
            let high = _mm_unpackhi_epi64(codes, codes);
            [
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(high)),
            ]
        }
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        op!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        op!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        op!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        op!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        op!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn nfma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        op!(_mm256_fnmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        op!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        op!(_mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn abs(self, a: __m256) -> __m256 {
        op!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), a))
    }
    #[inline(always)]
    fn neg(self, a: __m256) -> __m256 {
        op!(_mm256_xor_ps(_mm256_set1_ps(-0.0), a))
    }
    #[inline(always)]
    fn sqrt(self, a: __m256) -> __m256 {
        op!(_mm256_sqrt_ps(a))
    }
    #[inline(always)]
    fn shift_exponent(self, a: __m256, n: __m256) -> __m256 {
        op!({
            let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(n));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), exponent))
        })
    }
    #[inline(always)]
    fn select_gt(self, a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 {
        op!(_mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_GT_OQ>(a, b)))
    }
    #[inline(always)]
    fn select_le(self, a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 {
        op!(_mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LE_OQ>(a, b)))
    }
    #[inline(always)]
    fn zero_where_gt(self, a: __m256, b: __m256, v: __m256) -> __m256 {
        op!(_mm256_andnot_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(a, b), v))
    }
    #[inline(always)]
    fn reduce_sum(self, a: __m256) -> f32 {
        op!({
            let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
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
    fn load_compact(self, step: &Step, exponents: &[u8; 16], part: usize) -> [__m256i; 2] {
        assert!(part < 2);
        // SAFETY: the step has two vectors of signs and significands, and one of places; `self` proves AVX2.
        unsafe {
            let exact = _mm256_loadu_si256(step.as_ptr().add(32 * part).cast());
            let places = _mm256_loadu_si256(step.as_ptr().add(64).cast());
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(exponents.as_ptr().cast()));
            let four = _mm256_set1_epi8(15);
            let first = _mm256_and_si256(places, four);
            let second = _mm256_and_si256(_mm256_srli_epi16::<4>(places), four);
            // The exponents of both parts, and moved so that those of one are in their place.
            let first = _mm256_shuffle_epi8(table, first);
            let second = _mm256_shuffle_epi8(table, second);
            let (first, second) = if part == 0 {
                (_mm256_slli_epi16::<7>(first), _mm256_slli_epi16::<7>(second))
            } else {
                (_mm256_srli_epi16::<1>(first), _mm256_srli_epi16::<1>(second))
            };
            let swap = _mm_setr_epi8(1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
            let swapped = _mm256_shuffle_epi8(exact, _mm256_broadcastsi128_si256(swap));
            let keep = _mm256_set1_epi16(0x807f_u16 as i16);
            [
                _mm256_or_si256(_mm256_and_si256(keep, exact), _mm256_andnot_si256(keep, first)),
                _mm256_or_si256(_mm256_and_si256(keep, swapped), _mm256_andnot_si256(keep, second)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn load_pairs_ptr(self, src: *const Pair) -> __m256i {
        // SAFETY: the caller vouches for eight pairs; `self` proves AVX.
        unsafe { _mm256_loadu_si256(src.cast()) }
    }
    #[inline(always)]
    fn splat_pair(self, pair: Pair) -> __m256i {
        op!(_mm256_set1_epi32(super::bits(pair)))
    }
    #[inline(always)]
    fn join(self, a: __m256, b: __m256) -> __m256i {
        op!({
            let half = _mm256_set1_epi32(0x8000);
            let a = _mm256_srli_epi32::<16>(_mm256_add_epi32(_mm256_castps_si256(a), half));
            let b = _mm256_add_epi32(_mm256_castps_si256(b), half);
            _mm256_or_si256(a, _mm256_and_si256(b, _mm256_set1_epi32(0xffff_0000_u32 as i32)))
        })
    }
    #[inline(always)]
    unsafe fn store_pairs_ptr(self, v: __m256i, dst: *mut Pair) {
        // SAFETY: the caller vouches for eight pairs; `self` proves AVX.
        unsafe { _mm256_storeu_si256(dst.cast(), v) }
    }
    #[inline(always)]
    fn widen(self, a: __m256i) -> [__m256; 2] {
        op!({
            let high = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(a)),
                _mm256_castsi256_ps(_mm256_and_si256(a, high)),
            ]
        })
    }
    #[inline(always)]
    unsafe fn transpose_ptr(
        self,
        src: *const f32,
        src_stride: usize,
        dst: *mut f32,
        dst_stride: usize,
    ) {
        // SAFETY: the caller vouches for the blocks of 8 × 8; `self` proves AVX.
        unsafe { transpose8(src, src_stride, dst, dst_stride) }
    }
}

/// Transposes a block of 8 × 8.
///
/// # Safety
/// Needs AVX; `src` and `dst` must be valid for 8 rows of 8 floats, their strides apart.
#[inline(always)]
pub(super) unsafe fn transpose8(
    src: *const f32,
    src_stride: usize,
    dst: *mut f32,
    dst_stride: usize,
) {
    // The left half of the columns becomes the upper half of the result, then the right the lower.
    for half in 0..2 {
        // SAFETY: the caller vouches for rows 0 to 7, columns `4 · half` to `4 · half + 3` of `src`
        // and the same rows, all columns, of `dst`, and for AVX.
        unsafe {
            let src = src.add(4 * half);
            let dst = dst.add(4 * half * dst_stride);
            // Four columns of rows i and i + 4, side by side: what follows works within each.
            macro_rules! pair {
                ($i:literal) => {{
                    let low = _mm256_castps128_ps256(_mm_loadu_ps(src.add($i * src_stride)));
                    _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(src.add(($i + 4) * src_stride)))
                }};
            }
            let (a, b, c, d) = (pair!(0), pair!(1), pair!(2), pair!(3));
            let (ab01, ab23) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (cd01, cd23) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            _mm256_storeu_ps(dst, _mm256_shuffle_ps::<0b01_00_01_00>(ab01, cd01));
            _mm256_storeu_ps(dst.add(dst_stride), _mm256_shuffle_ps::<0b11_10_11_10>(ab01, cd01));
            _mm256_storeu_ps(
                dst.add(2 * dst_stride),
                _mm256_shuffle_ps::<0b01_00_01_00>(ab23, cd23),
            );
            _mm256_storeu_ps(
                dst.add(3 * dst_stride),
                _mm256_shuffle_ps::<0b11_10_11_10>(ab23, cd23),
            );
        }
    }
}
