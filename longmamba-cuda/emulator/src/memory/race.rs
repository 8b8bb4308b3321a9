//! Which block wrote which byte of global memory during a launch. Blocks run in no order, so a byte
//! that two blocks write, or one writes and another reads, has no certain value, unless the blocks
//! order themselves by atomics and fences.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};

/// Words that are cleared together when a new launch first touches them.
const PAGE: usize = 1024;

/// For every word four times 16 bits: the block that wrote the byte, plus one; zero for none.
/// Blocks are counted modulo 65535, so that two of a large grid may be taken for one.
#[derive(Debug)]
pub(crate) struct Writers {
    bytes: Box<[AtomicU64]>,
    launches: Box<[AtomicU32]>,
    clearing: Mutex<()>,
}

/// A block as it is recorded.
#[inline(always)]
pub(crate) fn tag(block: u64) -> u64 {
    block % 65535 + 1
}

/// The 16 bits of each byte of a word that an access of `size` bytes touches.
#[inline(always)]
fn touched(at: u64, size: u32) -> u64 {
    match size {
        1 => 0xffff << ((at & 3) * 16),
        2 => 0xffff_ffff << ((at & 3) * 16),
        _ => u64::MAX,
    }
}

impl Writers {
    pub fn new(words: usize) -> Self {
        Self {
            bytes: (0..words).map(|_| AtomicU64::new(0)).collect(),
            launches: (0..words.div_ceil(PAGE)).map(|_| AtomicU32::new(0)).collect(),
            clearing: Mutex::new(()),
        }
    }

    /// Forgets what earlier launches wrote to the page of the word.
    #[inline(always)]
    fn open(&self, word: usize, launch: u32) {
        if self.launches[word / PAGE].load(Acquire) != launch {
            self.clear(word / PAGE, launch);
        }
    }

    #[cold]
    fn clear(&self, page: usize, launch: u32) {
        let _one = self.clearing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if self.launches[page].load(Acquire) != launch {
            let end = self.bytes.len().min((page + 1) * PAGE);
            for word in &self.bytes[page * PAGE..end] {
                word.store(0, Relaxed);
            }
            self.launches[page].store(launch, Release);
        }
    }

    /// Records a write. Returns the byte (counted from the first of the allocation) and the tag of
    /// another block that wrote it during this launch.
    #[inline]
    pub fn write(&self, at: u64, size: u32, launch: u32, tag: u64) -> Option<(u64, u64)> {
        let first = (at >> 2) as usize;
        let bits = touched(at, size);
        let mine = (tag * 0x0001_0001_0001_0001) & bits;
        for word in first..first + (size as usize).div_ceil(4) {
            self.open(word, launch);
            let old = if bits == u64::MAX {
                self.bytes[word].swap(mine, Relaxed)
            } else {
                let old = self.bytes[word].load(Relaxed);
                let mut seen = old;
                while let Err(now) =
                    self.bytes[word].compare_exchange(seen, seen & !bits | mine, Relaxed, Relaxed)
                {
                    seen = now;
                }
                seen & bits
            };
            if old != mine
                && old != 0
                && let Some(found) = other(old, mine, word)
            {
                return Some(found);
            }
        }
        None
    }

    /// As [`Self::write`], for a read, which is not recorded.
    #[inline]
    pub fn read(&self, at: u64, size: u32, launch: u32, tag: u64) -> Option<(u64, u64)> {
        let first = (at >> 2) as usize;
        let bits = touched(at, size);
        let mine = (tag * 0x0001_0001_0001_0001) & bits;
        for word in first..first + (size as usize).div_ceil(4) {
            if self.launches[word / PAGE].load(Acquire) != launch {
                continue;
            }
            let old = self.bytes[word].load(Relaxed) & bits;
            if old != mine
                && old != 0
                && let Some(found) = other(old, mine, word)
            {
                return Some(found);
            }
        }
        None
    }
}

/// The first byte whose writer is neither nobody nor the one of `mine`.
#[cold]
fn other(old: u64, mine: u64, word: usize) -> Option<(u64, u64)> {
    (0..4).find_map(|byte| {
        let writer = old >> (byte * 16) & 0xffff;
        let me = mine >> (byte * 16) & 0xffff;
        (writer != 0 && writer != me).then_some((word as u64 * 4 + byte, writer))
    })
}
