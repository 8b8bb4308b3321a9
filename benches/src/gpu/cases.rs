//! The cases, by kernel. Each file has the shapes, the inputs, how the answer is checked and what the
//! kernel has to move and to compute.

mod argmax;
mod attention;
mod conv1d;
mod copy;
mod filter;
mod gated_step;
mod normed;
mod product;
mod rows;
mod scan;
mod selective_step;
mod ssd;

pub(super) use copy::Copy;
pub(super) use product::Product;

use super::{Entry, Options};

/// Every entry.
pub(super) fn all(options: &Options) -> Vec<Entry> {
    let parts = [
        scan::entries,
        ssd::entries,
        conv1d::entries,
        product::entries,
        rows::entries,
        attention::entries,
        argmax::entries,
        normed::entries,
        selective_step::entries,
        gated_step::entries,
    ];
    parts.into_iter().flat_map(|part| part(options)).collect()
}
