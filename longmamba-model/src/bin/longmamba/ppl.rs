use crate::args::{Lengths, Method, ModelArg, PlanArgs};
use crate::device::{Device, DeviceArg, on_device};
use crate::failure::{Failure, Outcome};
use crate::figures;
use crate::output::{Output, Table, count, with_error};
use crate::progress::Bar;
use crate::run_args::RunArgs;
use clap::{Args, ValueEnum};
use longmamba_model::Backend;
use longmamba_model::eval::perplexity::{Perplexity, Windows, perplexity_in, window_count};
use longmamba_model::eval::run::Settings;
use longmamba_model::limits::{Effort, Limits};
use serde_json::json;
use std::path::PathBuf;

/// Perplexity of the last tokens of long windows
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  longmamba ppl builtin:mamba2-tiny --text book.txt --lengths 256,1k,8k\n\n\
    Windows start at 0, s, 2s, … with s = max((tokens − length) / windows, 10), as in the papers' code, so \
    there may be one more; each is read from a fresh state. ±: standard error over windows.\n\n\
    All methods side by side:\n  longmamba ppl builtin:mamba2-tiny --text book.txt --lengths 256,1k,8k \
    --method vanilla,longmamba,decimamba,winsorize:low=5:high=95,lamb"
)]
pub struct Ppl {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    device: DeviceArg,
    /// Texts, or folders of .txt files; the windows of all count alike
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    text: Vec<PathBuf>,
    /// Lengths of the windows in tokens, ascending, as in 2k,10k,20k
    #[arg(long, value_name = "N,...", required_unless_present = "protocol")]
    lengths: Option<Lengths>,
    /// A published protocol: its lengths, 10 windows a text, 100 labels. Lengths that no text has are left
    /// out, as there
    #[arg(long, value_enum, conflicts_with_all = ["lengths", "windows", "labels"])]
    protocol: Option<Protocol>,
    /// Windows of each text
    #[arg(long, value_name = "N", default_value_t = 10)]
    windows: usize,
    /// Tokens that are scored at the end of each window
    #[arg(long, value_name = "N", default_value_t = 100)]
    labels: usize,
    /// Which to run, of those that `longmamba methods` lists [default: vanilla, and longmamba where there is
    /// a plan]
    #[arg(long, value_delimiter = ',', value_name = "METHOD,...")]
    method: Vec<Method>,
    /// Draw perplexity against length
    #[arg(long, value_name = "FILE.svg|FILE.png")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    run: RunArgs,
    /// Also print what each stage took, and how long the machine needs for it at least; on the CPU, one window at
    /// a time
    #[arg(long)]
    profile: bool,
}

/// Both read a window whole, from a fresh state; ours reads it in chunks, which is the same.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    /// 1k, 2k, 4k, 10k, 20k, …, 60k
    Decimamba,
    /// 2k, 10k, 20k, …, 100k
    Longmamba,
}

impl Protocol {
    fn lengths(self) -> Vec<usize> {
        let (first, tens): (&[usize], _) = match self {
            Protocol::Decimamba => (&[1, 2, 4], 1..=6),
            Protocol::Longmamba => (&[2], 1..=10),
        };
        first.iter().copied().chain(tens.map(|n| 10 * n)).map(|thousand| 1000 * thousand).collect()
    }
}

impl Ppl {
    pub fn run(self, output: &Output) -> Outcome {
        if !self.profile {
            return on_device!(self.device, |backend| self.on(backend, output));
        }
        if self.device.kind != Device::Cpu {
            return Err(Failure::input("--profile is for --device cpu"));
        }
        let backend = self.device.cpu()?.profiled();
        self.on(backend.clone(), output)?;
        output.note("measuring what the machine can do");
        let limits = backend.run(|| Limits::measure(Effort::FULL));
        // The result is on stdout, whole; this is about it.
        eprint!("{}", backend.profile().map_or(String::new(), |profile| profile.table(&limits)));
        Ok(())
    }

    fn on<B: Backend>(&self, backend: B, output: &Output) -> Outcome {
        let windows =
            |&length: &usize| Windows { length, windows: self.windows, labels: self.labels };
        let lengths = match (&self.lengths, self.protocol) {
            (Some(Lengths(lengths)), _) => lengths.clone(),
            (None, protocol) => protocol.map_or(Vec::new(), Protocol::lengths),
        };
        let mut all: Vec<Windows> = lengths.iter().map(windows).collect();
        all.iter().try_for_each(Windows::check)?;
        if let Some(path) = &self.plot {
            figures::check_target("--plot", path)?;
        }
        let loaded = self.model.load(backend)?;
        let methods = self.plan.methods(&self.method, &loaded)?;
        let tokenizer = loaded.tokenizer()?;
        let texts = loaded.read_texts(&tokenizer, &self.text)?;
        let found = |w: Windows| window_count(&texts, w);
        // At least one length, so that there is something to say.
        while self.protocol.is_some() && all.len() > 1 && all.last().map(|&w| found(w)) == Some(0) {
            all.pop();
        }
        let counts: Vec<usize> = all.iter().map(|&w| found(w)).collect();
        if let Some(index) = counts.iter().position(|&n| n == 0) {
            let longest = texts.iter().map(|t| t.tokens.len()).max().unwrap_or(0);
            return Err(Failure::input(format!(
                "--lengths: no text has more than {} tokens, as windows of that length need; the longest has \
                 {longest}",
                all[index].length
            )));
        }

        let tokens: Vec<&[u32]> = texts.iter().map(|t| t.tokens.as_slice()).collect();
        let settings = Settings::new("ppl", &loaded.model)
            .with("windows", self.windows)
            .with("labels", self.labels);
        let run = self.run.open_for_texts(settings, &methods, &tokens)?;
        let mine = |count: &usize| run.shard().indices(*count).count();
        let tokens = all.iter().zip(&counts).map(|(w, n)| w.length * mine(n)).sum::<usize>();
        let bar = Bar::new(output, "reading windows", tokens * methods.len(), "tokens");
        let mut rows = Vec::new();
        for (&windows, &count) in all.iter().zip(&counts) {
            for (method, options) in &methods {
                let part = run.part(&format!("{}/{}", method.name(), windows.length), count)?;
                bar.skip(part.done().len() * windows.length);
                let add = |n| bar.add(n);
                let result = perplexity_in(part, &loaded.model, &texts, windows, options, &add)?;
                rows.push((method.clone(), result));
            }
        }
        drop(bar);
        let json = json!({
            "evaluation": "ppl", "model": loaded.name, "labels": self.labels,
            "rows": rows.iter().map(|(method, p)| row(method, p)).collect::<Vec<_>>(),
        });
        run.write_result(&json)?;
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

fn row(method: &Method, p: &Perplexity) -> serde_json::Value {
    json!({
        "method": method, "length": p.length, "windows": p.nll.samples, "nll": p.nll.mean,
        "nll_standard_error": p.nll.standard_error, "perplexity": p.perplexity(),
        "bits_per_byte": p.bits_per_byte.map(|b| b.mean),
        "bits_per_byte_standard_error": p.bits_per_byte.and_then(|b| b.standard_error),
        "tokens_per_second": p.timing.per_second(),
    })
}
