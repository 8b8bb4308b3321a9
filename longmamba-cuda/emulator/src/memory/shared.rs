//! The shared memory of a block, and for every byte of it who touched it last, and when.
//!
//! Time is counted per warp and goes on at each barrier. `seen[a][b]` is the time of warp `b` that
//! warp `a` knows to be over; a barrier makes the warps that meet there know of each other. An access
//! is in order after another if its own thread did that, or if its warp knows that time to be over.
//! `bar.warp.sync` moves only the warp's own clock on, which orders its lanes among themselves.
//!
//! Per byte the last write and two reads by different threads are kept. Two are enough as long as
//! barriers are of the whole block: whoever writes is in conflict with at least one of them.

use super::{Packet, gather, words};
use crate::error::{Access, FaultKind, Reason, Run, Trouble, What};

/// The time of a write that is still under way.
const PENDING: u32 = u32::MAX;

/// An access: when, and thread (10 bits), whether atomic (1 bit), place in the code (21 bits).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    time: u32,
    who: u32,
}

const ATOMIC: u32 = 1 << 10;

impl Mark {
    #[inline(always)]
    fn thread(self) -> u32 {
        self.who & 1023
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    write: Mark,
    read: Mark,
    other_read: Mark,
}

/// The marks of four bytes: one for all, or (`split` counts from one) each its own.
#[derive(Clone, Copy, Debug, Default)]
struct WordMarks {
    all: Marks,
    split: u32,
}

/// Who accesses, where in the code, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub warp: u32,
    pub lane: u32,
    pub pc: u32,
    /// Atomic, volatile or with an ordering: not in conflict with its like.
    pub strong: bool,
}

/// A copy of `cp.async` that is not yet waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copy {
    pub to: u64,
    pub size: u32,
    pub data: Packet,
    pub pc: u32,
}

/// What each warp knows of the others' time.
#[derive(Debug)]
struct Clocks {
    warps: usize,
    clock: Vec<u32>,
    seen: Vec<u32>,
    /// Marks of earlier blocks are up to this time.
    start: u32,
}

#[derive(Debug)]
pub(crate) struct Shared {
    size: u64,
    words: Vec<u32>,
    marks: Vec<WordMarks>,
    split: Vec<[Marks; 4]>,
    clocks: Clocks,
    checked: bool,
}

impl Clocks {
    fn row(&self, warp: usize) -> &[u32] {
        &self.seen[warp * self.warps..][..self.warps]
    }

    /// Whether the access marked is in order before one by `site`.
    #[inline(always)]
    fn ordered(&self, mark: Mark, thread: u32, site: Site) -> bool {
        if mark.time == PENDING {
            return false;
        }
        mark.time <= self.start
            || mark.thread() == thread
            || mark.time
                <= self.seen[site.warp as usize * self.warps + (mark.thread() >> 5) as usize]
            || site.strong && mark.who & ATOMIC != 0
    }

    #[inline]
    fn step(&self, marks: &mut Marks, write: bool, site: Site) -> Result<(), (Mark, Access)> {
        let thread = site.warp * 32 + site.lane;
        let who = thread | if site.strong { ATOMIC } else { 0 } | site.pc << 11;
        let mine = Mark { time: self.clock[site.warp as usize], who };
        if !self.ordered(marks.write, thread, site) {
            let access = if marks.write.who & ATOMIC != 0 { Access::Atomic } else { Access::Write };
            return Err((marks.write, access));
        }
        if !write {
            if marks.read.thread() == thread || marks.read.time <= self.start {
                marks.read = mine;
            } else if marks.other_read.thread() == thread
                || self.ordered(marks.other_read, thread, site)
            {
                marks.other_read = mine;
            } else if self.ordered(marks.read, thread, site) {
                marks.read = mine;
            }
            return Ok(());
        }
        for read in [marks.read, marks.other_read] {
            if !self.ordered(read, thread, site) {
                return Err((read, Access::Read));
            }
        }
        marks.write = mine;
        Ok(())
    }
}

impl Shared {
    pub fn new(size: u64, warps: usize, checked: bool) -> Self {
        let count = words(size);
        Self {
            size,
            words: vec![u32::MAX; count],
            marks: if checked { vec![WordMarks::default(); count] } else { Vec::new() },
            split: Vec::new(),
            clocks: Clocks { warps, clock: vec![1; warps], seen: vec![0; warps * warps], start: 0 },
            checked,
        }
    }

    /// A new block begins: contents unknown, earlier marks void.
    pub fn begin(&mut self) {
        self.words.fill(u32::MAX);
        let latest = self.clocks.clock.iter().max().copied().unwrap_or(0);
        self.clocks.start = latest;
        if latest > 1 << 30 {
            self.marks.fill(WordMarks::default());
            self.clocks.start = 0;
        }
        // A pending mark would outlive its block.
        for word in &mut self.marks {
            word.split = 0;
            if word.all.write.time == PENDING {
                word.all = Marks::default();
            }
        }
        self.split.clear();
        self.clocks.clock.fill(self.clocks.start + 1);
        self.clocks.seen.fill(self.clocks.start);
    }

    /// The warp's lanes are in order among themselves from here on.
    pub fn sync_warp(&mut self, warp: usize) {
        let clocks = &mut self.clocks;
        clocks.seen[warp * clocks.warps + warp] = clocks.clock[warp];
        clocks.clock[warp] += 1;
    }

