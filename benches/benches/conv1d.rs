//! See `longmamba_benches::cases::conv1d`.
#![allow(missing_docs, reason = "the macros of criterion make public functions")]

use criterion::{Criterion, criterion_group, criterion_main};
use longmamba_benches::{bench, cases};

fn conv1d(c: &mut Criterion) {
    bench(c, cases::conv1d());
}

criterion_group!(benches, conv1d);
criterion_main!(benches);
