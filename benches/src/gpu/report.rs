//! The table and the lines of JSON, both written row by row: what was measured before a device fails is
//! kept.

use super::ceilings::Ceilings;
use super::timing::Times;
use super::{Entry, Options, Result};
use crate::Work;
use longmamba_cuda::Device;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;

/// A line of the table.
pub(super) struct Row {
    pub(super) variant: &'static str,
    pub(super) launched: Times,
    pub(super) replayed: Option<Times>,
    /// Seconds.
    pub(super) floor: f64,
    pub(super) work: Work,
    /// How much longer than the entry's first case.
    pub(super) overhead: Option<f64>,
    /// The largest difference from the CPU, relative to the largest value.
    pub(super) error: f64,
}

impl Row {
    /// Without the host's part where that was measured.
    fn seconds(&self) -> f64 {
        self.replayed.as_ref().unwrap_or(&self.launched).median()
    }
}

/// Where results go.
pub(super) struct Report {
    json: Option<File>,
    quick: bool,
}

impl Report {
    pub(super) fn new(options: &Options) -> Result<Self> {
        let create = |path| File::create(path).map_err(|error| format!("{path:?}: {error}"));
        let json = options.json.as_ref().map(create).transpose()?;
        Ok(Report { json, quick: options.quick })
    }

    fn line(&mut self, value: Value) -> Result<()> {
        if let Some(file) = &mut self.json {
            writeln!(file, "{value}")?;
        }
        Ok(())
    }

    pub(super) fn device(&mut self, device: &Device) -> Result<()> {
        let (name, (major, minor)) = (device.name(), device.capability());
        let multiprocessors = device.multiprocessors();
        let memory = device.memory()?.1;
        println!(
            "{name}, compute capability {major}.{minor}, {multiprocessors} multiprocessors, {:.1} GB\n",
            memory as f64 / 1e9
        );
        if self.quick {
            println!("**Tiny sizes, one launch each: these are no measurements.**\n");
        }
        self.line(json!({
            "suite": "longmamba-cuda", "device": name, "capability": format!("{major}.{minor}"),
            "multiprocessors": multiprocessors, "memory_bytes": memory, "quick": self.quick,
        }))
    }

    pub(super) fn ceilings(&mut self, ceilings: &Ceilings) -> Result<()> {
        println!("| ceiling | a second | from |\n|---|--:|---|");
        for ceiling in [&ceilings.copy, &ceilings.single, &ceilings.tensor] {
            let (name, rate, from) = (ceiling.name, ceiling.rate, &ceiling.from);
            println!("| {name} | {:.3} T | {from} |", rate / 1e12);
            self.line(json!({
                "suite": "longmamba-cuda", "ceiling": name, "rate": rate, "from": from,
            }))?;
        }
        println!(
            "\n| kernel | dtype | shape | µs | spread | replayed µs | floor µs | floor / time | over the \
             plain kernel | difference from the CPU |"
        );
        println!("|---|---|---|--:|--:|--:|--:|--:|--:|--:|");
        Ok(())
    }

    pub(super) fn row(&mut self, entry: &Entry, row: &Row) -> Result<()> {
        let Entry { kernel, dtype, shape, .. } = entry;
        let kernel = format!("{kernel}{}", row.variant);
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let micros = |times: &Times| format!("{:.2}", 1e6 * times.median());
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".into());
        println!(
            "| {kernel} | {dtype} | {shape} | {} | {} | {} | {:.2} | {} | {} | {:.1e} |",
            micros(&row.launched),
            percent(row.launched.spread()),
            or_dash(row.replayed.as_ref().map(micros)),
            1e6 * row.floor,
            percent(row.floor / row.seconds()),
            or_dash(row.overhead.map(percent)),
            row.error,
        );
        self.line(json!({
            "suite": "longmamba-cuda", "kernel": kernel, "dtype": dtype, "shape": shape,
            "median_us": 1e6 * row.launched.median(), "spread": row.launched.spread(),
            "replayed_us": row.replayed.as_ref().map(|times| 1e6 * times.median()),
            "floor_us": 1e6 * row.floor, "floor_share": row.floor / row.seconds(),
            "overhead": row.overhead, "error": row.error,
            "bytes": row.work.bytes, "flops": row.work.flops, "exps": row.work.exps,
        }))
    }

    /// A row without times.
    pub(super) fn failure(&mut self, entry: &Entry, why: &str) -> Result<()> {
        let Entry { kernel, dtype, shape, .. } = entry;
        println!("| {kernel} | {dtype} | {shape} | not timed: {why} | | | | | | |");
        self.line(json!({
            "suite": "longmamba-cuda", "kernel": kernel, "dtype": dtype, "shape": shape,
            "failed": why,
        }))
    }

    pub(super) fn end(&mut self, measured: usize, failed: usize) -> Result<()> {
        println!("\n{measured} rows measured, {failed} entries not.");
        self.line(json!({
            "suite": "longmamba-cuda", "measured": measured, "failed": failed,
        }))
    }
}