    /// What a warp that arrives at a barrier knows, added to what others brought.
    pub fn arrive(&mut self, warp: usize, known: &mut Vec<u32>) {
        self.sync_warp(warp);
        known.resize(self.clocks.warps, 0);
        for (known, seen) in known.iter_mut().zip(self.clocks.row(warp)) {
            *known = (*known).max(*seen);
        }
    }

    /// A warp leaves a barrier and knows what all brought there.
    pub fn leave(&mut self, warp: usize, known: &[u32]) {
        let first = warp * self.clocks.warps;
        for (seen, known) in self.clocks.seen[first..].iter_mut().zip(known) {
            *seen = (*seen).max(*known);
        }
    }

    #[inline(always)]
    fn check(&self, at: u64, size: u32, site: Site) -> Run {
        if at & u64::from(size - 1) != 0 || at > self.size || u64::from(size) > self.size - at {
            return Err(self.bad(at, size, site));
        }
        Ok(())
    }

    #[cold]
    fn bad(&self, address: u64, size: u32, site: Site) -> Box<Trouble> {
        let space = "shared";
        Trouble::new(
            site.lane,
            if address > self.size || u64::from(size) > self.size - address {
                let reason = Reason::Past { size: self.size };
                FaultKind::Address { space, address, size, reason }
            } else {
                FaultKind::Misaligned { space, address, size }
            },
        )
    }

    /// Checks and records an access of any size.
    #[inline]
    fn mark(&mut self, at: u64, size: u32, write: bool, site: Site) -> Run {
        if !self.checked {
            return Ok(());
        }
        if size < 4 {
            return self.mark_bytes(
                (at >> 2) as usize,
                at & 3..(at & 3) + u64::from(size),
                write,
                site,
            );
        }
        for word in (at >> 2) as usize..((at + u64::from(size)) >> 2) as usize {
            let entry = &mut self.marks[word];
            if entry.split != 0 {
                self.mark_bytes(word, 0..4, write, site)?;
            } else if let Err(found) = self.clocks.step(&mut entry.all, write, site) {
                return Err(race(word as u64 * 4, write, site, found));
            }
        }
        Ok(())
    }

    fn mark_bytes(
        &mut self,
        word: usize,
        bytes: std::ops::Range<u64>,
        write: bool,
        site: Site,
    ) -> Run {
        let split = self.split_word(word);
        for byte in bytes {
            self.clocks
                .step(&mut self.split[split][byte as usize], write, site)
                .map_err(|found| race(word as u64 * 4 + byte, write, site, found))?;
        }
        Ok(())
    }

    fn split_word(&mut self, word: usize) -> usize {
        let entry = &mut self.marks[word];
        if entry.split == 0 {
            self.split.push([entry.all; 4]);
            entry.split = self.split.len() as u32;
        }
        entry.split as usize - 1
    }

    #[inline(always)]
    pub fn load(&mut self, at: u64, size: u32, site: Site) -> Result<Packet, Box<Trouble>> {
        self.check(at, size, site)?;
        self.mark(at, size, false, site)?;
        Ok(gather(at, size, |word| self.words[word]))
    }

    #[inline(always)]
    pub fn store(&mut self, at: u64, size: u32, packet: &Packet, site: Site) -> Run {
        self.check(at, size, site)?;
        self.mark(at, size, true, site)?;
        self.put(at, size, packet);
        Ok(())
    }

    fn put(&mut self, at: u64, size: u32, packet: &Packet) {
        let first = (at >> 2) as usize;
        if size >= 4 {
            self.words[first..first + size as usize / 4]
                .copy_from_slice(&packet[..size as usize / 4]);
            return;
        }
        let shift = (at & 3) * 8;
        let mask = if size == 1 { 0xff } else { 0xffff } << shift;
        self.words[first] = self.words[first] & !mask | packet[0] << shift & mask;
    }

    /// Begins a copy of `cp.async`: nobody may touch the bytes until it is waited for.
    pub fn begin_copy(&mut self, copy: &Copy, site: Site) -> Run {
        self.check(copy.to, copy.size, site)?;
        self.mark(copy.to, copy.size, true, site)?;
        self.time_of_write(copy, PENDING, site);
        Ok(())
    }

    /// The copy was waited for: the bytes arrive, as if its thread wrote them now.
    pub fn end_copy(&mut self, copy: &Copy, site: Site) {
        self.put(copy.to, copy.size, &copy.data);
        self.time_of_write(copy, self.clocks.clock[site.warp as usize], site);
    }

    fn time_of_write(&mut self, copy: &Copy, time: u32, site: Site) {
        if !self.checked {
            return;
        }
        let who = (site.warp * 32 + site.lane) | copy.pc << 11;
        for word in (copy.to / 4) as usize..((copy.to + u64::from(copy.size)) / 4) as usize {
            let split = self.marks[word].split as usize;
            if split == 0 {
                self.marks[word].all.write = Mark { time, who };
            } else {
                for marks in &mut self.split[split - 1] {
                    marks.write = Mark { time, who };
                }
            }
        }
    }
}

#[cold]
fn race(address: u64, write: bool, site: Site, (mark, other): (Mark, Access)) -> Box<Trouble> {
    let access = match (site.strong, write) {
        (true, true) => Access::Atomic,
        (false, true) => Access::Write,
        (_, false) => Access::Read,
    };
    Box::new(Trouble {
        lane: site.lane,
        what: What::Race {
            address,
            access,
            other,
            thread: mark.thread(),
            pc: mark.who >> 11,
            pending: mark.time == PENDING,
        },
    })
}
