use crate::args::{Lengths, Method, ModelArg, PlanArgs};
use crate::device::{DeviceArg, on_device};
use crate::failure::{Failure, Outcome};
use crate::figures;
use crate::output::{Output, Table, count, with_error};
use crate::progress::Bar;
use clap::Args;
use longmamba_model::Backend;
use longmamba_model::eval::perplexity::{Perplexity, Windows, perplexity, window_starts};
use serde_json::json;
use std::path::PathBuf;

/// Perplexity of the last tokens of long windows
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  longmamba ppl builtin:mamba2-tiny --text book.txt --lengths 256,1k,8k\n\n\
    Windows start at 0, s, 2s, … with s = max((tokens − length) / windows, 10), as in the papers' code, so \
    there may be one more; each is read from a fresh state. ±: standard error over windows."
)]
pub struct Ppl {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    device: DeviceArg,
    /// Texts; the windows of all count alike
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    text: Vec<PathBuf>,
    /// Lengths of the windows in tokens, ascending, as in 2k,10k,20k
    #[arg(long, value_name = "N,...")]
    lengths: Lengths,
    /// Windows of each text
    #[arg(long, value_name = "N", default_value_t = 10)]
    windows: usize,
    /// Tokens that are scored at the end of each window
    #[arg(long, value_name = "N", default_value_t = 100)]
    labels: usize,
    /// Which to run [default: both, where there is a plan]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "METHOD,...")]
    method: Vec<Method>,
    /// Draw perplexity against length
    #[arg(long, value_name = "FILE.svg|FILE.png")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    plan: PlanArgs,
}

impl Ppl {
    pub fn run(self, output: &Output) -> Outcome {
        on_device!(self.device, |backend| self.on(backend, output))
    }

    fn on<B: Backend>(&self, backend: B, output: &Output) -> Outcome {
        let windows =
            |&length: &usize| Windows { length, windows: self.windows, labels: self.labels };
        let all: Vec<Windows> = self.lengths.0.iter().map(windows).collect();
        all.iter().try_for_each(Windows::check)?;
        if let Some(path) = &self.plot {
            figures::check_target("--plot", path)?;
        }
        let loaded = self.model.load(backend)?;
        let methods = self.plan.methods(&self.method, &loaded)?;
        let tokenizer = loaded.tokenizer()?;
        let texts = loaded.read_texts(&tokenizer, &self.text)?;
        let counts: Vec<usize> = all
            .iter()
            .map(|&w| texts.iter().map(|t| window_starts(t.tokens.len(), w).count()).sum())
            .collect();
        if let Some(index) = counts.iter().position(|&n| n == 0) {
            let longest = texts.iter().map(|t| t.tokens.len()).max().unwrap_or(0);
            return Err(Failure::input(format!(
                "--lengths: no text has more than {} tokens, as windows of that length need; the longest has \
                 {longest}",
                all[index].length
            )));
        }

        let tokens =
            all.iter().zip(&counts).map(|(w, n)| w.length * n).sum::<usize>() * methods.len();
        let bar = Bar::new(output, "reading windows", tokens, "tokens");
        let mut rows = Vec::new();
        for &windows in &all {
            for (method, options) in &methods {
                let result = perplexity(&loaded.model, &texts, windows, options, &|n| bar.add(n))?;
                rows.push((*method, result));
            }
        }
        drop(bar);
        let json = json!({
            "evaluation": "ppl", "model": loaded.name, "labels": self.labels,
            "rows": rows.iter().map(|(method, p)| row(*method, p)).collect::<Vec<_>>(),
        });
        figures::plot(self.plot.as_deref(), &json, output)?;
        output.result(&json, || {
            let mut table = Table::new(
                1,
                ["method", "length", "windows", "nll", "perplexity", "bits per byte", "tokens/s"],
            );
            for (method, p) in &rows {
                table.row([
                    method.name().to_owned(),
                    p.length.to_string(),
                    p.nll.samples.to_string(),
                    with_error(p.nll, 3),
                    format!("{:.2}", p.perplexity()),
                    p.bits_per_byte.map_or("–".into(), |b| with_error(b, 3)),
                    count(p.timing.per_second()),
                ]);
            }
            table.text()
        })
    }
}

fn row(method: Method, p: &Perplexity) -> serde_json::Value {
    json!({
        "method": method, "length": p.length, "windows": p.nll.samples, "nll": p.nll.mean,
        "nll_standard_error": p.nll.standard_error, "perplexity": p.perplexity(),
        "bits_per_byte": p.bits_per_byte.map(|b| b.mean),
        "bits_per_byte_standard_error": p.bits_per_byte.and_then(|b| b.standard_error),
        "tokens_per_second": p.timing.per_second(),
    })
}
