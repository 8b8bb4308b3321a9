//! CUDA kernels for Mamba, which need NVIDIA's driver and nothing else: no toolkit, no compiler.
//!
//! All kernels are methods of [`Device`]: the [selective scan](Device::selective_scan) of Mamba-1 and
//! [SSD](Device::ssd) of Mamba-2, both with LongMamba's mask and its sums of Δ in the same pass; the [causal
//! convolution](Device::causal_conv1d); [matrix products](Device::matmul) with weights of 32 or 16 bits;
//! norms, gates, rotary embedding, [attention](Device::attention) over pages, and
//! [sampling](Device::sample). For single tokens, when a launch takes longer than its work, some do several
//! stages: a norm, a product and the convolution [in one](Device::normed_matmul_conv1d), a
//! [scan](Device::selective_step) with the projection in front of it, or [with its gate](Device::ssd_step). They
//! take [`Rows`] of a [`Buffer`] in row-major order, strides in elements,
//! and check every range before they launch. The equations are those of `longmamba-core`, whose oracle they
//! are tested against.
//!
//! The crate carries the kernels as PTX, for compute capability 7.5 and for 8.0 and later; the driver
//! compiles it when a kernel is first used. [`CublasLt`] takes products in place of our own kernels where
//! NVIDIA's library is installed and asked for. Any driver from CUDA 12.0 (R525) on will do. Without a driver,
//! [`Device::new`] returns [`Error::NoDriver`].
//!
//! A device does all work in one stream, in order: a call returns when the work is handed over, and
//! [`Buffer::read`] waits for it. [`Device::capture`] records work as a [`Graph`], to be done again in one
//! launch.
//!
//! ```no_run
//! use longmamba_cuda::{Device, Rows, RowsMut};
//! let device = Device::new(0)?;
//! let (x, weight) = (device.upload(&[3.0, 4.0])?, device.upload(&[1.0, 1.0])?);
//! let mut out = device.zeros(2)?;
//! device.rms_norm(1, Rows::all(&x, 2), &weight, 1e-5, RowsMut::all(&mut out, 2))?;
//! println!("{:?}", out.to_vec()?);
//! # Ok::<(), longmamba_cuda::Error>(())
//! ```
#![deny(unsafe_code)]
#![warn(unreachable_pub)]

mod arguments;
mod buffer;
mod device;
mod error;
mod graph;
#[allow(unsafe_code, reason = "addresses, copies and launches")]
mod launch;
mod plane;
mod position;
mod precision;
mod ptx;

mod attention;
mod conv1d;
mod elementwise;
mod matmul;
mod norm;
mod rope;
mod sample;
mod scan;
mod ssd;
mod step;
mod sums;

pub use attention::{AttentionArgs, AttentionScratch, KV_PAGE, KvPages};
pub use buffer::{Buffer, DeviceElement, Rows, RowsMut};
pub use conv1d::CausalConv1dInputs;
pub use device::Device;
pub use elementwise::{Activation, TableElement};
pub use error::Error;
pub use graph::{Graph, GraphCounts};
pub use matmul::{CublasLt, InputNorm, Matrix, NewInputs};
pub use position::{Position, Positions};
pub use precision::Precision;
pub use rope::Rotation;
pub use sample::{NO_TOKEN, NOT_A_NUMBER, Sampling};
pub use scan::{ScanElement, SelectNorms, SelectiveScanInputs, SelectiveStepInputs};
pub use ssd::{SsdElement, SsdInputs, SsdScratch};
pub use step::{STEP_SEQUENCES, StepSequence};
pub use sums::ChannelSums;

/// The result of every fallible function in this crate.
pub type Result<T> = std::result::Result<T, Error>;
