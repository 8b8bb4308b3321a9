//! See `longmamba_benches::cases::exp`.
#![allow(missing_docs, reason = "the macros of criterion make public functions")]

use criterion::{Criterion, criterion_group, criterion_main};
use longmamba_benches::{bench, cases};

fn exp(c: &mut Criterion) {
    bench(c, cases::exp());
}

criterion_group!(benches, exp);
criterion_main!(benches);
