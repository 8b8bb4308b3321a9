//! A weight on a device.

use crate::buffer::DeviceElement;
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
    /// A copy of `weight`, `[outputs, inputs]`, its rows without gaps.
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
            let mut values = vec![T::zeroed(); len];
            for (output, row) in values.chunks_exact_mut(stride.max(1)).enumerate() {
                row[..inputs].copy_from_slice(view.row([output, 0]));
            }
            device.upload(&values)?
        }
    };
    Ok(Arc::new(buffer))
}
