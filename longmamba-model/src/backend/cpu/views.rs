//! Columns of buffers as the kernels take them.

use super::Buffer;
use crate::Result;
use crate::backend::{Columns, ColumnsMut};
use longmamba_core::{Layout, View, ViewMut};

impl Columns<'_, Buffer> {
    /// `[rows, width]`, each row cut into `parts` as further dimensions.
    pub(super) fn view<const R: usize>(
        &self,
        shape: [usize; R],
        strides: [usize; R],
    ) -> Result<View<'_, f32, R>> {
        let layout = Layout::strided(shape, strides)?;
        Ok(View::with_layout(&self.buffer[self.first.min(self.buffer.len())..], layout)?)
    }

    /// `[rows, width]`.
    pub(super) fn rows(&self, rows: usize) -> Result<View<'_, f32, 2>> {
        self.view([rows, self.width], [self.stride, 1])
    }

    /// `[1, rows, width]`.
    pub(super) fn sequence(&self, rows: usize) -> Result<View<'_, f32, 3>> {
        self.view([1, rows, self.width], [0, self.stride, 1])
    }

    /// `[1, rows, parts, width / parts]`.
    pub(super) fn parts(&self, rows: usize, parts: usize) -> Result<View<'_, f32, 4>> {
        let part = self.width / parts;
        self.view([1, rows, parts, part], [0, self.stride, part, 1])
    }
}

impl ColumnsMut<'_, Buffer> {
    pub(super) fn view<const R: usize>(
        &mut self,
        shape: [usize; R],
        strides: [usize; R],
    ) -> Result<ViewMut<'_, f32, R>> {
        let first = self.first.min(self.buffer.len());
        let layout = Layout::strided(shape, strides)?;
        Ok(ViewMut::with_layout(&mut self.buffer[first..], layout)?)
    }

    /// `[rows, width]`.
    pub(super) fn rows(&mut self, rows: usize) -> Result<ViewMut<'_, f32, 2>> {
        self.view([rows, self.width], [self.stride, 1])
    }

    /// `[1, rows, width]`.
    pub(super) fn sequence(&mut self, rows: usize) -> Result<ViewMut<'_, f32, 3>> {
        self.view([1, rows, self.width], [rows * self.stride, self.stride, 1])
    }

    /// `[1, rows, parts, width / parts]`.
    pub(super) fn parts(&mut self, rows: usize, parts: usize) -> Result<ViewMut<'_, f32, 4>> {
        let part = self.width / parts;
        self.view([1, rows, parts, part], [rows * self.stride, self.stride, part, 1])
    }
}

/// The first elements of a buffer, in row-major order.
pub(super) fn start<const R: usize>(
    buffer: &mut Buffer,
    shape: [usize; R],
) -> Result<ViewMut<'_, f32, R>> {
    Ok(ViewMut::with_layout(buffer, Layout::contiguous(shape)?)?)
}
