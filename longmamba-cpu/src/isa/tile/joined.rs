//! A right factor of floats. The first rows that meet a panel of it round it to pairs on their way to the multipliers, which
//! leave time for that, and write them down for the other rows.

use super::{Coming, Ending, Factor, Left, Meets, Multiples, Product, Right, Sums};
use super::{each_row, finish, multiply, offset};
use crate::dispatch::{Block, Kernel};
use crate::isa::{Isa, IsaKind, MOST_LANES, Pair};

/// [`multiply`] with `floats` as pairs of rows, `depth` rows of whole vectors: to the last bit what it gives with the pairs
/// that [`join`] writes. `room` is for these.
///
/// # Panics
/// Where a factor or `room` is too short for the shape of `out`, or a row of `out` is not contiguous.
#[inline(always)]
pub(crate) fn multiply_joined<I: Isa>(
    isa: I,
    left: Left<'_, Pair>,
    floats: Right<'_>,
    depth: usize,
    room: &mut [Pair],
    out: &mut Block<'_, f32, 2>,
    ending: impl Ending,
) {
    isa.call(Joined { left, floats, depth, room, out, ending });
}

/// The right factor of `depth` rows of `floats`, `width` values each, whole vectors: those of two rows side by side, a
/// missing last row as zeros.
#[inline(always)]
pub(crate) fn join<'a, I: Isa>(
    isa: I,
    floats: Right<'_>,
    [depth, width]: [usize; 2],
    room: &'a mut [Pair],
) -> Right<'a, Pair> {
    let row = |k: usize| &floats.data[k * floats.depth_stride..][..width];
    for (k, pairs) in room.chunks_exact_mut(width.max(1)).take(depth.div_ceil(2)).enumerate() {
        let first = row(2 * k);
        let second = (2 * k + 1 < depth).then(|| row(2 * k + 1));
        for (j, pairs) in pairs.chunks_exact_mut(I::LANES).enumerate() {
            let at = j * I::LANES;
            let second = second.map_or(isa.zero(), |row| isa.load(&row[at..]));
            isa.store_pairs(isa.join(isa.load(&first[at..]), second), pairs);
        }
    }
    Right { data: room, depth_stride: width }
}

/// The arguments of [`multiply_joined`].
struct Joined<'a, 'o, E> {
    left: Left<'a, Pair>,
    floats: Right<'a>,
    /// In floats.
    depth: usize,
    room: &'a mut [Pair],
    out: &'a mut Block<'o, f32, 2>,
    ending: E,
}

impl<E: Ending> Kernel for Joined<'_, '_, E> {
    type Out = ();
    const PAIRS: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match I::KIND {
            IsaKind::Neon => self.columns::<I, 6, 4>(isa),
            IsaKind::Scalar | IsaKind::Avx2 => self.columns::<I, 6, 2>(isa),
            IsaKind::Avx512 | IsaKind::Avx512Bf16 | IsaKind::Amx => self.columns::<I, 12, 2>(isa),
        }
    }
}

impl<E: Ending> Joined<'_, '_, E> {
    /// All panels, cut as [`Product::columns`] cuts them.
    #[inline(always)]
    fn columns<I: Isa, const MR: usize, const NV: usize>(mut self, isa: I) {
        let Joined { left, floats, depth, ending, .. } = self;
        let [rows, columns] = self.out.shape();
        let (pairs, width) = (depth.div_ceil(2), columns.next_multiple_of(MOST_LANES));
        // AMX takes blocks from memory, and a few rows leave no time.
        if isa.amx().is_some() || rows < MR || depth % 2 == 1 || columns == 0 || depth == 0 {
            let right = join(isa, floats, [depth, width], self.room);
            return multiply(isa, left, right, pairs, self.out, ending);
        }
        let last_left = offset(rows - 1, left.row_stride, pairs - 1);
        assert!(last_left.is_some_and(|at| at < left.data.len()), "left factor is too short");
        let end = offset(depth - 1, floats.depth_stride, width);
        assert!(end.is_some_and(|end| end <= floats.data.len()), "right factor is too short");
        let end = pairs.checked_mul(width);
        assert!(end.is_some_and(|end| end <= self.room.len()), "room is too short");
        let mut at = 0;
        while columns - at > I::LANES * NV / 2 {
            let count = (columns - at).min(I::LANES * NV);
            // SAFETY: all elements of the factors up to the last were just shown to be inside the slices, and so was room for
            // their pairs; there are at least `MR` rows. `NV` vectors from here on end at `width` or before: they are at most
            // twice `MOST_LANES`, and where more than half of them are columns, the next multiple of that is their end.
            unsafe { self.rows::<I, MR, NV>(isa, at, count, width) };
            at += count;
        }
        while at < columns {
            let count = (columns - at).min(I::LANES);
            // SAFETY: as above.
            unsafe { self.rows::<I, MR, 1>(isa, at, count, width) };
            at += count;
        }
    }

