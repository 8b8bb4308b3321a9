//! Memory on large pages. The processor remembers the places of a few thousand pages: where those are small, who
//! goes through much memory, or takes some columns of many rows, waits for addresses.

use longmamba_core::AlignedVec;
use memmap2::MmapMut;
use std::ops::{Deref, DerefMut};

/// Bytes, zero at first, on a cache line; from two megabytes on, on large pages where the system has them.
pub(crate) struct LargeBytes(Storage);

enum Storage {
    Small(AlignedVec<u8>),
    /// `len` bytes from byte `start` on.
    Large {
        pages: MmapMut,
        start: usize,
        len: usize,
    },
}

/// A large page, and the bytes from which on there are pages of their own.
pub(crate) const LARGE: usize = 2 << 20;

impl LargeBytes {
    pub(crate) fn zeros(len: usize) -> Self {
        // As much as it takes to begin and end on a large page. What is never touched takes no memory.
        let mapped = len.checked_next_multiple_of(LARGE).and_then(|b| b.checked_add(LARGE));
        if len >= LARGE
            && let Some(mapped) = mapped
            && let Ok(pages) = MmapMut::map_anon(mapped)
        {
            // Where large pages cannot be had, small ones do.
            #[cfg(target_os = "linux")]
            let _ = pages.advise(memmap2::Advice::HugePage);
            let first = pages.as_ptr().addr();
            let start = first.next_multiple_of(LARGE) - first;
            return LargeBytes(Storage::Large { pages, start, len });
        }
        LargeBytes(Storage::Small(AlignedVec::zeros(len)))
    }
}

impl Deref for LargeBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Storage::Small(bytes) => bytes,
            Storage::Large { pages, start, len } => &pages[*start..][..*len],
        }
    }
}

impl DerefMut for LargeBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Storage::Small(bytes) => bytes,
            Storage::Large { pages, start, len } => &mut pages[*start..][..*len],
        }
    }
}

impl AsRef<[u8]> for LargeBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}
