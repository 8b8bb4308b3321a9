//! SIMD kernels for Mamba on the CPU.
//!
//! All kernels are methods of [`Cpu`], the processor's verified instruction set; the functions of the
//! scans and the convolution at the root use the best one. They take the checked arguments of
//! `longmamba-core`, run on the current rayon pool, and allocate nothing beyond the [`Scratch`] that
//! the caller keeps. Who calls one after the other keeps the pool's threads from falling asleep in between with
//! [`keep_awake`].
//!
//! Results do not depend on the number of threads. They do depend, within rounding, on the
//! instruction set.
#![deny(unsafe_code)]
#![warn(unreachable_pub)]

#[allow(unsafe_code, reason = "the disjoint blocks of split.rs")]
mod dispatch;
#[allow(unsafe_code, reason = "the intrinsics, behind tokens that prove them available")]
mod isa;

pub mod limits;

mod attention;
mod check;
mod conv1d;
mod elementwise;
mod lanes;
mod math;
mod matmul;
mod norm;
mod quantized;
mod rope;
mod rows;
mod scan;
mod select;
mod ssd;
mod widen;

pub use attention::{AttentionArgs, KV_PAGE, KvPage};
pub use conv1d::causal_conv1d;
pub use dispatch::{Cpu, Scratch, keep_awake};
pub use elementwise::Activation;
pub use isa::IsaKind;
pub use matmul::{Accumulate, Packed};
pub use norm::Normed;
pub use quantized::{Quantization, Quantized};
pub use rope::Rotation;
pub use scan::selective_scan;
pub use ssd::{SSD_BF16_CHUNK, SSD_CHUNKED_FROM, ssd};
