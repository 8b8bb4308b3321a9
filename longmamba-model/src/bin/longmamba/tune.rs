mod theta;

use crate::args::{Loaded, ModelArg};
use crate::device::{DeviceArg, on_device};
use crate::failure::{Failure, Outcome};
use crate::output::{Output, check_writable};
use crate::progress::Bar;
use clap::{Args, ValueEnum};
use longmamba_model::calibrate::windows;
use longmamba_model::methods::tune::{TuneOptions, passes, tune};
use longmamba_model::methods::{Scaled, Scales};
use longmamba_model::{Backend, SessionOptions};
use serde_json::json;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use theta::ThetaArgs;

/// Find the factors of mambaextend or modulation, or longmamba's θ, by forward passes over windows of a text
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  longmamba tune builtin:mamba2-tiny --method modulation --text book.txt \
    --length 4k --out tiny.factors\n  longmamba tune builtin:mamba2-tiny --method longmamba --text book.txt \
    --lengths 1k,4k --out tiny.plan\n\nFactors are good for lengths like the one they were tuned at. Every step \
    reads all windows three times.\n\nθ: between two neighbouring scores all are the same, so what is tried are \
    the middles of gaps: the widest first, then those around the best. A θ within 12 % of a score is not chosen \
    without --allow-cliff."
)]
pub struct Tune {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    device: DeviceArg,
    /// Whose factors, or θ
    #[arg(long, value_enum)]
    method: TunedArg,
    /// Texts, or folders of .txt files, to take windows from, evenly over all of them; not those that are measured later
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    text: Vec<PathBuf>,
    /// Tokens of a window; longmamba takes --lengths
    #[arg(long, value_name = "N", value_parser = crate::args::length)]
    length: Option<usize>,
    /// Windows of each text
    #[arg(long, value_name = "N", default_value = "5")]
    windows: NonZeroUsize,
    /// Tokens that are scored at the end of each window
    #[arg(long, value_name = "N", default_value_t = 100)]
    labels: usize,
    /// Steps of the search for factors [default: 20]
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// The same seed finds the same factors [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Tokens that go through the layers together [default: 192 on the CPU, 512 with AMX or on a GPU]
    #[arg(long, value_name = "N")]
    chunk: Option<usize>,
    /// The file of factors, or the new plan
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    theta: ThetaArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TunedArg {
    /// Δ times a factor for each layer
    Mambaextend,
    /// A times a factor for each layer
    Modulation,
    /// The score above which a channel is global
    Longmamba,
}

impl Tune {
    pub fn run(self, output: &Output) -> Outcome {
        on_device!(self.device, |backend| self.on(backend, output))
    }

    fn on<B: Backend>(&self, backend: B, output: &Output) -> Outcome {
        check_writable("--out", &self.out)?;
        let scaled = match self.method {
            TunedArg::Mambaextend => Scaled::Delta,
            TunedArg::Modulation => Scaled::Rates,
            TunedArg::Longmamba => {
                let factors = [
                    ("--length", self.length.is_some()),
                    ("--steps", self.steps.is_some()),
                    ("--seed", self.seed.is_some()),
                ];
                refuse(
                    &factors,
                    "longmamba, which has no factors; see --lengths and --evaluations",
                )?;
                return self.theta(backend, output);
            }
        };
        refuse(&self.theta.given(), "the factors of mambaextend and modulation")?;
        let Some(length) = self.length else {
            return Err(Failure::input("--length is missing: how many tokens a window has"));
        };
        self.factors(&self.model.load(backend)?, scaled, length, output)
    }

    fn factors<B: Backend>(
        &self,
        loaded: &Loaded<B>,
        scaled: Scaled,
        length: usize,
        output: &Output,
    ) -> Outcome {
        let tokenizer = loaded.tokenizer()?;
        let texts = loaded.read_texts(&tokenizer, &self.text)?;
        let mut chosen: Vec<&[u32]> = Vec::new();
        for text in &texts {
            let ranges = windows(text.tokens.len(), length, self.windows.get())?;
            chosen.extend(ranges.into_iter().map(|range| &text.tokens[range]));
        }
        let session = SessionOptions { chunk_len: self.chunk, ..SessionOptions::default() };
        let options = TuneOptions {
            steps: self.steps.unwrap_or(20),
            labels: self.labels,
            seed: self.seed.unwrap_or(0),
            session,
            ..TuneOptions::default()
        };
        let tokens = chosen.len() * length * passes(&options);
        let bar = Bar::new(output, "tuning", tokens, "tokens");
        let scales = tune(&loaded.model, scaled, &chosen, &options, &|n| bar.add(n))?;
        drop(bar);
        scales.write(&self.out)?;

        let (before, after) = (nll(&scales, false), nll(&scales, true));
        let json = json!({
            "model": loaded.name, "file": self.out, "method": scaled.method(),
            "tuning": scales.tuning(), "factors": scales.factors(),
            "nll_before": before, "nll_after": after,
            "path": scales.path().iter().map(|point| point.nll).collect::<Vec<_>>(),
        });
        output.result(&json, || {
            let factors: Vec<String> =
                scales.factors().iter().map(|factor| format!("{factor:.3}")).collect();
            format!(
                "{}: nll {before:.4} as it is, {after:.4} with factors {}\n",
                self.out.display(),
                factors.join(" ")
            )
        })
    }
}

/// Flags of another method are no wish that could be fulfilled.
fn refuse(given: &[(&str, bool)], method: &str) -> Outcome {
    match given.iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(Failure::input(format!("{flag} is not for {method}"))),
        None => Ok(()),
    }
}

/// The loss at the first point of the search, or at the best.
fn nll(scales: &Scales, best: bool) -> f64 {
    let mut all = scales.path().iter().map(|point| point.nll);
    match best {
        true => all.fold(f64::INFINITY, f64::min),
        false => all.next().unwrap_or(f64::NAN),
    }
}
