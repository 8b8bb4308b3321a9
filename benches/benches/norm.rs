//! See `longmamba_benches::cases::norm`.
#![allow(missing_docs, reason = "the macros of criterion make public functions")]

use criterion::{Criterion, criterion_group, criterion_main};
use longmamba_benches::{bench, cases};

fn norm(c: &mut Criterion) {
    bench(c, cases::norm());
}

criterion_group!(benches, norm);
criterion_main!(benches);
