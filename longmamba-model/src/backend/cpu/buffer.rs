//! Activations and state.

use longmamba_core::AlignedVec;
use memmap2::MmapMut;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// Floats, zero at first, on a cache line.
///
/// Large buffers ask the system for large pages. A stage reads some columns of many rows, each of which lies on
/// a page of its own, and the processor remembers the places of a few dozen pages only.
pub struct CpuBuffer(Storage);

enum Storage {
    Small(AlignedVec<f32>),
    /// `len` floats from byte `start` on.
    Large {
        pages: MmapMut,
        start: usize,
        len: usize,
    },
}

/// A large page, and the bytes from which on a buffer has pages of its own.
const LARGE: usize = 2 << 20;

impl CpuBuffer {
    pub(super) fn zeros(len: usize) -> Self {
        let bytes = len.saturating_mul(size_of::<f32>());
        // As much as it takes to begin and end on a large page. What is never touched takes no memory.
        let mapped = bytes.checked_next_multiple_of(LARGE).and_then(|b| b.checked_add(LARGE));
        if bytes >= LARGE
            && let Some(mapped) = mapped
            && let Ok(pages) = MmapMut::map_anon(mapped)
        {
            // Where large pages cannot be had, small ones do.
            #[cfg(target_os = "linux")]
            let _ = pages.advise(memmap2::Advice::HugePage);
            let first = pages.as_ptr().addr();
            let start = first.next_multiple_of(LARGE) - first;
            return CpuBuffer(Storage::Large { pages, start, len });
        }
        CpuBuffer(Storage::Small(AlignedVec::zeros(len)))
    }
}

impl Deref for CpuBuffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match &self.0 {
            Storage::Small(values) => values,
            Storage::Large { pages, start, len } => &bytemuck::cast_slice(&pages[*start..])[..*len],
        }
    }
}

impl DerefMut for CpuBuffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        match &mut self.0 {
            Storage::Small(values) => values,
            Storage::Large { pages, start, len } => {
                &mut bytemuck::cast_slice_mut(&mut pages[*start..])[..*len]
            }
        }
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

    #[test]
    fn every_size_is_zero_and_writable() {
        for len in [0, 1, 1000, (LARGE / 4) - 1, LARGE / 4, LARGE / 4 + 3] {
            let mut buffer = CpuBuffer::zeros(len);
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr().addr() % 64, 0);
            assert!(buffer.iter().all(|&v| v == 0.0));
            buffer.fill(2.0);
            assert_eq!(buffer.iter().sum::<f32>(), 2.0 * len as f32);
        }
    }
}
