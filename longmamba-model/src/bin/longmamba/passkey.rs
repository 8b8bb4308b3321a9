use crate::args::{Lengths, Loaded, Method, ModelArg, PlanArgs, prose, share};
use crate::device::{DeviceArg, on_device};
use crate::failure::Outcome;
use crate::figures;
use crate::output::{Output, Table, count, with_error};
use crate::progress::Bar;
use crate::run_args::RunArgs;
use clap::Args;
use longmamba_model::eval::Estimate;
use longmamba_model::eval::passkey::{PasskeyTask, passkey_in};
use longmamba_model::eval::prose::plain;
use longmamba_model::eval::recall::{RecallTask, recall_in};
use longmamba_model::eval::run::{Run, Settings};
use longmamba_model::{Backend, SessionOptions, Timing, Tokenizer};
use serde_json::json;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Does the model find what it was told long ago?
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  longmamba passkey builtin:mamba2-tiny --lengths 256,1k,8k --text book.txt\n\n\
    Models whose tokens are bytes are told five facts <K=v> among prose and asked for all five at the end; \
    the score is the share of values that are the most likely byte (by chance: 1 in 16).\n\
    Other models read a number in a sentence and are asked for it; the score is the share of prompts whose \
    greedy answer has it. ±: standard error over prompts."
)]
pub struct Passkey {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    device: DeviceArg,
    /// Lengths of the prompts in tokens, ascending, as in 2k,10k,20k
    #[arg(long, value_name = "N,...")]
    lengths: Lengths,
    /// Where it stands in the prose, 0 to 1 [default: anywhere for facts, 0,0.25,0.5,0.75,1 for a number]
    #[arg(long, value_name = "D,...", value_delimiter = ',', value_parser = share)]
    depths: Vec<f64>,
    /// Prose to hide it in [default: the model's own for byte models, plain made-up sentences for others]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    text: Vec<PathBuf>,
    /// Prompts for each length and depth
    #[arg(long, value_name = "N", default_value = "20")]
    prompts: NonZeroUsize,
    /// The same seed makes the same prompts
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Which to run, of those that `longmamba methods` lists [default: vanilla, and longmamba where there is
    /// a plan]
    #[arg(long, value_delimiter = ',', value_name = "METHOD,...")]
    method: Vec<Method>,
    /// Draw the scores, length against depth
    #[arg(long, value_name = "FILE.svg|FILE.png")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    run: RunArgs,
}

/// A point of the grid.
struct Row {
    method: Method,
    length: usize,
    depth: Option<f64>,
    score: Estimate,
    timing: Timing,
}

/// The name of a point of the grid in a run.
fn part_name(method: &Method, length: usize, depth: Option<f64>) -> String {
    let depth = depth.map_or("anywhere".into(), |depth| depth.to_string());
    format!("{}/{length}/{depth}", method.name())
}

impl Passkey {
    pub fn run(self, output: &Output) -> Outcome {
        on_device!(self.device, |backend| self.on(backend, output))
    }

    fn on<B: Backend>(&self, backend: B, output: &Output) -> Outcome {
        if let Some(path) = &self.plot {
            figures::check_target("--plot", path)?;
        }
        let loaded = self.model.load(backend)?;
        let methods = self.plan.methods(&self.method, &loaded)?;
        let tokenizer = loaded.tokenizer()?;
        let (task, (rows, run)) = match tokenizer.is_bytes() {
            true => ("recall", self.recall(&loaded, &methods, output)?),
            false => ("number", self.number(&loaded, &tokenizer, &methods, output)?),
        };
        let unit = if tokenizer.is_bytes() { "bytes" } else { "tokens" };
        let json = json!({
            "evaluation": "passkey", "unit": unit, "model": loaded.name, "task": task, "prompts": self.prompts,
            "rows": rows.iter().map(|row| json!({
                "method": row.method, "length": row.length, "depth": row.depth,
                "score": row.score.mean, "standard_error": row.score.standard_error,
                "tokens_per_second": row.timing.per_second(),
            })).collect::<Vec<_>>(),
        });
        run.write_result(&json)?;
        figures::plot(self.plot.as_deref(), &json, output)?;
        output.result(&json, || {
            let mut table = Table::new(1, ["method", "length", "depth", "score", "tokens/s"]);
            for row in &rows {
                table.row([
                    row.method.name().to_owned(),
                    row.length.to_string(),
                    row.depth.map_or("any".into(), |d| format!("{d:.2}")),
                    with_error(row.score, 2),
                    count(row.timing.per_second()),
                ]);
            }
            table.text()
        })
    }

