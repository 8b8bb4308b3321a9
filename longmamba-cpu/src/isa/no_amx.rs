//! What stands in for AMX where there is none: nothing that could be made.

use super::Pair;

/// See `amx.rs`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Amx {}

impl Amx {
    /// `None`.
    pub(crate) fn new() -> Option<Self> {
        None
    }
    /// Never.
    ///
    /// # Safety
    /// Nobody can call it.
    pub(crate) unsafe fn tiles(self, _: [usize; 2]) -> Tiles {
        match self {}
    }
    /// Never.
    pub(crate) fn chains(self, _: usize) -> f64 {
        match self {}
    }
}

/// See `amx.rs`.
#[derive(Clone, Copy)]
pub(crate) struct SumsAt {
    pub(crate) data: *mut f32,
    pub(crate) stride: usize,
}

/// See `amx.rs`.
pub(crate) enum Tiles {}

impl Tiles {
    /// Never.
    pub(crate) fn reshape(&mut self, _: [usize; 2]) {
        match *self {}
    }

    /// Never.
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
        match *self {}
    }
}
