//! The small matrix product that matmul and SSD are made of:
//!
//! ```text
//! out[i, j] (+)= Σ_k left[i, k] · right[k, j]
//! ```
//!
//! A tile of `MR` rows and `NV` vectors of columns of the result stays in registers while k runs. For
//! every k it takes `NV` vectors of `right` and `MR` single values of `left`, each copied into all
//! lanes, and does `MR · NV` multiply-adds: with 6 × 2 that is 12 against 8 loads, so that the
//! multipliers and not the loads set the pace. The tile must hide the latency of a multiply-add (four
//! cycles, two of them a cycle: at least 8 sums in flight) and leave registers for its operands.
//!
//! Whatever the shape, each element of the result is one chain of multiply-adds in the order of k, and meets
//! `out` at the end (see [`Ending`]): how the rows and columns are cut into tiles cannot be seen in the result.

pub(crate) mod blocks;
mod coming;
mod factor;
mod few;
mod joined;
mod multiples;
mod sum;

use super::{Isa, IsaKind};
use crate::dispatch::{Block, Kernel, RowsMut};
use crate::isa::amx::Tiles;
pub(crate) use blocks::{BLOCK, BlockSums, add_product_of_block};
pub(crate) use coming::Coming;
pub(crate) use factor::{Factor, Floats, Meets};
pub(crate) use few::{MOST_ROWS, multiply_first};
pub(crate) use joined::{join, multiply_joined};
use multiples::Multiples;
use sum::{step, sum};

/// The left factor, `[rows, depth]`: element `[i, k]` is `data[i · row_stride + k]`.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a, F = f32> {
    /// Storage from the first element on.
    pub(crate) data: &'a [F],
    /// Distance between rows.
    pub(crate) row_stride: usize,
}

/// The right factor, `[depth, columns]`: element `[k, j]` is `data[k · depth_stride + j]`.
#[derive(Clone, Copy)]
pub(crate) struct Right<'a, F = f32> {
    /// Storage from the first element on.
    pub(crate) data: &'a [F],
    /// Distance between neighbours in k.
    pub(crate) depth_stride: usize,
}

/// The sums of a tile.
pub(crate) type Sums<I, const MR: usize, const NV: usize> = [[<I as Isa>::V; NV]; MR];

/// What becomes of a product where it meets the output.
pub(crate) trait Ending: Copy {
    /// What to write for a vector of sums, from `[row, column]` of the output on. `old` is what is there, a
    /// vector or, at the end of a row, less.
    fn end<I: Isa>(self, isa: I, at: [usize; 2], sums: I::V, old: &[f32]) -> I::V;

    /// Where nothing is made of the sums: whether they begin with what is in the output, or with 0.
    #[inline(always)]
    fn plain(self) -> Option<bool> {
        None
    }

    /// What to do before that with a whole tile, from `[row, column]` of the output on: nothing, or see
    /// [`add_product`].
    #[inline(always)]
    fn add<I: Isa, const MR: usize, const NV: usize>(
        self,
        isa: I,
        at: [usize; 2],
        sums: &mut Sums<I, MR, NV>,
    ) {
        let _ = (isa, at, sums);
    }

    /// The same of a block of the tiles' shape, where products are taken in blocks: nothing, or see
    /// [`add_product_of_block`].
    #[inline(always)]
    fn add_block<I: Isa>(self, isa: I, tiles: &Tiles, at: [usize; 2], sums: &mut BlockSums) {
        let _ = (isa, tiles, at, sums);
    }
}

/// Takes its place, or, where it is told to accumulate, is added.
#[derive(Clone, Copy)]
pub(crate) struct Add(pub(crate) bool);

impl Ending for Add {
    #[inline(always)]
    fn end<I: Isa>(self, isa: I, _: [usize; 2], sums: I::V, old: &[f32]) -> I::V {
        if self.0 { isa.add(isa.load_at(old, 0), sums) } else { sums }
    }

    #[inline(always)]
    fn plain(self) -> Option<bool> {
        Some(self.0)
    }
}

/// Columns of a full tile; the fastest width of `right`.
pub(crate) const fn tile_columns<I: Isa>() -> usize {
    I::LANES
        * match I::KIND {
            IsaKind::Neon => 4,
            IsaKind::Scalar
            | IsaKind::Avx2
            | IsaKind::Avx512
            | IsaKind::Avx512Bf16
            | IsaKind::Amx => 2,
        }
}

