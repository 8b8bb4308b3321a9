//! Scores of predictions that lie in files: of runs here, or of anybody's.
//!
//! [`Predictions::read`] takes the files, [`Predictions::score`] gives the tables; [`golden`] checks the
//! metrics themselves.

pub mod golden;
mod merge;
mod predictions;
mod tables;

pub use merge::{Missing, Order};
pub use predictions::{Benchmark, Group, Predictions};
pub use tables::{LongBenchScore, RulerScore, Scores};
