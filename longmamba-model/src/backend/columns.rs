//! Columns of a buffer, in place.

/// A buffer that holds activations, row after row.
pub trait Activations {
    /// The distance between rows of `width` elements, at least that. It does not shrink as rows grow longer.
    fn row_stride(width: usize) -> usize {
        width
    }
}

/// Some neighbouring columns of a row-major buffer of activations.
#[derive(Debug)]
pub struct Columns<'a, Buffer> {
    /// The whole buffer.
    pub buffer: &'a Buffer,
    /// The element of the buffer that the first row begins with.
    pub first: usize,
    /// The number of columns.
    pub width: usize,
    /// The distance between rows, in elements.
    pub stride: usize,
}

impl<Buffer> Clone for Columns<'_, Buffer> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Buffer> Copy for Columns<'_, Buffer> {}

impl<'a, Buffer: Activations> Columns<'a, Buffer> {
    /// All columns of a buffer with rows of `width`.
    pub fn all(buffer: &'a Buffer, width: usize) -> Self {
        Columns { buffer, first: 0, width, stride: Buffer::row_stride(width) }
    }
}

impl<Buffer> Columns<'_, Buffer> {
    /// Columns `first..first + width` of these.
    pub fn part(self, first: usize, width: usize) -> Self {
        Columns { first: self.first + first, width, ..self }
    }

    /// The rows from `rows` on.
    pub fn skip_rows(self, rows: usize) -> Self {
        Columns { first: self.first + rows * self.stride, ..self }
    }
}

/// Some neighbouring columns of a row-major buffer of activations, to be written.
#[derive(Debug)]
pub struct ColumnsMut<'a, Buffer> {
    /// The whole buffer.
    pub buffer: &'a mut Buffer,
    /// The element of the buffer that the first row begins with.
    pub first: usize,
    /// The number of columns.
    pub width: usize,
    /// The distance between rows, in elements.
    pub stride: usize,
}

impl<'a, Buffer: Activations> ColumnsMut<'a, Buffer> {
    /// All columns of a buffer with rows of `width`.
    pub fn all(buffer: &'a mut Buffer, width: usize) -> Self {
        ColumnsMut { buffer, first: 0, width, stride: Buffer::row_stride(width) }
    }
}

impl<Buffer> ColumnsMut<'_, Buffer> {
    /// Columns `first..first + width` of these.
    pub fn part(self, first: usize, width: usize) -> Self {
        ColumnsMut { first: self.first + first, width, ..self }
    }

    /// The rows from `rows` on.
    pub fn skip_rows(self, rows: usize) -> Self {
        ColumnsMut { first: self.first + rows * self.stride, ..self }
    }
}
