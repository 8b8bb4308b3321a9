//! Many rows: register tiles over panels of rearranged weights.
//!
//! A panel is a tile's width of outputs and a stretch of inputs, transposed so that for each factor of x
//! the weights of neighbouring outputs lie side by side. It stays in the second cache while all rows of
//! `x` pass. `x` needs no copy, since a tile reads single values.

use super::PREFILL_ROWS;
use super::weights::{Panels, Part};
use crate::check;
use crate::dispatch::{Block, Cpu, Divide, Kernel, Slots, parallel, parallel_shared, pieces};
use crate::isa::tile::{Add, Factor, Left, Meets, Right, multiply_streamed};
use crate::isa::{Isa, MOST_LANES};
use longmamba_core::View;

/// The longest stretch of a panel, in words of four bytes of x: 128 KiB with the widest tile.
const DEPTH: usize = 1024;

/// Stretches are whole multiples of so many words of x: two of the longest vectors, so that they are the same on
/// every instruction set, and for floats that meet pairs.
const STEP: usize = 2 * MOST_LANES;

/// Outputs to a unit of work: a multiple of every instruction set's tile, so that threads do not
/// share one.
const OUTPUTS: usize = 32;

/// Rows to a unit of work where rows are divided; a multiple of every tile but the last.
const ROWS: usize = 12;

/// The fewest rows a thread can have before each filling its own panels is too much.
const ROWS_PER_THREAD: usize = 96;

/// The arguments of one thread: some of the outputs, or some of the rows.
pub(super) struct Prefill<'a, W, L, F> {
    cpu: Cpu,
    /// `[rows, inputs]`, as factors.
    x: View<'a, L, 2>,
    /// `[outputs, inputs]`
    w: W,
    /// `[rows, outputs]`
    out: Block<'a, f32, 2>,
    accumulate: bool,
    by_rows: bool,
    /// A panel for each piece that this work may still be cut into.
    panels: Slots<'a, F>,
}

/// Whether rows of x so many factors apart are in each other's way: a tile reads a dozen of them side by side, and
/// where they are a power of two apart the nearest cache has one place for all of them.
pub(super) fn collides(stride: usize) -> bool {
    stride.is_multiple_of(256)
}

/// A distance for rows of `depth` factors at which they are not.
pub(super) fn stride(depth: usize) -> usize {
    if collides(depth) { depth + 16 } else { depth }
}

/// Factors of a panel of a product with `depth` factors a row.
pub(super) fn panel_len(depth: usize) -> usize {
    // Whole vectors are written, of the longest there are.
    OUTPUTS * depth.min(DEPTH).next_multiple_of(MOST_LANES)
}

impl<'a, W: Panels<F>, L: Meets<F>, F: Factor> Prefill<'a, W, L, F> {
    /// Runs it on all threads. There must be a panel for each.
    pub(super) fn run(
        cpu: Cpu,
        x: View<'a, L, 2>,
        w: W,
        out: Block<'a, f32, 2>,
        accumulate: bool,
        panels: Slots<'a, F>,
    ) {
        // Few outputs cannot be shared out evenly; then rows are, where there are enough of them.
        let threads = rayon::current_num_threads();
        let [rows, outputs] = out.shape();
        let by_rows = outputs < 8 * OUTPUTS * threads && rows >= ROWS_PER_THREAD * threads;
        // The units that are worth a thread: some 20 µs of multiply-adds.
        let unit = if by_rows { ROWS * outputs } else { OUTPUTS * rows };
        // With a few rows, it is some 2 µs of reading weights: less than it takes to wake up a thread that has
        // found nothing to do.
        let (computing, reading) =
            ((1 << 20) / (unit * w.inputs()), (1 << 16) / (OUTPUTS * w.row_bytes()));
        let least = computing.min(reading).max(1);
        let units = if by_rows { rows.div_ceil(ROWS) } else { outputs.div_ceil(OUTPUTS) };
        let panels = panels.first(pieces(units, least));
        let work = Prefill { cpu, x, w, out, accumulate, by_rows, panels };
        match W::READY && rows >= PREFILL_ROWS {
            true => parallel_shared(work, least),
            false => parallel(work, least),
        }
    }
}

impl<W: Panels<F>, L: Meets<F>, F: Factor> Divide for Prefill<'_, W, L, F> {
    fn units(&self) -> usize {
        let [rows, outputs] = self.out.shape();
        if self.by_rows { rows.div_ceil(ROWS) } else { outputs.div_ceil(OUTPUTS) }
    }

    fn divide(self, at: usize) -> (Self, Self) {
        let Prefill { cpu, x, w, accumulate, by_rows, .. } = self;
        let ((x, x_), (w, w_), (out, out_)) = if by_rows {
            (check::cut(x, 0, at * ROWS), (w, w), self.out.split_at(0, at * ROWS))
        } else {
            ((x, x), w.cut(at * OUTPUTS), self.out.split_at(1, at * OUTPUTS))
        };
        let (panels, panels_) = self.panels.halve();
        (
            Prefill { cpu, x, w, out, accumulate, by_rows, panels },
            Prefill { cpu, x: x_, w: w_, out: out_, accumulate, by_rows, panels: panels_ },
        )
    }

    fn run(self) {
        self.cpu.call(self)
    }
}

/// Rows that pass by a panel before the next: their part of `x` stays in the caches. More rows come back
/// to each panel anew.
const ROW_BLOCK: usize = 528;

impl<W: Panels<F>, L: Meets<F>, F: Factor> Kernel for Prefill<'_, W, L, F> {
    type Out = ();
    const PAIRS: bool = L::PAIRS;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Prefill { mut x, w, accumulate, out: mut rest, mut panels, .. } = self;
        while rest.shape()[0] > 0 {
            let rows = ROW_BLOCK.min(rest.shape()[0]);
            let (out, rest_) = rest.split_at(0, rows);
            let (block, x_) = check::cut(x, 0, rows);
            product(isa, panels.own(), block, w, out, accumulate);
            (x, rest) = (x_, rest_);
        }
    }
}

/// The product of some rows: panel after panel, each for all of them.
#[inline(always)]
fn product<I: Isa, W: Panels<F>, L: Meets<F>, F: Factor>(
    isa: I,
    panel: &mut [F],
    x: View<'_, L, 2>,
    w: W,
    mut rest: Block<'_, f32, 2>,
    accumulate: bool,
) {
    let [_, depth] = x.shape();
    let columns = w.columns::<I>();
    // Stretches of equal length.
    let words = size_of::<L>() / size_of::<f32>();
    let count = depth.div_ceil(DEPTH / words);
    let stretch = depth.div_ceil(count).next_multiple_of(STEP / words);
    let mut output = 0;
    while rest.shape()[1] > 0 {
        let count = columns.min(rest.shape()[1]);
        let (mut out, after) = rest.split_at(1, count);
        rest = after;
        let mut first = 0;
        while first < depth {
            let len = stretch.min(depth - first);
            let left = Left { data: &x.data()[first..], row_stride: x.layout().strides()[0] };
            let (part, ending) = (Part { output, count, first, len }, Add(accumulate || first > 0));
            let (done, panel) = w.begin(isa, panel, left, part, &mut out, ending);
            let rows = out.shape()[0] - done;
            if rows > 0 {
                let data = &left.data[done * left.row_stride..];
                let right = Right { data: panel, depth_stride: columns };
                let mut out = out.matrix_mut([done, 0], 0, [rows, count]);
                let (left, coming) = (Left { data, ..left }, w.coming(part));
                multiply_streamed(isa, left, right, len, &mut out, ending, coming);
            }
            first += len;
        }
        output += count;
    }
}
