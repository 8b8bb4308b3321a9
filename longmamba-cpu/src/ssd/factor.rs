//! What the products inside a chunk are made of: `f32`, or values rounded to `bf16`, in pairs.

use crate::dispatch::Scratched;
use crate::isa::tile::{Factor, Left, Right};
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

    /// The right factor of `depth` rows of `width` values, whole vectors, `stride` apart. `room` is for `depth / STEP` such
    /// rows, rounded up.
    fn right<'a, I: Isa>(
        isa: I,
        from: &'a [f32],
        shape: [usize; 2],
        stride: usize,
        room: &'a mut [Self],
    ) -> Right<'a, Self>;

    /// Writes values `at` to `at + LANES` of a row of a left factor; `at` is a multiple of `LANES`.
    fn put_left<I: Isa>(isa: I, values: I::V, row: &mut [Self], at: usize);

    /// Writes a vector of each of two rows of a right factor, rows 2k and 2k + 1, from column `at` on. Rows are
    /// `width` values long.
    fn put_right<I: Isa>(
        isa: I,
        rows: [I::V; 2],
        room: &mut [Self],
        k: usize,
        width: usize,
        at: usize,
    );
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
    fn right<'a, I: Isa>(
        _: I,
        from: &'a [f32],
        _: [usize; 2],
        stride: usize,
        _: &'a mut [f32],
    ) -> Right<'a> {
        Right { data: from, depth_stride: stride }
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
        k: usize,
        width: usize,
        at: usize,
    ) {
        isa.store(first, &mut room[2 * k * width + at..]);
        isa.store(second, &mut room[(2 * k + 1) * width + at..]);
    }
}

impl ChunkFactor for Pair {
    const CHUNK: usize = 64;
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
        from: &'a [f32],
        [depth, width]: [usize; 2],
        stride: usize,
        room: &'a mut [Pair],
    ) -> Right<'a, Pair> {
        for k in 0..depth.div_ceil(2) {
            let first = &from[2 * k * stride..][..width];
            let whole = 2 * k + 1 < depth;
            let second = if whole { &from[(2 * k + 1) * stride..][..width] } else { first };
            for j in (0..width).step_by(I::LANES) {
                let a = isa.load(&first[j..]);
                let b = if whole { isa.load(&second[j..]) } else { isa.zero() };
                Self::put_right(isa, [a, b], room, k, width, j);
            }
        }
        Right { data: room, depth_stride: width }
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
        k: usize,
        width: usize,
        at: usize,
    ) {
        isa.store_pairs(isa.join(first, second), &mut room[k * width + at..]);
    }
}
