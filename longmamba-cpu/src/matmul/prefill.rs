//! Many rows: register tiles over panels of rearranged weights.
//!
//! A panel is a tile's width of outputs and a stretch of inputs, transposed so that for each input
//! the weights of neighbouring outputs lie side by side, widened, in at most 32 KiB: it stays in the
//! nearest caches while all rows of `x` pass. `x` needs no copy, since a tile reads single values.

use crate::check;
use crate::dispatch::{Block, Cpu, Divide, Kernel};
use crate::isa::Isa;
use crate::isa::tile::{Left, Right, multiply, tile_columns};
use crate::widen::Weight;
use longmamba_core::View;

/// Floats in a panel, on the stack of the thread that fills it.
const PANEL: usize = 8192;

/// Outputs to a unit of work: a multiple of every instruction set's tile, so that threads do not
/// share one.
const OUTPUTS: usize = 32;

/// Rows to a unit of work where rows are divided; a multiple of every tile but the last.
const ROWS: usize = 12;

/// The fewest rows a thread can have before each filling its own panels is too much.
const ROWS_PER_THREAD: usize = 96;

/// The arguments of one thread: some of the outputs, or some of the rows.
pub(super) struct Prefill<'a, T> {
    cpu: Cpu,
    /// `[rows, inputs]`
    x: View<'a, f32, 2>,
    /// `[outputs, inputs]`
    w: View<'a, T, 2>,
    /// `[rows, outputs]`
    out: Block<'a, f32, 2>,
    accumulate: bool,
    by_rows: bool,
}

impl<'a, T: Weight> Prefill<'a, T> {
    pub(super) fn new(
        cpu: Cpu,
        x: View<'a, f32, 2>,
        w: View<'a, T, 2>,
        out: Block<'a, f32, 2>,
        accumulate: bool,
    ) -> Self {
        // Few outputs cannot be shared out evenly; then rows are, where there are enough of them.
        let threads = rayon::current_num_threads();
        let [rows, outputs] = out.shape();
        let by_rows = outputs < 8 * OUTPUTS * threads && rows >= ROWS_PER_THREAD * threads;
        Prefill { cpu, x, w, out, accumulate, by_rows }
    }

    /// The units that are worth a thread: some 20 µs of multiply-adds.
    pub(super) fn least_units(&self) -> usize {
        let [rows, outputs] = self.out.shape();
        let unit = if self.by_rows { ROWS * outputs } else { OUTPUTS * rows };
        ((1 << 20) / (unit * self.x.shape()[1])).max(1)
    }
}

impl<T: Weight> Divide for Prefill<'_, T> {
    fn units(&self) -> usize {
        let [rows, outputs] = self.out.shape();
        if self.by_rows { rows.div_ceil(ROWS) } else { outputs.div_ceil(OUTPUTS) }
    }

    fn divide(self, at: usize) -> (Self, Self) {
        let Prefill { cpu, x, w, accumulate, by_rows, .. } = self;
        let ((x, x_), (w, w_), (out, out_)) = if by_rows {
            (check::cut(x, 0, at * ROWS), (w, w), self.out.split_at(0, at * ROWS))
        } else {
            ((x, x), check::cut(w, 0, at * OUTPUTS), self.out.split_at(1, at * OUTPUTS))
        };
        (
            Prefill { cpu, x, w, out, accumulate, by_rows },
            Prefill { cpu, x: x_, w: w_, out: out_, accumulate, by_rows },
        )
    }

    fn run(self) {
        self.cpu.call(self)
    }
}

/// Rows that pass by a panel before the next: their part of `x` stays in the second cache. More rows
/// come back to each panel anew.
const ROW_BLOCK: usize = 264;

/// On a cache line, so that no vector of a panel straddles two.
#[repr(align(64))]
struct Panel([f32; PANEL]);

impl<T: Weight> Kernel for Prefill<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Prefill { mut x, w, accumulate, out: mut rest, .. } = self;
        let mut panel = Panel([0.0; PANEL]);
        while rest.shape()[0] > 0 {
            let rows = ROW_BLOCK.min(rest.shape()[0]);
            let (out, rest_) = rest.split_at(0, rows);
            let (block, x_) = check::cut(x, 0, rows);
            product(isa, &mut panel.0, block, w, out, accumulate);
            (x, rest) = (x_, rest_);
        }
    }
}

/// The product of some rows: panel after panel, each for all of them.
#[inline(always)]
fn product<I: Isa, T: Weight>(
    isa: I,
    panel: &mut [f32],
    x: View<'_, f32, 2>,
    w: View<'_, T, 2>,
    mut rest: Block<'_, f32, 2>,
    accumulate: bool,
) {
    let [_, inputs] = x.shape();
    let columns = const { tile_columns::<I>() };
    // Stretches of equal length, in whole vectors.
    let stretches = inputs.div_ceil(PANEL / columns);
    let stretch = inputs.div_ceil(stretches).next_multiple_of(I::LANES);
    let mut output = 0;
    while rest.shape()[1] > 0 {
        let count = columns.min(rest.shape()[1]);
        let (mut out, after) = rest.split_at(1, count);
        rest = after;
        let mut input = 0;
        while input < inputs {
            let depth = stretch.min(inputs - input);
            fill(isa, panel, w, output, count, input, depth);
            let left = Left {
                data: &x.data()[input..],
                row_stride: x.layout().strides()[0],
                depth_stride: 1,
            };
            let right = Right { data: panel, depth_stride: columns };
            multiply(isa, left, right, depth, &mut out, accumulate || input > 0);
            input += depth;
        }
        output += count;
    }
}

/// Fills a panel with the weights of `count` outputs from `output` on and `depth` inputs from `input`
/// on: `panel[k · columns + j] = w[output + j, input + k]`, and zeros up to whole vectors.
#[inline(always)]
fn fill<I: Isa, T: Weight>(
    isa: I,
    panel: &mut [f32],
    w: View<'_, T, 2>,
    output: usize,
    count: usize,
    input: usize,
    depth: usize,
) {
    let columns = const { tile_columns::<I>() };
    let stride = w.layout().strides()[0];
    let mut j = 0;
    while j < count {
        let rows = I::LANES.min(count - j);
        let first = &w.data()[(output + j) * stride + input..];
        let mut k = 0;
        while k < depth {
            let len = I::LANES.min(depth - k);
            let block = &mut panel[k * columns + j..];
            match T::floats(first) {
                Some(floats) if rows == I::LANES && len == I::LANES => {
                    isa.transpose(&floats[k..], stride, block, columns);
                }
                _ => {
                    let mut square = [0.0; 16 * 16];
                    for i in 0..rows {
                        let from = i * stride + k;
                        let v = if len == I::LANES {
                            T::load(isa, &first[from..])
                        } else {
                            T::load_part(isa, &first[from..from + len])
                        };
                        isa.store(v, &mut square[i * I::LANES..]);
                    }
                    isa.transpose(&square, I::LANES, block, columns);
                }
            }
            k += I::LANES;
        }
        j += I::LANES;
    }
}