/// `body` with `i` from 0 to `count` - 1, at most 12 times. A loop that the compiler does not unroll would pick its
/// row of sums from memory, and they would all go there first.
macro_rules! each_row {
    ($count:expr, |$i:ident| $body:block) => {
        each_row!(@ $count, $i, $body, 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    (@ $count:expr, $i:ident, $body:block, $($row:literal)*) => {
        $(if const { $row < $count } {
            let $i = $row;
            $body
        })*
    };
}
use each_row;

/// Steps of k between asking for something that comes later.
const STRETCH: usize = 32;

/// Tiles of so few rows wait for `right` to come from memory.
pub(crate) const FEW: usize = 4;

/// The widest tile of all instruction sets.
const MAX_COLUMNS: usize = 32;

/// `out = left · right` with `depth` products an element, or what `ending` makes of it. The rows of `out` must be
/// contiguous.
///
/// # Panics
/// Where `left` or `right` is too short for the shape of `out`, or a row of `out` is not contiguous.
#[inline(always)]
pub(crate) fn multiply<I: Isa, L: Meets<F>, F: Factor>(
    isa: I,
    left: Left<'_, L>,
    right: Right<'_, F>,
    depth: usize,
    out: &mut Block<'_, f32, 2>,
    ending: impl Ending,
) {
    let coming = Coming::NOTHING;
    isa.call(Multiply::<_, _, _, false> { left, right, depth, out, ending, coming });
}

/// [`multiply`] by one panel that comes from memory. A few rows wait for that, and ask for it ahead; many leave the way
/// free, and ask for what is `coming` after it.
#[inline(always)]
pub(crate) fn multiply_streamed<I: Isa, L: Meets<F>, F: Factor>(
    isa: I,
    left: Left<'_, L>,
    right: Right<'_, F>,
    depth: usize,
    out: &mut Block<'_, f32, 2>,
    ending: impl Ending,
    coming: Coming,
) {
    isa.call(Multiply::<_, _, _, true> { left, right, depth, out, ending, coming });
}

/// The arguments of [`multiply`] or, where the right factor is `STREAMED`, of [`multiply_streamed`].
struct Multiply<'a, 'o, L, F, E, const STREAMED: bool> {
    left: Left<'a, L>,
    right: Right<'a, F>,
    depth: usize,
    out: &'a mut Block<'o, f32, 2>,
    ending: E,
    coming: Coming,
}

impl<L: Meets<F>, F: Factor, E: Ending, const STREAMED: bool> Kernel
    for Multiply<'_, '_, L, F, E, STREAMED>
{
    type Out = ();
    const PAIRS: bool = L::PAIRS;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Multiply { left, right, depth, out, ending, coming } = self;
        let [rows, columns] = out.shape();
        if rows == 0 || columns == 0 {
            return;
        }
        if depth > 0 {
            let last_left = offset(rows - 1, left.row_stride, depth - 1);
            let last_right = offset(depth - 1, right.depth_stride, columns - 1);
            assert!(last_left.is_some_and(|at| at < left.data.len()), "left factor is too short");
            assert!(
                last_right.is_some_and(|at| at < right.data.len()),
                "right factor is too short"
            );
        }
        if let (Some(amx), Some((left, right))) = (isa.amx(), blocks::pairs(left, right)) {
            return blocks::multiply(isa, amx, left, right, depth, out, ending);
        }
        let product = Product::<_, _, _, STREAMED> { left, right, depth, ending, coming };
        // Register tiles: 16 registers hold 6 × 2 sums, 2 vectors of `right` and 1 of `left`; 32 hold
        // 24 sums. NEON has short vectors, so its tile is wide rather than high.
        // SAFETY: all elements of both factors up to the last were just shown to be inside the slices.
        unsafe {
            match I::KIND {
                IsaKind::Neon => product.columns::<I, 6, 4>(isa, out),
                IsaKind::Scalar | IsaKind::Avx2 => product.columns::<I, 6, 2>(isa, out),
                IsaKind::Avx512 | IsaKind::Avx512Bf16 | IsaKind::Amx => {
                    product.columns::<I, 12, 2>(isa, out);
                }
            }
        }
    }
}

/// `i · stride + k`, or `None` where it overflows.
#[inline(always)]
fn offset(i: usize, stride: usize, k: usize) -> Option<usize> {
    i.checked_mul(stride)?.checked_add(k)
}

/// [`Multiply`] after its checks: every element of `left` and `right` that the shape of the result asks for is
/// inside its slice. The unsafe methods rely on that for the same result.
struct Product<'a, L, F, E, const STREAMED: bool> {
    left: Left<'a, L>,
    right: Right<'a, F>,
    depth: usize,
    ending: E,
    coming: Coming,
}

