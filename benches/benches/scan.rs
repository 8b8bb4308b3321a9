//! See `longmamba_benches::cases::scan`.
#![allow(missing_docs, reason = "the macros of criterion make public functions")]

use criterion::{Criterion, criterion_group, criterion_main};
use longmamba_benches::{bench, cases};

fn scan(c: &mut Criterion) {
    bench(c, cases::scan());
}

criterion_group!(benches, scan);
criterion_main!(benches);
