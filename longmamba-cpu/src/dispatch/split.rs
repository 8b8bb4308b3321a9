//! Disjoint blocks of one strided output, for several threads.

use longmamba_core::{Layout, ViewMut};
use std::marker::PhantomData;

/// A part of a [`ViewMut`] that can be cut in two along any dimension, as `split_at_mut` cuts a
/// slice. The halves of, say, a column cut interleave in memory, so that they cannot both be `&mut`
/// slices of the storage; they own sets of *elements* instead.
///
/// The invariant behind the unsafe code below: `layout`, applied to `start`, names elements of one
/// allocation that is borrowed mutably for `'a`; it names none twice, and no other live block names
/// any of them.
pub(crate) struct Block<'a, T, const R: usize> {
    start: *mut T,
    layout: Layout<R>,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: by the invariant a block owns its elements as a `&mut [T]` does, so it may move to another
// thread whenever that slice may.
unsafe impl<T: Send, const R: usize> Send for Block<'_, T, R> {}
// SAFETY: a shared block only gives copies of its elements, as a `&[T]` does.
unsafe impl<T: Sync, const R: usize> Sync for Block<'_, T, R> {}

impl<'a, T: Copy, const R: usize> Block<'a, T, R> {
    /// The whole of `view`.
    pub(crate) fn new(mut view: ViewMut<'a, T, R>) -> Self {
        // The invariant: a view's storage covers its layout, the layout is injective (both checked
        // when the view was made), and the view, which holds the only borrow, ends here.
        let layout = view.layout();
        Block { start: view.data_mut().as_mut_ptr(), layout, borrow: PhantomData }
    }

    /// The sizes of the dimensions.
    #[inline(always)]
    pub(crate) fn shape(&self) -> [usize; R] {
        self.layout.shape()
    }

    /// The strides, in elements.
    #[inline(always)]
    pub(crate) fn strides(&self) -> [usize; R] {
        self.layout.strides()
    }

    /// The indexes before and from `at` of dimension `dim`.
    ///
    /// # Panics
    /// Outside the shape.
    #[inline]
    pub(crate) fn split_at(self, dim: usize, at: usize) -> (Self, Self) {
        let part = |range| {
            let (offset, layout) = self.layout.slice(dim, range).expect("cut inside the block");
            // SAFETY: `slice` returns the offset of an element of this block, or 0 for an empty
            // part: in either case inside the allocation or one past its end.
            let start = unsafe { self.start.add(offset) };
            Block { start, layout, borrow: PhantomData }
        };
        // The two parts have no index in common and the layout is injective, so no element either.
        (part(0..at), part(at..self.layout.shape()[dim]))
    }

    /// The offset of an element.
    #[inline(always)]
    fn offset(&self, index: [usize; R]) -> usize {
        let (shape, strides) = (self.layout.shape(), self.layout.strides());
        let mut offset = 0;
        for d in 0..R {
            assert!(index[d] < shape[d], "index outside the block");
            offset += index[d] * strides[d];
        }
        offset
    }

    /// One element.
    ///
    /// # Panics
    /// Outside the shape.
    #[inline(always)]
    pub(crate) fn get(&self, index: [usize; R]) -> T {
        let offset = self.offset(index);
        // SAFETY: the index is inside the shape, so by the invariant this element is ours.
        unsafe { self.start.add(offset).read() }
    }

    /// Writes one element.
    ///
    /// # Panics
    /// Outside the shape.
    #[inline(always)]
    pub(crate) fn set(&mut self, index: [usize; R], value: T) {
        let offset = self.offset(index);
        // SAFETY: the index is inside the shape, so by the invariant this element is ours.
        unsafe { self.start.add(offset).write(value) }
    }