    fn recall<B: Backend>(
        &self,
        loaded: &Loaded<B>,
        methods: &[(Method, SessionOptions)],
        output: &Output,
    ) -> Outcome<(Vec<Row>, Run)> {
        let depths = match self.depths.len() {
            0 => vec![None],
            _ => self.depths.iter().copied().map(Some).collect(),
        };
        let lengths = &self.lengths.0;
        let tasks: Vec<RecallTask> = lengths
            .iter()
            .flat_map(|&length| {
                depths.iter().map(move |&depth| RecallTask { depth, ..RecallTask::new(length) })
            })
            .collect();
        // What does not fit is found before the model writes prose for it.
        for task in &tasks {
            task.prose_len()?;
        }
        let longest = lengths.last().copied().unwrap_or(0);
        let texts = prose(loaded, &self.text, longest + (1 << 14), self.seed, output)?;
        let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
        for task in &tasks {
            task.prompts(&texts, 1, self.seed)?;
        }
        let tokens: Vec<Vec<u32>> =
            texts.iter().map(|text| text.iter().map(|&byte| byte.into()).collect()).collect();
        let run =
            self.open(loaded, methods, &tokens.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        let bar = self.bar(tasks.iter().map(|t| t.length).sum(), methods.len(), &run, output);
        let mut rows = Vec::new();
        for RecallTask { length, depth, facts } in tasks {
            let task = RecallTask { length, depth, facts };
            let prompts = task.prompts(&texts, self.prompts.get(), self.seed)?;
            for (method, options) in methods {
                let part = run.part(&part_name(method, length, depth), prompts.len())?;
                bar.skip(part.done().len() * length);
                let result = recall_in(part, &loaded.model, &prompts, options, &|n| bar.add(n))?;
                let (score, timing) = (result.right, result.timing);
                rows.push(Row { method: method.clone(), length, depth, score, timing });
            }
        }
        Ok((rows, run))
    }

    fn number<B: Backend>(
        &self,
        loaded: &Loaded<B>,
        tokenizer: &Tokenizer,
        methods: &[(Method, SessionOptions)],
        output: &Output,
    ) -> Outcome<(Vec<Row>, Run)> {
        let depths = match self.depths.len() {
            0 => vec![0.0, 0.25, 0.5, 0.75, 1.0],
            _ => self.depths.clone(),
        };
        let lengths = &self.lengths.0;
        let longest = lengths.last().copied().unwrap_or(0);
        let prose = match self.text.len() {
            0 => {
                // A word is a token at least, mostly.
                output.note("no --text: the number is hidden in plain made-up sentences");
                tokenizer.encode(plain(longest + 1000, self.seed).as_bytes())?
            }
            _ => loaded
                .read_texts(tokenizer, &self.text)?
                .into_iter()
                .flat_map(|t| t.tokens)
                .collect(),
        };
        let tasks: Vec<PasskeyTask> = lengths
            .iter()
            .flat_map(|&length| depths.iter().map(move |&depth| PasskeyTask { length, depth }))
            .collect();
        for task in &tasks {
            task.prompts(tokenizer, &prose, 1, self.seed)?;
        }
        let run = self.open(loaded, methods, &[&prose])?;
        let bar = self.bar(tasks.iter().map(|t| t.length).sum(), methods.len(), &run, output);
        let mut rows = Vec::new();
        for PasskeyTask { length, depth } in tasks {
            let task = PasskeyTask { length, depth };
            let prompts = task.prompts(tokenizer, &prose, self.prompts.get(), self.seed)?;
            for (method, options) in methods {
                let part = run.part(&part_name(method, length, Some(depth)), prompts.len())?;
                bar.skip(part.done().len() * length);
                let add = |n| bar.add(n);
                let result = passkey_in(part, &loaded.model, tokenizer, &prompts, options, &add)?;
                let (score, timing) = (result.found, result.timing);
                rows.push(Row {
                    method: method.clone(),
                    length,
                    depth: Some(depth),
                    score,
                    timing,
                });
            }
        }
        Ok((rows, run))
    }

    /// `tokens`: those of one prompt for each point of the grid.
    fn bar(&self, tokens: usize, methods: usize, run: &Run, output: &Output) -> Bar {
        let prompts = run.shard().indices(self.prompts.get()).count();
        Bar::new(output, "reading prompts", tokens * prompts * methods, "tokens")
    }

    fn open<B: Backend>(
        &self,
        loaded: &Loaded<B>,
        methods: &[(Method, SessionOptions)],
        texts: &[&[u32]],
    ) -> Outcome<Run> {
        let settings = Settings::new("passkey", &loaded.model)
            .with("prompts", self.prompts)
            .with("seed", self.seed);
        self.run.open_for_texts(settings, methods, texts)
    }
}
