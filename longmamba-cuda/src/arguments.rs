//! Pieces of kernels' arguments, with the checks that come before an address.

use crate::buffer::{Buffer, DeviceElement, Rows, RowsMut};
use crate::launch::Pointer;
use crate::{Device, Error, Result};
use longmamba_core::Error as ArgumentError;

/// Rows as kernels take them; `Rows` in `common.cuh`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Strided {
    data: Pointer,
    stride: u64,
}

impl Strided {
    /// Rows that are not there.
    pub(crate) const NULL: Strided = Strided { data: Pointer::NULL, stride: 0 };

    /// See [`Rows::pointer`].
    pub(crate) fn new<T: DeviceElement>(
        device: &Device,
        tensor: &'static str,
        from: Rows<'_, T>,
        rows: usize,
        width: usize,
    ) -> Result<Self> {
        Ok(Strided { data: from.pointer(device, tensor, rows, width)?, stride: from.stride as u64 })
    }

    /// See [`RowsMut::pointer`].
    pub(crate) fn new_mut<T: DeviceElement>(
        device: &Device,
        tensor: &'static str,
        to: &mut RowsMut<'_, T>,
        rows: usize,
        width: usize,
    ) -> Result<Self> {
        Ok(Strided { data: to.pointer(device, tensor, rows, width)?, stride: to.stride as u64 })
    }

    /// One row, which all rows share.
    pub(crate) fn shared(data: Pointer) -> Self {
        Strided { data, stride: 0 }
    }

    pub(crate) fn data(self) -> Pointer {
        self.data
    }

    /// Whether each row of elements of `size` bytes begins where `count` of them can be moved at once.
    pub(crate) fn aligned(self, size: usize, count: usize) -> bool {
        let (bytes, address) = ((count * size) as u64, bytemuck::cast::<_, u64>(self.data));
        address.is_multiple_of(bytes) && (self.stride * size as u64).is_multiple_of(bytes)
    }
}

/// The address, for work of `device`, of all of `values`, of which there must be as many as `shape` says.
pub(crate) fn all<T: DeviceElement, const R: usize>(
    device: &Device,
    tensor: &'static str,
    values: &Buffer<T>,
    shape: [usize; R],
) -> Result<Pointer> {
    let elements = product(shape)?;
    if values.len() != elements {
        let (expected, actual) = (shape.into(), [values.len()].into());
        return Err(ArgumentError::Shape { tensor, expected, actual }.into());
    }
    values.pointer(device, 0, elements)
}

/// [`all`], or null.
pub(crate) fn optional<T: DeviceElement, const R: usize>(
    device: &Device,
    tensor: &'static str,
    values: Option<&Buffer<T>>,
    shape: [usize; R],
) -> Result<Pointer> {
    values.map_or(Ok(Pointer::NULL), |values| all(device, tensor, values, shape))
}

/// The error of an option outside its range.
pub(crate) fn refuse<T>(tensor: &'static str, value: f64, allowed: &'static str) -> Result<T> {
    Err(ArgumentError::Value { tensor, index: 0, value, allowed }.into())
}

/// The product of sizes, which no buffer can have where it overflows.
pub(crate) fn product<const R: usize>(sizes: [usize; R]) -> Result<usize> {
    let product = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    product.ok_or(ArgumentError::OutOfBounds { needed: None, available: usize::MAX }.into())
}

/// A size that a kernel takes in 32 bits, `limit` at most.
pub(crate) fn size(
    kernel: &'static str,
    what: &'static str,
    limit: u32,
    actual: usize,
) -> Result<u32> {
    let fits = u32::try_from(actual).ok().filter(|&size| size <= limit);
    fits.ok_or(Error::Unsupported { kernel, what, limit: limit as usize, actual })
}
