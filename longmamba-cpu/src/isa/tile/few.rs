//! The first rows that meet a panel in twelve bits a weight, which is unpacked on its way from memory to the multipliers.

use super::{Ending, Factor, Left, MAX_COLUMNS, Meets, Multiples, Sums, each_row, offset, write};
use crate::dispatch::{Block, Kernel};
use crate::isa::compact::{COLUMNS, Pairs, Steps, put_part};
use crate::isa::{Isa, IsaKind, LINE_BYTES, MOST_LANES, Pair};
use half::bf16;

/// Where vectors are short, so many rows unpack a panel on their way, and more are worth one that is unpacked first.
pub(crate) const MOST_ROWS: usize = 4;

/// [`multiply`](super::multiply) with the steps of a panel on the right, for the first rows of all that `out` has: to the
/// last bit what it gives with the pairs that [`Steps::expand`] writes. Returns for how many rows that was done; where
/// there are more, those pairs are in `panel` afterwards.
///
/// # Panics
/// Where `left` is too short for the shape of `out`, `out` is wider than the panel, a row of it is not contiguous, or
/// `panel` is needed and too short.
#[inline(always)]
pub(crate) fn multiply_first<I: Isa, L: Meets<Pair>>(
    isa: I,
    left: Left<'_, L>,
    right: Steps<'_>,
    panel: &mut [Pair],
    out: &mut Block<'_, f32, 2>,
    ending: impl Ending,
) -> usize {
    isa.call(MultiplyFirst { left, right, panel, out, ending })
}

/// The arguments of [`multiply_first`].
struct MultiplyFirst<'a, 'o, L, E> {
    left: Left<'a, L>,
    right: Steps<'a>,
    panel: &'a mut [Pair],
    out: &'a mut Block<'o, f32, 2>,
    ending: E,
}

impl<L: Meets<Pair>, E: Ending> Kernel for MultiplyFirst<'_, '_, L, E> {
    type Out = usize;
    const PAIRS: bool = L::PAIRS;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> usize {
        match I::KIND {
            IsaKind::Scalar | IsaKind::Neon => self.rows::<I, 8>(isa),
            IsaKind::Avx2 => self.rows::<I, 4>(isa),
            IsaKind::Avx512 | IsaKind::Avx512Bf16 | IsaKind::Amx => self.rows::<I, 2>(isa),
        }
    }
}

impl<L: Meets<Pair>, E: Ending> MultiplyFirst<'_, '_, L, E> {
    /// Some or all rows; a panel is `NV` vectors wide.
    #[inline(always)]
    fn rows<I: Isa, const NV: usize>(mut self, isa: I) -> usize {
        assert!(NV * I::LANES == COLUMNS, "not the vectors of a panel");
        let ([rows, columns], depth) = (self.out.shape(), self.right.steps.len());
        assert!(columns <= COLUMNS, "the panel is too narrow");
        if rows == 0 || columns == 0 {
            return rows;
        }
        if depth > 0 {
            let last = offset(rows - 1, self.left.row_stride, depth - 1);
            assert!(last.is_some_and(|at| at < self.left.data.len()), "left factor is too short");
        }
        // SAFETY: the last element of `left` was just shown to be inside it, and each tile ends at or before the last
        // row.
        unsafe {
            if NV > 2 {
                return self.short_vectors::<I, NV>(isa);
            }
            // The more rows, the better the multipliers hide what unpacking takes.
            match rows {
                1 => self.tile::<I, 1, NV>(isa, 0, false),
                2 => self.tile::<I, 2, NV>(isa, 0, false),
                3 => self.tile::<I, 3, NV>(isa, 0, false),
                4 => self.tile::<I, 4, NV>(isa, 0, false),
                5 => self.tile::<I, 5, NV>(isa, 0, false),
                6 => self.tile::<I, 6, NV>(isa, 0, false),
                7 => self.tile::<I, 7, NV>(isa, 0, false),
                8..12 => self.tile::<I, 8, NV>(isa, 0, rows > 8),
                _ => self.tile::<I, 12, NV>(isa, 0, rows > 12),
            }
        }
    }

    /// All rows, or none where they are worth a panel: there are registers for the sums of two.
    ///
    /// # Safety
    /// `left` must have all rows, of as many factors as there are steps.
    #[inline(always)]
    unsafe fn short_vectors<I: Isa, const NV: usize>(&mut self, isa: I) -> usize {
        let rows = self.out.shape()[0];
        if rows > MOST_ROWS {
            self.right.expand(isa, self.panel);
            return 0;
        }
        let mut row = 0;
        while row < rows {
            // SAFETY: the caller vouches, and both tiles end at or before the last row.
            row += unsafe {
                match rows - row {
                    2.. => self.tile::<I, 2, NV>(isa, row, false),
                    _ => self.tile::<I, 1, NV>(isa, row, false),
                }
            };
        }
        rows
    }

