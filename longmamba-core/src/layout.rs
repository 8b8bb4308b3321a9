use crate::{Error, Result, Shape};
use std::ops::Range;

/// Shape and strides of a view; strides are in elements and never negative.
///
/// A layout that exists has been checked: the index of its last element fits a `usize`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout<const R: usize> {
    shape: [usize; R],
    strides: [usize; R],
}

impl<const R: usize> Layout<R> {
    /// Row-major order without gaps.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] where the number of elements overflows, [`Error::Rank`] above four
    /// dimensions.
    pub fn contiguous(shape: [usize; R]) -> Result<Self> {
        let mut strides = [1usize; R];
        for d in (0..R.saturating_sub(1)).rev() {
            // A size of zero must not hide an overflow in the others.
            strides[d] = strides[d + 1]
                .checked_mul(shape[d + 1].max(1))
                .ok_or(Error::OutOfBounds { needed: None, available: 0 })?;
        }
        Self::strided(shape, strides)
    }

    /// Any non-negative strides, 0 (broadcast) included.
    ///
    /// # Errors
    /// As [`Layout::contiguous`].
    pub fn strided(shape: [usize; R], strides: [usize; R]) -> Result<Self> {
        if R > 4 {
            return Err(Error::Rank { rank: R });
        }
        let layout = Layout { shape, strides };
        layout.checked_span().ok_or(Error::OutOfBounds { needed: None, available: 0 })?;
        Ok(layout)
    }

    /// The sizes of the dimensions.
    pub fn shape(&self) -> [usize; R] {
        self.shape
    }

