use crate::args::{Lengths, Method, ModelArg, PlanArgs, prose};
use crate::device::{DeviceArg, on_device};
use crate::failure::Outcome;
use crate::figures;
use crate::output::{Output, Table, count};
use crate::progress::Bar;
use clap::Args;
use longmamba_model::eval::latency::latency;
use longmamba_model::{Backend, SessionOptions};
use serde_json::json;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// How long a prompt takes until its first new token
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  longmamba latency builtin:mamba2-tiny --lengths 1k,4k,16k --text book.txt\n\n\
    A prompt of each length and one token, from a fresh state, with every method in turn; the first prompt of \
    each does not count. ratio: median over rounds of the time ÷ that of the first method in the same round."
)]
pub struct Latency {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    device: DeviceArg,
    /// Lengths of the prompts in tokens, ascending, as in 1k,2k,4k
    #[arg(long, value_name = "N,...")]
    lengths: Lengths,
    /// What is read [default: what a byte model writes itself]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    text: Vec<PathBuf>,
    /// Prompts of each length
    #[arg(long, value_name = "N", default_value = "10")]
    rounds: NonZeroUsize,
    /// Which to run, of those that `longmamba methods` lists [default: vanilla, and longmamba where there is
    /// a plan]
    #[arg(long, value_delimiter = ',', value_name = "METHOD,...")]
    method: Vec<Method>,
    /// Draw the time against the length
    #[arg(long, value_name = "FILE.svg|FILE.png")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    plan: PlanArgs,
}

impl Latency {
    pub fn run(self, output: &Output) -> Outcome {
        on_device!(self.device, |backend| self.on(backend, output))
    }

    fn on<B: Backend>(&self, backend: B, output: &Output) -> Outcome {
        if let Some(path) = &self.plot {
            figures::check_target("--plot", path)?;
        }
        let loaded = self.model.load(backend)?;
        let methods = self.plan.methods(&self.method, &loaded)?;
        let options: Vec<SessionOptions> = methods.iter().map(|(_, o)| o.clone()).collect();
        let tokenizer = loaded.tokenizer()?;
        let lengths = &self.lengths.0;
        let longest = lengths.last().copied().unwrap_or(0);
        let texts = prose(&loaded, &self.text, longest + (1 << 14), 0, output)?;
        let mut tokens = Vec::new();
        for text in &texts {
            tokens.extend(tokenizer.encode(text)?);
        }
        let rounds = self.rounds.get();
        let total = lengths.iter().sum::<usize>() * (rounds + 1) * methods.len();
        let bar = Bar::new(output, "reading prompts", total, "tokens");
        let mut rows = Vec::new();
        for &length in lengths {
            let add = |n| bar.add(n);
            let all = latency(&loaded.model, &tokens, length, &options, rounds, &add)?;
            rows.extend(
                methods.iter().zip(all).map(|((method, _), l)| (method.clone(), length, l)),
            );
        }
        drop(bar);
        let json = json!({
            "evaluation": "latency", "model": loaded.name, "rounds": rounds,
            "rows": rows.iter().map(|(method, length, l)| json!({
                "method": method, "length": length, "mean_seconds": l.mean,
                "population_deviation": l.deviation, "median_seconds": l.median, "ratio": l.ratio,
                "seconds": l.seconds,
            })).collect::<Vec<_>>(),
        });
        figures::plot(self.plot.as_deref(), &json, output)?;
        output.result(&json, || {
            let header = ["method", "length", "median s", "mean s", "± s", "ratio", "tokens/s"];
            let mut table = Table::new(1, header);
            for (method, length, l) in &rows {
                table.row([
                    method.name().to_owned(),
                    length.to_string(),
                    format!("{:.4}", l.median),
                    format!("{:.4}", l.mean),
                    format!("{:.4}", l.deviation),
                    format!("{:.3}", l.ratio),
                    count(*length as f64 / l.median),
                ]);
            }
            table.text()
        })
    }
}
