//! Contexts.

use super::code::*;
use super::entries;
use super::ffi::Out;
use super::state::{self, Handle, state};

/// Forgets what a device's kernels broke, once nobody has a context of it.
fn release(state: &mut state::State, context: Handle) {
    if let Some(device) = state.contexts.remove(&context)
        && !state.contexts.values().any(|other| *other == device)
    {
        state.devices[device].lost = None;
    }
}

fn create(context: &Out<Handle>, device: i32) -> Status {
    let mut state = state()?;
    state.device(device)?;
    let handle = state.handle();
    state.contexts.insert(handle, device as usize);
    state::push_current(handle);
    context.set(handle)
}

entries! {
    fn cuDevicePrimaryCtxRetain(context: Out<Handle>, device: i32) {
        let mut state = state()?;
        let handle = match state.device(device)?.primary {
            Some((handle, count)) => {
                state.device(device)?.primary = Some((handle, count + 1));
                handle
            }
            None => {
                let handle = state.handle();
                state.device(device)?.primary = Some((handle, 1));
                state.contexts.insert(handle, device as usize);
                handle
            }
        };
        context.set(handle)
    }

    fn cuDevicePrimaryCtxRelease_v2(device: i32) {
        let mut state = state()?;
        match state.device(device)?.primary {
            None => Err(INVALID_CONTEXT),
            Some((handle, 1)) => {
                state.device(device)?.primary = None;
                release(&mut state, handle);
                Ok(())
            }
            Some((handle, count)) => {
                state.device(device)?.primary = Some((handle, count - 1));
                Ok(())
            }
        }
    }

    fn cuDevicePrimaryCtxReset_v2(device: i32) {
        let mut state = state()?;
        state.device(device)?.lost = None;
        Ok(())
    }

    fn cuDevicePrimaryCtxGetState(device: i32, flags: Out<u32>, active: Out<i32>) {
        let retained = state()?.device(device)?.primary.is_some();
        flags.set(0)?;
        active.set(retained.into())
    }

    fn cuCtxCreate_v2(context: Out<Handle>, _flags: u32, device: i32) {
        create(&context, device)
    }

    fn cuCtxCreate_v3(context: Out<Handle>, _affinity: usize, count: i32, _flags: u32, device: i32) {
        if count != 0 {
            return Err(NOT_SUPPORTED);
        }
        create(&context, device)
    }

    fn cuCtxDestroy_v2(context: Handle) {
        let mut state = state()?;
        if !state.contexts.contains_key(&context) {
            return Err(INVALID_CONTEXT);
        }
        release(&mut state, context);
        if state::current() == context {
            state::pop_current()?;
        }
        Ok(())
    }

    fn cuCtxGetCurrent(context: Out<Handle>) {
        drop(state()?);
        context.set(state::current())
    }

    fn cuCtxSetCurrent(context: Handle) {
        if context != 0 && !state()?.contexts.contains_key(&context) {
            return Err(INVALID_CONTEXT);
        }
        state::set_current(context);
        Ok(())
    }

    fn cuCtxPushCurrent_v2(context: Handle) {
        if !state()?.contexts.contains_key(&context) {
            return Err(INVALID_CONTEXT);
        }
        state::push_current(context);
        Ok(())
    }

    fn cuCtxPopCurrent_v2(context: Out<Handle>) {
        let popped = state::pop_current()?;
        context.set_if(popped);
        Ok(())
    }

    fn cuCtxGetDevice(device: Out<i32>) {
        let here = *state()?.contexts.get(&state::current()).ok_or(INVALID_CONTEXT)?;
        device.set(here as i32)
    }

    fn cuCtxGetApiVersion(_context: Handle, version: Out<u32>) {
        version.set(3020)
    }

    fn cuCtxSynchronize() {
        let mut state = state()?;
        state.here()?;
        state.outside_capture()?;
        state.finish_all(true)
    }

    fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) {
        state()?.here()?;
        least.set_if(0);
        greatest.set_if(-5);
        Ok(())
    }

    fn cuCtxGetCacheConfig(config: Out<i32>) {
        state()?.here()?;
        config.set(0)
    }

    fn cuCtxSetCacheConfig(_config: i32) {
        state()?.here()?;
        Ok(())
    }

    fn cuCtxSetFlags(_flags: u32) {
        state()?.here()?;
        Ok(())
    }

    fn cuCtxGetLimit(value: Out<usize>, limit: i32) {
        state()?.here()?;
        match limit {
            0 => value.set(1024),
            1 => value.set(1 << 20),
            2 => value.set(8 << 20),
            _ => Err(UNSUPPORTED_LIMIT),
        }
    }

    fn cuCtxSetLimit(limit: i32, _value: usize) {
        state()?.here()?;
        if matches!(limit, 0..=2) { Ok(()) } else { Err(UNSUPPORTED_LIMIT) }
    }
}
