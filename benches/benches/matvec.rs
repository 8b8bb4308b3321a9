//! See `longmamba_benches::cases::matvec`.
#![allow(missing_docs, reason = "the macros of criterion make public functions")]

use criterion::{Criterion, criterion_group, criterion_main};
use longmamba_benches::{bench, cases};

fn matvec(c: &mut Criterion) {
    bench(c, cases::matvec());
}

criterion_group!(benches, matvec);
criterion_main!(benches);
