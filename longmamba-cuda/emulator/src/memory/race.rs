//! Which blocks of a launch wrote and read which byte of global memory. Blocks run in no order: a byte that
//! one writes and another writes or reads has no certain value, unless the blocks order themselves.
//!
//! They do that where they meet: at an address that they access atomically in a kernel with a fence of the
//! device or with acquire and release. Who comes there second knows of all that the first did before, and of
//! all that the first knew. What a block does after a meeting it does under a new tag, of which nobody knows
//! yet. Within a block, what was executed before a meeting counts as done before it.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};

/// Words that are cleared together when a new launch first touches them.
const PAGE: usize = 1024;
/// Tags are counted modulo this, so that two blocks of a large grid may be taken for one.
const TAGS: u64 = 0x7fff;
/// Blocks other than the one that a byte is marked with read it too.
const MANY: u64 = 0x8000;
/// Copies 16 bits to each byte of a word.
const EACH: u64 = 0x0001_0001_0001_0001;

/// A block as far as others are concerned.
#[derive(Debug, Default)]
pub(crate) struct Party {
    launch: u32,
    block: u64,
    blocks: u64,
    meetings: u64,
    /// What its accesses are marked with; never 0.
    tag: u64,
    /// Tags of which all accesses are in order before what comes now.
    known: HashSet<u64>,
}

/// For each address where blocks met the tags that are known there.
pub(crate) type Meetings = Mutex<HashMap<u64, HashSet<u64>>>;

impl Party {
    /// Block `block` of `blocks` begins.
    pub fn begin(&mut self, launch: u32, block: u64, blocks: u64) {
        (self.launch, self.block, self.blocks, self.meetings) = (launch, block, blocks, 0);
        self.known.clear();
        self.tag = block % TAGS + 1;
    }

    /// Tells and learns what is known at an address.
    pub fn meet(&mut self, at: u64, meetings: &Meetings) {
        let mut meetings = meetings.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let here = meetings.entry(at).or_default();
        self.known.insert(self.tag);
        here.extend(&self.known);
        self.known.extend(&*here);
        self.meetings += 1;
        self.tag = (self.block + self.meetings * self.blocks) % TAGS + 1;
    }

    /// Whether an access so marked is in no order with what comes now.
    fn stranger(&self, mark: u64) -> bool {
        let tag = mark & TAGS;
        tag != 0
            && (tag != self.tag && !self.known.contains(&tag)
                // Whose the other reads are is not recorded: who met nobody cannot know of them.
                || mark & MANY != 0 && self.known.is_empty())
    }

    fn block_of(&self, mark: u64) -> Option<u32> {
        let tag = mark & TAGS;
        (tag != self.tag).then(|| ((tag - 1) % self.blocks) as u32)
    }
}

/// An access by another block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// Counted from the first byte of the allocation.
    pub byte: u64,
    /// The block (modulo 32767); `None` where it is one of several.
    pub block: Option<u32>,
    /// A place in the code where the word of the byte was accessed.
    pub pc: u32,
}

/// The writes or the reads of an allocation.
#[derive(Debug)]
pub(crate) struct Marks {
    /// For every word four times 16 bits: the tag of the block that accessed the byte, zero for none.
    bytes: Box<[AtomicU64]>,
    /// For every word where in the code.
    places: Box<[AtomicU32]>,
    launches: Box<[AtomicU32]>,
    clearing: Mutex<()>,
}

/// The words of an access of `size` bytes, and the 16 bits of each byte of one that it touches.
#[inline(always)]
fn touched(at: u64, size: u32) -> (std::ops::Range<usize>, u64) {
    let first = (at >> 2) as usize;
    let bits = match size {
        1 => 0xffff << ((at & 3) * 16),
        2 => 0xffff_ffff << ((at & 3) * 16),
        _ => u64::MAX,
    };
    (first..first + (size as usize).div_ceil(4), bits)
}

impl Marks {
    pub fn new(words: usize) -> Self {
        Self {
            bytes: (0..words).map(|_| AtomicU64::new(0)).collect(),
            places: (0..words).map(|_| AtomicU32::new(0)).collect(),
            launches: (0..words.div_ceil(PAGE)).map(|_| AtomicU32::new(0)).collect(),
            clearing: Mutex::new(()),
        }
    }

    /// Forgets what earlier launches did to the page of the word.
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

    /// Marks a write. Returns one by another block that it is in no order with.
    ///
    /// Marking comes before looking at the other kind of access, here and in [`Self::read`], so that of two
    /// blocks at a time at least one sees the other.
    #[inline]
    pub fn write(&self, at: u64, size: u32, party: &Party, pc: u32) -> Option<Found> {
        let (words, bits) = touched(at, size);
        let mine = (party.tag * EACH) & bits;
        let mut found = None;
        for word in words {
            self.open(word, party.launch);
            let old = if bits == u64::MAX {
                self.bytes[word].swap(mine, SeqCst)
            } else {
                let change = |old| Some(old & !bits | mine);
                self.bytes[word].fetch_update(SeqCst, SeqCst, change).unwrap_or_default() & bits
            };
            let place = self.places[word].swap(pc, Relaxed);
            if old != mine && old != 0 {
                found = found.or_else(|| stranger(old, word, place, party));
            }
        }
        found
    }

    /// Marks a read: with the first block that read the byte, and whether others did.
    #[inline]
    pub fn read(&self, at: u64, size: u32, party: &Party, pc: u32) {
        let (words, bits) = touched(at, size);
        let (mine, many) = ((party.tag * EACH) & bits, (MANY * EACH) & bits);
        for word in words {
            self.open(word, party.launch);
            let old = self.bytes[word].load(SeqCst);
            if old & bits != mine && old & many != many {
                self.add_reader(word, bits, party.tag, pc);
            }
        }
    }

    #[cold]
    fn add_reader(&self, word: usize, bits: u64, tag: u64, pc: u32) {
        let change = |old: u64| {
            let byte = |shift: u32| match old >> shift & 0xffff {
                _ if bits >> shift & 0xffff == 0 => old & 0xffff << shift,
                0 => tag << shift,
                first if first & TAGS == tag => first << shift,
                first => (first | MANY) << shift,
            };
            Some(byte(0) | byte(16) | byte(32) | byte(48))
        };
        let old = self.bytes[word].fetch_update(SeqCst, SeqCst, change).unwrap_or_default();
        if old & bits == 0 {
            self.places[word].store(pc, Relaxed);
        }
    }

    /// An access by another block that one by `party` is in no order with.
    #[inline]
    pub fn find(&self, at: u64, size: u32, party: &Party) -> Option<Found> {
        let (words, bits) = touched(at, size);
        let mine = (party.tag * EACH) & bits;
        for word in words {
            if self.launches[word / PAGE].load(Acquire) != party.launch {
                continue;
            }
            let old = self.bytes[word].load(SeqCst) & bits;
            if old != mine && old != 0 {
                let place = self.places[word].load(Relaxed);
                if let Some(found) = stranger(old, word, place, party) {
                    return Some(found);
                }
            }
        }
        None
    }
}

/// The first byte of a word whose mark is a stranger's.
#[cold]
fn stranger(marks: u64, word: usize, pc: u32, party: &Party) -> Option<Found> {
    let marks = (0..4).map(|byte| (byte, marks >> (byte * 16) & 0xffff));
    let (byte, mark) = marks.into_iter().find(|(_, mark)| party.stranger(*mark))?;
    Some(Found { byte: word as u64 * 4 + byte, block: party.block_of(mark), pc })
}
