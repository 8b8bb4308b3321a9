use bytemuck::Zeroable;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// Alignment of owned storage in bytes: a cache line, and the widest SIMD register.
pub(crate) const ALIGN: usize = 64;

/// A zero-initialised buffer of fixed length whose first element lies on a 64-byte boundary.
///
/// ```
/// let buffer = longmamba_core::AlignedVec::<f32>::zeros(100);
/// assert_eq!(buffer.len(), 100);
/// assert_eq!(buffer.as_ptr().addr() % 64, 0);
/// ```
pub struct AlignedVec<T> {
    /// Over-allocated by up to 63 bytes; the heap block of a `Vec` does not move with the `Vec`.
    storage: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Zeroable> AlignedVec<T> {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let size = size_of::<T>().max(1);
        assert!(ALIGN.is_multiple_of(size), "element size must divide {ALIGN}");
        let storage = vec![T::zeroed(); len + (ALIGN / size - 1)];
        let misaligned = storage.as_ptr().addr() % ALIGN;
        let start = if misaligned == 0 { 0 } else { (ALIGN - misaligned) / size };
        AlignedVec { storage, start, len }
    }

    /// A copy of `values`.
    pub fn from_slice(values: &[T]) -> Self {
        let mut buffer = Self::zeros(values.len());
        buffer.copy_from_slice(values);
        buffer
    }
}

impl<T> Deref for AlignedVec<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.storage[self.start..self.start + self.len]
    }
}

impl<T> DerefMut for AlignedVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.storage[self.start..self.start + self.len]
    }
}

/// A clone is a new allocation, with its own alignment.
impl<T: Copy + Zeroable> Clone for AlignedVec<T> {
    fn clone(&self) -> Self {
        Self::from_slice(self)
    }
}

impl<T: Copy + Zeroable> Default for AlignedVec<T> {
    fn default() -> Self {
        Self::zeros(0)
    }
}

impl<T: fmt::Debug> fmt::Debug for AlignedVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_clone_is_aligned() {
        for len in [0, 1, 15, 16, 17, 1000] {
            let mut a = AlignedVec::<f32>::zeros(len);
            a.iter_mut().enumerate().for_each(|(i, v)| *v = i as f32);
            let moved = Box::new(a);
            let b = (*moved).clone();
            for buffer in [&*moved, &b] {
                assert_eq!(buffer.as_ptr().addr() % ALIGN, 0);
                assert!(buffer.iter().enumerate().all(|(i, &v)| v == i as f32));
                assert_eq!(buffer.len(), len);
            }
        }
    }
}
