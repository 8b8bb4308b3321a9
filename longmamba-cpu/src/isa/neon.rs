//! NEON, part of every aarch64 processor: four lanes, thirty-two registers.

use super::{Isa, IsaKind, Pair};
use crate::dispatch::Kernel;
use half::{bf16, f16};
use std::arch::aarch64::*;
use std::arch::asm;

/// The token of [`IsaKind::Neon`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon(());

impl Neon {
    /// `None` where the processor lacks NEON, which no 64-bit one does.
    pub(crate) fn new() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Neon(()))
    }
}

#[inline(never)]
#[target_feature(enable = "neon")]
fn run<K: Kernel>(isa: Neon, kernel: K) -> K::Out {
    kernel.run(isa)
}

/// One intrinsic that takes and returns registers only.
macro_rules! op {
    ($($body:tt)*) => {
        // SAFETY: `self` proves NEON; registers in, registers out.
        unsafe { $($body)* }
    };
}

// SAFETY: the operations use NEON, which `new` has checked.
unsafe impl Isa for Neon {
    type V = float32x4_t;
    type P = uint32x4_t;
    const KIND: IsaKind = IsaKind::Neon;
    const LANES: usize = 4;

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Out {
        // SAFETY: the token proves that the feature is there.
        unsafe { run(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> float32x4_t {
        op!(vdupq_n_f32(value))
    }
    #[inline(always)]
    unsafe fn load_ptr(self, src: *const f32) -> float32x4_t {
        // SAFETY: the caller vouches for four floats; `self` proves NEON.
        unsafe { vld1q_f32(src) }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, v: float32x4_t, dst: *mut f32) {
        // SAFETY: the caller vouches for four floats; `self` proves NEON.
        unsafe { vst1q_f32(dst, v) }
    }
    #[inline(always)]
    fn load_part(self, src: &[f32]) -> float32x4_t {
        let mut buffer = [0.0; 4];
        buffer[..src.len()].copy_from_slice(src);
        self.load(&buffer)
    }
    #[inline(always)]
    fn store_part(self, v: float32x4_t, dst: &mut [f32]) {
        let mut buffer = [0.0; 4];
        self.store(v, &mut buffer);
        dst.copy_from_slice(&buffer[..dst.len()]);
    }
    // The conversion intrinsic needs a type that is newer than the oldest supported compiler; the
    // instruction itself is part of the base architecture.
    #[inline(always)]
    fn load_f16(self, src: &[f16]) -> float32x4_t {
        assert!(src.len() >= Self::LANES);
        // SAFETY: `src` has the 8 bytes that are read; the instruction only writes its output.
        unsafe {
            let narrow = vld1_u16(src.as_ptr().cast());
            let wide: float32x4_t;
            asm!(
                "fcvtl {wide:v}.4s, {narrow:v}.4h",
                wide = lateout(vreg) wide,
                narrow = in(vreg) narrow,
                options(pure, nomem, nostack, preserves_flags),
            );
            wide
        }
    }
    #[inline(always)]
    fn load_bf16(self, src: &[bf16]) -> float32x4_t {
        assert!(src.len() >= Self::LANES);
        // SAFETY: `src` has the 8 bytes that are read; `self` proves NEON.
        unsafe {
            let narrow = vld1_u16(src.as_ptr().cast());
            vreinterpretq_f32_u32(vshll_n_u16::<16>(narrow))
        }
    }
    #[inline(always)]
    fn load_i8(self, src: &[u8]) -> float32x4_t {
        let four: [u8; 4] = std::array::from_fn(|i| src[i]);
        op!({
            let bytes = vreinterpret_s8_u32(vdup_n_u32(u32::from_le_bytes(four)));
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
        })
    }
    #[inline(always)]
    fn load_nibbles(self, src: &[u8]) -> [float32x4_t; 2] {
        let four: [u8; 4] = std::array::from_fn(|i| src[i]);
        op!({
            let bytes = vreinterpret_u8_u32(vdup_n_u32(u32::from_le_bytes(four)));
            // The lower four bits of each, and then the upper ones.
            let both = vzip1_u32(
                vreinterpret_u32_u8(vand_u8(bytes, vdup_n_u8(15))),
                vreinterpret_u32_u8(vshr_n_u8::<4>(bytes)),
            );
            let wide = vmovl_s8(vsub_s8(vreinterpret_s8_u32(both), vdup_n_s8(8)));
            [
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))),
                vcvtq_f32_s32(vmovl_s16(vget_high_s16(wide))),
            ]
        })
    }
    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        op!(vaddq_f32(a, b))
    }
    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        op!(vsubq_f32(a, b))
    }
    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        op!(vmulq_f32(a, b))
    }
    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        op!(vdivq_f32(a, b))
    }
    #[inline(always)]
    fn fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        op!(vfmaq_f32(c, a, b))
    }
    #[inline(always)]
    fn nfma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        op!(vfmsq_f32(c, a, b))
    }
    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        op!(vmaxq_f32(a, b))
    }
    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        op!(vminq_f32(a, b))
    }
    #[inline(always)]
    fn abs(self, a: float32x4_t) -> float32x4_t {
        op!(vabsq_f32(a))
    }
    #[inline(always)]
    fn neg(self, a: float32x4_t) -> float32x4_t {
        op!(vnegq_f32(a))
    }
    #[inline(always)]
    fn sqrt(self, a: float32x4_t) -> float32x4_t {
        op!(vsqrtq_f32(a))
    }
    #[inline(always)]
    fn shift_exponent(self, a: float32x4_t, n: float32x4_t) -> float32x4_t {
        op!({
            let exponent = vshlq_n_u32::<23>(vreinterpretq_u32_f32(n));
            vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(a), exponent))
        })
    }
    #[inline(always)]
    fn select_gt(
        self,
        a: float32x4_t,
        b: float32x4_t,
        yes: float32x4_t,
        no: float32x4_t,
    ) -> float32x4_t {
        op!(vbslq_f32(vcgtq_f32(a, b), yes, no))
    }
    #[inline(always)]
    fn select_le(
        self,
        a: float32x4_t,
        b: float32x4_t,
        yes: float32x4_t,
        no: float32x4_t,
    ) -> float32x4_t {
        op!(vbslq_f32(vcleq_f32(a, b), yes, no))
    }
    #[inline(always)]
    fn zero_where_gt(self, a: float32x4_t, b: float32x4_t, v: float32x4_t) -> float32x4_t {
        op!(vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(v), vcgtq_f32(a, b))))
    }
    #[inline(always)]
    fn reduce_sum(self, a: float32x4_t) -> f32 {
        op!({
            let two = vadd_f32(vget_low_f32(a), vget_high_f32(a));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        })
    }
    #[inline(always)]
    unsafe fn load_pairs_ptr(self, src: *const Pair) -> uint32x4_t {
        // SAFETY: the caller vouches for four pairs; bytes need no alignment; `self` proves NEON.
        unsafe { vreinterpretq_u32_u8(vld1q_u8(src.cast())) }
    }
    #[inline(always)]
    fn splat_pair(self, pair: Pair) -> uint32x4_t {
        op!(vdupq_n_u32(super::bits(pair) as u32))
    }
    #[inline(always)]
    fn join(self, a: float32x4_t, b: float32x4_t) -> uint32x4_t {
        op!({
            let half = vdupq_n_u32(0x8000);
            let a = vshrq_n_u32::<16>(vaddq_u32(vreinterpretq_u32_f32(a), half));
            let b = vaddq_u32(vreinterpretq_u32_f32(b), half);
            vorrq_u32(a, vandq_u32(b, vdupq_n_u32(0xffff_0000)))
        })
    }
    #[inline(always)]
    unsafe fn store_pairs_ptr(self, v: uint32x4_t, dst: *mut Pair) {
        // SAFETY: the caller vouches for four pairs; bytes need no alignment; `self` proves NEON.
        unsafe { vst1q_u8(dst.cast(), vreinterpretq_u8_u32(v)) }
    }
    #[inline(always)]
    fn widen(self, a: uint32x4_t) -> [float32x4_t; 2] {
        op!({
            let second = vandq_u32(a, vdupq_n_u32(0xffff_0000));
            [vreinterpretq_f32_u32(vshlq_n_u32::<16>(a)), vreinterpretq_f32_u32(second)]
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
        // SAFETY: the caller vouches for the blocks of 4 × 4; bytes need no alignment; `self` proves NEON.
        unsafe {
            let load = |src: *const f32| vreinterpretq_f32_u8(vld1q_u8(src.cast()));
            let store = |dst: *mut f32, v| vst1q_u8(dst.cast(), vreinterpretq_u8_f32(v));
            let a = load(src);
            let b = load(src.add(src_stride));
            let c = load(src.add(2 * src_stride));
            let d = load(src.add(3 * src_stride));
            // a0 c0 a1 c1, a2 c2 a3 c3, and the same of b and d.
            let (ac01, ac23) = (vzip1q_f32(a, c), vzip2q_f32(a, c));
            let (bd01, bd23) = (vzip1q_f32(b, d), vzip2q_f32(b, d));
            store(dst, vzip1q_f32(ac01, bd01));
            store(dst.add(dst_stride), vzip2q_f32(ac01, bd01));
            store(dst.add(2 * dst_stride), vzip1q_f32(ac23, bd23));
            store(dst.add(3 * dst_stride), vzip2q_f32(ac23, bd23));
        }
    }
}
