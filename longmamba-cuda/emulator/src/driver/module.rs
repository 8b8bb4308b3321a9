//! Modules and their functions.

use super::code::{self, *};
use super::entries;
use super::ffi::{Out, Text};
use super::state::{Function, Handle, LoadedModule, state};
use crate::device::{PTX_VERSION, SHARED_DEFAULT};
use crate::mutation::Mutation;
use std::sync::Arc;

fn load(module: &Out<Handle>, text: &str) -> Status {
    let mut state = state()?;
    let device = state.here()?;
    let emulator = state.emulator()?;
    let mutated = Mutation::from_env().and_then(|mutation| mutation.apply(text));
    let loaded =
        emulator.load(mutated.as_deref().unwrap_or(text)).map_err(|error| code::load(&error))?;
    let handle = state.handle();
    state.modules.insert(handle, LoadedModule { device, module: loaded });
    module.set(handle)
}

/// PTX only: the first bytes of what else the driver takes are known.
fn load_image(module: &Out<Handle>, image: &Text) -> Status {
    if image.starts(b"\x7fELF") || image.starts(&[0x50, 0xed, 0x55, 0xba]) {
        return Err(NO_BINARY_FOR_GPU);
    }
    load(module, image.get()?)
}

entries! {
    fn cuModuleLoadData(module: Out<Handle>, image: Text) {
        load_image(&module, &image)
    }

    fn cuModuleLoadDataEx(
        module: Out<Handle>,
        image: Text,
        _count: u32,
        _options: usize,
        _values: usize,
    ) {
        load_image(&module, &image)
    }

    fn cuModuleLoad(module: Out<Handle>, path: Text) {
        let text = std::fs::read_to_string(path.get()?).map_err(|_| FILE_NOT_FOUND)?;
        load(&module, &text)
    }

    fn cuModuleUnload(module: Handle) {
        let mut state = state()?;
        state.here()?;
        let unloaded = state.modules.remove(&module).ok_or(INVALID_HANDLE)?;
        state.functions.retain(|_, function| function.module != module);
        drop(state);
        drop(unloaded);
        Ok(())
    }

    fn cuModuleGetFunction(function: Out<Handle>, module: Handle, name: Text) {
        let mut state = state()?;
        state.here()?;
        let loaded = state.modules.get(&module).ok_or(INVALID_HANDLE)?;
        let kernel = loaded.module.kernel(name.get()?).ok_or(NOT_FOUND)?;
        let device = loaded.device;
        // Asking again for a function gives the same one, with its attributes.
        let same = |found: &Function| found.module == module && Arc::ptr_eq(&found.kernel, &kernel);
        if let Some((handle, _)) = state.functions.iter().find(|(_, found)| same(found)) {
            return function.set(*handle);
        }
        let handle = state.handle();
        let max_dynamic = SHARED_DEFAULT.saturating_sub(kernel.dynamic_shared);
        state.functions.insert(handle, Function { device, module, kernel, max_dynamic });
        function.set(handle)
    }

    fn cuModuleGetGlobal_v2(pointer: Out<u64>, size: Out<usize>, module: Handle, name: Text) {
        let state = state()?;
        state.here()?;
        let loaded = state.modules.get(&module).ok_or(INVALID_HANDLE)?;
        let (address, bytes) = loaded.module.variable(name.get()?).ok_or(NOT_FOUND)?;
        pointer.set_if(address);
        size.set_if(bytes as usize);
        Ok(())
    }

    fn cuFuncGetAttribute(value: Out<i32>, attribute: i32, function: Handle) {
        let state = state()?;
        state.here()?;
        let found = state.functions.get(&function).ok_or(INVALID_HANDLE)?;
        let kernel = &found.kernel;
        let capability = state.devices[found.device].emulator.config().capability;
        value.set(match attribute {
            0 => kernel.max_threads.unwrap_or(1024).min(1024) as i32,
            1 => kernel.shared as i32,
            2 => 0,
            3 => kernel.local as i32,
            // The emulator has virtual registers; a plausible number for what divides by it.
            4 => 32,
            5 => PTX_VERSION as i32,
            6 => capability as i32,
            7 => 0,
            8 => found.max_dynamic as i32,
            9 => -1,
            _ => return Err(INVALID_VALUE),
        })
    }

    fn cuFuncSetAttribute(function: Handle, attribute: i32, value: i32) {
        let mut state = state()?;
        let here = state.here()?;
        let most = state.devices[here].emulator.config().shared_limit();
        let found = state.functions.get_mut(&function).ok_or(INVALID_HANDLE)?;
        match attribute {
            8 => {
                let value = u32::try_from(value).map_err(|_| INVALID_VALUE)?;
                if value > most.saturating_sub(found.kernel.dynamic_shared) {
                    return Err(INVALID_VALUE);
                }
                found.max_dynamic = value;
                Ok(())
            }
            9 => if (-1..=100).contains(&value) { Ok(()) } else { Err(INVALID_VALUE) },
            _ => Err(INVALID_VALUE),
        }
    }

    fn cuFuncSetCacheConfig(function: Handle, _config: i32) {
        let state = state()?;
        state.here()?;
        if state.functions.contains_key(&function) { Ok(()) } else { Err(INVALID_HANDLE) }
    }
}
