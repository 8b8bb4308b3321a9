//! What stands in for AMX where there is none: [`Amx`] is never made, so nothing of this is ever called.
#![allow(dead_code, reason = "what is never made is never read")]

use super::Pair;

const NEVER: &str = "nobody has made an `Amx`";

/// See `amx.rs`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amx(());

impl Amx {
    /// `None`.
    pub(crate) fn new() -> Option<Self> {
        None
    }

    /// See `amx.rs`.
    ///
    /// # Safety
    /// Nobody can call it.
    pub(crate) unsafe fn tiles(self, _: [usize; 2]) -> Tiles {
        unreachable!("{NEVER}")
    }

    /// See `amx.rs`.
    pub(crate) fn chains(self, _: usize) -> f64 {
        unreachable!("{NEVER}")
    }
}

/// See `amx.rs`.
#[derive(Clone, Copy)]
pub(crate) struct SumsAt {
    pub(crate) data: *mut f32,
    pub(crate) stride: usize,
}

/// See `amx.rs`.
pub(crate) struct Tiles(());

impl Tiles {
    /// See `amx.rs`.
    pub(crate) fn shape(&self) -> [usize; 2] {
        unreachable!("{NEVER}")
    }

    /// See `amx.rs`.
    pub(crate) fn reshape(&mut self, _: [usize; 2]) {
        unreachable!("{NEVER}")
    }

    /// See `amx.rs`.
    ///
    /// # Safety
    /// Nobody can call it.
    #[allow(clippy::too_many_arguments, reason = "those of `amx.rs`")]
    pub(crate) unsafe fn multiply(
        &self,
        _: *const Pair,
        _: usize,
        _: *const Pair,
        _: usize,
        _: usize,
        _: bool,
        _: SumsAt,
    ) {
        unreachable!("{NEVER}")
    }
}
