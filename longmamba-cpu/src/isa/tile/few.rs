//! A few rows and a panel in twelve bits a weight, which is unpacked on its way from memory to the multipliers.

use super::{Ending, Left, MAX_COLUMNS, Meets, Multiples, Sums, offset, write};
use crate::dispatch::{Block, Kernel};
use crate::isa::compact::{COLUMNS, Step, Steps};
use crate::isa::{Isa, IsaKind, LINE_BYTES, MOST_LANES, Pair};
use half::bf16;
use std::ops::Range;

/// The most rows: more of them are worth a panel that is unpacked first.
pub(crate) const MOST_ROWS: usize = 4;

/// [`multiply`](super::multiply) with the steps of a panel on the right: to the last bit what it gives with the pairs
/// that [`Steps::expand`] writes.
///
/// # Panics
/// Where `left` is too short for the shape of `out`, `out` is wider than the panel, or a row of it is not contiguous.
#[inline(always)]
pub(crate) fn multiply_few<I: Isa, L: Meets<Pair>>(
    isa: I,
    left: Left<'_, L>,
    right: Steps<'_>,
    out: &mut Block<'_, f32, 2>,
    ending: impl Ending,
) {
    isa.call(MultiplyFew { left, right, out, ending });
}

/// The arguments of [`multiply_few`].
struct MultiplyFew<'a, 'o, L, E> {
    left: Left<'a, L>,
    right: Steps<'a>,
    out: &'a mut Block<'o, f32, 2>,
    ending: E,
}

impl<L: Meets<Pair>, E: Ending> Kernel for MultiplyFew<'_, '_, L, E> {
    type Out = ();
    const PAIRS: bool = L::PAIRS;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match I::KIND {
            IsaKind::Scalar | IsaKind::Neon => self.rows::<I, 8>(isa),
            IsaKind::Avx2 => self.rows::<I, 4>(isa),
            IsaKind::Avx512 | IsaKind::Avx512Bf16 | IsaKind::Amx => self.rows::<I, 2>(isa),
        }
    }
}

impl<L: Meets<Pair>, E: Ending> MultiplyFew<'_, '_, L, E> {
    /// All of it; a panel is `NV` vectors wide.
    #[inline(always)]
    fn rows<I: Isa, const NV: usize>(mut self, isa: I) {
        assert!(NV * I::LANES == COLUMNS, "not the vectors of a panel");
        let ([rows, columns], depth) = (self.out.shape(), self.right.steps.len());
        assert!(columns <= COLUMNS, "the panel is too narrow");
        if rows == 0 || columns == 0 {
            return;
        }
        if depth > 0 {
            let last = offset(rows - 1, self.left.row_stride, depth - 1);
            assert!(last.is_some_and(|at| at < self.left.data.len()), "left factor is too short");
        }
        let mut row = 0;
        // SAFETY: the last element of `left` was just shown to be inside it, and each tile ends at or before the last
        // row.
        unsafe {
            // Where vectors are short, there are too few registers for so many sums.
            while NV == 2 && rows - row >= 4 {
                self.tile::<I, 4, NV>(isa, row);
                row += 4;
            }
            while rows - row >= 2 {
                self.tile::<I, 2, NV>(isa, row);
                row += 2;
            }
            if rows > row {
                self.tile::<I, 1, NV>(isa, row);
            }
        }
    }

    /// `MR` rows.
    ///
    /// # Safety
    /// `left` must have rows up to `row + MR`, of as many factors as there are steps.
    #[inline(always)]
    unsafe fn tile<I: Isa, const MR: usize, const NV: usize>(&mut self, isa: I, row: usize) {
        let Steps { steps, exponents, .. } = self.right;
        let mut sums = [[isa.zero(); NV]; MR];
        let rows = Multiples::new::<I, L, MR>(self.left.row_stride);
        let left = self.left.data.as_ptr().wrapping_add(row.wrapping_mul(self.left.row_stride));
        let mut done = 0;
        for (patched, patches) in self.right.patched() {
            let mut pairs = [[bf16::ZERO; 2]; COLUMNS];
            Steps { steps: &steps[patched..][..1], patches: &[], ..self.right }
                .expand(isa, &mut pairs);
            patches.iter().for_each(|patch| patch.apply(&mut pairs));
            // SAFETY: patched steps are some of those that there are; the caller vouches for `left`.
            unsafe {
                sum(isa, left, rows, steps, done..patched, &exponents, &mut sums);
                let left = left.add(patched);
                for (v, pairs) in pairs.chunks_exact(I::LANES).enumerate() {
                    add(isa, left, rows, isa.load_pairs_ptr(pairs.as_ptr()), v, &mut sums);
                }
            }
            done = patched + 1;
        }
        // SAFETY: as above.
        unsafe { sum(isa, left, rows, steps, done..steps.len(), &exponents, &mut sums) };
        let mut room = [[0.0; MAX_COLUMNS]; MR];
        for (sums, room) in sums.iter().zip(&mut room) {
            for (v, &sum) in sums.iter().enumerate() {
                isa.store(sum, &mut room[v * I::LANES..]);
            }
        }
        let columns = self.out.shape()[1];
        write(isa, &room, self.out.rows_mut([row, 0], 0, MR, columns), [row, 0], self.ending);
    }
}

/// Adds some of the steps, without patches.
///
/// # Safety
/// `left` must be valid for reading at all of `range`, and `rows.times(i)` bytes on, for all `i < MR`.
#[inline(always)]
unsafe fn sum<I: Isa, L: Meets<Pair>, const MR: usize, const NV: usize>(
    isa: I,
    left: *const L,
    rows: Multiples,
    steps: &[Step],
    range: Range<usize>,
    exponents: &[u8; 16],
    sums: &mut Sums<I, MR, NV>,
) {
    // A copy of its own stays in registers whatever becomes of the sums afterwards.
    let mut running = *sums;
    let mut left = left.wrapping_add(range.start);
    for step in &steps[range] {
        for line in step.iter().step_by(LINE_BYTES) {
            isa.ask_ahead(line);
        }
        for part in 0..NV / 2 {
            let [a, b] = isa.load_compact(step, exponents, part);
            // SAFETY: the caller vouches.
            unsafe {
                add(isa, left, rows, a, part, &mut running);
                add(isa, left, rows, b, NV / 2 + part, &mut running);
            }
        }
        left = left.wrapping_add(1);
    }
    *sums = running;
}

/// Adds vector `v` of a step.
///
/// # Safety
/// `left` must be valid for reading, and `rows.times(i)` bytes on, for all `i < MR`.
#[inline(always)]
unsafe fn add<I: Isa, L: Meets<Pair>, const MR: usize, const NV: usize>(
    isa: I,
    left: *const L,
    rows: Multiples,
    right: I::P,
    v: usize,
    sums: &mut Sums<I, MR, NV>,
) {
    for (i, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller vouches.
        let left = unsafe { L::splat_ptr(isa, left.byte_add(rows.times(i))) };
        sums[v] = L::multiply_add(isa, left, right, sums[v]);
    }
}

const _: () = assert!(COLUMNS == 2 * MOST_LANES && COLUMNS <= MAX_COLUMNS);
