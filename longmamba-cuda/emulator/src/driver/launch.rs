//! Launches, and how many blocks a multiprocessor would hold.

use super::code::*;
use super::entries;
use super::ffi::{Args, Callback, Out};
use super::operation::{Operation, submit};
use super::state::{Handle, state};
use crate::device::{Launch, PROCESSORS};
use std::ffi::c_void;
use std::sync::Arc;

fn launch(function: Handle, launch: Launch, stream: Handle, args: &Args) -> Status {
    let state = state()?;
    let device = state.here()?;
    let found = state.functions.get(&function).ok_or(INVALID_HANDLE)?;
    if found.device != device {
        return Err(INVALID_HANDLE);
    }
    if launch.shared > found.max_dynamic {
        eprintln!(
            "emulator: launch of {}: {} bytes of dynamic shared memory, the function allows {}",
            found.kernel.name, launch.shared, found.max_dynamic
        );
        return Err(INVALID_VALUE);
    }
    let kernel = Arc::clone(&found.kernel);
    drop(state);
    // The arguments are read now: a graph keeps their values.
    let mut params = vec![0; kernel.param_size as usize];
    for (index, (param, at)) in kernel.params.iter().zip(&kernel.param_offsets).enumerate() {
        let (at, size) = (*at as usize, param.size as usize);
        params[at..at + size].copy_from_slice(&args.get(index, size)?);
    }
    submit(stream, Operation::Launch { kernel, launch, params })
}

/// Blocks that fit a multiprocessor.
fn occupancy(function: Handle, threads: i32, dynamic: usize) -> Result<i32, i32> {
    let state = state()?;
    let here = state.here()?;
    let found = state.functions.get(&function).ok_or(INVALID_HANDLE)?;
    let config = state.devices[here].emulator.config();
    if !(1..=1024).contains(&threads) {
        return Err(INVALID_VALUE);
    }
    let resident = if config.capability == 80 || config.capability >= 90 { 2048 } else { 1536 };
    let by_threads = resident / (threads as usize).next_multiple_of(32);
    let shared = found.kernel.dynamic_shared as usize + dynamic + 1024;
    let by_shared = (config.shared_limit() as usize + 1024) / shared;
    Ok(by_threads.min(by_shared).min(32) as i32)
}

/// The largest block, and the blocks of it that fill the device.
fn potential(
    grid: &Out<i32>,
    block: &Out<i32>,
    function: Handle,
    dynamic: usize,
    limit: i32,
) -> Status {
    let state = state()?;
    let found = state.functions.get(&function).ok_or(INVALID_HANDLE)?;
    let most = found.kernel.max_threads.unwrap_or(1024).min(1024) as i32;
    drop(state);
    let threads = if limit > 0 { most.min(limit) } else { most };
    block.set(threads)?;
    grid.set(occupancy(function, threads, dynamic)? * PROCESSORS as i32)
}

entries! {
    fn cuLaunchKernel(
        function: Handle,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared: u32,
        stream: Handle,
        params: Args,
        extra: Args,
    ) {
        if !extra.is_null() {
            return Err(NOT_SUPPORTED);
        }
        let shape = Launch {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            shared,
        };
        launch(function, shape, stream, &params)
    }

    fn cuLaunchHostFunc(
        stream: Handle,
        function: Option<extern "C" fn(*mut c_void)>,
        data: *mut c_void,
    ) {
        let function = function.ok_or(INVALID_VALUE)?;
        submit(stream, Operation::Call(Callback { function, data }))
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: Out<i32>,
        function: Handle,
        threads: i32,
        dynamic: usize,
    ) {
        blocks.set(occupancy(function, threads, dynamic)?)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: Out<i32>,
        function: Handle,
        threads: i32,
        dynamic: usize,
        _flags: u32,
    ) {
        blocks.set(occupancy(function, threads, dynamic)?)
    }

    fn cuOccupancyAvailableDynamicSMemPerBlock(
        bytes: Out<usize>,
        function: Handle,
        blocks: i32,
        threads: i32,
    ) {
        occupancy(function, threads, 0)?;
        let state = state()?;
        let here = state.here()?;
        let found = state.functions.get(&function).ok_or(INVALID_HANDLE)?;
        let all = state.devices[here].emulator.config().shared_limit() as usize + 1024;
        let each = all / usize::try_from(blocks).ok().filter(|b| *b > 0).ok_or(INVALID_VALUE)?;
        bytes.set(each.saturating_sub(1024 + found.kernel.dynamic_shared as usize))
    }

    fn cuOccupancyMaxPotentialBlockSize(
        grid: Out<i32>,
        block: Out<i32>,
        function: Handle,
        _shared_of: usize,
        dynamic: usize,
        limit: i32,
    ) {
        potential(&grid, &block, function, dynamic, limit)
    }

    fn cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: Out<i32>,
        block: Out<i32>,
        function: Handle,
        _shared_of: usize,
        dynamic: usize,
        limit: i32,
        _flags: u32,
    ) {
        potential(&grid, &block, function, dynamic, limit)
    }

    fn cuProfilerStart() {
        Ok(())
    }

    fn cuProfilerStop() {
        Ok(())
    }
}