    /// The `count <= NV · LANES` columns from `column` on.
    ///
    /// # Safety
    /// There must be `MR` rows, `depth` even, and all elements inside the factors: of the right ones, whose rows end at
    /// `width`, `NV` vectors from `column` on. So must be `room` for their pairs.
    #[inline(always)]
    unsafe fn rows<I: Isa, const MR: usize, const NV: usize>(
        &mut self,
        isa: I,
        column: usize,
        count: usize,
        width: usize,
    ) {
        let Joined { left, floats, depth, ending, .. } = *self;
        let pairs = depth / 2;
        let mut sums = [[isa.zero(); NV]; MR];
        // SAFETY: the caller vouches for the first vectors of all, and that there are more for each pair.
        unsafe {
            let panel = Panel {
                floats: floats.data.as_ptr().add(column),
                stride: floats.depth_stride,
                pairs: self.room.as_mut_ptr().add(column),
                width,
            };
            let rows = Multiples::new::<I, Pair, MR>(left.row_stride);
            sum::<I, MR, NV>(isa, left.data.as_ptr(), rows, panel, pairs, &mut sums);
        }
        finish(isa, ending, sums, self.out, [0, column], count);
        let right = Right { data: &*self.room, depth_stride: width };
        let coming = Coming::NOTHING;
        let product = Product::<_, _, _, false> { left, right, depth: pairs, ending, coming };
        // SAFETY: the caller vouches for the factors and for `MR` rows.
        unsafe { product.rows::<I, MR, NV>(isa, self.out, MR, column, count) };
    }
}

/// Where the pairs of a panel come from, and where they go.
#[derive(Clone, Copy)]
struct Panel {
    floats: *const f32,
    /// Between rows of floats.
    stride: usize,
    pairs: *mut Pair,
    /// Between rows of pairs.
    width: usize,
}

/// Floats are asked for so many pairs of rows ahead, which makes SSD 1 to 2 % faster on Zen 5; with 16 and 28 it was the same
/// (`benches/record/2026-11-30-cpu-zen5.md`).
const AHEAD: usize = 8;

/// The loop over `depth` pairs: `sums[i][v] += Σ_k l[i, k] · r[k, v]`, and `r` is written down.
///
/// # Safety
/// `l` must be valid for reading at `k` and `rows.times(i)` bytes on, the panel for reading `NV` vectors of floats at rows
/// `2 · k` and `2 · k + 1` and for writing `NV` vectors of pairs at row `k`, for all `i < MR` and `k < depth`.
#[inline(always)]
unsafe fn sum<I: Isa, const MR: usize, const NV: usize>(
    isa: I,
    l: *const Pair,
    rows: Multiples,
    panel: Panel,
    depth: usize,
    sums: &mut Sums<I, MR, NV>,
) {
    // A copy of its own stays in registers whatever becomes of the sums afterwards.
    let mut running = *sums;
    let (mut l, Panel { mut floats, stride, mut pairs, width }) = (l, panel);
    for _ in 0..depth {
        let mut right = [Pair::ZERO.splat(isa); NV];
        for (v, right) in right.iter_mut().enumerate() {
            let at = v * I::LANES;
            for row in [2 * AHEAD, 2 * AHEAD + 1] {
                isa.prefetch(floats.wrapping_add(row.wrapping_mul(stride).wrapping_add(at)));
            }
            // SAFETY: the caller vouches.
            unsafe {
                let second = isa.load_ptr(floats.add(stride + at));
                *right = isa.join(isa.load_ptr(floats.add(at)), second);
                isa.store_pairs_ptr(*right, pairs.add(at));
            }
        }
        each_row!(MR, |i| {
            // SAFETY: the caller vouches.
            let left = unsafe { <Pair as Meets<Pair>>::splat_ptr(isa, l.byte_add(rows.times(i))) };
            for (sum, &right) in running[i].iter_mut().zip(&right) {
                *sum = <Pair as Factor>::multiply_add(isa, left, right, *sum);
            }
        });
        l = l.wrapping_add(1);
        floats = floats.wrapping_add(2 * stride);
        pairs = pairs.wrapping_add(width);
    }
    *sums = running;
}
