//! Activations and state.

use crate::backend::Activations;
use crate::large::LargeBytes;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// Floats, zero at first, on a cache line. Large buffers lie on large pages: a stage reads some columns of many
/// rows, each of which would lie on a page of its own.
pub struct CpuBuffer(LargeBytes);

impl CpuBuffer {
    pub(super) fn zeros(len: usize) -> Self {
        CpuBuffer(LargeBytes::zeros(bytes(len)))
    }

    /// Its pages are there from the start.
    pub(super) fn resident(len: usize) -> Self {
        CpuBuffer(LargeBytes::resident(bytes(len)))
    }
}

/// Floats of a cache line.
const LINE: usize = 16;

impl Activations for CpuBuffer {
    /// An odd number of cache lines. Rows a power of two apart would share a few places of the nearest cache, and
    /// kernels look at some dozen rows side by side.
    fn row_stride(width: usize) -> usize {
        if width < LINE { width } else { (width.div_ceil(LINE) | 1) * LINE }
    }
}

fn bytes(floats: usize) -> usize {
    floats.saturating_mul(size_of::<f32>())
}

impl Deref for CpuBuffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        bytemuck::cast_slice(&self.0)
    }
}

impl DerefMut for CpuBuffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

impl fmt::Debug for CpuBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuBuffer({} floats)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::large::LARGE;

    #[test]
    fn rows_are_an_odd_number_of_lines_apart() {
        let mut last = 0;
        for width in 0..300 {
            let stride = CpuBuffer::row_stride(width);
            assert!(stride >= width && stride >= last, "{width}");
            assert!(width < LINE || stride % (2 * LINE) == LINE, "{width}");
            last = stride;
        }
        assert_eq!(CpuBuffer::row_stride(4096), 4096 + LINE);
    }

    #[test]
    fn every_size_is_zero_and_writable() {
        for len in [0, 1, 1000, 1 << 15, (1 << 15) + 1, (LARGE / 4) - 1, LARGE / 4, LARGE / 4 + 3] {
            for mut buffer in [CpuBuffer::zeros(len), CpuBuffer::resident(len)] {
                assert_eq!(buffer.len(), len);
                assert_eq!(buffer.as_ptr().addr() % 64, 0);
                assert!(buffer.iter().all(|&v| v == 0.0));
                buffer.fill(2.0);
                assert_eq!(buffer.iter().sum::<f32>(), 2.0 * len as f32);
            }
        }
    }
}