impl<L: Meets<F>, F: Factor, E: Ending, const STREAMED: bool> Product<'_, L, F, E, STREAMED> {
    /// Cuts the columns into panels: `NV` vectors wide while at least half of that is left, then one.
    ///
    /// # Safety
    /// The factors must cover `out`, as [`Product`] says.
    #[inline(always)]
    unsafe fn columns<I: Isa, const MR: usize, const NV: usize>(
        &self,
        isa: I,
        out: &mut Block<'_, f32, 2>,
    ) {
        let columns = out.shape()[1];
        let mut at = 0;
        while columns - at > I::LANES * NV / 2 {
            let width = (columns - at).min(I::LANES * NV);
            // SAFETY: the caller vouches; `at + width <= columns`.
            unsafe { self.rows::<I, MR, NV>(isa, out, 0, at, width) };
            at += width;
        }
        while at < columns {
            let width = (columns - at).min(I::LANES);
            // SAFETY: as above.
            unsafe { self.rows::<I, MR, 1>(isa, out, 0, at, width) };
            at += width;
        }
    }

    /// The rows from `row` on of the `width <= NV · LANES` columns from `column` on: tiles of `MR` rows, then of 8, where `MR`
    /// is more, 4, 2 and 1.
    ///
    /// # Safety
    /// As [`Product::columns`], and `column + width` must be at most the columns of `out`.
    #[inline(always)]
    unsafe fn rows<I: Isa, const MR: usize, const NV: usize>(
        &self,
        isa: I,
        out: &mut Block<'_, f32, 2>,
        mut row: usize,
        column: usize,
        width: usize,
    ) {
        let rows = out.shape()[0];
        // SAFETY: the caller vouches, and each tile ends at or before the last row.
        unsafe {
            // A third of a tile is too few sums to hide how long one takes: eight rows are four and four, not six and two, and
            // sixteen eight and eight, not twelve and four.
            while rows - row >= MR && rows - row != MR + MR / 3 {
                self.tile::<I, MR, NV>(isa, out, row, column, width);
                row += MR;
            }
            // Four rows begin a sum just when the one before it ends; eight have time to spare.
            while const { MR > 8 } && rows - row >= 8 {
                self.tile::<I, 8, NV>(isa, out, row, column, width);
                row += 8;
            }
            while rows - row >= 4 {
                self.tile::<I, 4, NV>(isa, out, row, column, width);
                row += 4;
            }
            if rows - row >= 2 {
                self.tile::<I, 2, NV>(isa, out, row, column, width);
                row += 2;
            }
            if rows > row {
                self.tile::<I, 1, NV>(isa, out, row, column, width);
            }
        }
    }

    /// One tile of the result, `width` columns of which exist.
    ///
    /// # Safety
    /// As [`Product::rows`], and `row + MR` must be at most the rows of `out`.
    #[inline(always)]
    unsafe fn tile<I: Isa, const MR: usize, const NV: usize>(
        &self,
        isa: I,
        out: &mut Block<'_, f32, 2>,
        row: usize,
        column: usize,
        width: usize,
    ) {
        let Product { left, right, depth, ending, coming } = *self;
        let coming = match const { STREAMED && MR > FEW } {
            true => coming.part(row / MR, out.shape()[0] / MR),
            false => Coming::NOTHING,
        };
        let mut sums = [[isa.zero(); NV]; MR];
        // A narrow tile loads whole vectors all the same, as long as they end inside the slice: the
        // lanes past `width` hold the next row's columns and are never stored.
        let whole = if width == NV * I::LANES {
            depth
        } else {
            let room = right.data.len().saturating_sub(column + NV * I::LANES - 1);
            room.div_ceil(right.depth_stride.max(1)).min(depth)
        };
        if depth > 0 {
            // SAFETY: rows `row..row + MR` of `left` exist. `right` has `NV` vectors at every k below
            // `whole`: in a tile of full width because its columns exist; in a narrow one because
            // (whole - 1) · stride < room, that is, k · stride + column + NV · LANES <= its length.
            // (A stride of 0 repeats k = 0, for which room > 0 says the same.)
            unsafe {
                let l = left.data.as_ptr().add(row * left.row_stride);
                let rows = Multiples::new::<I, L, MR>(left.row_stride);
                let stretches = whole.div_ceil(STRETCH);
                for stretch in 0..stretches {
                    coming.part(stretch, stretches).ask(isa);
                    let k = stretch * STRETCH;
                    let r = right.data.as_ptr().add(k * right.depth_stride + column);
                    let (l, len) = (l.add(k), STRETCH.min(whole - k));
                    let stride = right.depth_stride;
                    sum::<I, L, F, MR, NV, STREAMED>(isa, l, rows, r, stride, len, &mut sums);
                }
                for k in whole..depth {
                    let mut line = [F::ZERO; MAX_COLUMNS];
                    let from = k * right.depth_stride + column;
                    line[..width].copy_from_slice(&right.data[from..from + width]);
                    step::<I, L, F, MR, NV, false>(isa, l.add(k), rows, line.as_ptr(), &mut sums);
                }
            }
        }
        finish(isa, ending, sums, out, [row, column], width);
    }
}