    /// `MR` rows, from `row` on; pairs go to the panel on their way, where they are to be kept. Returns `MR`.
    ///
    /// # Safety
    /// `left` must have rows up to `row + MR`, of as many factors as there are steps.
    #[inline(always)]
    unsafe fn tile<I: Isa, const MR: usize, const NV: usize>(
        &mut self,
        isa: I,
        row: usize,
        keep: bool,
    ) -> usize {
        let right = self.right;
        let kept = if keep { right.steps.len() } else { 0 };
        let kept = &mut self.panel.as_chunks_mut::<COLUMNS>().0[..kept];
        let mut sums = [[isa.zero(); NV]; MR];
        let rows = Multiples::new::<I, L, MR>(self.left.row_stride);
        let left = self.left.data.as_ptr().wrapping_add(row.wrapping_mul(self.left.row_stride));
        let mut done = 0;
        for (patched, patches) in right.patched() {
            let plain = right.plain(done..patched);
            let mut pairs = [[bf16::ZERO; 2]; COLUMNS];
            right.plain(patched..patched + 1).expand(isa, &mut pairs);
            patches.iter().for_each(|patch| patch.apply(&mut pairs));
            // SAFETY: patched steps are some of those that there are; the caller vouches for `left`.
            unsafe {
                let kept = kept.get_mut(done..patched).unwrap_or_default();
                sum(isa, left.add(done), rows, plain, kept, &mut sums);
                for part in 0..NV / 2 {
                    let at = [part, NV / 2 + part].map(|v| v * I::LANES);
                    let vectors = at.map(|at| Pair::load(isa, &pairs[at..]));
                    add(isa, left.add(patched), rows, vectors, part, &mut sums);
                }
            }
            if let Some(kept) = kept.get_mut(patched) {
                *kept = pairs;
            }
            done = patched + 1;
        }
        let plain = right.plain(done..right.steps.len());
        let kept = kept.get_mut(done..).unwrap_or_default();
        // SAFETY: as above; after the last step nothing is read.
        unsafe { sum(isa, left.wrapping_add(done), rows, plain, kept, &mut sums) };
        let mut room = [[0.0; MAX_COLUMNS]; MR];
        for (sums, room) in sums.iter().zip(&mut room) {
            for (v, &sum) in sums.iter().enumerate() {
                isa.store(sum, &mut room[v * I::LANES..]);
            }
        }
        let columns = self.out.shape()[1];
        write(isa, &room, self.out.rows_mut([row, 0], 0, MR, columns), [row, 0], self.ending);
        MR
    }
}

/// Adds steps without patches, and writes their pairs to `kept`, where that is not empty.
///
/// # Safety
/// `left` must be valid for reading a factor a step, and as many `rows.times(i)` bytes on, for all `i < MR`.
#[inline(always)]
unsafe fn sum<I: Isa, L: Meets<Pair>, const MR: usize, const NV: usize>(
    isa: I,
    left: *const L,
    rows: Multiples,
    right: Steps<'_>,
    kept: &mut [Pairs],
    sums: &mut Sums<I, MR, NV>,
) {
    // A copy of its own stays in registers whatever becomes of the sums afterwards.
    let mut running = *sums;
    let (mut left, mut kept) = (left, kept.iter_mut());
    for step in right.steps {
        for line in step.iter().step_by(LINE_BYTES) {
            isa.ask_ahead(line);
        }
        let mut kept = kept.next();
        for part in 0..NV / 2 {
            let vectors = isa.load_compact(step, &right.exponents, part);
            if let Some(kept) = &mut kept {
                put_part(isa, vectors, part, kept);
            }
            // SAFETY: the caller vouches.
            unsafe { add(isa, left, rows, vectors, part, &mut running) };
        }
        left = left.wrapping_add(1);
    }
    *sums = running;
}

/// Adds one part of a step, which is the vectors `part` and `NV / 2 + part`.
///
/// # Safety
/// `left` must be valid for reading, and `rows.times(i)` bytes on, for all `i < MR`.
#[inline(always)]
unsafe fn add<I: Isa, L: Meets<Pair>, const MR: usize, const NV: usize>(
    isa: I,
    left: *const L,
    rows: Multiples,
    vectors: [I::P; 2],
    part: usize,
    sums: &mut Sums<I, MR, NV>,
) {
    // SAFETY: the caller vouches.
    let left = |i| unsafe { L::splat_ptr(isa, left.byte_add(rows.times(i))) };
    let places = [part, NV / 2 + part];
    if const { MR > MOST_ROWS } {
        // One row after the other, since there are no registers for all of them.
        each_row!(MR, |i| {
            let left = left(i);
            for (v, right) in places.into_iter().zip(vectors) {
                sums[i][v] = L::multiply_add(isa, left, right, sums[i][v]);
            }
        });
        return;
    }
    for (v, right) in places.into_iter().zip(vectors) {
        for (i, sums) in sums.iter_mut().enumerate() {
            sums[v] = L::multiply_add(isa, left(i), right, sums[v]);
        }
    }
}

const _: () = assert!(COLUMNS == 2 * MOST_LANES && COLUMNS <= MAX_COLUMNS);
