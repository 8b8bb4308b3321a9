//! Products of pairs in blocks of 32 × 32, for processors that multiply whole tiles ([`Amx`]).
//!
//! As with register tiles, an element of the result does not depend on what is beside it. It does depend on how many
//! pairs are taken in one step; and what is added to the output is added to it step by step.

use super::{Add, Ending, Factor, Left, MAX_COLUMNS, Meets, Right, offset, write};
use crate::dispatch::Block;
use crate::isa::amx::{Amx, SumsAt, Tiles};
use crate::isa::{Isa, Pair};
use half::bf16;

/// Rows and columns of the sums that are taken at once: two tiles by two.
pub(crate) const BLOCK: usize = MAX_COLUMNS;

/// Rows of a tile, and pairs or sums of a row.
pub(crate) const TILE: usize = 16;

/// The sums of a block, row after row.
#[repr(C, align(64))]
pub(crate) struct BlockSums(pub(crate) [[f32; BLOCK]; BLOCK]);

impl BlockSums {
    fn zeros() -> Self {
        BlockSums([[0.0; BLOCK]; BLOCK])
    }

    /// Where they are.
    fn at(&mut self) -> SumsAt {
        SumsAt { data: self.0.as_flattened_mut().as_mut_ptr(), stride: BLOCK }
    }
}

/// What a step takes of a factor.
#[repr(C, align(64))]
pub(crate) struct Step<const ROWS: usize, const COLUMNS: usize>(pub(crate) [[Pair; COLUMNS]; ROWS]);

/// A last step of which less is there: zeros stand for the rest.
struct LastStep {
    left: Step<BLOCK, TILE>,
    right: Step<TILE, BLOCK>,
    /// The first column of those in `right`.
    column: Option<usize>,
}

impl LastStep {
    fn new() -> Self {
        let zero = [bf16::ZERO; 2];
        LastStep {
            left: Step([[zero; TILE]; BLOCK]),
            right: Step([[zero; BLOCK]; TILE]),
            column: None,
        }
    }
}

/// [`multiply`](super::multiply) of pairs, in blocks.
///
/// # Panics
/// As there.
#[inline(always)]
pub(super) fn multiply<I: Isa, E: Ending>(
    isa: I,
    amx: Amx,
    left: Left<'_, Pair>,
    right: Right<'_, Pair>,
    depth: usize,
    out: &mut Block<'_, f32, 2>,
    ending: E,
) {
    let [rows, columns] = out.shape();
    // SAFETY: what is done with a block below, endings included, makes no others.
    let mut tiles = unsafe { amx.tiles([rows.min(BLOCK), columns.min(BLOCK)]) };
    let (mut last, mut sums) = (None, None);
    for column in (0..columns).step_by(BLOCK) {
        for row in (0..rows).step_by(BLOCK) {
            let (at, shape) = ([row, column], [BLOCK.min(rows - row), BLOCK.min(columns - column)]);
            tiles.reshape(shape);
            let plain = ending.plain();
            let add = plain == Some(true);
            if plain.is_some() && shape.iter().all(|&n| n > TILE) {
                let mut lines = out.rows_mut(at, 0, shape[0], shape[1]);
                let to = SumsAt { data: lines.start(), stride: lines.stride() };
                // SAFETY: the lines are the block's, and nothing else looks at them.
                unsafe { product(isa, &tiles, left, right, depth, at, add, to, &mut last) };
                continue;
            }
            let sums = sums.get_or_insert_with(BlockSums::zeros);
            if add {
                for (sums, line) in sums.0.iter_mut().zip(out.rows_mut(at, 0, shape[0], shape[1])) {
                    sums[..line.len()].copy_from_slice(line);
                }
            }
            // SAFETY: the sums are a whole block.
            unsafe { product(isa, &tiles, left, right, depth, at, add, sums.at(), &mut last) };
            ending.add_block(isa, &tiles, at, sums);
            let lines = out.rows_mut(at, 0, shape[0], shape[1]);
            match plain {
                Some(_) => write(isa, &sums.0, lines, at, Add(false)),
                None => write(isa, &sums.0, lines, at, ending),
            }
        }
    }
}

