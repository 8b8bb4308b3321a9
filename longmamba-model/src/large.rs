//! Memory on large pages, or at least on pages that are there. The processor remembers the places of a few
//! thousand pages: where those are small, who goes through much memory, or takes some columns of many rows, waits
//! for addresses. And a page that is given only when first touched costs several microseconds where threads touch
//! theirs at the same time: for the states of a model of 24 layers, a tenth of a prompt of 512 tokens.

use longmamba_core::AlignedVec;
use memmap2::{MmapMut, MmapOptions};
use std::ops::{Deref, DerefMut};

/// Bytes, zero at first, on a cache line; from two megabytes on, on large pages where the system has them, and
/// from [`MEDIUM`] on, on pages that are there from the start.
pub(crate) struct LargeBytes(Storage);

enum Storage {
    Small(AlignedVec<u8>),
    /// `len` bytes from byte `start` on.
    Mapped {
        pages: MmapMut,
        start: usize,
        len: usize,
    },
}

/// A large page, and the bytes from which on there are pages of their own.
pub(crate) const LARGE: usize = 2 << 20;

/// The bytes from which on an allocator maps new pages, too.
const MEDIUM: usize = 128 << 10;

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
            return LargeBytes(Storage::Mapped { pages, start, len });
        }
        if (MEDIUM..LARGE).contains(&len)
            && let Ok(pages) = MmapOptions::new().len(len).populate().map_anon()
        {
            return LargeBytes(Storage::Mapped { pages, start: 0, len });
        }
        LargeBytes(Storage::Small(AlignedVec::zeros(len)))
    }
}

impl Deref for LargeBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Storage::Small(bytes) => bytes,
            Storage::Mapped { pages, start, len } => &pages[*start..][..*len],
        }
    }
}

impl DerefMut for LargeBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Storage::Small(bytes) => bytes,
            Storage::Mapped { pages, start, len } => &mut pages[*start..][..*len],
        }
    }
}

impl AsRef<[u8]> for LargeBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}