    /// The rows of `len` elements from `index` on, and from the next `count - 1` indexes of dimension
    /// `dim`: as that many calls of [`Block::row_mut`], checked once.
    ///
    /// # Panics
    /// As [`Block::row_mut`], or where `dim` is the last dimension.
    #[inline(always)]
    pub(crate) fn rows_mut(
        &mut self,
        index: [usize; R],
        dim: usize,
        count: usize,
        len: usize,
    ) -> RowsMut<'_, T> {
        assert!(dim < R - 1, "rows lie along the last dimension");
        let mut rows = RowsMut {
            next: self.start,
            left: 0,
            stride: self.strides()[dim],
            len,
            borrow: PhantomData,
        };
        if count == 0 || len == 0 {
            // Empty slices for an empty row, none for no row.
            rows = RowsMut { left: count, stride: 0, len: 0, ..rows };
            return rows;
        }
        let mut last = index;
        last[dim] += count - 1;
        self.row_offset(last, len);
        let offset = self.row_offset(index, len);
        // SAFETY: the index is inside the shape, so its element is inside the allocation.
        rows.next = unsafe { self.start.add(offset) };
        rows.left = count;
        rows
    }

    /// The matrix of the rows of `columns` elements from `index` on and from the next `rows - 1` indexes of
    /// dimension `dim`.
    ///
    /// # Panics
    /// As [`Block::rows_mut`].
    #[inline(always)]
    pub(crate) fn matrix_mut(
        &mut self,
        index: [usize; R],
        dim: usize,
        [rows, columns]: [usize; 2],
    ) -> Block<'_, T, 2> {
        let RowsMut { next, stride, .. } = self.rows_mut(index, dim, rows, columns);
        let layout = Layout::strided([rows, columns], [stride, 1]);
        // The invariant: these rows are in this block, which is borrowed mutably, and do not meet.
        Block { start: next, layout: layout.expect("rows of the block"), borrow: PhantomData }
    }

    /// Whether the last two dimensions lie in memory as one row.
    #[inline(always)]
    pub(crate) fn is_flat(&self) -> bool {
        let (shape, strides) = (self.shape(), self.strides());
        strides[R - 1] == 1 && strides[R - 2] == shape[R - 1]
    }

    /// All elements of the last two dimensions, which lie there as one row, at `index`.
    ///
    /// # Panics
    /// Outside the shape, or where they do not lie so.
    #[inline(always)]
    pub(crate) fn flat_mut(&mut self, index: [usize; R]) -> &mut [T] {
        let shape = self.shape();
        let [rows, columns] = [shape[R - 2], shape[R - 1]];
        assert!(self.is_flat(), "rows are not contiguous");
        assert!(index[R - 2] == 0 && index[R - 1] == 0, "not at the beginning");
        if rows * columns == 0 {
            return &mut [];
        }
        let offset = self.offset(index);
        // SAFETY: all indexes of the last two dimensions are inside the shape, and where they lie one element
        // apart, so by the invariant these elements are ours; the mutable borrow makes the slice the only way.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), rows * columns) }
    }

    /// The offset of a row of `len` elements, `len` > 0.
    #[inline(always)]
    fn row_offset(&self, index: [usize; R], len: usize) -> usize {
        let (shape, strides) = (self.layout.shape(), self.layout.strides());
        let offset = self.offset(index);
        assert!(len <= shape[R - 1] - index[R - 1], "row outside the block");
        assert!(len == 1 || strides[R - 1] == 1, "row is not contiguous");
        offset
    }

    /// `len` elements from `index` on along the last dimension.
    ///
    /// # Panics
    /// Outside the shape, or where that dimension is not contiguous.
    #[inline(always)]
    pub(crate) fn row(&self, index: [usize; R], len: usize) -> &[T] {
        if len == 0 {
            return &[];
        }
        let offset = self.row_offset(index, len);
        // SAFETY: all `len` indexes are inside the shape and one element apart, so by the invariant
        // these elements are ours, and the slice borrows the block while it lives.
        unsafe { std::slice::from_raw_parts(self.start.add(offset), len) }
    }

    /// As [`Block::row`], to write to.
    ///
    /// # Panics
    /// As [`Block::row`].
    #[inline(always)]
    pub(crate) fn row_mut(&mut self, index: [usize; R], len: usize) -> &mut [T] {
        if len == 0 {
            return &mut [];
        }
        let offset = self.row_offset(index, len);
        // SAFETY: as in `row`; the mutable borrow makes the slice the only way to its elements.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), len) }
    }
}

/// Some rows of a block, one after the other; see [`Block::rows_mut`].
///
/// The invariant: `left` rows of `len` elements, `stride` apart from `next` on, belong to a block that
/// is borrowed mutably for `'b`, and no two of them share an element. If `len` is 0, `next` is merely
/// not null and aligned, and `stride` is 0.
pub(crate) struct RowsMut<'b, T> {
    next: *mut T,
    left: usize,
    stride: usize,
    len: usize,
    borrow: PhantomData<&'b mut [T]>,
}