/// Writes the sums of a tile to `out`, from `[row, column]` on, `width` columns of them, or what the ending makes of them.
#[inline(always)]
fn finish<I: Isa, const MR: usize, const NV: usize>(
    isa: I,
    ending: impl Ending,
    mut sums: Sums<I, MR, NV>,
    out: &mut Block<'_, f32, 2>,
    [row, column]: [usize; 2],
    width: usize,
) {
    ending.add(isa, [row, column], &mut sums);
    let mut lines = out.rows_mut([row, column], 0, MR, width);
    if width == NV * I::LANES {
        each_row!(MR, |i| {
            // Told its length, the compiler leaves the checks of its parts out.
            let line = &mut lines.next().expect("a line for each row")[..NV * I::LANES];
            for (v, &sum) in sums[i].iter().enumerate() {
                let part = &mut line[v * I::LANES..][..I::LANES];
                let at = [row + i, column + v * I::LANES];
                isa.store(ending.end(isa, at, sum, part), part);
            }
        });
        return;
    }
    // Sums that a loop picks from would lie in memory for full tiles, too.
    let mut room = [[0.0; MAX_COLUMNS]; MR];
    for (sums, room) in sums.iter().zip(&mut room) {
        for (v, &sum) in sums.iter().enumerate() {
            isa.store(sum, &mut room[v * I::LANES..]);
        }
    }
    write(isa, &room, lines, [row, column], ending);
}

/// Writes sums that lie in memory to lines of the output, from `[row, column]` on, or what the ending makes of them.
#[inline(always)]
fn write<I: Isa>(
    isa: I,
    sums: &[[f32; MAX_COLUMNS]],
    lines: RowsMut<'_, f32>,
    [row, column]: [usize; 2],
    ending: impl Ending,
) {
    for (i, (sums, line)) in sums.iter().zip(lines).enumerate() {
        for (v, part) in line.chunks_mut(I::LANES).enumerate() {
            let sum = isa.load(&sums[v * I::LANES..]);
            let end = ending.end(isa, [row + i, column + v * I::LANES], sum, part);
            if part.len() == I::LANES { isa.store(end, part) } else { isa.store_part(end, part) }
        }
    }
}

/// Adds the product of another left factor, from row `at[0]` on, and another right one, from column `at[1]` on, to a
/// tile.
///
/// # Panics
/// Where a factor is too short; rows of `right` end with whole vectors.
#[inline(always)]
pub(crate) fn add_product<I: Isa, L: Meets<F>, F: Factor, const MR: usize, const NV: usize>(
    isa: I,
    left: Left<'_, L>,
    right: Right<'_, F>,
    depth: usize,
    [row, column]: [usize; 2],
    sums: &mut Sums<I, MR, NV>,
) {
    if depth == 0 {
        return;
    }
    let last = offset(row + MR - 1, left.row_stride, depth - 1);
    assert!(last.is_some_and(|at| at < left.data.len()), "left factor is too short");
    let end = offset(depth - 1, right.depth_stride, column + NV * I::LANES);
    assert!(end.is_some_and(|end| end <= right.data.len()), "right factor is too short");
    // SAFETY: the last element of the rows `row..row + MR` and the last of `NV` vectors at every k below `depth` were
    // just shown to be inside the slices.
    unsafe {
        let l = left.data.as_ptr().add(row * left.row_stride);
        let r = right.data.as_ptr().add(column);
        let rows = Multiples::new::<I, L, MR>(left.row_stride);
        sum::<I, L, F, MR, NV, false>(isa, l, rows, r, right.depth_stride, depth, sums);
    }
}

#[cfg(test)]
mod tests;
