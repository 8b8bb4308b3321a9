//! Memory of the device and page-locked memory of the host.

use super::code::{self, *};
use super::entries;
use super::ffi::{Host, Out};
use super::operation::{Operation, now, submit};
use super::state::{Handle, state};

/// The handle of the pool of the first device. Pools are never looked into.
const POOL: Handle = 16;

fn fill(to: u64, pattern: &[u8], count: usize) -> Operation {
    Operation::Fill { to, pattern: pattern.to_vec(), count: count as u64 }
}

fn aligned(to: u64, to_multiple: u64) -> Status {
    if to.is_multiple_of(to_multiple) { Ok(()) } else { Err(INVALID_VALUE) }
}

/// Allocating and freeing in the order of a stream cannot be captured here.
fn not_capturing(stream: Handle) -> Status {
    let mut state = state()?;
    let capturing = match state.stream(stream)? {
        Some(stream) => stream.capture,
        None => None,
    };
    if let Some(capture) = capturing.and_then(|capture| state.captures.get_mut(&capture)) {
        capture.invalid = true;
        return Err(STREAM_CAPTURE_UNSUPPORTED);
    }
    Ok(())
}

fn host_alloc(pointer: &Out<Host>, size: usize) -> Status {
    let mut state = state()?;
    let emulator = state.emulator()?;
    state.outside_capture()?;
    if size == 0 {
        pointer.set(Host::null())?;
        return Err(INVALID_VALUE);
    }
    let numbers = size.div_ceil(8);
    let locked = state.host.values().sum::<usize>().saturating_add(numbers).saturating_mul(8);
    if locked as u64 > emulator.config().pinned {
        return Err(OUT_OF_MEMORY);
    }
    // As fresh device memory: full of ones.
    let memory = Host::from_box(vec![u64::MAX; numbers].into_boxed_slice());
    state.host.insert(memory.address(), numbers);
    pointer.set(memory)
}

