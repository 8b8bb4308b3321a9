//! Every kernel against what this machine can do at most, measured in the same run.
//!
//! ```text
//! cargo bench -p longmamba-benches --bench limits [-- [--json] [--quick] [WORD...]]
//! ```
//!
//! With words, only the kernels whose names contain one of them. Without `cargo bench`, as in
//! `cargo test --benches`, everything runs once.

use longmamba_benches::limits::{Effort, Limits, Times, multiply_add_rate, time};
use longmamba_benches::{Case, cases, pool, thread_counts};
use longmamba_cpu::{Cpu, keep_awake};
use serde_json::{Value, json};
use std::time::Duration;

/// One line of the table.
struct Row {
    kernel: String,
    shape: String,
    threads: usize,
    times: Times,
    floor: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|a| a == flag);
    let words: Vec<&String> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    let effort = match (has("--bench"), has("--quick")) {
        (false, _) => Effort::SMOKE,
        (true, true) => Effort { time: Duration::from_millis(50), repeats: 5 },
        (true, false) => Effort::FULL,
    };
    let pools: Vec<_> = thread_counts().into_iter().map(pool).collect();
    let limits: Vec<Limits> =
        pools.iter().map(|pool| pool.install(|| Limits::measure(effort))).collect();
    let mut rows = Vec::new();
    for mut case in cases::all() {
        if words.is_empty() || words.iter().any(|word| case.kernel().contains(*word)) {
            case.check();
            for (pool, limits) in pools.iter().zip(&limits) {
                // As in a model: there no kernel waits for threads to wake up either.
                rows.push(pool.install(|| keep_awake(|| measure(&mut *case, limits, effort))));
            }
        }
    }
    if has("--json") {
        println!("{}", as_json(&limits, &rows, effort));
    } else {
        print_tables(&limits, &rows, effort);
    }
}

fn measure(case: &mut dyn Case, limits: &Limits, effort: Effort) -> Row {
    let times = time(effort, || case.run());
    let floor = limits.floor(case.work());
    Row { kernel: case.kernel(), shape: case.shape(), threads: limits.threads, times, floor }
}

/// The name of the processor, where the system tells.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.into(), |(_, name)| name.trim().into())
}

fn print_tables(limits: &[Limits], rows: &[Row], effort: Effort) {
    println!("{}, {}\n", processor(), Cpu::new().isa());
    println!("| limit | threads | |\n|---|--:|--:|");
    for limit in limits {
        let n = limit.threads;
        for &(bytes, rate) in &limit.read {
            println!("| read {:.0} KiB | {n} | {:.1} GB/s |", bytes / 1024.0, rate / 1e9);
        }
        println!("| copy | {n} | {:.1} GB/s |", limit.copy / 1e9);
        println!("| multiply-add, {} | {n} | {:.1} Gflop/s |", Cpu::new().isa(), limit.flops / 1e9);
        println!("| multiply-add in pairs of bf16 | {n} | {:.1} Gflop/s |", limit.pair_flops / 1e9);
        println!("| exp | {n} | {:.2} G/s |", limit.exps / 1e9);
    }
    for cpu in Cpu::available().filter(|cpu| cpu.isa() != Cpu::new().isa()) {
        let rate = multiply_add_rate(cpu, 1, effort) / 1e9;
        println!("| multiply-add, {} | 1 | {rate:.1} Gflop/s |", cpu.isa());
    }
    println!(
        "\nfloor = max(bytes / read bandwidth of a storage as large, operations / multiply-add peak, \
         exponentials / exp rate), counted as the cases say.\n"
    );
    println!("| kernel | shape | threads | median µs | best µs | floor µs | floor / median |");
    println!("|---|---|--:|--:|--:|--:|--:|");
    for Row { kernel, shape, threads, times, floor } in rows {
        let (median, best) = (times.median * 1e6, times.best * 1e6);
        let (floor, share) = (floor * 1e6, floor / times.median * 100.0);
        println!(
            "| {kernel} | {shape} | {threads} | {median:.1} | {best:.1} | {floor:.1} | {share:.0} % |"
        );
    }
}

fn as_json(limits: &[Limits], rows: &[Row], effort: Effort) -> Value {
    let peaks: Vec<Value> = Cpu::available()
        .map(|cpu| {
            let flops = multiply_add_rate(cpu, 1, effort);
            json!({ "isa": cpu.isa().to_string(), "flops_per_s": flops })
        })
        .collect();
    let limits: Vec<Value> = limits
        .iter()
        .map(|l| {
            let read: Vec<Value> = l
                .read
                .iter()
                .map(|(bytes, rate)| json!({ "bytes": bytes, "bytes_per_s": rate }))
                .collect();
            json!({
                "threads": l.threads, "read": read, "copy_bytes_per_s": l.copy,
                "flops_per_s": l.flops, "pair_flops_per_s": l.pair_flops, "exps_per_s": l.exps,
            })
        })
        .collect();
    let rows: Vec<Value> = rows
        .iter()
        .map(|r| {
            json!({
                "kernel": r.kernel, "shape": r.shape, "threads": r.threads,
                "median_s": r.times.median, "best_s": r.times.best, "floor_s": r.floor,
            })
        })
        .collect();
    json!({
        "processor": processor(), "isa": Cpu::new().isa().to_string(),
        "multiply_add_one_thread": peaks, "limits": limits, "kernels": rows,
    })
}
