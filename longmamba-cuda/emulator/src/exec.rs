//! Running code.

pub(crate) mod block;
pub(crate) mod code;
pub(crate) mod launch;
pub(crate) mod regs;
pub(crate) mod warp;
