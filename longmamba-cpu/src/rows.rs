//! Work that goes row by row over one output.

use crate::dispatch::{Block, Cpu, Divide, Kernel, parallel};
use crate::isa::Isa;

/// What happens to one row. It must not depend on which rows the same thread has.
pub(crate) trait RowKernel: Copy + Send {
    /// Writes row `row` of the output.
    fn row<I: Isa>(&self, isa: I, row: usize, out: &mut [f32]);
}

/// Applies `kernel` to all rows of `out`, whose rows must be contiguous; a thread gets at least
/// `least` elements.
pub(crate) fn for_each_row<K: RowKernel>(
    cpu: Cpu,
    kernel: K,
    out: Block<'_, f32, 2>,
    least: usize,
) {
    let [_, width] = out.shape();
    parallel(Rows { cpu, kernel, first: 0, out }, least.div_ceil(width.max(1)));
}

/// The arguments of one thread.
struct Rows<'a, K> {
    cpu: Cpu,
    kernel: K,
    /// The row that `out` begins with.
    first: usize,
    /// `[rows, width]`
    out: Block<'a, f32, 2>,
}

impl<K: RowKernel> Divide for Rows<'_, K> {
    fn units(&self) -> usize {
        self.out.shape()[0]
    }

    fn divide(self, at: usize) -> (Self, Self) {
        let Rows { cpu, kernel, first, out } = self;
        let (out, out_) = out.split_at(0, at);
        (Rows { cpu, kernel, first, out }, Rows { cpu, kernel, first: first + at, out: out_ })
    }

    fn run(self) {
        self.cpu.call(self)
    }
}

impl<K: RowKernel> Kernel for Rows<'_, K> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let [rows, width] = self.out.shape();
        for r in 0..rows {
            let out = self.out.row_mut([r, 0], width);
            self.kernel.row(isa, self.first + r, out);
        }
    }
}
