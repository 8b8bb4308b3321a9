//! Work for a stream: done at once, or kept in a graph and done at each launch of that.

use super::blas::Product;
use super::code::{self, *};
use super::ffi::{Callback, Host};
use super::state::{Handle, State, state};
use crate::device::{Emulator, Launch};
use crate::exec::code::Kernel;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub(super) enum Operation {
    Launch { kernel: Arc<Kernel>, launch: Launch, params: Vec<u8> },
    ToDevice { to: u64, from: Host, size: usize },
    ToHost { to: Host, from: u64, size: usize },
    Within { to: u64, from: u64, size: u64 },
    Fill { to: u64, pattern: Vec<u8>, count: u64 },
    Call(Callback),
    Product(Arc<Product>),
}

impl Operation {
    /// Does it; the flag says whether the context is lost.
    pub(super) fn run(&self, emulator: &Emulator) -> Result<(), (i32, bool)> {
        let memory = |error| (code::memory(error), false);
        let host = |code| (code, false);
        match self {
            Operation::Launch { kernel, launch, params } => {
                emulator.run(kernel, launch, params).map_err(|error| code::launch(&error))?;
            }
            Operation::ToDevice { size: 0, .. }
            | Operation::ToHost { size: 0, .. }
            | Operation::Within { size: 0, .. }
            | Operation::Fill { count: 0, .. } => {}
            Operation::ToDevice { to, from, size } => {
                from.read(*size, |from| emulator.write(*to, from))
                    .map_err(host)?
                    .map_err(memory)?;
            }
            Operation::ToHost { to, from, size } => {
                to.write(*size, |to| emulator.read(*from, to)).map_err(host)?.map_err(memory)?;
            }
            Operation::Within { to, from, size } => {
                emulator.copy(*to, *from, *size).map_err(memory)?;
            }
            Operation::Fill { to, pattern, count } => {
                emulator.fill(*to, pattern, *count).map_err(memory)?;
            }
            Operation::Call(callback) => callback.call(),
            Operation::Product(product) => product.run(emulator).map_err(memory)?,
        }
        Ok(())
    }
}

/// Does operations in order on a device.
pub(super) fn run(device: usize, operations: &[Operation]) -> Status {
    let emulator = Arc::clone(&state()?.devices[device].emulator);
    for operation in operations {
        if let Err((code, lost)) = operation.run(&emulator) {
            if lost {
                state()?.devices[device].lost = Some(code);
            }
            return Err(code);
        }
    }
    Ok(())
}

/// Adds an operation to the capture of a stream; `false` where there is none.
pub(super) fn record(
    state: &mut State,
    stream: Handle,
    operations: &[Operation],
) -> Result<bool, i32> {
    let Some(found) = state.stream(stream)? else {
        state.legacy_work()?;
        return Ok(false);
    };
    let Some(capture) = found.capture else { return Ok(false) };
    found.recorded += 1;
    found.unjoined = true;
    let capture = state.captures.get_mut(&capture).ok_or(UNKNOWN)?;
    if capture.invalid {
        return Err(STREAM_CAPTURE_INVALIDATED);
    }
    capture.operations.extend_from_slice(operations);
    Ok(true)
}

/// Work for a stream, done, put off or recorded.
pub(super) fn submit(stream: Handle, operation: Operation) -> Status {
    let mut state = state()?;
    state.here()?;
    let device = state.device_of(stream)?;
    if record(&mut state, stream, std::slice::from_ref(&operation))? {
        return Ok(());
    }
    if state.put_off(stream, &operation)? {
        return Ok(());
    }
    state.finish(stream, u64::MAX)?;
    drop(state);
    run(device, &[operation])
}

/// Work that the caller waits for, which cannot be captured.
pub(super) fn now(operation: Operation) -> Status {
    let mut state = state()?;
    let device = state.here()?;
    state.outside_capture()?;
    state.legacy_work()?;
    state.finish_all(false)?;
    drop(state);
    run(device, &[operation])
}
