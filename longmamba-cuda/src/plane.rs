//! How threads are laid over rows × columns.

use crate::arguments::Strided;
use crate::launch::Grid;

/// Threads of a block.
const THREADS: usize = 256;

/// Columns that a thread of the wide kernels moves at a time.
const WIDE: usize = 4;

/// Rows × columns, and how many columns a thread has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plane {
    rows: usize,
    width: usize,
    wide: bool,
}

impl Plane {
    /// `operands`: `f32` ones; `unit`: what of a row must be a multiple of the columns of a thread.
    pub(crate) fn new(rows: usize, width: usize, unit: usize, operands: &[Strided]) -> Self {
        let wide =
            unit.is_multiple_of(WIDE) && operands.iter().all(|o| o.aligned(size_of::<f32>(), WIDE));
        Plane { rows, width, wide }
    }

    /// With one more operand, whose elements have `size` bytes.
    pub(crate) fn and(self, operand: Strided, size: usize) -> Self {
        Plane { wide: self.wide && operand.aligned(size, WIDE), ..self }
    }

    /// The kernel for four columns a thread, or that for one.
    pub(crate) fn kernel(self, [wide, narrow]: [&'static str; 2]) -> &'static str {
        if self.wide { wide } else { narrow }
    }

    /// Of the columns, how many a thread moves at a time.
    pub(crate) fn columns(self) -> usize {
        if self.wide { WIDE } else { 1 }
    }

    /// For kernels that go `over_plane`.
    pub(crate) fn grid(self) -> Grid {
        let needed = self.width.div_ceil(self.columns());
        let across = needed.next_power_of_two().min(THREADS);
        let down = THREADS / across;
        let blocks =
            Grid::plane(lines(self.rows.div_ceil(down)), needed.div_ceil(across).min(65535), 1);
        let blocks = if self.rows == 0 || self.width == 0 { Grid::line(0, 1) } else { blocks };
        Grid { threads: [across as u32, down as u32, 1], ..blocks }
    }
}

/// As many blocks as a grid has along x; kernels go round again for what is left.
pub(crate) fn lines(blocks: usize) -> usize {
    blocks.min(i32::MAX as usize)
}
