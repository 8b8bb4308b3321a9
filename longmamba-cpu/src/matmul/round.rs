//! x rounded to `bf16`, in pairs.

use crate::dispatch::{Cpu, Divide, Kernel, Slots};
use crate::isa::{Isa, Pair};
use crate::norm::Normed;
use crate::rows::RowKernel;
use longmamba_core::View;

/// Where rows of x come from.
pub(super) trait Rows: Copy + Send {
    /// Floats of room that a row needs to be made in.
    fn room(&self, width: usize) -> usize;

    /// Row `row`, `width` long, perhaps made in `room`.
    fn row<'r, I: Isa>(
        &'r self,
        isa: I,
        row: usize,
        width: usize,
        room: &'r mut [f32],
    ) -> &'r [f32];
}

/// Rows as they are.
impl Rows for View<'_, f32, 2> {
    fn room(&self, _: usize) -> usize {
        0
    }

    #[inline(always)]
    fn row<'r, I: Isa>(&'r self, _: I, row: usize, width: usize, _: &'r mut [f32]) -> &'r [f32] {
        &View::row(self, [row, 0])[..width]
    }
}

/// Rows that are made when they are needed.
impl Rows for Normed<'_> {
    fn room(&self, width: usize) -> usize {
        width
    }

    #[inline(always)]
    fn row<'r, I: Isa>(
        &'r self,
        isa: I,
        row: usize,
        width: usize,
        room: &'r mut [f32],
    ) -> &'r [f32] {
        let room = &mut room[..width];
        RowKernel::row(self, isa, row, room);
        room
    }
}

/// The arguments of one thread: some of the rows.
pub(super) struct Round<'a, R> {
    pub(super) cpu: Cpu,
    pub(super) x: R,
    /// The first row, and how many.
    pub(super) first: usize,
    pub(super) rows: usize,
    pub(super) inputs: usize,
    /// `[rows, pairs]`, `stride` apart; a last pair without a second ends in 0.
    pub(super) out: &'a mut [Pair],
    pub(super) stride: usize,
    /// Room for a row, for each piece that this work may still be cut into.
    pub(super) room: Slots<'a, f32>,
}

impl<R: Rows> Divide for Round<'_, R> {
    fn units(&self) -> usize {
        self.rows
    }

    fn divide(self, at: usize) -> (Self, Self) {
        let Round { cpu, x, first, rows, inputs, stride, .. } = self;
        let (out, out_) = self.out.split_at_mut(at * stride);
        let (room, room_) = self.room.halve();
        (
            Round { cpu, x, first, rows: at, inputs, out, stride, room },
            Round {
                cpu,
                x,
                first: first + at,
                rows: rows - at,
                inputs,
                out: out_,
                stride,
                room: room_,
            },
        )
    }

    fn run(self) {
        self.cpu.call(self)
    }
}

impl<R: Rows> Kernel for Round<'_, R> {
    type Out = ();
    const PAIRS: bool = true;

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let Round { x, first, inputs, .. } = self;
        for (r, out) in self.out.chunks_exact_mut(self.stride).enumerate() {
            let x = x.row(isa, first + r, inputs, self.room.own());
            let out = out[..inputs.div_ceil(2)].as_flattened_mut();
            let mut k = 0;
            while k < out.len() {
                let end = out.len().min(k + I::LANES);
                isa.store_rounded(isa.load_at(x, k), &mut out[k..end]);
                k = end;
            }
        }
    }
}