impl<T> RowsMut<'_, T> {
    /// Where the rows that are left begin, [`stride`](RowsMut::stride) apart: they may be written to there while this
    /// lives.
    #[inline(always)]
    pub(crate) fn start(&mut self) -> *mut T {
        self.next
    }

    /// The distance between rows, in elements.
    #[inline(always)]
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }
}

impl<'b, T> Iterator for RowsMut<'b, T> {
    type Item = &'b mut [T];

    #[inline(always)]
    fn next(&mut self) -> Option<&'b mut [T]> {
        self.left = self.left.checked_sub(1)?;
        // SAFETY: by the invariant this row is ours and was not given out before.
        let row = unsafe { std::slice::from_raw_parts_mut(self.next, self.len) };
        // The next row may not exist, and then its address is not used.
        self.next = self.next.wrapping_add(self.stride);
        Some(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns, then rows, then a permuted view: every element is reached exactly once.
    #[test]
    fn blocks_cover_a_strided_view_without_overlap() {
        for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
            let mut data = vec![0u32; 200];
            let layout = Layout::strided([3, 4, 5], [50, 11, 2]).unwrap();
            let view = ViewMut::with_layout(&mut data, layout).unwrap().permute(order).unwrap();
            let shape = view.shape();
            let (left, right) = Block::new(view).split_at(2, 2);
            let (a, b) = left.split_at(0, 1);
            let (c, d) = right.split_at(1, shape[1]);
            rayon::scope(|s| {
                for mut block in [a, b, c, d] {
                    s.spawn(move |_| {
                        let [x, y, z] = block.shape();
                        for (i, j, k) in (0..x * y * z).map(|v| (v / (y * z), v / z % y, v % z)) {
                            block.set([i, j, k], block.get([i, j, k]) + 1);
                        }
                    });
                }
            });
            assert_eq!(data.iter().filter(|&&v| v == 1).count(), 60);
            assert_eq!(data.iter().filter(|&&v| v == 0).count(), 140);
        }
    }

    #[test]
    fn rows_are_the_elements_of_the_block() {
        let mut data: Vec<u32> = (0..12).collect();
        let view = ViewMut::new(&mut data, [3, 4]).unwrap();
        let (_, mut right) = Block::new(view).split_at(1, 1);
        assert_eq!(right.row_mut([1, 0], 3), [5, 6, 7]);
        assert_eq!(right.row_mut([2, 1], 1), [10]);
        assert!(right.row_mut([2, 1], 0).is_empty());
    }

    #[test]
    fn several_rows_are_those_of_single_calls() {
        let mut data: Vec<u32> = (0..60).collect();
        let layout = Layout::strided([3, 4, 2], [20, 5, 1]).unwrap();
        let mut block = Block::new(ViewMut::with_layout(&mut data, layout).unwrap());
        let rows: Vec<_> = block.rows_mut([1, 1, 0], 1, 3, 2).map(|r| r.to_vec()).collect();
        assert_eq!(rows, [[25, 26], [30, 31], [35, 36]]);
        assert_eq!(block.rows_mut([0, 3, 1], 0, 3, 1).map(|r| r[0]).sum::<u32>(), 16 + 36 + 56);
        assert_eq!(block.rows_mut([0, 0, 0], 1, 0, 2).count(), 0);
        assert!(block.rows_mut([0, 0, 0], 1, 4, 0).all(|r| r.is_empty()));
    }

    #[test]
    #[should_panic(expected = "index outside the block")]
    fn the_last_of_several_rows_is_inside_the_block() {
        let mut data = [0u32; 24];
        Block::new(ViewMut::new(&mut data, [3, 4, 2]).unwrap()).rows_mut([0, 2, 0], 1, 3, 2);
    }

    #[test]
    #[should_panic(expected = "row outside the block")]
    fn a_row_does_not_reach_into_the_next_block() {
        let mut data = [0u32; 12];
        let view = ViewMut::new(&mut data, [3, 4]).unwrap();
        let (mut left, _right) = Block::new(view).split_at(1, 2);
        left.row_mut([0, 1], 2);
    }

    #[test]
    #[should_panic(expected = "not contiguous")]
    fn a_strided_row_is_no_slice() {
        let mut data = [0u32; 12];
        let view = ViewMut::new(&mut data, [3, 4]).unwrap().permute([1, 0]).unwrap();
        Block::new(view).row_mut([0, 0], 2);
    }
}
