//! What the fuzz targets share; each target is a few lines around one of these.

mod checkpoint;
mod layout;
mod scan;

/// The kernels' own comparison with the oracle.
#[path = "../../longmamba-cpu/tests/common/mod.rs"]
mod common;

pub use checkpoint::take_all;
pub use layout::{Steps, against_index_arithmetic};
pub use scan::{Scan, against_oracle};
