//! See `longmamba_benches::cases::matmul`.
#![allow(missing_docs, reason = "the macros of criterion make public functions")]

use criterion::{Criterion, criterion_group, criterion_main};
use longmamba_benches::{bench, cases};

fn matmul(c: &mut Criterion) {
    bench(c, cases::matmul());
}

criterion_group!(benches, matmul);
criterion_main!(benches);
