use crate::{AlignedVec, AnyView, DType, Element, Error, Result, Shape, View};
use half::{bf16, f16};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Bytes that several tensors share: a memory map, or a static array.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

#[derive(Clone)]
enum Storage {
    Owned(Arc<AlignedVec<u8>>),
    Shared { bytes: SharedBytes, range: Range<usize> },
}

/// An immutable tensor in row-major order. Clones share the storage.
///
/// ```
/// use longmamba_core::{DType, Tensor};
/// use std::sync::Arc;
/// let file: Arc<Vec<u8>> = Arc::new([1.0f32, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect());
/// let tensor = Tensor::from_shared(file, 0..8, DType::F32, &[2])?;
/// assert_eq!(tensor.view::<f32, 1>()?.data(), &[1.0, 2.0]);
/// # Ok::<(), longmamba_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor {
    storage: Storage,
    dtype: DType,
    shape: Shape,
}

impl Tensor {
    /// A copy of `values` on a 64-byte boundary.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] where shape and number of values differ; [`Error::Rank`].
    pub fn from_slice<T: Element>(values: &[T], shape: &[usize]) -> Result<Self> {
        let shape = checked(shape, values.len())?;
        let bytes = AlignedVec::from_slice(bytemuck::cast_slice(values));
        Ok(Tensor { storage: Storage::Owned(Arc::new(bytes)), dtype: T::DTYPE, shape })
    }

    /// The little-endian elements in `range` of `bytes`: in place where they are aligned for their
    /// type, copied where they are not.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] where the range lies outside `bytes` or does not fit the shape;
    /// [`Error::Rank`].
    pub fn from_shared(
        bytes: SharedBytes,
        range: Range<usize>,
        dtype: DType,
        shape: &[usize],
    ) -> Result<Self> {
        let available = (*bytes).as_ref().len();
        let part = (*bytes)
            .as_ref()
            .get(range.clone())
            .ok_or(Error::OutOfBounds { needed: Some(range.end), available })?;
        let shape = checked(shape, part.len() / dtype.size())?;
        if !part.len().is_multiple_of(dtype.size()) {
            return Err(Error::OutOfBounds { needed: shape.elements(), available: part.len() });
        }
        // Files are little-endian; elsewhere every tensor would need its bytes swapped.
        const { assert!(cfg!(target_endian = "little"), "only little-endian targets") };
        let storage = if part.as_ptr().addr().is_multiple_of(dtype.size()) {
            Storage::Shared { bytes, range }
        } else {
            Storage::Owned(Arc::new(AlignedVec::from_slice(part)))
        };
        Ok(Tensor { storage, dtype, shape })
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The sizes of the dimensions.
    pub fn shape(&self) -> &[usize] {
        self.shape.dims()
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.bytes().len() / self.dtype.size()
    }

    /// Whether the elements lie in storage that was handed in, rather than in a copy.
    pub fn is_zero_copy(&self) -> bool {
        matches!(self.storage, Storage::Shared { .. })
    }

    /// The elements as bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.storage {
            Storage::Owned(bytes) => bytes,
            Storage::Shared { bytes, range } => &(**bytes).as_ref()[range.clone()],
        }
    }

    /// All elements in order.
    ///
    /// # Errors
    /// [`Error::DType`] where the tensor holds another type.
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        if T::DTYPE != self.dtype {
            return Err(Error::DType { expected: T::DTYPE, actual: self.dtype });
        }
        // Alignment was settled at construction.
        Ok(bytemuck::cast_slice(self.bytes()))
    }

    /// A view with `R` dimensions.
    ///
    /// # Errors
    /// [`Error::DType`], or [`Error::Shape`] where the tensor has another rank.
    pub fn view<T: Element, const R: usize>(&self) -> Result<View<'_, T, R>> {
        let shape: [usize; R] = self.shape().try_into().map_err(|_| Error::Shape {
            tensor: "view",
            expected: Shape::from([0; R]),
            actual: self.shape,
        })?;
        View::new(self.as_slice()?, shape)
    }

    /// A view with `R` dimensions, of whatever type the tensor holds.
    ///
    /// # Errors
    /// [`Error::Shape`] where the tensor has another rank.
    pub fn any_view<const R: usize>(&self) -> Result<AnyView<'_, R>> {
        Ok(match self.dtype {
            DType::F32 => AnyView::F32(self.view()?),
            DType::F16 => AnyView::F16(self.view()?),
            DType::BF16 => AnyView::BF16(self.view()?),
        })
    }

    /// All elements, widened to `f32`, in a new buffer.
    pub fn to_f32(&self) -> AlignedVec<f32> {
        fn widen<T: Element>(bytes: &[u8]) -> AlignedVec<f32> {
            let values: &[T] = bytemuck::cast_slice(bytes);
            let mut out = AlignedVec::zeros(values.len());
            out.iter_mut().zip(values).for_each(|(o, v)| *o = v.to_f32());
            out
        }
        match self.dtype {
            DType::F32 => widen::<f32>(self.bytes()),
            DType::F16 => widen::<f16>(self.bytes()),
            DType::BF16 => widen::<bf16>(self.bytes()),
        }
    }

    /// The index of the first element that is NaN or infinite.
    pub fn first_non_finite(&self) -> Option<usize> {
        // By exponent bits: one integer compare an element, for any type.
        fn scan<T: bytemuck::Pod>(bytes: &[u8], bad: impl Fn(T) -> bool) -> Option<usize> {
            let values: &[T] = bytemuck::cast_slice(bytes);
            // A whole block first: this loop has no early exit and vectorises.
            const BLOCK: usize = 4096;
            let block =
                values.chunks(BLOCK).position(|b| b.iter().fold(false, |any, &v| any | bad(v)))?;
            values[block * BLOCK..].iter().position(|&v| bad(v)).map(|i| i + block * BLOCK)
        }
        match self.dtype {
            DType::F32 => scan(self.bytes(), |v: u32| v & 0x7f80_0000 == 0x7f80_0000),
            DType::F16 => scan(self.bytes(), |v: u16| v & 0x7c00 == 0x7c00),
            DType::BF16 => scan(self.bytes(), |v: u16| v & 0x7f80 == 0x7f80),
        }
    }
}

