//! A weight on a device.

use crate::buffer::DeviceElement;
use crate::launch::upload_pieces;
use crate::{Buffer, Device, Result, Rows, RowsMut, TableElement};
use half::{bf16, f16};
use longmamba_core::{AnyView, DType, Element, Error as ArgumentError, View};
use std::sync::Arc;

/// A weight `[outputs, inputs]`, in the type that it came in. Clones share its memory.
#[derive(Clone, Debug)]
pub struct Matrix {
    values: Values,
    outputs: usize,
    inputs: usize,
    stride: usize,
}

/// The elements of a [`Matrix`], row after row.
#[derive(Clone, Debug)]
pub(crate) enum Values {
    F32(Arc<Buffer<f32>>),
    F16(Arc<Buffer<f16>>),
    BF16(Arc<Buffer<bf16>>),
}

impl Matrix {
    /// A copy of `weight`, `[outputs, inputs]`, its rows without gaps. As with [`Device::upload`] large ones
    /// take page-locked memory until [`Device::free_staging`].
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for rows with gaps;
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), [`Error::Driver`](crate::Error::Driver).
    pub fn upload(device: &Device, weight: AnyView<'_, 2>) -> Result<Self> {
        let [outputs, inputs] = weight.shape();
        let stride = inputs.next_multiple_of(ROW_BYTES / weight.dtype().size());
        let values = match weight {
            AnyView::F32(view) => Values::F32(upload(device, view, stride)?),
            AnyView::F16(view) => Values::F16(upload(device, view, stride)?),
            AnyView::BF16(view) => Values::BF16(upload(device, view, stride)?),
        };
        Ok(Matrix { values, outputs, inputs, stride })
    }

    /// Rows: the width of what a product gives.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns: the width of what a product takes.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        match self.values {
            Values::F32(_) => DType::F32,
            Values::F16(_) => DType::F16,
            Values::BF16(_) => DType::BF16,
        }
    }

    /// The embedding: row `i` of `out` is row `tokens[i]` of this table, widened; NaN for a token that it
    /// does not have. Of `tokens` the first `count` are read.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a shape that does not fit;
    /// [`Error::Driver`](crate::Error::Driver).
    pub fn gather_rows(
        &self,
        tokens: &Buffer<u32>,
        count: usize,
        out: RowsMut<'_, f32>,
    ) -> Result<()> {
        fn gather<T: TableElement>(
            table: &Matrix,
            buffer: &Buffer<T>,
            tokens: &Buffer<u32>,
            count: usize,
            out: RowsMut<'_, f32>,
        ) -> Result<()> {
            let rows = Rows { buffer, first: 0, width: table.inputs, stride: table.stride };
            tokens.device().gather_rows(rows, table.outputs, tokens, count, out)
        }
        match &self.values {
            Values::F32(buffer) => gather(self, buffer, tokens, count, out),
            Values::F16(buffer) => gather(self, buffer, tokens, count, out),
            Values::BF16(buffer) => gather(self, buffer, tokens, count, out),
        }
    }

    /// The elements: `outputs` rows, [`stride`](Self::stride) apart.
    pub(crate) fn values(&self) -> &Values {
        &self.values
    }

    /// The distance between rows, in elements: a multiple of 16 bytes. Between the rows lie zeros.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }
}

/// Rows begin at multiples of this, the widest load that there is, so that kernels need no other.
const ROW_BYTES: usize = 16;

fn upload<T: DeviceElement + Element>(
    device: &Device,
    view: View<'_, T, 2>,
    stride: usize,
) -> Result<Arc<Buffer<T>>> {
    let [outputs, inputs] = view.shape();
    if !view.layout().rows_contiguous() {
        return Err(ArgumentError::NotContiguous { tensor: "weight" }.into());
    }
    let Some(len) = outputs.checked_mul(stride) else {
        return Err(ArgumentError::OutOfBounds { needed: None, available: usize::MAX }.into());
    };
    let whole = view.layout().strides()[0] == stride || outputs <= 1;
    let buffer = match view.data().get(..len) {
        Some(values) if whole && stride == inputs => device.upload(values)?,
        _ => {
            let mut buffer = device.zeros(len)?;
            upload_pieces(&mut buffer, |first, out| pad_rows(view, stride, first, out))?;
            buffer
        }
    };
    Ok(Arc::new(buffer))
}

/// Elements of the rows of `view`, each with zeros up to `stride`, from element `first` on.
fn pad_rows<T: Element>(view: View<'_, T, 2>, stride: usize, first: usize, out: &mut [T]) {
    let inputs = view.shape()[1];
    let mut done = 0;
    while done < out.len() {
        let (output, column) = ((first + done) / stride, (first + done) % stride);
        let count = (stride - column).min(out.len() - done);
        let (row, rest) = (view.row([output, 0]), &mut out[done..done + count]);
        let values = &row[column.min(inputs)..(column + count).min(inputs)];
        rest[..values.len()].copy_from_slice(values);
        rest[values.len()..].fill(T::zeroed());
        done += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the rows are cut into pieces.
    #[test]
    fn rows_end_in_zeros() {
        let values: Vec<f32> = (1..=15).map(|n| n as f32).collect();
        let view = View::new(&values, [3, 5]).unwrap();
        let padded: Vec<f32> = values.chunks(5).flat_map(|row| [row, &[0.0; 3]].concat()).collect();
        for first in 0..24 {
            for end in first..=24 {
                let mut out = vec![f32::NAN; end - first];
                pad_rows(view, 8, first, &mut out);
                assert_eq!(out, padded[first..end], "{first}..{end}");
            }
        }
    }
}
