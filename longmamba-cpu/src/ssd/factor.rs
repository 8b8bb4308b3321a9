//! What the products inside a chunk are made of: `f32`, or values rounded to `bf16`, in pairs.

use super::SSD_BF16_CHUNK;
use crate::dispatch::{Block, Scratched};
use crate::isa::tile::{Ending, Factor, Left, Right, join, multiply, multiply_joined};
use crate::isa::{Isa, Pair};

/// A factor that a chunk's values can be given as.
pub(super) trait ChunkFactor: Factor + Scratched {
    /// Tokens of a chunk. The work inside a chunk grows with it, that between chunks shrinks.
    const CHUNK: usize;
    /// Neighbours in k that are one factor.
    const STEP: usize;

    /// The left factor of `rows` rows and `depth` values each, those that neighbour in k side by side. `room` is
    /// for rows of `depth / STEP` factors, rounded up.
    fn left<'a, I: Isa>(
        isa: I,
        from: Left<'a>,
        shape: [usize; 2],
        room: &'a mut [Self],
    ) -> Left<'a, Self>;

    /// What [`left`](Self::left) gave for the same, with `room` as it left it.
    fn again<'a>(from: Left<'a>, depth: usize, room: &'a [Self]) -> Left<'a, Self>;

    /// The right factor of `depth` rows of `width` values, whole vectors. `room` is for `depth / STEP` such rows, rounded up.
    fn right<'a, I: Isa>(
        isa: I,
        from: Right<'a>,
        shape: [usize; 2],
        room: &'a mut [Self],
    ) -> Right<'a, Self>;

    /// [`multiply`] with the right factor of `depth` rows of values, whole vectors, for which there is `room` as above.
    fn multiply<I: Isa>(
        isa: I,
        left: Left<'_, Self>,
        right: Right<'_>,
        depth: usize,
        room: &mut [Self],
        out: &mut Block<'_, f32, 2>,
        ending: impl Ending,
    );

    /// Writes values `at` to `at + LANES` of a row of a left factor; `at` is a multiple of `LANES`.
    fn put_left<I: Isa>(isa: I, values: I::V, row: &mut [Self], at: usize);

    /// Writes a vector of each of two rows of a right factor, which are `width` values long and have `room`, from column `at`
    /// on.
    fn put_right<I: Isa>(isa: I, rows: [I::V; 2], room: &mut [Self], width: usize, at: usize);
}

impl ChunkFactor for f32 {
    /// 64 takes 5 to 10 % longer.
    const CHUNK: usize = 32;
    const STEP: usize = 1;

    #[inline(always)]
    fn left<'a, I: Isa>(_: I, from: Left<'a>, _: [usize; 2], _: &'a mut [f32]) -> Left<'a> {
        from
    }
    #[inline(always)]
    fn again<'a>(from: Left<'a>, _: usize, _: &'a [f32]) -> Left<'a> {
        from
    }
    #[inline(always)]
    fn right<'a, I: Isa>(_: I, from: Right<'a>, _: [usize; 2], _: &'a mut [f32]) -> Right<'a> {
        from
    }
    #[inline(always)]
    fn multiply<I: Isa>(
        isa: I,
        left: Left<'_>,
        right: Right<'_>,
        depth: usize,
        _: &mut [f32],
        out: &mut Block<'_, f32, 2>,
        ending: impl Ending,
    ) {
        multiply(isa, left, right, depth, out, ending);
    }
    #[inline(always)]
    fn put_left<I: Isa>(isa: I, values: I::V, row: &mut [f32], at: usize) {
        isa.store(values, &mut row[at..]);
    }
    #[inline(always)]
    fn put_right<I: Isa>(
        isa: I,
        [first, second]: [I::V; 2],
        room: &mut [f32],
        width: usize,
        at: usize,
    ) {
        isa.store(first, &mut room[at..]);
        isa.store(second, &mut room[width + at..]);
    }
}

impl ChunkFactor for Pair {
    const CHUNK: usize = SSD_BF16_CHUNK;
    const STEP: usize = 2;

    #[inline(always)]
    fn left<'a, I: Isa>(
        isa: I,
        from: Left<'a>,
        [rows, depth]: [usize; 2],
        room: &'a mut [Pair],
    ) -> Left<'a, Pair> {
        let pairs = depth.div_ceil(2);
        for (i, row) in room.chunks_exact_mut(pairs.max(1)).take(rows).enumerate() {
            let from = &from.data[i * from.row_stride..][..depth];
            let row = row.as_flattened_mut();
            for k in (0..row.len()).step_by(I::LANES) {
                let end = row.len().min(k + I::LANES);
                isa.store_rounded(isa.load_at(from, k), &mut row[k..end]);
            }
        }
        Self::again(from, depth, room)
    }
    #[inline(always)]
    fn again<'a>(_: Left<'a>, depth: usize, room: &'a [Pair]) -> Left<'a, Pair> {
        Left { data: room, row_stride: depth.div_ceil(2) }
    }
    #[inline(always)]
    fn right<'a, I: Isa>(
        isa: I,
        from: Right<'a>,
        shape: [usize; 2],
        room: &'a mut [Pair],
    ) -> Right<'a, Pair> {
        join(isa, from, shape, room)
    }
    #[inline(always)]
    fn multiply<I: Isa>(
        isa: I,
        left: Left<'_, Pair>,
        right: Right<'_>,
        depth: usize,
        room: &mut [Pair],
        out: &mut Block<'_, f32, 2>,
        ending: impl Ending,
    ) {
        multiply_joined(isa, left, right, depth, room, out, ending);
    }
    #[inline(always)]
    fn put_left<I: Isa>(isa: I, values: I::V, row: &mut [Pair], at: usize) {
        isa.store_rounded(values, &mut row.as_flattened_mut()[at..][..I::LANES]);
    }
    #[inline(always)]
    fn put_right<I: Isa>(
        isa: I,
        [first, second]: [I::V; 2],
        room: &mut [Pair],
        _: usize,
        at: usize,
    ) {
        isa.store_pairs(isa.join(first, second), &mut room[at..]);
    }
}
