//! The cases that the benches share: every kernel on the shapes of real models, each able to check its
//! own answer and to say how much work it does.
//!
//! A case is checked against the oracle before it is timed; a fast wrong answer is no measurement.
//! The benches assert nothing about speed.

pub mod cases;
mod data;
#[cfg(feature = "cuda")]
pub mod gpu;
mod rival;

use criterion::{Criterion, Throughput};
pub use longmamba_cpu::limits::{self, Work};
use std::time::Duration;

/// What criterion prints beside the time.
#[derive(Clone, Copy, Debug)]
pub enum Rate {
    /// Floating-point operations a second.
    Flops,
    /// Bytes a second.
    Bytes,
    /// Exponentials a second.
    Exps,
}

/// A kernel with its inputs and outputs.
pub trait Case: Send {
    /// Which kernel, and on which elements: "matmul bf16".
    fn kernel(&self) -> String;
    /// The sizes: "256 × 768 → 3072".
    fn shape(&self) -> String;
    /// What one run does.
    fn work(&self) -> Work;
    /// The rate to print.
    fn rate(&self) -> Rate;
    /// Compares a part of the answer with the oracle.
    ///
    /// # Panics
    /// Where it is wrong.
    fn check(&mut self);
    /// Runs the kernel once, on the current rayon pool.
    fn run(&mut self);
}

/// The numbers of threads to measure with: 1, and all that there are.
pub fn thread_counts() -> Vec<usize> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    if all == 1 { vec![1] } else { vec![1, all] }
}

/// A pool of its own.
pub fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started")
}

/// Checks and times all `cases`, with one thread and with all.
pub fn bench(c: &mut Criterion, cases: Vec<Box<dyn Case>>) {
    let pools = thread_counts().into_iter().map(|n| (n, pool(n))).collect::<Vec<_>>();
    for mut case in cases {
        case.check();
        let mut group = c.benchmark_group(format!("{} {}", case.kernel(), case.shape()));
        let work = case.work();
        group.throughput(match case.rate() {
            Rate::Flops => Throughput::Elements((work.flops + work.pair_flops) as u64),
            Rate::Bytes => Throughput::BytesDecimal(work.bytes as u64),
            Rate::Exps => Throughput::Elements(work.exps as u64),
        });
        group.sample_size(20);
        group.warm_up_time(Duration::from_millis(300));
        group.measurement_time(Duration::from_secs(1));
        for (threads, pool) in &pools {
            group.bench_function(format!("{threads} threads"), |b| {
                pool.install(|| b.iter(|| case.run()));
            });
        }
        group.finish();
    }
}
