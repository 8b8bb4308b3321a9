//! AVX-512: sixteen lanes, thirty-two registers.

use super::{Isa, IsaKind, Pair, amx::Amx, avx2::transpose8, compact::Step, dot_widened};
use crate::dispatch::Kernel;
use half::{bf16, f16};
use std::arch::x86_64::*;
use std::mem::transmute;

/// The token of [`IsaKind::Avx512`] or, with `BF16`, of [`IsaKind::Avx512Bf16`] or [`IsaKind::Amx`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512<const BF16: bool> {
    amx: Option<Amx>,
}

impl<const BF16: bool> Avx512<BF16> {
    /// `None` where the processor lacks one of the features.
    pub(crate) fn new() -> Option<Self> {
        let supported = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && (!BF16 || is_x86_feature_detected!("avx512bf16"));
        supported.then_some(Avx512 { amx: None })
    }

    /// The first `count` lanes.
    #[inline(always)]
    fn first(self, count: usize) -> __mmask16 {
        assert!(count <= Self::LANES);
        ((1u32 << count) - 1) as __mmask16
    }
}

/// The `bf16` -8 to 7.
static NIBBLES: [u16; 16] = {
    let mut table = [0; 16];
    let mut i = 0;
    while i < 16 {
        table[i] = ((i as f32 - 8.0).to_bits() >> 16) as u16;
        i += 1;
    }
    table
};

impl Avx512<true> {
    /// The same with AMX; `None` where it may not be used.
    pub(crate) fn with_amx(self) -> Option<Self> {
        Amx::new().map(|amx| Avx512 { amx: Some(amx) })
    }

    /// Whether this one is with AMX.
    pub(crate) fn has_amx(self) -> bool {
        self.amx.is_some()
    }

    /// Whether products of pairs are faster than those of floats. AMD's processors take a pair in the time of a float,
    /// and AMX takes tiles of them. But Intel's cores begin such an instruction every two cycles, and two multiply-adds
    /// of floats every cycle: there pairs have half the rate, which was measured on a Xeon with its AMX hidden
    /// (`benches/record/`, `2026-11-30-cpu-xeon.md`).
    pub(crate) fn has_fast_pairs(self) -> bool {
        self.has_amx() || is_amd()
    }

    /// The token for kernels that have no use for BF16.
    pub(crate) fn without_bf16(self) -> Avx512<false> {
        Avx512 { amx: None }
    }
}

/// Whether AMD made the processor.
fn is_amd() -> bool {
    // SAFETY: every processor of 64 bits has the instruction and its first leaf.
    #[allow(unused_unsafe, reason = "safe in newer compilers")]
    let leaf = unsafe { __cpuid(0) };
    let name = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
    name.as_flattened() == b"AuthenticAMD"
}

#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn run<const BF16: bool, K: Kernel>(isa: Avx512<BF16>, kernel: K) -> K::Out {
    kernel.run(isa)
}

#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
fn run_bf16<const BF16: bool, K: Kernel>(isa: Avx512<BF16>, kernel: K) -> K::Out {
    kernel.run(isa)
}

/// One intrinsic that takes and returns registers only.
macro_rules! op {
    ($($body:tt)*) => {
        // SAFETY: `self` proves AVX-512 F, BW, DQ and VL; registers in, registers out.
        unsafe { $($body)* }
    };
}

// SAFETY: the operations use AVX-512 F and DQ, AVX2, FMA and F16C, and with `BF16` AVX-512 BF16, which `new`
// has checked.
unsafe impl<const BF16: bool> Isa for Avx512<BF16> {
    type V = __m512;
    type P = __m512i;
    const KIND: IsaKind = if BF16 { IsaKind::Avx512Bf16 } else { IsaKind::Avx512 };
    const LANES: usize = 16;

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Out {
        // SAFETY: the token proves that the features are there.
        unsafe { if BF16 { run_bf16(self, kernel) } else { run(self, kernel) } }
    }

