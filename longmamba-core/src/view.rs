use crate::{DType, Element, Error, Layout, Result};
use std::ops::Range;

/// A borrowed, strided, read-only window on elements.
///
/// ```
/// use longmamba_core::View;
/// let data: Vec<f32> = (0..6).map(|v| v as f32).collect();
/// let matrix = View::new(&data, [2, 3])?;
/// let right = matrix.slice(1, 1..3)?;
/// assert_eq!(right.row([1, 0]), &[4.0, 5.0]);
/// assert_eq!(matrix.permute([1, 0])?.get([2, 1]), Some(5.0));
/// # Ok::<(), longmamba_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T, const R: usize> {
    /// At least `layout.span()` elements.
    data: &'a [T],
    layout: Layout<R>,
}

fn fits<T, const R: usize>(data: &[T], layout: &Layout<R>) -> Result<()> {
    if layout.span() > data.len() {
        return Err(Error::OutOfBounds { needed: Some(layout.span()), available: data.len() });
    }
    Ok(())
}

impl<'a, T: Copy, const R: usize> View<'a, T, R> {
    /// `data` in row-major order; it must have exactly as many elements as the shape.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] where the sizes differ.
    pub fn new(data: &'a [T], shape: [usize; R]) -> Result<Self> {
        let layout = Layout::contiguous(shape)?;
        if layout.elements() != data.len() {
            return Err(Error::OutOfBounds {
                needed: Some(layout.elements()),
                available: data.len(),
            });
        }
        Ok(View { data, layout })
    }

    /// Any layout that `data` covers.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] where it does not.
    pub fn with_layout(data: &'a [T], layout: Layout<R>) -> Result<Self> {
        fits(data, &layout)?;
        Ok(View { data, layout })
    }

    /// The sizes of the dimensions.
    pub fn shape(&self) -> [usize; R] {
        self.layout.shape()
    }

    /// Shape and strides.
    pub fn layout(&self) -> Layout<R> {
        self.layout
    }

    /// The storage from the view's first element on, gaps included.
    pub fn data(&self) -> &'a [T] {
        self.data
    }

    /// One element, or `None` outside the shape.
    pub fn get(&self, index: [usize; R]) -> Option<T> {
        self.layout.offset(index).map(|at| self.data[at])
    }

    /// The elements from `index` to the end of its row (the last dimension).
    ///
    /// # Panics
    /// Outside the shape, or where the last dimension is not contiguous.
    #[inline(always)]
    pub fn row(&self, index: [usize; R]) -> &'a [T] {
        let (at, len) = row_of(&self.layout, index);
        &self.data[at..at + len]
    }

    /// The indexes `range` of dimension `dim`.
    ///
    /// # Errors
    /// [`Error::Slice`] outside the shape.
    pub fn slice(&self, dim: usize, range: Range<usize>) -> Result<Self> {
        let (offset, layout) = self.layout.slice(dim, range)?;
        Ok(View { data: &self.data[offset..], layout })
    }

    /// The dimensions in another order.
    ///
    /// # Errors
    /// [`Error::Permutation`] where `order` is not one.
    pub fn permute(&self, order: [usize; R]) -> Result<Self> {
        Ok(View { data: self.data, layout: self.layout.permute(order)? })
    }
}

/// Offset and length of the rest of a row, checked.
#[inline(always)]
fn row_of<const R: usize>(layout: &Layout<R>, index: [usize; R]) -> (usize, usize) {
    let (shape, strides) = (layout.shape(), layout.strides());
    let mut at = 0;
    for d in 0..R {
        // The end of the last dimension is allowed: an empty rest.
        assert!(index[d] < shape[d] || (d == R - 1 && index[d] == shape[d]), "index out of shape");
        at += index[d] * strides[d];
    }
    let len = shape[R - 1] - index[R - 1];
    assert!(len <= 1 || strides[R - 1] == 1, "row is not contiguous");
    (if len == 0 { 0 } else { at }, len)
}

/// A borrowed, strided, writable window on elements; no two of its indexes name the same element.
#[derive(Debug)]
pub struct ViewMut<'a, T, const R: usize> {
    /// At least `layout.span()` elements.
    data: &'a mut [T],
    layout: Layout<R>,
}

