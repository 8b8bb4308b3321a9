//! Initialisation, errors and devices.

use super::code::{self, *};
use super::entries;
use super::ffi::Out;
use super::state::{init, state};
use crate::device::{Config, PROCESSORS, SHARED_DEFAULT};
use std::ffi::c_char;

/// What the device calls itself.
const NAME: &str = "longmamba PTX emulator";

entries! {
    fn cuInit(flags: u32) {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        init()
    }

    fn cuDriverGetVersion(version: Out<i32>) {
        version.set(Config::from_env().driver)
    }

    fn cuGetErrorName(error: i32, text: Out<*const c_char>) {
        let (name, _) = code::describe(error);
        if name.is_empty() {
            text.set_if(std::ptr::null());
            return Err(INVALID_VALUE);
        }
        text.set(name.as_ptr())
    }

    fn cuGetErrorString(error: i32, text: Out<*const c_char>) {
        let (name, what) = code::describe(error);
        if name.is_empty() {
            text.set_if(std::ptr::null());
            return Err(INVALID_VALUE);
        }
        text.set(what.as_ptr())
    }

    fn cuDeviceGetCount(count: Out<i32>) {
        count.set(state()?.devices.len() as i32)
    }

    fn cuDeviceGet(device: Out<i32>, ordinal: i32) {
        state()?.device(ordinal)?;
        device.set(ordinal)
    }

    fn cuDeviceGetName(name: Out<c_char>, len: i32, device: i32) {
        state()?.device(device)?;
        name.text(NAME, len)
    }

    fn cuDeviceGetUuid(uuid: Out<[u8; 16]>, device: i32) {
        state()?.device(device)?;
        let mut bytes = *b"longmamba emula\0";
        bytes[15] = device as u8;
        uuid.set(bytes)
    }

    fn cuDeviceGetUuid_v2(uuid: Out<[u8; 16]>, device: i32) {
        match cuDeviceGetUuid(uuid, device) {
            SUCCESS => Ok(()),
            code => Err(code),
        }
    }

    fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: i32) {
        let total = state()?.device(device)?.emulator.config().memory;
        bytes.set(total as usize)
    }

    fn cuDeviceComputeCapability(major: Out<i32>, minor: Out<i32>, device: i32) {
        let capability = state()?.device(device)?.emulator.config().capability as i32;
        major.set(capability / 10)?;
        minor.set(capability % 10)
    }

    fn cuDeviceGetAttribute(value: Out<i32>, attribute: i32, device: i32) {
        let mut state = state()?;
        let config = state.device(device)?.emulator.config();
        value.set(self::attribute(config, attribute).ok_or(INVALID_VALUE)?)
    }
}

/// Attributes by number; those that say nothing here are zero.
fn attribute(config: &Config, attribute: i32) -> Option<i32> {
    let shared = config.shared_limit() as i32;
    Some(match attribute {
        1..=3 => 1024,
        4 => 64,
        5 => i32::MAX,
        6 | 7 => 65535,
        8 => SHARED_DEFAULT as i32,
        9 => 65536,
        10 => 32,
        11 => i32::MAX,
        12 | 82 => 65536,
        13 | 36 => 1_000_000,
        14 | 30 => 512,
        15 | 19 | 31 | 41 | 78 | 79 | 80 | 95 | 115 => 1,
        16 => PROCESSORS as i32,
        37 => 256,
        38 => 4 << 20,
        39 => {
            if config.capability == 80 || config.capability >= 90 {
                2048
            } else {
                1536
            }
        }
        40 => 1,
        75 => (config.capability / 10) as i32,
        76 => (config.capability % 10) as i32,
        81 => shared + 1024,
        97 => shared,
        106 => 32,
        111 => 1024,
        17..=119 => 0,
        _ => return None,
    })
}
