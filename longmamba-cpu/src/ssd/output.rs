//! What becomes of the two products with a head's state (see [`chunk`](super::chunk)): y, and the next state.

use super::Skip;
use super::chunk::MOST;
use super::factor::ChunkFactor;
use crate::isa::Isa;
use crate::isa::amx::Tiles;
use crate::isa::tile::{BlockSums, Ending, Left, Right, Sums, add_product, add_product_of_block};

/// All that y is made of, but for the product of C and the state.
#[derive(Clone, Copy)]
pub(super) struct Output<'a, F> {
    /// `2^u[t]`
    pub(super) start: &'a [f32; MOST],
    /// C·Bᵀ with the head's decay, `[tokens, tokens]`. Of a row the tokens up to the end of its tile are read, 0
    /// where they are later than the row's.
    pub(super) decayed: Left<'a, F>,
    /// Δ·x
    pub(super) update: Right<'a, F>,
    pub(super) d: Skip<'a>,
    /// `[tokens, head_dim]`
    pub(super) x: Left<'a>,
}

impl<F: ChunkFactor> Ending for Output<'_, F> {
    #[inline(always)]
    fn add<I: Isa, const MR: usize, const NV: usize>(
        self,
        isa: I,
        at: [usize; 2],
        sums: &mut Sums<I, MR, NV>,
    ) {
        let [t, p] = at;
        // What the end takes of x has left the nearest cache meanwhile.
        let x = self.x.data.as_ptr().wrapping_add(t * self.x.row_stride + p);
        isa.prefetch_rows(x, self.x.row_stride, MR, NV * I::LANES);
        for (&start, sums) in self.start[t..][..MR].iter().zip(&mut *sums) {
            let start = isa.splat(start);
            for sum in sums {
                *sum = isa.mul(start, *sum);
            }
        }
        let depth = (t + MR).div_ceil(F::STEP);
        add_product(isa, self.decayed, self.update, depth, at, sums);
    }

    #[inline(always)]
    fn add_block<I: Isa>(self, isa: I, tiles: &Tiles, at: [usize; 2], sums: &mut BlockSums) {
        let ([t, _], [rows, _]) = (at, tiles.shape());
        for (&start, sums) in self.start[t..][..rows].iter().zip(&mut sums.0) {
            let start = isa.splat(start);
            for sums in sums.chunks_exact_mut(I::LANES) {
                isa.store(isa.mul(start, isa.load(sums)), sums);
            }
        }
        let depth = (t + rows).div_ceil(F::STEP);
        add_product_of_block(isa, tiles, self.decayed, self.update, depth, at, sums);
    }

    #[inline(always)]
    fn end<I: Isa>(self, isa: I, [t, p]: [usize; 2], sums: I::V, old: &[f32]) -> I::V {
        let x = isa.load_at(&self.x.data[t * self.x.row_stride + p..][..old.len()], 0);
        isa.fma(self.d.at(isa, p), x, sums)
    }
}

/// The product, and what it meets with the chunk's decay.
#[derive(Clone, Copy)]
pub(super) struct Decayed {
    pub(super) decay: f32,
    /// The same matrix of the next head, and the distance between its rows: it comes from memory, and is asked for
    /// tile by tile. (As what is [`Coming`](crate::isa::tile::Coming), SSD alone took 1.05 to 1.06 of the time on Zen 5.)
    pub(super) next: Option<(*const f32, usize)>,
}

impl Ending for Decayed {
    #[inline(always)]
    fn add<I: Isa, const MR: usize, const NV: usize>(
        self,
        isa: I,
        [row, column]: [usize; 2],
        _: &mut Sums<I, MR, NV>,
    ) {
        if let Some((next, stride)) = self.next {
            let next = next.wrapping_add(row.wrapping_mul(stride).wrapping_add(column));
            isa.prefetch_rows(next, stride, MR, NV * I::LANES);
        }
    }

    #[inline(always)]
    fn end<I: Isa>(self, isa: I, _: [usize; 2], sums: I::V, old: &[f32]) -> I::V {
        isa.fma(isa.splat(self.decay), isa.load_at(old, 0), sums)
    }
}