fn checked(dims: &[usize], available: usize) -> Result<Shape> {
    if dims.len() > 4 {
        return Err(Error::Rank { rank: dims.len() });
    }
    let shape = Shape::from(dims);
    match shape.elements() {
        Some(n) if n == available => Ok(shape),
        needed => Err(Error::OutOfBounds { needed, available }),
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {})", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_storage_is_used_in_place_or_copied_when_misaligned() {
        let mut file = AlignedVec::<u8>::zeros(64);
        for (i, b) in file.iter_mut().enumerate() {
            *b = i as u8;
        }
        let file = Arc::new(Holder(file));
        for start in [0, 2, 3, 4] {
            for (dtype, shape) in [(DType::F32, [2, 2]), (DType::BF16, [4, 2])] {
                let t =
                    Tensor::from_shared(file.clone(), start..start + 16, dtype, &shape).unwrap();
                assert_eq!(t.is_zero_copy(), start % dtype.size() == 0);
                assert_eq!(t.bytes(), (start as u8..start as u8 + 16).collect::<Vec<_>>());
                assert_eq!(t.to_f32().len(), t.elements());
            }
        }
        for bad in [
            Tensor::from_shared(file.clone(), 60..68, DType::F32, &[2]),
            Tensor::from_shared(file.clone(), 0..8, DType::F32, &[3]),
            Tensor::from_shared(file.clone(), 0..7, DType::F32, &[1]),
            Tensor::from_shared(file.clone(), 0..8, DType::F32, &[usize::MAX, 4]),
            Tensor::from_shared(file, 0..8, DType::F32, &[1, 1, 1, 1, 2]),
        ] {
            assert!(bad.is_err());
        }
    }

    struct Holder(AlignedVec<u8>);
    impl AsRef<[u8]> for Holder {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    #[test]
    fn non_finite_values_are_found_in_every_type() {
        fn check<T: Element>() {
            let mut values = vec![T::from_f32(1.5); 10_000];
            assert_eq!(Tensor::from_slice(&values, &[10_000]).unwrap().first_non_finite(), None);
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                values[9_999] = T::from_f32(bad);
                let t = Tensor::from_slice(&values, &[100, 100]).unwrap();
                assert_eq!(t.first_non_finite(), Some(9_999));
            }
            values[17] = T::from_f32(f32::NAN);
            assert_eq!(
                Tensor::from_slice(&values, &[10_000]).unwrap().first_non_finite(),
                Some(17)
            );
        }
        check::<f32>();
        check::<f16>();
        check::<bf16>();
    }

    #[test]
    fn views_check_type_and_rank() {
        let t = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2]).unwrap();
        assert_eq!(t.view::<f32, 2>().unwrap().row([1, 0]), &[3.0, 4.0]);
        assert!(matches!(t.view::<bf16, 2>(), Err(Error::DType { .. })));
        assert!(matches!(t.view::<f32, 1>(), Err(Error::Shape { .. })));
        assert!(Tensor::from_slice(&[1.0f32], &[2]).is_err());
    }
}
