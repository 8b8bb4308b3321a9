//! Which driver tests use.

use crate::device::lock;
use crate::preload::{PreloadError, preload};
use std::sync::Mutex;

/// What the tests of a program run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestDriver {
    /// The machine's own driver, and so a real device.
    Real,
    /// This crate.
    Emulator,
}

impl std::fmt::Display for TestDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TestDriver::Real => "on a GPU",
            TestDriver::Emulator => "on the emulator",
        })
    }
}

/// The machine's driver, the same at every call; where there is none, or the variable `LONGMAMBA_CUDA` is `emulator`, the
/// emulated one is [preloaded](preload()).
///
/// # Errors
/// As [`preload()`].
pub fn driver_for_tests() -> Result<TestDriver, PreloadError> {
    // Once the emulated one is loaded, it is what would be found.
    static CHOSEN: Mutex<Option<TestDriver>> = Mutex::new(None);
    let mut chosen = lock(&CHOSEN);
    let driver = match *chosen {
        Some(driver) => driver,
        None => choose()?,
    };
    *chosen = Some(driver);
    Ok(driver)
}

fn choose() -> Result<TestDriver, PreloadError> {
    let insists = std::env::var_os("LONGMAMBA_CUDA").is_some_and(|name| name == "emulator");
    // SAFETY: the driver's library has initialisers that are sound to run, as every user of it does.
    if !insists && unsafe { libloading::Library::new("libcuda.so.1") }.is_ok() {
        return Ok(TestDriver::Real);
    }
    preload()?;
    Ok(TestDriver::Emulator)
}
