//! The cases, by kernel. Shapes are those of mamba-130m (d_model 768, d_inner 1536, d_state 16,
//! dt_rank 48), mamba2-130m (24 heads of 64, d_state 128) and of models small enough to be built in
//! (d_model 96, d_inner 192), for a chunk of 512 tokens and for one.

mod conv1d;
mod exp;
mod matmul;
mod norm;
mod scan;
mod ssd;

pub use conv1d::conv1d;
pub use exp::exp;
pub use matmul::{matmul, matvec};
pub use norm::norm;
pub use scan::scan;
pub use ssd::ssd;

use crate::Case;

/// Tokens of a chunk.
const CHUNK: usize = 512;

/// Every case of every kernel.
pub fn all() -> Vec<Box<dyn Case>> {
    let mut cases = Vec::new();
    for part in [matmul, matvec, norm, conv1d, scan, ssd, exp] {
        cases.extend(part());
    }
    cases
}
