use crate::args::ModelArg;
use crate::device::{DeviceArg, on_device};
use crate::failure::Outcome;
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

/// Find the factors of mambaextend or modulation, by forward passes over windows of a text
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  longmamba tune builtin:mamba2-tiny --method modulation --text book.txt \
    --length 4k --out tiny.factors\n\nFactors are good for lengths like the one they were tuned at. Every step \
    reads all windows three times."
)]
pub struct Tune {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    device: DeviceArg,
    /// Whose factors
    #[arg(long, value_enum)]
    method: ScaledArg,
    /// Texts to take windows from, evenly over all of them; not those that are measured later
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    text: Vec<PathBuf>,
    /// Tokens of a window
    #[arg(long, value_name = "N", value_parser = crate::args::length)]
    length: usize,
    /// Windows of each text
    #[arg(long, value_name = "N", default_value = "5")]
    windows: NonZeroUsize,
    /// Tokens that are scored at the end of each window
    #[arg(long, value_name = "N", default_value_t = 100)]
    labels: usize,
    /// Steps of the search
    #[arg(long, value_name = "N", default_value_t = 20)]
    steps: usize,
    /// The same seed finds the same factors
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Tokens that go through the layers together
    #[arg(long, value_name = "N", default_value_t = SessionOptions::default().chunk_len)]
    chunk: usize,
    /// The file of factors
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScaledArg {
    /// Δ times a factor for each layer
    Mambaextend,
    /// A times a factor for each layer
    Modulation,
}

impl Tune {
    pub fn run(self, output: &Output) -> Outcome {
        on_device!(self.device, |backend| self.on(backend, output))
    }

    fn on<B: Backend>(&self, backend: B, output: &Output) -> Outcome {
        check_writable("--out", &self.out)?;
        let loaded = self.model.load(backend)?;
        let tokenizer = loaded.tokenizer()?;
        let texts = loaded.read_texts(&tokenizer, &self.text)?;
        let mut chosen: Vec<&[u32]> = Vec::new();
        for text in &texts {
            let ranges = windows(text.tokens.len(), self.length, self.windows.get())?;
            chosen.extend(ranges.into_iter().map(|range| &text.tokens[range]));
        }
        let session = SessionOptions { chunk_len: self.chunk, ..SessionOptions::default() };
        let options = TuneOptions {
            steps: self.steps,
            labels: self.labels,
            seed: self.seed,
            session,
            ..TuneOptions::default()
        };
        let scaled = match self.method {
            ScaledArg::Mambaextend => Scaled::Delta,
            ScaledArg::Modulation => Scaled::Rates,
        };
        let tokens = chosen.len() * self.length * passes(&options);
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

/// The loss at the first point of the search, or at the best.
fn nll(scales: &Scales, best: bool) -> f64 {
    let mut all = scales.path().iter().map(|point| point.nll);
    match best {
        true => all.fold(f64::INFINITY, f64::min),
        false => all.next().unwrap_or(f64::NAN),
    }
}
