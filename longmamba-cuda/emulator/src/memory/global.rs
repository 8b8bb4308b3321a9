//! Global memory. Each allocation lies in the middle of a window of the address space of its own,
//! 64 GiB long, and no window is used twice: whatever address is not inside a live allocation can be told from all that
//! are. New memory is full of `0xFF`, which is NaN in every float format.
//!
//! Words are atomics, because blocks run on several threads and a kernel with a race must not be one
//! of the interpreter.

use super::race::{Found, Marks, Party};
use super::{FIRST_WINDOW, Packet, WINDOW_SHIFT, gather, words};
use crate::error::{Access, MemoryError, Reason};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// Where in its window an allocation begins; also the most bytes that it may have.
const MIDDLE: u64 = 1 << (WINDOW_SHIFT - 1);

/// One allocation.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub base: u64,
    pub size: u64,
    /// Kernels must not write it.
    pub constant: bool,
    words: Box<[AtomicU32]>,
    writes: OnceLock<Marks>,
    reads: OnceLock<Marks>,
}

impl Allocation {
    /// Whether `size` bytes at the offset are inside.
    #[inline(always)]
    pub fn holds(&self, at: u64, size: u64) -> bool {
        at <= self.size && size <= self.size - at
    }

    #[inline(always)]
    pub fn load(&self, at: u64, size: u32) -> Packet {
        gather(at, size, |word| self.words[word].load(Relaxed))
    }

    #[inline(always)]
    pub fn store(&self, at: u64, size: u32, packet: &Packet) {
        let first = (at >> 2) as usize;
        if size >= 4 {
            for (word, value) in packet.iter().enumerate().take(size as usize / 4) {
                self.words[first + word].store(*value, Relaxed);
            }
            return;
        }
        let shift = (at & 3) * 8;
        let mask = if size == 1 { 0xff } else { 0xffff } << shift;
        let value = packet[0] << shift & mask;
        self.update(first, |old| old & !mask | value);
    }

    /// Changes one word atomically and returns what it was.
    #[inline]
    pub fn update(&self, word: usize, change: impl Fn(u32) -> u32) -> u32 {
        let word = &self.words[word];
        let mut old = word.load(Relaxed);
        loop {
            match word.compare_exchange_weak(old, change(old), Relaxed, Relaxed) {
                Ok(old) => return old,
                Err(now) => old = now,
            }
        }
    }

    /// A write by a kernel. Returns an access by another block that it is in no order with, and which.
    #[inline]
    pub fn mark_write(
        &self,
        at: u64,
        size: u32,
        party: &Party,
        pc: u32,
    ) -> Option<(Access, Found)> {
        let writes = self.writes.get_or_init(|| Marks::new(words(self.size)));
        if let Some(found) = writes.write(at, size, party, pc) {
            return Some((Access::Write, found));
        }
        let found = self.reads.get()?.find(at, size, party)?;
        Some((Access::Read, found))
    }

    /// As [`Self::mark_write`], for a read.
    #[inline]
    pub fn mark_read(&self, at: u64, size: u32, party: &Party, pc: u32) -> Option<(Access, Found)> {
        self.reads.get_or_init(|| Marks::new(words(self.size))).read(at, size, party, pc);
        let found = self.writes.get()?.find(at, size, party)?;
        Some((Access::Write, found))
    }

    fn read(&self, at: u64, into: &mut [u8]) {
        let head = into.len().min((at.wrapping_neg() & 3) as usize);
        let (first, rest) = into.split_at_mut(head);
        for (i, byte) in first.iter_mut().enumerate() {
            *byte = self.load(at + i as u64, 1)[0] as u8;
        }
        let words = &self.words[((at as usize + head) / 4).min(self.words.len())..];
        for (chunk, word) in rest.chunks_mut(4).zip(words) {
            chunk.copy_from_slice(&word.load(Relaxed).to_le_bytes()[..chunk.len()]);
        }
    }

    fn write(&self, at: u64, from: &[u8]) {
        let head = from.len().min((at.wrapping_neg() & 3) as usize);
        for (i, byte) in from[..head].iter().enumerate() {
            self.store(at + i as u64, 1, &[(*byte).into(), 0, 0, 0]);
        }
        let mut at = at + head as u64;
        for chunk in from[head..].chunks(4) {
            if let Ok(bytes) = <[u8; 4]>::try_from(chunk) {
                self.words[at as usize / 4].store(u32::from_le_bytes(bytes), Relaxed);
            } else {
                for (i, byte) in chunk.iter().enumerate() {
                    self.store(at + i as u64, 1, &[(*byte).into(), 0, 0, 0]);
                }
            }
            at += 4;
        }
    }
}

/// What a window holds.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    Live(Arc<Allocation>),
    Freed(u64),
}