impl<'a, T: Copy, const R: usize> ViewMut<'a, T, R> {
    /// `data` in row-major order; it must have exactly as many elements as the shape.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] where the sizes differ.
    pub fn new(data: &'a mut [T], shape: [usize; R]) -> Result<Self> {
        let layout = Layout::contiguous(shape)?;
        if layout.elements() != data.len() {
            return Err(Error::OutOfBounds {
                needed: Some(layout.elements()),
                available: data.len(),
            });
        }
        Ok(ViewMut { data, layout })
    }

    /// Any layout that `data` covers and that names no element twice.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] or [`Error::Overlapping`].
    pub fn with_layout(data: &'a mut [T], layout: Layout<R>) -> Result<Self> {
        fits(data, &layout)?;
        if !layout.is_injective() {
            let (shape, strides) = (layout.shape_of(), layout.strides().into());
            return Err(Error::Overlapping { shape, strides });
        }
        Ok(ViewMut { data, layout })
    }

    /// The sizes of the dimensions.
    pub fn shape(&self) -> [usize; R] {
        self.layout.shape()
    }

    /// Shape and strides.
    pub fn layout(&self) -> Layout<R> {
        self.layout
    }

    /// The storage from the view's first element on, gaps included.
    pub fn data_mut(&mut self) -> &mut [T] {
        self.data
    }

    /// The same window, read-only.
    pub fn as_view(&self) -> View<'_, T, R> {
        View { data: self.data, layout: self.layout }
    }

    /// The same window, borrowed for a shorter time.
    pub fn reborrow(&mut self) -> ViewMut<'_, T, R> {
        ViewMut { data: self.data, layout: self.layout }
    }

    /// Writes one element.
    ///
    /// # Panics
    /// Outside the shape.
    pub fn set(&mut self, index: [usize; R], value: T) {
        let at = self.layout.offset(index).expect("index out of shape");
        self.data[at] = value;
    }

    /// The elements from `index` to the end of its row.
    ///
    /// # Panics
    /// Outside the shape, or where the last dimension is not contiguous.
    #[inline(always)]
    pub fn row_mut(&mut self, index: [usize; R]) -> &mut [T] {
        let (at, len) = row_of(&self.layout, index);
        &mut self.data[at..at + len]
    }

    /// The indexes `range` of dimension `dim`.
    ///
    /// # Errors
    /// [`Error::Slice`] outside the shape.
    pub fn slice(self, dim: usize, range: Range<usize>) -> Result<Self> {
        let (offset, layout) = self.layout.slice(dim, range)?;
        Ok(ViewMut { data: &mut self.data[offset..], layout })
    }

    /// The dimensions in another order.
    ///
    /// # Errors
    /// [`Error::Permutation`] where `order` is not one.
    pub fn permute(self, order: [usize; R]) -> Result<Self> {
        Ok(ViewMut { layout: self.layout.permute(order)?, data: self.data })
    }
}

/// A view whose element type is known only at run time.
#[derive(Clone, Copy, Debug)]
pub enum AnyView<'a, const R: usize> {
    /// Single precision.
    F32(View<'a, f32, R>),
    /// Half precision.
    F16(View<'a, half::f16, R>),
    /// Brain float.
    BF16(View<'a, half::bf16, R>),
}

impl<const R: usize> AnyView<'_, R> {
    /// The sizes of the dimensions.
    pub fn shape(&self) -> [usize; R] {
        match self {
            AnyView::F32(v) => v.shape(),
            AnyView::F16(v) => v.shape(),
            AnyView::BF16(v) => v.shape(),
        }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            AnyView::F32(_) => DType::F32,
            AnyView::F16(_) => DType::F16,
            AnyView::BF16(_) => DType::BF16,
        }
    }

    /// One element, widened, or `None` outside the shape.
    pub fn get(&self, index: [usize; R]) -> Option<f32> {
        match self {
            AnyView::F32(v) => v.get(index),
            AnyView::F16(v) => v.get(index).map(Element::to_f32),
            AnyView::BF16(v) => v.get(index).map(Element::to_f32),
        }
    }
}
