//! Memory on large pages, or at least on pages that are there. The processor remembers the places of a few
//! thousand pages: where those are small, who goes through much memory, or takes some columns of many rows, waits
//! for addresses. And a page that is given only when first touched costs several microseconds where threads touch
//! theirs at the same time: for the states of a model of 24 layers, a tenth of a prompt of 512 tokens.

use longmamba_core::AlignedVec;
use memmap2::{MmapMut, MmapOptions};
use std::ops::{Deref, DerefMut};

/// Bytes, zero at first, on a cache line; from [`MEDIUM`] on, on pages that are there from the start, and from two
/// megabytes on, on large ones where the system has them, which come when they are touched.
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
    /// # Panics
    /// Or rather ends the process, where there is no memory.
    pub(crate) fn zeros(len: usize) -> Self {
        Self::mapped(len).unwrap_or_else(|| LargeBytes(Storage::Small(AlignedVec::zeros(len))))
    }

    /// As [`zeros`](Self::zeros), large pages also there from the start: two threads that first touch one at the same
    /// time take many times as long over it as one (`benches/record/2026-11-29-cpu-zen5.md`).
    pub(crate) fn resident(len: usize) -> Self {
        let bytes = Self::zeros(len);
        // Where the system does not know how, they come when they are touched.
        #[cfg(target_os = "linux")]
        if let Storage::Mapped { pages, start, len: LARGE.. } = &bytes.0 {
            let _ = pages.advise_range(memmap2::Advice::PopulateWrite, *start, len);
        }
        bytes
    }

    /// `None` where there is no memory.
    pub(crate) fn try_zeros(len: usize) -> Option<Self> {
        match len {
            ..MEDIUM => Some(Self::zeros(len)),
            _ => Self::mapped(len),
        }
    }

    /// On pages of its own; `None` for a few bytes, too.
    fn mapped(len: usize) -> Option<Self> {
        if len < MEDIUM {
            return None;
        }
        if len < LARGE {
            let pages = MmapOptions::new().len(len).populate().map_anon().ok()?;
            return Some(LargeBytes(Storage::Mapped { pages, start: 0, len }));
        }
        // As much as it takes to begin and end on a large page. What is never touched takes no memory.
        let mapped = len.checked_next_multiple_of(LARGE)?.checked_add(LARGE)?;
        let pages = MmapMut::map_anon(mapped).ok()?;
        // Where large pages cannot be had, small ones do.
        #[cfg(target_os = "linux")]
        let _ = pages.advise(memmap2::Advice::HugePage);
        let first = pages.as_ptr().addr();
        let start = first.next_multiple_of(LARGE) - first;
        Some(LargeBytes(Storage::Mapped { pages, start, len }))
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
