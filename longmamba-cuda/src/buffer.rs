//! Memory of a device, and rows in it.

use crate::launch::Pointer;
use crate::{Device, Error, Result};
use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaSlice, DeviceRepr, DriverError, ValidAsZeroBits};
use longmamba_core::Error as ArgumentError;
use std::sync::Arc;

/// What device memory can hold.
pub trait DeviceElement:
    DeviceRepr + ValidAsZeroBits + bytemuck::Pod + Send + Sync + std::fmt::Debug
{
}

impl<T> DeviceElement for T where
    T: DeviceRepr + ValidAsZeroBits + bytemuck::Pod + Send + Sync + std::fmt::Debug
{
}

/// Device memory of a fixed size, for the [`Device`] that made it and its clones.
#[derive(Debug)]
pub struct Buffer<T> {
    /// Shared with the graphs that were captured over it.
    pub(crate) slice: Arc<CudaSlice<T>>,
    pub(crate) device: Device,
    len: usize,
}

impl<T: DeviceElement> Buffer<T> {
    pub(crate) fn zeros(device: &Device, len: usize) -> Result<Self> {
        // The driver has no empty allocations.
        let slice = device.stream.alloc_zeros(len.max(1)).map_err(|error| match error {
            DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY) => {
                Error::OutOfMemory { bytes: len * size_of::<T>() }
            }
            other => Error::driver("allocate memory")(other),
        })?;
        Ok(Buffer { slice: Arc::new(slice), device: device.clone(), len })
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The device that it lies on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Copies the elements from `first` on to the host, as many as `out` has; waits for all earlier
    /// work.
    ///
    /// # Errors
    /// [`Error::Argument`] for elements past the end; [`Error::Driver`].
    pub fn read(&self, first: usize, out: &mut [T]) -> Result<()> {
        self.expect(first, out.len())?;
        if out.is_empty() {
            return Ok(());
        }
        let view = self.slice.slice(first..first + out.len());
        let copy = Error::driver("copy from the device");
        self.device.stream.memcpy_dtoh(&view, out).map_err(&copy)?;
        self.device.stream.synchronize().map_err(&copy)
    }

    /// All elements, on the host.
    ///
    /// # Errors
    /// As [`Buffer::read`].
    pub fn to_vec(&self) -> Result<Vec<T>> {
        let mut out = vec![T::zeroed(); self.len];
        self.read(0, &mut out)?;
        Ok(out)
    }

    /// Copies `values` to the elements from `first` on.
    ///
    /// # Errors
    /// [`Error::Argument`] for elements past the end; [`Error::Driver`].
    pub fn write(&mut self, values: &[T], first: usize) -> Result<()> {
        self.expect(first, values.len())?;
        crate::launch::upload(self, values, first)
    }

    /// Copies the elements of `from` that begin at `from_first` to those from `first` on.
    ///
    /// # Errors
    /// As [`Buffer::write`], and [`Error::OtherDevice`].
    pub fn copy_from(
        &mut self,
        from: &Buffer<T>,
        from_first: usize,
        len: usize,
        first: usize,
    ) -> Result<()> {
        from.expect(from_first, len)?;
        self.expect(first, len)?;
        crate::launch::copy(from, from_first, self, first, len)
    }

    /// Sets all elements to zero.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn clear(&mut self) -> Result<()> {
        crate::launch::clear(self)
    }

    /// The address of element `first`, from which `device` may use `len` elements.
    pub(crate) fn pointer(&self, device: &Device, first: usize, len: usize) -> Result<Pointer> {
        self.expect(first, len)?;
        Pointer::new(device, self, first)
    }

    fn expect(&self, first: usize, len: usize) -> Result<()> {
        match first.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            needed => Err(ArgumentError::OutOfBounds { needed, available: self.len }.into()),
        }
    }
}

/// Rows of neighbouring elements in a buffer, to be read.
#[derive(Debug)]
pub struct Rows<'a, T> {
    /// The whole buffer.
    pub buffer: &'a Buffer<T>,
    /// The element that the first row begins with.
    pub first: usize,
    /// Elements of a row.
    pub width: usize,
    /// The distance between rows, in elements.
    pub stride: usize,
}

impl<T> Clone for Rows<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Rows<'_, T> {}

/// Rows of neighbouring elements in a buffer, to be written.
#[derive(Debug)]
pub struct RowsMut<'a, T> {
    /// The whole buffer.
    pub buffer: &'a mut Buffer<T>,
    /// The element that the first row begins with.
    pub first: usize,
    /// Elements of a row.
    pub width: usize,
    /// The distance between rows, in elements.
    pub stride: usize,
}

impl<'a, T: DeviceElement> Rows<'a, T> {
    /// All of a buffer, in rows of `width`.
    pub fn all(buffer: &'a Buffer<T>, width: usize) -> Self {
        Rows { buffer, first: 0, width, stride: width }
    }

    /// Columns `first..first + width` of these.
    pub fn part(self, first: usize, width: usize) -> Self {
        Rows { first: self.first + first, width, ..self }
    }

    /// The address of the first row, for work of `device`, after checking that the buffer has `rows` of
    /// them, each of `width`; `tensor` names them in the error.
    pub(crate) fn pointer(
        &self,
        device: &Device,
        tensor: &'static str,
        rows: usize,
        width: usize,
    ) -> Result<Pointer> {
        let Rows { buffer, first, stride, .. } = *self;
        buffer.pointer(device, first, span(tensor, rows, width, self.width, stride)?)
    }
}

impl<'a, T: DeviceElement> RowsMut<'a, T> {
    /// All of a buffer, in rows of `width`.
    pub fn all(buffer: &'a mut Buffer<T>, width: usize) -> Self {
        RowsMut { buffer, first: 0, width, stride: width }
    }

    /// Columns `first..first + width` of these.
    pub fn part(self, first: usize, width: usize) -> Self {
        RowsMut { first: self.first + first, width, ..self }
    }

    /// As [`Rows::pointer`]; rows that share an element are refused.
    pub(crate) fn pointer(
        &mut self,
        device: &Device,
        tensor: &'static str,
        rows: usize,
        width: usize,
    ) -> Result<Pointer> {
        let RowsMut { first, stride, .. } = *self;
        if rows > 1 && stride < width {
            let (shape, strides) = ([rows, width].into(), [stride, 1].into());
            return Err(ArgumentError::Overlapping { shape, strides }.into());
        }
        self.buffer.pointer(device, first, span(tensor, rows, width, self.width, stride)?)
    }
}

/// The elements between the first and the last of `rows` rows.
fn span(
    tensor: &'static str,
    rows: usize,
    width: usize,
    actual: usize,
    stride: usize,
) -> Result<usize> {
    if width != actual {
        let (expected, actual) = ([rows, width].into(), [rows, actual].into());
        return Err(ArgumentError::Shape { tensor, expected, actual }.into());
    }
    if rows == 0 || width == 0 {
        return Ok(0);
    }
    let last = (rows - 1).checked_mul(stride).and_then(|start| start.checked_add(width));
    last.ok_or(ArgumentError::OutOfBounds { needed: None, available: usize::MAX }.into())
}
