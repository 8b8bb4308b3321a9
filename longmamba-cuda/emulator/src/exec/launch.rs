//! One launch: its blocks, shared out among threads of the host.

use super::block::Block;
use super::code::Kernel;
use crate::error::Fault;
use crate::memory::global::Table;
use crate::memory::race::Meetings;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// What all blocks of a launch share.
pub(crate) struct Context<'a> {
    pub kernel: &'a Kernel,
    /// The arguments, in words.
    pub params: Vec<u32>,
    pub table: Table,
    /// Counts the launches of the device.
    pub launch: u32,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u64,
    pub dynamic_shared: u32,
    /// Whether accesses to shared memory are checked for races.
    pub check_races: bool,
    /// Whether accesses to global memory are checked for races among blocks.
    pub check_blocks: bool,
    /// Where blocks order themselves; `None` where they do not.
    pub meetings: Option<Meetings>,
    /// Thread instructions of a block.
    pub limit: u64,
    /// Taken by atomic operations on 64 bits.
    pub atomics: Mutex<()>,
}

impl Context<'_> {
    /// Threads of a block.
    pub fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    /// Blocks of the grid.
    pub fn blocks(&self) -> u64 {
        self.grid.iter().map(|side| u64::from(*side)).product()
    }

    /// Runs all blocks on up to `workers` threads; returns the thread instructions executed. Of
    /// several faults the one of the lowest block is reported that was found.
    pub fn run(&self, workers: usize) -> Result<u64, Box<Fault>> {
        let blocks = self.blocks();
        let workers = (workers as u64).min(blocks).max(1);
        if workers == 1 {
            let mut block = Block::new(self);
            for number in 0..blocks {
                block.run(number)?;
            }
            return Ok(block.count());
        }
        let next = AtomicU64::new(0);
        let stop = AtomicBool::new(false);
        let fault: Mutex<Option<(u64, Box<Fault>)>> = Mutex::new(None);
        let count = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    let mut block = Block::new(self);
                    while !stop.load(Relaxed) {
                        let number = next.fetch_add(1, Relaxed);
                        if number >= blocks {
                            break;
                        }
                        if let Err(found) = block.run(number) {
                            stop.store(true, Relaxed);
                            let mut fault = fault.lock().unwrap_or_else(|lock| lock.into_inner());
                            if fault.as_ref().is_none_or(|(other, _)| number < *other) {
                                *fault = Some((number, found));
                            }
                        }
                    }
                    count.fetch_add(block.count(), Relaxed);
                });
            }
        });
        match fault.into_inner().unwrap_or_else(|lock| lock.into_inner()) {
            Some((_, fault)) => Err(fault),
            None => Ok(count.into_inner()),
        }
    }
}
