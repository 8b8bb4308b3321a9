//! What the kernels over rows × columns share: their operands, and how threads are laid over them.

use crate::buffer::DeviceElement;
use crate::launch::{Grid, Pointer};
use crate::{Result, Rows, RowsMut};
use longmamba_core::Error as ArgumentError;

/// Threads of a block.
const THREADS: usize = 256;

/// Columns that a thread of the wide kernels moves at a time.
const WIDE: usize = 4;

/// Rows as kernels take them; `Rows` in `common.cuh`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Operand {
    data: Pointer,
    stride: u64,
}

impl Operand {
    /// After checking that all lie in the buffer.
    pub(crate) fn read<T: DeviceElement>(
        tensor: &'static str,
        from: Rows<'_, T>,
        rows: usize,
        width: usize,
    ) -> Result<Self> {
        Ok(Operand { data: from.pointer(tensor, rows, width)?, stride: from.stride as u64 })
    }

    /// The same for rows that are written.
    pub(crate) fn write<T: DeviceElement>(
        tensor: &'static str,
        to: &mut RowsMut<'_, T>,
        rows: usize,
        width: usize,
    ) -> Result<Self> {
        Ok(Operand { data: to.pointer(tensor, rows, width)?, stride: to.stride as u64 })
    }

    /// One row, which all rows share.
    pub(crate) fn shared(data: Pointer) -> Self {
        Operand { data, stride: 0 }
    }

    pub(crate) fn data(self) -> Pointer {
        self.data
    }

    /// Whether each row of elements of `size` bytes begins where [`WIDE`] of them can be moved at once.
    fn aligned(self, size: usize) -> bool {
        let (bytes, address) = ((WIDE * size) as u64, bytemuck::cast::<_, u64>(self.data));
        address.is_multiple_of(bytes) && (self.stride * size as u64).is_multiple_of(bytes)
    }
}

/// Rows × columns, and how many columns a thread has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plane {
    rows: usize,
    width: usize,
    wide: bool,
}

impl Plane {
    /// `operands`: `f32` ones; `unit`: what of a row must be a multiple of the columns of a thread.
    pub(crate) fn new(rows: usize, width: usize, unit: usize, operands: &[Operand]) -> Self {
        let wide =
            unit.is_multiple_of(WIDE) && operands.iter().all(|o| o.aligned(size_of::<f32>()));
        Plane { rows, width, wide }
    }

    /// With one more operand, whose elements have `size` bytes.
    pub(crate) fn and(self, operand: Operand, size: usize) -> Self {
        Plane { wide: self.wide && operand.aligned(size), ..self }
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

/// One vector of parameters, of exactly `len` elements.
pub(crate) fn vector(tensor: &'static str, of: &crate::Buffer<f32>, len: usize) -> Result<Operand> {
    if of.len() != len {
        let (expected, actual) = ([len].into(), [of.len()].into());
        return Err(ArgumentError::Shape { tensor, expected, actual }.into());
    }
    Ok(Operand::shared(of.pointer(0, len)?))
}

/// The error of an option outside its range.
pub(crate) fn refuse<T>(tensor: &'static str, value: f64, allowed: &'static str) -> Result<T> {
    Err(ArgumentError::Value { tensor, index: 0, value, allowed }.into())
}
