//! The cases, by kernel. Each file has the shapes, the inputs, how the answer is checked and what the
//! kernel has to move and to compute.

mod argmax;
mod attention;
mod conv1d;
mod copy;
mod filter;
mod product;
mod rows;
mod scan;
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
    ];
    parts.into_iter().flat_map(|part| part(options)).collect()
}
