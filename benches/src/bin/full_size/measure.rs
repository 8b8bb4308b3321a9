//! Loading, reading a prompt and writing token by token, timed.

use crate::Result;
use crate::options::{Device, Options};
use crate::plan::{dropped, plan};
use longmamba_model::policy::Plan;
use longmamba_model::{
    Backend, Batch, GenerateOptions, LoadOptions, Model, SampleOptions, Sampler, Session,
    SessionOptions,
};
use serde_json::{Value, json};
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Sequences that are decoded together.
const BATCH: usize = 8;

/// A row of the table: a model and a prompt.
pub struct Row {
    model: String,
    device: String,
    parameters: usize,
    bytes: usize,
    /// Seconds, with and without looking for NaN in the weights, and until the first token after that.
    load: f64,
    unchecked: f64,
    first: f64,
    prompt: usize,
    /// Tokens a second.
    prefill: f64,
    decode: f64,
    /// Not where stages are timed: its steps would hide those of one sequence.
    together: Option<f64>,
    filter: Option<Filtered>,
    resident: String,
}

/// What LongMamba's filter costs.
struct Filtered {
    /// How much longer the prompt takes.
    overhead: f64,
    /// The share of tokens that were dropped.
    dropped: f64,
}

impl Row {
    pub const HEADER: &str = "| model | device | parameters | bytes | load s | load unchecked s | \
        first token s | prompt | prefill tokens/s | decode tokens/s | 8 together | filter over \
        prefill | dropped | peak resident |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";

