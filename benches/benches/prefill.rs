//! Prefill of the built-in models: what the filter costs, and that tokens a second do not fall with the
//! length. `cargo bench -p longmamba-benches --bench prefill`; `-- filter` for the first alone.
//!
//! Arms alternate, so that a machine whose speed drifts slows all of them alike; the figures are
//! medians, and medians of the ratios of neighbouring runs.

use longmamba_model::builtin;
use longmamba_model::{CpuBackend, SessionOptions};
use std::sync::Arc;
use std::time::Instant;

const PAIRS: usize = 41;
const FILTER_LEN: usize = 16_000;
const SHORT: usize = 10_000;
const LONG: usize = 1_000_000;
const LONG_REPEATS: usize = 3;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    // `cargo test --benches` runs this too, and has no use for timings.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let threads = rayon::current_num_threads();
    println!(
        "| model | threads | filter on / off | 10,000: tokens/s | 1,000,000: tokens/s | ratio |"
    );
    println!("|---|---|---|---|---|---|");
    for builtin in builtin::all() {
        let model = builtin.model(CpuBackend::new(Some(threads)).unwrap()).unwrap();
        let plan = Some(Arc::new(builtin.plan().unwrap()));
        let mut random = fastrand::Rng::with_seed(1);
        let tokens: Vec<u32> = (0..4096).map(|_| u32::from(random.u8(b' '..=b'z'))).collect();
        let run = |len: usize, filtered: bool| {
            let plan = plan.clone().filter(|_| filtered);
            let mut session = model.session(SessionOptions { plan, ..Default::default() }).unwrap();
            session.prefill_of(len).unwrap();
            let start = Instant::now();
            let mut left = len;
            while left > 0 {
                let part = left.min(tokens.len());
                session.prefill(&tokens[..part]).unwrap();
                left -= part;
            }
            let seconds = start.elapsed().as_secs_f64();
            let dropped: u64 = (0..model.config().recurrent_layers())
                .flat_map(|l| session.delta_sums(l).unwrap().kept.clone())
                .map(|kept| len as u64 - kept)
                .sum();
            assert_eq!(filtered, dropped > 0, "the filter must be on where it is timed");
            seconds
        };
        run(SHORT, true);
        // Each arm goes first in every other pair.
        let pair = |index: usize| {
            let first = run(FILTER_LEN, index.is_multiple_of(2));
            let second = run(FILTER_LEN, index % 2 == 1);
            if index.is_multiple_of(2) { first / second } else { second / first }
        };
        let filter = median((0..PAIRS).map(pair).collect());
        if std::env::args().any(|a| a == "filter") {
            println!("| {} | {threads} | {filter:.4} | | | |", builtin.name);
            continue;
        }
        let (mut short, mut long) = (Vec::new(), Vec::new());
        for _ in 0..LONG_REPEATS {
            short.extend((0..3).map(|_| SHORT as f64 / run(SHORT, true)));
            long.push(LONG as f64 / run(LONG, true));
            short.extend((0..3).map(|_| SHORT as f64 / run(SHORT, true)));
        }
        let (short, long) = (median(short), median(long));
        let name = builtin.name;
        println!(
            "| {name} | {threads} | {filter:.4} | {short:.0} | {long:.0} | {:.3} |",
            long / short
        );
    }
}