    #[inline(always)]
    fn amx(self) -> Option<Amx> {
        self.amx
    }
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
    fn load_f16_part(self, src: &[f16]) -> __m512 {
        let mask = self.first(src.len());
        // SAFETY: only the first `src.len()` halves are read; `self` proves AVX-512 F, BW and VL.
        unsafe { _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, src.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_bf16_part(self, src: &[bf16]) -> __m512 {
        let mask = self.first(src.len());
        // SAFETY: only the first `src.len()` halves are read; `self` proves AVX-512 F, BW and VL.
        unsafe {
            let narrow = _mm256_maskz_loadu_epi16(mask, src.as_ptr().cast());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(narrow)))
        }
    }
    #[inline(always)]
    fn load_i8(self, src: &[u8]) -> __m512 {
        assert!(src.len() >= Self::LANES);
        // SAFETY: `src` has the 16 bytes that are read; `self` proves AVX-512 F.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(src.as_ptr().cast()))) }
    }
    #[inline(always)]
    fn load_nibbles(self, src: &[u8]) -> [__m512; 2] {
        assert!(src.len() >= Self::LANES);
        // SAFETY: `src` has the 16 bytes that are read; `self` proves AVX-512 F.
        unsafe {
            let wide = _mm512_cvtepu8_epi32(_mm_loadu_si128(src.as_ptr().cast()));
            // Of an index only the lowest four bits count.
            let table = _mm512_setr_ps(
                -8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0,
                7.0,
            );
            [
                _mm512_permutexvar_ps(wide, table),
                _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(wide), table),
            ]
        }
    }
    #[inline(always)]
    fn load_nibble_pairs(self, src: &[u8]) -> [__m512i; 2] {
        assert!(src.len() >= 2 * Self::LANES);
        // SAFETY: `src` has the 32 bytes that are read; `self` proves AVX-512 BW.
        unsafe {
            let wide = _mm512_cvtepu8_epi16(_mm256_loadu_si256(src.as_ptr().cast()));
            // Twice the `bf16` -8 to 7: of an index the lowest five bits count, and the fifth is to be ignored.
            let table = _mm512_broadcast_i64x4(_mm256_loadu_si256(NIBBLES.as_ptr().cast()));
            [
                _mm512_permutexvar_epi16(wide, table),
                _mm512_permutexvar_epi16(_mm512_srli_epi16::<4>(wide), table),
            ]
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
    fn shift_exponent(self, a: __m512, n: __m512) -> __m512 {
        op!({
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(n));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), exponent))
        })
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
    fn prefetch_for_later<T>(self, address: *const T) {
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }
    /// To an Intel core this is 8 to 15 % better in tokens a second than 2 KiB and the first cache
    /// (`benches/record/2026-11-30-cpu-xeon.md`); plain reading is the same on Zen 5, whichever way
    /// (`2026-11-29-cpu-zen5.md`).
    #[inline(always)]
    fn ask_ahead<T>(self, address: *const T) {
        self.prefetch_for_later(address.wrapping_byte_add(8192));
    }
    #[inline(always)]
    fn load_compact(self, step: &Step, exponents: &[u8; 16], part: usize) -> [__m512i; 2] {
        assert!(part < 1);
        // SAFETY: the step has a vector of signs and significands, and half a one of places; `self` proves AVX-512 F
        // and BW, and AVX2.
        unsafe {
            let exact = _mm512_loadu_si512(step.as_ptr().cast());
            let places = _mm256_loadu_si256(step.as_ptr().add(64).cast());
            let places = _mm512_broadcast_i64x4(places);
            // Of an index the lowest five bits count, and the fifth is to be ignored: the table is there twice, with
            // the exponents where they belong.
            let exponents = _mm256_cvtepu8_epi16(_mm_loadu_si128(exponents.as_ptr().cast()));
            let table = _mm512_broadcast_i64x4(_mm256_slli_epi16::<7>(exponents));
            // The lower bytes of each two for the first sixteen values, the upper for the others.
            let upper = _mm512_inserti64x4::<1>(_mm512_setzero_si512(), _mm256_set1_epi16(8));
            let first = _mm512_permutexvar_epi16(_mm512_srlv_epi16(places, upper), table);
            let upper = _mm512_add_epi16(upper, _mm512_set1_epi16(4));
            let second = _mm512_permutexvar_epi16(_mm512_srlv_epi16(places, upper), table);
            let swap = _mm_setr_epi8(1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
            let swapped = _mm512_shuffle_epi8(exact, _mm512_broadcast_i32x4(swap));
            // Bit by bit, the second where the first is set, else the third.
            const CHOOSE: i32 = 0xca;
            let keep = _mm512_set1_epi16(0x807f_u16 as i16);
            [
                _mm512_ternarylogic_epi32::<CHOOSE>(keep, exact, first),
                _mm512_ternarylogic_epi32::<CHOOSE>(keep, swapped, second),
            ]
        }
    }
    #[inline(always)]
    unsafe fn load_pairs_ptr(self, src: *const Pair) -> __m512i {
        // SAFETY: the caller vouches for sixteen pairs; `self` proves AVX-512 F.
        unsafe { _mm512_loadu_si512(src.cast()) }
    }
    #[inline(always)]
    fn load_pairs_part(self, src: &[bf16]) -> __m512i {
        assert!(src.len() <= 2 * Self::LANES);
        let mask = ((1u64 << src.len()) - 1) as __mmask32;
        // SAFETY: only the first `src.len()` halves are read; `self` proves AVX-512 BW.
        unsafe { _mm512_maskz_loadu_epi16(mask, src.as_ptr().cast()) }
    }
    #[inline(always)]
    fn splat_pair(self, pair: Pair) -> __m512i {
        op!(_mm512_set1_epi32(super::bits(pair)))
    }
    #[inline(always)]
    fn join(self, a: __m512, b: __m512) -> __m512i {
        op!({
            let half = _mm512_set1_epi32(0x8000);
            let a = _mm512_srli_epi32::<16>(_mm512_add_epi32(_mm512_castps_si512(a), half));
            let b = _mm512_add_epi32(_mm512_castps_si512(b), half);
            _mm512_or_si512(a, _mm512_and_si512(b, _mm512_set1_epi32(0xffff_0000_u32 as i32)))
        })
    }
    #[inline(always)]
    unsafe fn store_pairs_ptr(self, v: __m512i, dst: *mut Pair) {
        // SAFETY: the caller vouches for sixteen pairs; `self` proves AVX-512 F.
        unsafe { _mm512_storeu_si512(dst.cast(), v) }
    }
    #[inline(always)]
    fn widen(self, a: __m512i) -> [__m512; 2] {
        op!({
            let high = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            [
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(a)),
                _mm512_castsi512_ps(_mm512_and_si512(a, high)),
            ]
        })
    }
    #[inline(always)]
    fn dot_pairs(self, a: __m512i, b: __m512i, sum: __m512) -> __m512 {
        if BF16 {
            // SAFETY: vectors of the same size; `self` proves AVX-512 BF16.
            unsafe {
                let a = transmute::<__m512i, __m512bh>(a);
                return _mm512_dpbf16_ps(sum, a, transmute::<__m512i, __m512bh>(b));
            }
        }
        dot_widened(self, a, b, sum)
    }
    #[inline(always)]
    fn store_rounded(self, v: __m512, dst: &mut [bf16]) {
        let mask = self.first(dst.len());
        // SAFETY: only the first `dst.len()` lanes are written; `self` proves AVX-512 BW and VL and, where it
        // is used, BF16.
        unsafe {
            let rounded: __m256i = if BF16 {
                transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v))
            } else {
                // Half of the last place that is kept, a little less where that place is even. A NaN stays one
                // by its quiet bit.
                let bits = _mm512_castps_si512(v);
                let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
                let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
                let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
                let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x0040_0000));
                let sum = _mm512_mask_mov_epi32(_mm512_add_epi32(bits, half), nan, quiet);
                _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(sum))
            };
            _mm256_mask_storeu_epi16(dst.as_mut_ptr().cast(), mask, rounded);
        }
    }
    #[inline(always)]
    unsafe fn transpose_ptr(
        self,
        src: *const f32,
        src_stride: usize,
        dst: *mut f32,
        dst_stride: usize,
    ) {
        // Four quarters of 8 × 8: as many shuffles as one transposition of full vectors would take.
        for (i, k) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
            // SAFETY: the caller vouches for the blocks of 16 × 16, and so for all quarters; `self` proves
            // AVX2, and with it AVX.
            unsafe {
                let (src, dst) = (src.add(i * src_stride + k), dst.add(k * dst_stride + i));
                transpose8(src, src_stride, dst, dst_stride);
            }
        }
    }
}