    /// The distance between neighbours in each dimension, in elements.
    pub fn strides(&self) -> [usize; R] {
        self.strides
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// How much storage the layout reaches: the offset of its last element plus one, 0 when empty.
    pub fn span(&self) -> usize {
        // Checked when the layout was made.
        self.checked_span().unwrap_or(usize::MAX)
    }

    fn checked_span(&self) -> Option<usize> {
        // A size of zero must not hide an overflow in the others: the order of the dimensions may change.
        self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)))?;
        if self.shape.contains(&0) {
            return Some(0);
        }
        let last = self
            .shape
            .iter()
            .zip(&self.strides)
            .try_fold(0usize, |sum, (&n, &s)| sum.checked_add((n - 1).checked_mul(s)?))?;
        last.checked_add(1)
    }

    /// The offset of an element, or `None` outside the shape.
    pub fn offset(&self, index: [usize; R]) -> Option<usize> {
        let inside = index.iter().zip(&self.shape).all(|(i, n)| i < n);
        inside.then(|| index.iter().zip(&self.strides).map(|(i, s)| i * s).sum())
    }

    /// The indexes `range` of dimension `dim`: the offset of the new first element, and the layout.
    ///
    /// # Errors
    /// [`Error::Slice`] outside the shape.
    pub fn slice(&self, dim: usize, range: Range<usize>) -> Result<(usize, Self)> {
        if dim >= R || range.start > range.end || range.end > self.shape[dim] {
            let (start, end) = (range.start, range.end);
            return Err(Error::Slice { dim, start, end, shape: self.shape.into() });
        }
        let mut layout = *self;
        layout.shape[dim] = range.end - range.start;
        let offset = if layout.elements() == 0 { 0 } else { range.start * self.strides[dim] };
        Ok((offset, layout))
    }

    /// The dimensions in another order: dimension `d` of the result is `order[d]` of this one.
    ///
    /// # Errors
    /// [`Error::Permutation`] where `order` is not one.
    pub fn permute(&self, order: [usize; R]) -> Result<Self> {
        let mut seen = [false; R];
        for &d in &order {
            if d >= R || std::mem::replace(&mut seen[d], true) {
                return Err(Error::Permutation { order: order.into() });
            }
        }
        Ok(Layout { shape: order.map(|d| self.shape[d]), strides: order.map(|d| self.strides[d]) })
    }

    /// Whether the last dimension has no gaps between its elements.
    pub fn rows_contiguous(&self) -> bool {
        R == 0 || self.shape[R - 1] <= 1 || self.strides[R - 1] == 1
    }

    /// Whether no two indexes name the same element, by the usual sufficient test: ordered by
    /// stride, each stride steps over all that the smaller ones reach.
    pub fn is_injective(&self) -> bool {
        let mut dims: [(usize, usize); R] =
            std::array::from_fn(|d| (self.strides[d], self.shape[d]));
        if self.shape.contains(&0) {
            return true;
        }
        dims.sort_unstable();
        let mut reach = 0usize;
        for (stride, size) in dims {
            if size > 1 {
                if stride <= reach {
                    return false;
                }
                reach += (size - 1) * stride;
            }
        }
        true
    }

    pub(crate) fn shape_of(&self) -> Shape {
        self.shape.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn offsets(layout: Layout<3>) -> Vec<usize> {
        let [a, b, c] = layout.shape();
        let mut all = Vec::new();
        for i in 0..a {
            for j in 0..b {
                all.extend((0..c).map(|k| layout.offset([i, j, k]).unwrap()));
            }
        }
        all
    }

    #[test]
    fn an_empty_layout_stays_one_in_any_order() {
        let half = 1 << (usize::BITS / 2);
        for shape in [[0, half, half], [half, 0, half], [half, half, 0]] {
            assert!(Layout::strided(shape, [1; 3]).is_err(), "{shape:?}");
            let layout = Layout::strided(shape.map(|n| n / 2), [1; 3]).unwrap();
            for order in [[0, 1, 2], [1, 2, 0], [2, 0, 1]] {
                let permuted = layout.permute(order).unwrap();
                assert_eq!((permuted.elements(), permuted.span()), (0, 0));
            }
        }
    }

    proptest! {
        #[test]
        fn span_and_injectivity_hold_for_any_layout(
            shape in proptest::array::uniform3(0usize..5),
            strides in proptest::array::uniform3(0usize..30),
        ) {
            let layout = Layout::strided(shape, strides).unwrap();
            let all = offsets(layout);
            prop_assert_eq!(layout.span(), all.iter().max().map_or(0, |m| m + 1));
            let distinct: HashSet<_> = all.iter().collect();
            if layout.is_injective() {
                prop_assert_eq!(distinct.len(), all.len());
            }
            prop_assert!(Layout::contiguous(shape).unwrap().is_injective());
        }

        #[test]
        fn slices_and_permutes_name_the_same_elements(
            shape in proptest::array::uniform3(1usize..6), start in 0usize..5, len in 0usize..5,
        ) {
            let layout = Layout::contiguous(shape).unwrap();
            if start + len <= shape[1] {
                let (offset, cut) = layout.slice(1, start..start + len).unwrap();
                for j in 0..len {
                    prop_assert_eq!(
                        offset + cut.offset([shape[0] - 1, j, 0]).unwrap(),
                        layout.offset([shape[0] - 1, start + j, 0]).unwrap()
                    );
                }
            } else {
                prop_assert!(layout.slice(1, start..start + len).is_err());
            }
            let turned = layout.permute([2, 0, 1]).unwrap();
            prop_assert_eq!(turned.offset([shape[2] - 1, 0, shape[1] - 1]), layout.offset([0, shape[1] - 1, shape[2] - 1]));
        }
    }

    #[test]
    fn overflow_and_nonsense_are_errors() {
        assert!(Layout::contiguous([usize::MAX, 2, 1]).is_err());
        assert!(Layout::contiguous([0, usize::MAX, usize::MAX]).is_err());
        assert!(Layout::strided([3, 1, 1], [usize::MAX, 1, 1]).is_err());
        assert!(Layout::contiguous([1, 1, 1, 1, 1]).is_err());
        let layout = Layout::contiguous([2, 3]).unwrap();
        assert!(layout.permute([0, 0]).is_err() && layout.permute([0, 2]).is_err());
        assert!(layout.slice(2, 0..1).is_err() && layout.offset([2, 0]).is_none());
    }
}
