//! Where the time goes: what each stage took, and the work that it did.

use crate::backend::cpu::{CpuBackend, CpuBuffer};
use crate::backend::{Linear, SsdStageInputs};
use longmamba_cpu::limits::{Limits, Work};
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What the stages of a [`CpuBackend`] have taken since it was made.
#[derive(Debug, Default)]
pub struct Profile(Mutex<BTreeMap<Stage, Spent>>);

/// A kind of stage and its sizes; many layers have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stage {
    /// One row at a time, as in decoding.
    pub step: bool,
    /// Which stage.
    pub name: &'static str,
    /// Its sizes in columns; 0 where it has fewer.
    pub sizes: [usize; 3],
}

/// What a stage has taken, all calls together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// How often it was done.
    pub calls: u64,
    /// How long that took.
    pub time: Duration,
    /// What it did.
    pub work: Work,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        let sizes = self.sizes.iter().take_while(|&&size| size > 0);
        sizes
            .enumerate()
            .try_for_each(|(i, size)| write!(f, "{}{size}", if i == 0 { " " } else { " × " }))
    }
}

impl Profile {
    /// All stages, in the order of their names.
    pub fn stages(&self) -> Vec<(Stage, Spent)> {
        let stages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stages.iter().map(|(stage, spent)| (*stage, *spent)).collect()
    }

    /// The same as a table, steps apart from chunks, what took longest first in each; `limits` are those of
    /// the machine with as many threads.
    pub fn table(&self, limits: &Limits) -> String {
        let mut stages = self.stages();
        stages.sort_by_key(|(stage, spent)| (stage.step, std::cmp::Reverse(spent.time)));
        let mut text = String::from(
            "| stage | calls | ms | share | floor ms | floor / time |\n|---|--:|--:|--:|--:|--:|\n",
        );
        for step in [false, true] {
            let of_kind = stages.iter().filter(|(stage, _)| stage.step == step);
            let total: f64 = of_kind.clone().map(|(_, spent)| spent.time.as_secs_f64()).sum();
            for (stage, spent) in of_kind {
                let (time, floor) = (spent.time.as_secs_f64(), limits.floor(spent.work));
                let kind = if step { " (step)" } else { "" };
                let _ = writeln!(
                    text,
                    "| {stage}{kind} | {} | {:.2} | {:.1} % | {:.2} | {:.0} % |",
                    spent.calls,
                    1e3 * time,
                    100.0 * time / total,
                    1e3 * floor,
                    100.0 * floor / time,
                );
            }
        }
        text
    }

    pub(super) fn add(&self, stage: Stage, work: Work, time: Duration) {
        let mut stages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = stages.entry(stage).or_default();
        spent.calls += 1;
        spent.time += time;
        spent.work = spent.work + work;
    }
}

/// The work of `rows` rows, each of so many operations, exponentials and floats read or written.
pub(super) fn rows(rows: usize, flops: usize, exps: usize, floats: usize) -> Work {
    let count = |each: usize| (rows * each) as f64;
    let bytes = 4.0 * count(floats);
    Work { flops: count(flops), exps: count(exps), bytes, resident: bytes, ..Work::default() }
}

/// A norm of rows of so many columns.
pub(super) fn norm(count: usize, width: usize) -> Work {
    rows(count, 4 * width, 0, 2 * width)
}

/// The same of gated values.
pub(super) fn gated_norm(count: usize, width: usize) -> Work {
    rows(count, 5 * width, width, 3 * width)
}

/// The same as [`rows`], and a state of so many floats that is read and written. From layer to layer it is another, so that
/// it comes from memory in a step.
pub(super) fn with_state(work: Work, floats: usize) -> Work {
    Work { streamed: 8.0 * floats as f64, ..work }
}

/// A linear map: its weights come from memory, as those of a model do that is larger than the caches.
pub(super) fn linear(count: usize, linear: &Linear<CpuBackend>, rounds: bool) -> Work {
    let Linear { inputs, outputs, .. } = *linear;
    let flops = (2 * count * inputs * outputs) as f64;
    let pairs = rounds && linear.weight.is_rounded();
    Work {
        flops: if pairs { 0.0 } else { flops },
        pair_flops: if pairs { flops } else { 0.0 },
        streamed: linear.weight.bytes() as f64,
        ..rows(count, 0, 0, inputs + outputs)
    }
}

/// Mamba-2's scan of so many tokens; see [`Work::ssd`].
pub(super) fn ssd(count: usize, inputs: &SsdStageInputs<'_, CpuBuffer>, rounds: bool) -> Work {
    let SsdStageInputs { x, b, groups, heads, .. } = *inputs;
    let (head_dim, d_state) = (x.width / heads, b.width / groups);
    let tensors = rows(count, 0, 0, 2 * x.width + 2 * b.width);
    let work = Work::ssd([count, heads, head_dim, groups, d_state], rounds) + tensors;
    with_state(work, x.width * d_state)
}
