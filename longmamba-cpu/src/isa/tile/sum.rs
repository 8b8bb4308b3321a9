//! The sums of a tile: the loop that all the time is spent in.

use super::{FEW, Factor, Meets, Multiples, Sums};
use crate::isa::{Isa, IsaKind, LINE_BYTES};

/// Steps of k between looking whether there are more. They save instructions, for which a multiply-add of 16 lanes
/// leaves time enough; and there the compiler would load the values of all four steps first, for which there are
/// no registers.
const fn unrolled<I: Isa>() -> usize {
    match I::KIND {
        IsaKind::Avx2 => 4,
        IsaKind::Scalar | IsaKind::Neon | IsaKind::Avx512 | IsaKind::Avx512Bf16 | IsaKind::Amx => 1,
    }
}

/// The loop that all the time is spent in: `sums[i][v] += Σ_k l[i, k] · r[k, v]`.
///
/// # Safety
/// `l` must be valid for reading at `k` and `rows.times(i)` bytes on, and `r` for reading `NV` vectors at
/// `k · r_stride`, for all `i < MR` and `k < depth`.
#[inline(always)]
pub(super) unsafe fn sum<
    I: Isa,
    L: Meets<F>,
    F: Factor,
    const MR: usize,
    const NV: usize,
    const STREAMED: bool,
>(
    isa: I,
    l: *const L,
    rows: Multiples,
    r: *const F,
    r_stride: usize,
    depth: usize,
    sums: &mut Sums<I, MR, NV>,
) {
    // A copy of its own stays in registers whatever becomes of the sums afterwards.
    let mut running = *sums;
    let (mut l, mut r) = (l, r);
    let mut remaining = depth;
    let steps = const { unrolled::<I>() };
    let next = Multiples::new::<I, F, 4>(r_stride);
    while remaining >= steps {
        for j in 0..steps {
            // SAFETY: the caller vouches for `depth` steps, of which these are the next.
            unsafe {
                let (l, r) = (l.add(j), r.byte_add(next.times(j)));
                step::<I, L, F, MR, NV, STREAMED>(isa, l, rows, r, &mut running);
            }
        }
        l = l.wrapping_add(steps);
        r = r.wrapping_byte_add(next.times(steps));
        remaining -= steps;
    }
    for _ in 0..remaining {
        // SAFETY: as above.
        unsafe { step::<I, L, F, MR, NV, STREAMED>(isa, l, rows, r, &mut running) };
        l = l.wrapping_add(1);
        r = r.wrapping_byte_add(next.times(1));
    }
    *sums = running;
}

/// One k of [`sum`].
///
/// # Safety
/// As there, with `l` and `r` at this k.
#[inline(always)]
pub(super) unsafe fn step<
    I: Isa,
    L: Meets<F>,
    F: Factor,
    const MR: usize,
    const NV: usize,
    const STREAMED: bool,
>(
    isa: I,
    l: *const L,
    rows: Multiples,
    r: *const F,
    sums: &mut [[I::V; NV]; MR],
) {
    let mut right = [F::ZERO.splat(isa); NV];
    for (v, right) in right.iter_mut().enumerate() {
        // SAFETY: the caller vouches.
        unsafe {
            let r = r.add(v * I::LANES);
            *right = F::load_ptr(isa, r);
            if const { STREAMED && MR <= FEW }
                && (v * I::LANES * size_of::<F>()).is_multiple_of(LINE_BYTES)
            {
                isa.ask_ahead(r);
            }
        }
    }
    for (i, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller vouches.
        let left = unsafe { L::splat_ptr(isa, l.byte_add(rows.times(i))) };
        for (sum, &right) in sums.iter_mut().zip(&right) {
            *sum = L::multiply_add(isa, left, right, *sum);
        }
    }
}
