//! The types that the SSD kernels read and write.

use crate::buffer::DeviceElement;
use half::{bf16, f16};

/// An element of x, dt_raw, B, C and y: `f32`, [`half::f16`] or [`half::bf16`].
pub trait SsdElement: DeviceElement + Kernels {}

impl<T: DeviceElement + Kernels> SsdElement for T {}

/// The kernels for such elements. Sealed: they are in the crate's PTX.
pub trait Kernels {
    /// Token by token: for up to 128 and up to 256 states.
    const RECURRENT: [&'static str; 2];
    /// A segment in chunks: for up to 64 and up to 128 states.
    const SCAN: [&'static str; 2];
    /// What a segment leaves of a state of zero: for up to 64 and up to 128 states.
    const SEGMENT: [&'static str; 2];
}

macro_rules! kernels {
    ($type:ty, $name:literal) => {
        impl Kernels for $type {
            const RECURRENT: [&'static str; 2] =
                [concat!("ssd_recurrent_n128_", $name), concat!("ssd_recurrent_n256_", $name)];
            const SCAN: [&'static str; 2] =
                [concat!("ssd_scan_n64_", $name), concat!("ssd_scan_n128_", $name)];
            const SEGMENT: [&'static str; 2] =
                [concat!("ssd_segment_n64_", $name), concat!("ssd_segment_n128_", $name)];
        }
    };
}

kernels!(f32, "f32");
kernels!(f16, "f16");
kernels!(bf16, "bf16");
