//! Plain Rust: the reference for the other instruction sets, and the fallback.

use super::{Isa, IsaKind, Pair};
use crate::dispatch::Kernel;
use half::{bf16, f16};

/// The token of [`IsaKind::Scalar`]; any processor will do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scalar(());

type V = [f32; 4];

impl Scalar {
    pub(crate) fn new() -> Self {
        Scalar(())
    }
}

#[inline(never)]
fn run<K: Kernel>(isa: Scalar, kernel: K) -> K::Out {
    kernel.run(isa)
}

/// `[f(a0, b0), ..]`, written out because a closure could not be forced inline.
macro_rules! lanes {
    ($lane:ident => $value:expr) => {{
        let mut out = [0.0f32; 4];
        let mut $lane = 0;
        while $lane < 4 {
            out[$lane] = $value;
            $lane += 1;
        }
        out
    }};
}

// SAFETY: no operation uses anything but plain Rust.
unsafe impl Isa for Scalar {
    type V = V;
    type P = [Pair; 4];
    const KIND: IsaKind = IsaKind::Scalar;
    const LANES: usize = 4;

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Out {
        run(self, kernel)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> V {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn load_ptr(self, src: *const f32) -> V {
        // SAFETY: the caller vouches for `LANES` floats; the read needs no alignment.
        unsafe { src.cast::<V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, v: V, dst: *mut f32) {
        // SAFETY: the caller vouches for `LANES` floats; the write needs no alignment.
        unsafe { dst.cast::<V>().write_unaligned(v) }
    }
    #[inline(always)]
    fn load_part(self, src: &[f32]) -> V {
        let mut v = [0.0; 4];
        v[..src.len()].copy_from_slice(src);
        v
    }
    #[inline(always)]
    fn store_part(self, v: V, dst: &mut [f32]) {
        dst.copy_from_slice(&v[..dst.len()]);
    }
    #[inline(always)]
    fn load_f16(self, src: &[f16]) -> V {
        let src = &src[..4];
        lanes!(i => src[i].to_f32())
    }
    #[inline(always)]
    fn load_bf16(self, src: &[bf16]) -> V {
        let src = &src[..4];
        lanes!(i => f32::from_bits(u32::from(src[i].to_bits()) << 16))
    }
    #[inline(always)]
    fn load_i8(self, src: &[u8]) -> V {
        let src = &src[..4];
        lanes!(i => f32::from(src[i] as i8))
    }
    #[inline(always)]
    fn load_nibbles(self, src: &[u8]) -> [V; 2] {
        let src = &src[..4];
        [lanes!(i => f32::from(src[i] & 15) - 8.0), lanes!(i => f32::from(src[i] >> 4) - 8.0)]
    }
    #[inline(always)]
    unsafe fn load_pairs_ptr(self, src: *const Pair) -> [Pair; 4] {
        // SAFETY: the caller vouches for four pairs; the read needs no alignment.
        unsafe { src.cast::<[Pair; 4]>().read_unaligned() }
    }
    #[inline(always)]
    fn splat_pair(self, pair: Pair) -> [Pair; 4] {
        [pair; 4]
    }
    #[inline(always)]
    fn join(self, a: V, b: V) -> [Pair; 4] {
        let round = |v: f32| bf16::from_bits((v.to_bits().wrapping_add(0x8000) >> 16) as u16);
        let mut pairs = [[bf16::ZERO; 2]; 4];
        for (i, pair) in pairs.iter_mut().enumerate() {
            *pair = [round(a[i]), round(b[i])];
        }
        pairs
    }
    #[inline(always)]
    unsafe fn store_pairs_ptr(self, v: [Pair; 4], dst: *mut Pair) {
        // SAFETY: the caller vouches for four pairs; the write needs no alignment.
        unsafe { dst.cast::<[Pair; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    fn widen(self, a: [Pair; 4]) -> [V; 2] {
        let wide = |v: bf16| f32::from_bits(u32::from(v.to_bits()) << 16);
        [lanes!(i => wide(a[i][0])), lanes!(i => wide(a[i][1]))]
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        lanes!(i => a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        lanes!(i => a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        lanes!(i => a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        lanes!(i => a[i] / b[i])
    }
    // Not `mul_add`: without the instruction it is a slow call into the maths library.
    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        lanes!(i => a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn nfma(self, a: V, b: V, c: V) -> V {
        lanes!(i => c[i] - a[i] * b[i])
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        lanes!(i => if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        lanes!(i => if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn abs(self, a: V) -> V {
        lanes!(i => a[i].abs())
    }
    #[inline(always)]
    fn neg(self, a: V) -> V {
        lanes!(i => -a[i])
    }
    #[inline(always)]
    fn sqrt(self, a: V) -> V {
        lanes!(i => a[i].sqrt())
    }
    #[inline(always)]
    fn shift_exponent(self, a: V, n: V) -> V {
        lanes!(i => f32::from_bits(a[i].to_bits().wrapping_add(n[i].to_bits() << 23)))
    }
    #[inline(always)]
    fn select_gt(self, a: V, b: V, yes: V, no: V) -> V {
        lanes!(i => if a[i] > b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    fn select_le(self, a: V, b: V, yes: V, no: V) -> V {
        lanes!(i => if a[i] <= b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    fn zero_where_gt(self, a: V, b: V, v: V) -> V {
        lanes!(i => if a[i] > b[i] { 0.0 } else { v[i] })
    }
    #[inline(always)]
    fn reduce_sum(self, a: V) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }
}
