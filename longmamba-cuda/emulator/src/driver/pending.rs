//! Copies between the device and page-locked memory, which a GPU makes while the program goes on.
//!
//! Here they are put off for as long as the program may not rely on them: until it waits for the stream or
//! for an event after them, or other work follows in the stream. Who changes the memory before that, or
//! frees it, or reads it, has not waited, and is found out.

use super::code::*;
use super::ffi::Host;
use super::operation::Operation;
use super::state::{Handle, State};

/// A copy that nobody has waited for.
pub(super) struct Pending {
    /// How many such copies the stream had before.
    number: u64,
    operation: Operation,
    /// What is to be copied to the device.
    bytes: Vec<u8>,
}

impl Operation {
    /// The memory of the host that is copied from or to.
    fn host(&self) -> Option<(Host, usize)> {
        match *self {
            Operation::ToDevice { from: host, size, .. }
            | Operation::ToHost { to: host, size, .. } => Some((host, size)),
            _ => None,
        }
    }
}

impl State {
    /// Puts a copy off; `false` where it is none with page-locked memory, or for the legacy stream, whose
    /// work is done at once.
    pub(super) fn put_off(&mut self, stream: Handle, operation: &Operation) -> Result<bool, i32> {
        let Some((host, size)) = operation.host() else { return Ok(false) };
        let first = host.address();
        let locked = |(&start, &numbers): (&usize, &usize)| {
            start <= first && first.saturating_add(size) <= start + numbers * 8
        };
        if !self.host.iter().any(locked) {
            return Ok(false);
        }
        let bytes = match operation {
            Operation::ToDevice { .. } => host.read(size, <[u8]>::to_vec)?,
            _ => Vec::new(),
        };
        let Some(stream) = self.stream(stream)? else { return Ok(false) };
        let operation = operation.clone();
        stream.pending.push_back(Pending { number: stream.copies, operation, bytes });
        stream.copies += 1;
        Ok(true)
    }

    /// Makes the copies of a stream that were put off, the first `copies` that it ever had.
    pub(super) fn finish(&mut self, stream: Handle, copies: u64) -> Status {
        loop {
            let Some(Some(found)) = self.stream(stream).ok() else { return Ok(()) };
            if found.pending.front().is_none_or(|pending| pending.number >= copies) {
                return Ok(());
            }
            let Some(pending) = found.pending.pop_front() else { return Ok(()) };
            let device = self.device_of(stream)?;
            if let (Operation::ToDevice { .. }, Some((host, size))) =
                (&pending.operation, pending.operation.host())
                && host.read(size, |now| now != pending.bytes)?
            {
                eprintln!(
                    "emulator: page-locked memory at {:#x} was written before the copy of {size} bytes from \
                     it had been waited for",
                    host.address()
                );
                self.devices[device].lost = Some(LAUNCH_FAILED);
                return Err(LAUNCH_FAILED);
            }
            pending.operation.run(&self.devices[device].emulator).map_err(|(code, _)| code)?;
        }
    }

    /// The same for all streams, or all that the legacy stream waits for.
    pub(super) fn finish_all(&mut self, all: bool) -> Status {
        let waited = self.streams.iter().filter(|(_, stream)| all || stream.blocking);
        let waited: Vec<Handle> = waited.map(|(handle, _)| *handle).collect();
        waited.into_iter().try_for_each(|stream| self.finish(stream, u64::MAX))
    }

    /// Refuses to free page-locked memory that a copy still needs.
    pub(super) fn unused(&self, memory: Host) -> Status {
        let numbers = *self.host.get(&memory.address()).ok_or(INVALID_VALUE)?;
        let range = memory.address()..memory.address() + numbers * 8;
        let mut pending = self.streams.values().flat_map(|stream| &stream.pending);
        if pending.any(|p| p.operation.host().is_some_and(|(h, _)| range.contains(&h.address()))) {
            eprintln!(
                "emulator: page-locked memory at {:#x} is freed before a copy had been waited for",
                memory.address()
            );
            return Err(INVALID_VALUE);
        }
        Ok(())
    }
}