/// Adds the product of another left factor, from row `at[0]` on, and another right one, from column `at[1]` on, to
/// the sums of a block of the tiles' shape.
///
/// # Panics
/// Where a factor is too short, or not of pairs.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "two factors, and a block")]
pub(crate) fn add_product_of_block<I: Isa, L: Meets<F>, F: Factor>(
    isa: I,
    tiles: &Tiles,
    left: Left<'_, L>,
    right: Right<'_, F>,
    depth: usize,
    at: [usize; 2],
    sums: &mut BlockSums,
) {
    let (left, right) = pairs(left, right).expect("only pairs are multiplied in blocks");
    // SAFETY: the sums are a whole block.
    unsafe { product(isa, tiles, left, right, depth, at, true, sums.at(), &mut None) };
}

/// Factors that are pairs, as such.
#[inline(always)]
pub(super) fn pairs<'a, L: Meets<F>, F: Factor>(
    left: Left<'a, L>,
    right: Right<'a, F>,
) -> Option<(Left<'a, Pair>, Right<'a, Pair>)> {
    let (l, r) = (L::pairs(left.data)?, F::pairs(right.data)?);
    let right = Right { data: r, depth_stride: right.depth_stride };
    Some((Left { data: l, row_stride: left.row_stride }, right))
}

/// The product of a block of the tiles' shape, or that added to the sums.
///
/// # Safety
/// `sums` must be valid as [`Tiles::multiply`] says.
///
/// # Panics
/// Where a factor is too short.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "two factors, and a block")]
unsafe fn product<I: Isa>(
    isa: I,
    tiles: &Tiles,
    left: Left<'_, Pair>,
    right: Right<'_, Pair>,
    depth: usize,
    [row, column]: [usize; 2],
    add: bool,
    sums: SumsAt,
    last: &mut Option<LastStep>,
) {
    let [rows, columns] = tiles.shape();
    if depth > 0 {
        let last = offset(row + rows - 1, left.row_stride, depth - 1);
        assert!(last.is_some_and(|at| at < left.data.len()), "left factor is too short");
        let last = offset(depth - 1, right.depth_stride, column + columns - 1);
        assert!(last.is_some_and(|at| at < right.data.len()), "right factor is too short");
    }
    let (steps, rest) = (depth / TILE, depth % TILE);
    let l = left.data.as_ptr().wrapping_add(row.wrapping_mul(left.row_stride));
    let r = right.data.as_ptr().wrapping_add(column);
    if steps > 0 || rest == 0 {
        // SAFETY: the last pairs of both were just shown to be inside the slices, and with them all before; the caller
        // vouches for the sums.
        unsafe {
            tiles.multiply(l, left.row_stride, r, right.depth_stride, steps, add, sums);
        }
    }
    if rest == 0 {
        return;
    }
    let last = last.get_or_insert_with(LastStep::new);
    for (i, line) in last.left.0.iter_mut().enumerate().take(rows) {
        let from = &left.data[(row + i) * left.row_stride + steps * TILE..][..rest];
        part(isa, from, line);
    }
    if last.column != Some(column) {
        last.column = Some(column);
        for (k, line) in last.right.0.iter_mut().enumerate().take(rest) {
            let from = &right.data[(steps * TILE + k) * right.depth_stride + column..][..columns];
            for (from, line) in from.chunks(TILE).zip(line.as_chunks_mut().0) {
                part(isa, from, line);
            }
        }
    }
    let (l, r) = (last.left.0.as_flattened().as_ptr(), last.right.0.as_flattened().as_ptr());
    // SAFETY: each has all of a step; the caller vouches for the sums.
    unsafe { tiles.multiply(l, TILE, r, BLOCK, 1, add || steps > 0, sums) };
}

/// Copies what there is.
#[inline(always)]
fn part<I: Isa>(isa: I, from: &[Pair], to: &mut [Pair; TILE]) {
    if const { I::LANES == TILE } {
        isa.store_pairs(isa.load_pairs_part(from.as_flattened()), to);
    } else {
        to[..from.len()].copy_from_slice(from);
    }
}
