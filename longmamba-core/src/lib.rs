//! The ground that the LongMamba crates stand on: a tiny strided tensor, the checked arguments of the
//! two scans, an `f64` oracle that is slow and obvious, and the LongMamba policy.
//!
//! * [`View`], [`ViewMut`] and [`Tensor`] — elements in `f32`, `f16` or `bf16`, up to four dimensions,
//!   strides counted in elements. A [`Tensor`] can lie in a memory map without being copied.
//! * [`SelectiveScan`] (Mamba-1) and [`Ssd`] (Mamba-2) — the contract between models and kernels.
//!   They can only be built through constructors that check every shape, so a kernel that takes one
//!   needs no checks of its own.
//! * [`oracle`] — what every kernel is tested against.
//! * [`policy`] — LongMamba (ICLR 2025, arXiv 2504.16053): which channels are global, and which
//!   tokens they may forget.
//!
//! Symbols follow the papers: `delta` is Δ after softplus, `dt_raw` before it; a *channel* is one of
//! `d_inner` in Mamba-1 and a head in Mamba-2.
#![forbid(unsafe_code)]

mod aligned;
mod dtype;
mod error;
mod layout;
pub mod oracle;
pub mod policy;
mod scan;
mod tensor;
mod view;

pub use aligned::AlignedVec;
pub use dtype::{DType, Element};
pub use error::{Error, PlanError, Shape};
pub use layout::Layout;
pub use scan::{
    ChannelStats, DtLimits, SelectiveScan, SelectiveScanInputs, SelectiveScanOut, Ssd, SsdInputs,
    SsdOut,
};
pub use tensor::{SharedBytes, Tensor};
pub use view::{AnyView, View, ViewMut};

/// The result of every fallible function in this crate.
pub type Result<T> = std::result::Result<T, Error>;