    pub fn json(&self) -> Value {
        json!({
            "suite": "longmamba", "model": self.model, "device": self.device,
            "parameters": self.parameters, "bytes": self.bytes, "load_s": self.load,
            "load_unchecked_s": self.unchecked, "first_token_s": self.first, "prompt": self.prompt,
            "prefill_tokens_per_s": self.prefill, "decode_tokens_per_s": self.decode,
            "batch": BATCH, "batch_decode_tokens_per_s": self.together,
            "filter_overhead": self.filter.as_ref().map(|f| f.overhead),
            "filter_dropped": self.filter.as_ref().map(|f| f.dropped),
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { model, device, parameters, load, unchecked, first, prompt, .. } = self;
        let Row { prefill, decode, together, resident, .. } = self;
        let gigabytes = self.bytes as f64 / 1e9;
        let together = together.map_or("–".into(), |rate| format!("{rate:.2}"));
        let percent = |of: fn(&Filtered) -> f64| match &self.filter {
            Some(filter) => format!("{:.1} %", 100.0 * of(filter)),
            None => "–".into(),
        };
        write!(
            f,
            "| {model} | {device} | {parameters} | {gigabytes:.2} GB | {load:.2} | {unchecked:.3} | \
             {first:.2} | {prompt} | {prefill:.1} | {decode:.2} | {together} | {} | {} | {resident} |",
            percent(|filter| filter.overhead),
            percent(|filter| filter.dropped),
        )
    }
}

/// Loads the checkpoint and gives a row for each prompt.
pub fn measure<B: Backend>(
    options: &Options,
    name: &str,
    path: &Path,
    backend: &B,
) -> Result<Vec<Row>> {
    let load = |check_finite| {
        let start = Instant::now();
        let options = LoadOptions { check_finite, ..LoadOptions::default() };
        let model = Model::load_with(path, backend.clone(), options)?;
        Ok::<_, longmamba_model::Error>((model, start.elapsed().as_secs_f64()))
    };
    let (_, unchecked) = load(false)?;
    let start = Instant::now();
    let (model, load) = load(true)?;
    model.session(session_options(options, None))?.prefill(&[1])?;
    let first = start.elapsed().as_secs_f64();
    let vocab = u32::try_from(model.config().vocab_size)?;
    let longest = options.prompts.iter().copied().max().unwrap_or(1).max(4 * BATCH);
    let mut rng = fastrand::Rng::with_seed(1);
    let tokens: Vec<u32> = (0..longest).map(|_| rng.u32(..vocab)).collect();
    let weights = model.weights();
    let mut rows = Vec::new();
    for &prompt in &options.prompts {
        let (session, prefill, filter) = read(options, &model, &tokens[..prompt])?;
        rows.push(Row {
            model: name.into(),
            device: match options.device {
                Device::Cpu => "cpu".into(),
                Device::Cuda(number) => format!("cuda:{number}"),
            },
            parameters: weights.parameters,
            bytes: weights.bytes,
            load,
            unchecked,
            first,
            prompt,
            prefill,
            decode: decode(options, session)?,
            together: match options.profile {
                true => None,
                false => Some(together(options, &model, &tokens)?),
            },
            filter,
            resident: peak_resident(),
        });
    }
    Ok(rows)
}

fn session_options(options: &Options, plan: Option<Arc<Plan>>) -> SessionOptions {
    SessionOptions { chunk_len: options.chunk, plan, ..SessionOptions::default() }
}

/// Reads `prompt`, plainly and, where that is wanted, filtered, in turn: a session that has read it,
/// tokens a second, and what the filter costs.
fn read<B: Backend>(
    options: &Options,
    model: &Arc<Model<B>>,
    prompt: &[u32],
) -> Result<(Session<B>, f64, Option<Filtered>)> {
    let timed = |plan: Option<Arc<Plan>>| {
        let mut session = model.session(session_options(options, plan))?;
        let start = Instant::now();
        session.prefill(prompt)?;
        // The logits are there, so the device is done.
        let seconds = start.elapsed().as_secs_f64();
        Ok::<_, longmamba_model::Error>((session, seconds))
    };
    // Whoever repeats does not count the first time, which makes room and loads kernels.
    let mut plain = if options.repeats > 1 || options.filter { Some(timed(None)?.0) } else { None };
    let plan = match &plain {
        Some(session) if options.filter => Some(Arc::new(plan(session)?)),
        _ => None,
    };
    let (mut seconds, mut ratios, mut share) = (Vec::new(), Vec::new(), 0.0);
    for repeat in 0..options.repeats {
        let (session, taken) = timed(None)?;
        if let Some(plan) = &plan {
            let (filtered, with) = timed(Some(plan.clone()))?;
            ratios.push(with / taken);
            if repeat == 0 {
                share = dropped(&filtered, prompt.len())?;
            }
        }
        seconds.push(taken);
        plain = Some(session);
    }
    if plan.is_some() && share == 0.0 {
        return Err("the filter must drop something where it is timed".into());
    }
    let session = plain.ok_or("nothing was read")?;
    if !session.logits().iter().all(|l| l.is_finite()) {
        return Err("a logit is not finite".into());
    }
    let filter = plan.map(|_| Filtered { overhead: median(ratios) - 1.0, dropped: share });
    Ok((session, prompt.len() as f64 / median(seconds), filter))
}

/// Tokens a second of one sequence, the most likely ones, drawn where `generate` draws them.
fn decode<B: Backend>(options: &Options, mut session: Session<B>) -> Result<f64> {
    let mut greedy = Sampler::new(SampleOptions::default())?;
    rate(options, |steps| {
        // The last token that is drawn is not read.
        let until = GenerateOptions { max_new: steps + 1, stop: Vec::new() };
        let next = |_| ControlFlow::Continue(());
        longmamba_model::decode(&mut session, &mut greedy, &until, next)?;
        Ok(())
    })
}

/// Tokens a second of several sequences that are decoded together.
fn together<B: Backend>(options: &Options, model: &Arc<Model<B>>, tokens: &[u32]) -> Result<f64> {
    let mut batch = Batch::new(model.clone(), session_options(options, None), BATCH)?;
    let prompts: Vec<&[u32]> = (1..=BATCH).map(|n| &tokens[..4 * n]).collect();
    batch.prefill(&prompts)?;
    let mut tokens = tokens.iter().copied().cycle();
    let steps = rate(options, |steps| {
        let mut tokens = tokens.by_ref().take(steps);
        Ok(tokens.try_for_each(|token| batch.step(&[Some(token); BATCH]))?)
    })?;
    Ok(BATCH as f64 * steps)
}

/// Steps a second. A device records a step the second time that it sees it, so where figures are repeated
/// some steps go ahead.
fn rate(options: &Options, mut go: impl FnMut(usize) -> Result<()>) -> Result<f64> {
    let mut seconds = Vec::new();
    if options.repeats > 1 {
        go(3)?;
    }
    for _ in 0..options.repeats {
        let start = Instant::now();
        go(options.steps)?;
        seconds.push(start.elapsed().as_secs_f64() / options.steps as f64);
    }
    Ok(1.0 / median(seconds))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The most memory that was resident, pages of the mapped file included; grows from row to row.
fn peak_resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.map_or_else(|| "?".into(), |l| l.trim().to_owned())
}
