//! The interface of the CUDA driver, as far as the crate `cudarc` and programs like it call it.
//!
//! Nearly everything happens at once: a launch or a copy has ended when its call returns. Only copies
//! from and to page-locked memory are put off until the program waits for them. Handles are numbers that are looked up, never pointers that are
//! followed. What the caller's pointers point at is touched only in `ffi`.

mod blas;
mod code;
mod context;
mod device;
mod ffi;
mod graph;
mod launch;
mod memory;
mod module;
mod operation;
mod pending;
mod state;
mod stream;
mod stubs;

/// Functions that C calls: they return a status, and a panic is one too.
macro_rules! entries {
    ($($(#[$meta:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block)*) => {
        $(
            $(#[$meta])*
            // SAFETY: the names are those of the driver, which no other library in the process has.
            #[unsafe(no_mangle)]
            #[allow(non_snake_case)]
            pub(crate) extern "C" fn $name($($arg: $type),*) -> i32 {
                $crate::driver::enter(stringify!($name), move || $body)
            }
        )*
    };
}
pub(crate) use entries;

use code::{SUCCESS, Status, UNKNOWN};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs an entry point; says on stderr what failed where the environment asks for it.
fn enter(name: &str, body: impl FnOnce() -> Status) -> i32 {
    let code = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => SUCCESS,
        Ok(Err(code)) => code,
        Err(_) => UNKNOWN,
    };
    if code != SUCCESS && code != code::NOT_READY && state::trace() {
        eprintln!("emulator: {name} returns {code} ({})", code::describe(code).0.to_string_lossy());
    }
    code
}