/// All allocations. Cheap to clone; a running kernel keeps the state of when it began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    slots: Arc<Vec<Slot>>,
}

impl Table {
    /// The allocation whose window the address is in.
    #[inline(always)]
    pub fn window(&self, address: u64) -> Option<&Allocation> {
        let window = ((address >> WINDOW_SHIFT) as usize).wrapping_sub(FIRST_WINDOW);
        match self.slots.get(window) {
            Some(Slot::Live(allocation)) => Some(allocation),
            _ => None,
        }
    }

    /// Why the bytes at the address cannot be accessed.
    pub fn reason(&self, address: u64) -> Reason {
        let number = (address >> WINDOW_SHIFT) as usize;
        let base = ((number as u64) << WINDOW_SHIFT) + MIDDLE;
        match self.slots.get(number.wrapping_sub(FIRST_WINDOW)) {
            None => Reason::Nothing,
            Some(Slot::Freed(size)) => Reason::Freed { base, size: *size },
            Some(Slot::Live(allocation)) => Reason::Outside { base, size: allocation.size },
        }
    }
}

/// The memory of a device.
#[derive(Debug)]
pub(crate) struct Global {
    pub table: Table,
    pub capacity: u64,
    pub used: u64,
}

impl Global {
    pub fn new(capacity: u64) -> Self {
        Self { table: Table::default(), capacity, used: 0 }
    }

    /// Memory is handed out in pieces of this many bytes, as drivers do.
    fn charge(size: u64) -> u64 {
        size.next_multiple_of(512)
    }

    pub fn allocate(&mut self, size: u64, constant: bool) -> Result<u64, MemoryError> {
        let free = self.capacity - self.used;
        if size == 0 {
            return Err(MemoryError::Empty);
        }
        if size > MIDDLE || Self::charge(size) > free {
            return Err(MemoryError::Full { wanted: size, free });
        }
        let slots = Arc::make_mut(&mut self.table.slots);
        let base = (((slots.len() + FIRST_WINDOW) as u64) << WINDOW_SHIFT) + MIDDLE;
        let words = (0..words(size)).map(|_| AtomicU32::new(u32::MAX)).collect();
        let (writes, reads) = Default::default();
        slots.push(Slot::Live(Arc::new(Allocation { base, size, constant, words, writes, reads })));
        self.used += Self::charge(size);
        Ok(base)
    }

    /// Frees the allocation that begins at the address.
    pub fn free(&mut self, address: u64) -> Result<(), MemoryError> {
        let Some(allocation) = self.table.window(address).filter(|a| a.base == address) else {
            let reason = self.table.reason(address);
            return Err(MemoryError::Range { address, size: 0, reason });
        };
        let size = allocation.size;
        let window = (address >> WINDOW_SHIFT) as usize - FIRST_WINDOW;
        Arc::make_mut(&mut self.table.slots)[window] = Slot::Freed(size);
        self.used -= Self::charge(size);
        Ok(())
    }

    fn range(&self, address: u64, size: u64) -> Result<(&Allocation, u64), MemoryError> {
        if let Some(allocation) = self.table.window(address) {
            let at = address.wrapping_sub(allocation.base);
            if allocation.holds(at, size) {
                return Ok((allocation, at));
            }
        }
        Err(MemoryError::Range { address, size, reason: self.table.reason(address) })
    }

    /// The allocation that holds the address: its base and size.
    pub fn find(&self, address: u64) -> Result<(u64, u64), MemoryError> {
        self.range(address, 0).map(|(allocation, _)| (allocation.base, allocation.size))
    }

    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let (allocation, at) = self.range(address, into.len() as u64)?;
        allocation.read(at, into);
        Ok(())
    }

    pub fn write(&self, address: u64, from: &[u8]) -> Result<(), MemoryError> {
        let (allocation, at) = self.range(address, from.len() as u64)?;
        allocation.write(at, from);
        Ok(())
    }

    /// Copies as if all bytes were read before any is written.
    pub fn copy(&self, to: u64, from: u64, size: u64) -> Result<(), MemoryError> {
        self.range(to, size)?;
        self.range(from, size)?;
        let mut bytes = vec![0; size as usize];
        self.read(from, &mut bytes)?;
        self.write(to, &bytes)
    }

    /// Repeats a pattern of one, two or four bytes.
    pub fn fill(&self, address: u64, pattern: &[u8], count: u64) -> Result<(), MemoryError> {
        let size = pattern.len() as u64 * count;
        self.range(address, size)?;
        let chunk: Vec<u8> =
            pattern.iter().copied().cycle().take(size.min(1 << 16) as usize).collect();
        let mut done = 0;
        while done < size {
            let part = (size - done).min(chunk.len() as u64);
            self.write(address + done, &chunk[..part as usize])?;
            done += part;
        }
        Ok(())
    }
}
