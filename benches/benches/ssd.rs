//! See `longmamba_benches::cases::ssd`.
#![allow(missing_docs, reason = "the macros of criterion make public functions")]

use criterion::{Criterion, criterion_group, criterion_main};
use longmamba_benches::{bench, cases};

fn ssd(c: &mut Criterion) {
    bench(c, cases::ssd());
}

criterion_group!(benches, ssd);
criterion_main!(benches);