entries! {
    fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) {
        let (left, all) = state()?.emulator()?.memory();
        free.set(left as usize)?;
        total.set(all as usize)
    }

    fn cuMemAlloc_v2(pointer: Out<u64>, size: usize) {
        let mut state = state()?;
        let emulator = state.emulator()?;
        state.outside_capture()?;
        pointer.set(emulator.alloc(size as u64).map_err(code::memory)?)
    }

    fn cuMemFree_v2(pointer: u64) {
        let mut state = state()?;
        let emulator = state.emulator()?;
        state.outside_capture()?;
        state.finish_all(true)?;
        if pointer == 0 { Ok(()) } else { emulator.free(pointer).map_err(code::memory) }
    }

    fn cuMemAllocAsync(pointer: Out<u64>, size: usize, stream: Handle) {
        let emulator = state()?.emulator_of(stream)?;
        not_capturing(stream)?;
        pointer.set(emulator.alloc(size as u64).map_err(code::memory)?)
    }

    fn cuMemFreeAsync(pointer: u64, stream: Handle) {
        let emulator = state()?.emulator_of(stream)?;
        not_capturing(stream)?;
        state()?.finish(stream, u64::MAX)?;
        if pointer == 0 { Ok(()) } else { emulator.free(pointer).map_err(code::memory) }
    }

    fn cuMemGetAddressRange_v2(base: Out<u64>, size: Out<usize>, pointer: u64) {
        let emulator = state()?.emulator()?;
        let (first, bytes) = emulator.allocation(pointer).map_err(|_| NOT_FOUND)?;
        base.set_if(first);
        size.set_if(bytes as usize);
        Ok(())
    }

    fn cuMemHostAlloc(pointer: Out<Host>, size: usize, _flags: u32) {
        host_alloc(&pointer, size)
    }

    fn cuMemAllocHost_v2(pointer: Out<Host>, size: usize) {
        host_alloc(&pointer, size)
    }

    fn cuMemFreeHost(pointer: Host) {
        let mut state = state()?;
        state.here()?;
        state.outside_capture()?;
        state.unused(pointer)?;
        let numbers = state.host.remove(&pointer.address()).ok_or(INVALID_VALUE)?;
        pointer.free(numbers);
        Ok(())
    }

    fn cuMemcpyHtoD_v2(to: u64, from: Host, size: usize) {
        now(Operation::ToDevice { to, from, size })
    }

    fn cuMemcpyHtoDAsync_v2(to: u64, from: Host, size: usize, stream: Handle) {
        submit(stream, Operation::ToDevice { to, from, size })
    }

    fn cuMemcpyDtoH_v2(to: Host, from: u64, size: usize) {
        now(Operation::ToHost { to, from, size })
    }

    fn cuMemcpyDtoHAsync_v2(to: Host, from: u64, size: usize, stream: Handle) {
        submit(stream, Operation::ToHost { to, from, size })
    }

    fn cuMemcpyDtoD_v2(to: u64, from: u64, size: usize) {
        now(Operation::Within { to, from, size: size as u64 })
    }

    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, size: usize, stream: Handle) {
        submit(stream, Operation::Within { to, from, size: size as u64 })
    }

    fn cuMemcpyPeerAsync(
        to: u64,
        to_context: Handle,
        from: u64,
        from_context: Handle,
        size: usize,
        stream: Handle,
    ) {
        let state = state()?;
        let device = |context| state.contexts.get(&context).copied().ok_or(INVALID_CONTEXT);
        let (target, source) = (device(to_context)?, device(from_context)?);
        if target == source {
            drop(state);
            return submit(stream, Operation::Within { to, from, size: size as u64 });
        }
        let [to_emulator, from_emulator] =
            [target, source].map(|device| std::sync::Arc::clone(&state.devices[device].emulator));
        drop(state);
        not_capturing(stream)?;
        self::state()?.finish(stream, u64::MAX)?;
        let mut bytes = vec![0; size];
        from_emulator.read(from, &mut bytes).map_err(code::memory)?;
        to_emulator.write(to, &bytes).map_err(code::memory)
    }

    fn cuMemsetD8_v2(to: u64, value: u8, count: usize) {
        now(fill(to, &[value], count))
    }

    fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: Handle) {
        submit(stream, fill(to, &[value], count))
    }

    fn cuMemsetD16_v2(to: u64, value: u16, count: usize) {
        aligned(to, 2)?;
        now(fill(to, &value.to_le_bytes(), count))
    }

    fn cuMemsetD16Async(to: u64, value: u16, count: usize, stream: Handle) {
        aligned(to, 2)?;
        submit(stream, fill(to, &value.to_le_bytes(), count))
    }

    fn cuMemsetD32_v2(to: u64, value: u32, count: usize) {
        aligned(to, 4)?;
        now(fill(to, &value.to_le_bytes(), count))
    }

    fn cuMemsetD32Async(to: u64, value: u32, count: usize, stream: Handle) {
        aligned(to, 4)?;
        submit(stream, fill(to, &value.to_le_bytes(), count))
    }

    fn cuDeviceGetDefaultMemPool(pool: Out<Handle>, device: i32) {
        state()?.device(device)?;
        pool.set(POOL + device as usize)
    }

    fn cuDeviceGetMemPool(pool: Out<Handle>, device: i32) {
        state()?.device(device)?;
        pool.set(POOL + device as usize)
    }

    fn cuPointerGetAttribute(data: Out<u64>, attribute: i32, pointer: u64) {
        let state = state()?;
        let (device, emulator) = (state.here()?, state.emulator()?);
        let (base, size) = emulator.allocation(pointer).map_err(|_| INVALID_VALUE)?;
        match attribute {
            // The kind of memory is an enumeration of 32 bits, as is the device's number.
            2 | 9 => data.set_u32(if attribute == 2 { 2 } else { device as u32 }),
            3 => data.set(pointer),
            11 => data.set(base),
            12 => data.set(size),
            _ => Err(NOT_SUPPORTED),
        }
    }

    fn cuMemPoolTrimTo(_pool: Handle, _keep: usize) {
        Ok(())
    }

    fn cuMemPoolSetAttribute(_pool: Handle, _attribute: i32, _value: usize) {
        Ok(())
    }
}
