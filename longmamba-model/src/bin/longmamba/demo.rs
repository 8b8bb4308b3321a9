use crate::args::{Lengths, Loaded, Method, prose};
use crate::device::{DeviceArg, on_device};
use crate::failure::{Failure, Outcome};
use crate::output::{Output, Table, check_writable, count, with_error};
use crate::plot;
use crate::progress::Bar;
use clap::Args;
use longmamba_model::eval::Estimate;
use longmamba_model::eval::perplexity::{Windows, perplexity};
use longmamba_model::eval::recall::{RecallTask, recall};
use longmamba_model::{Backend, SessionOptions, Text, Timing, builtin, write_whole};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

/// Two built-in models far past their training length, without and with LongMamba
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  longmamba demo --plot demo.svg\n\n\
    The models read prose that they wrote themselves, byte by byte. Bits per byte: how badly they predict \
    the last 100 bytes of windows. Recall: the share of five facts <K=v>, told anywhere in the prompt, that \
    they know at its end (by chance: 0.06). ±: standard error.")]
pub struct Demo {
    #[command(flatten)]
    device: DeviceArg,
    /// Draw the result
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Lengths of the prompts, in training lengths
    #[arg(long, value_name = "N,...", default_value = "1,2,4,8,16,32")]
    lengths: Lengths,
    /// Prompts for each length, and as many windows, up to 10 or so
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    samples: u16,
    /// The same seed makes the same prose and prompts
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// How much prose each model writes, in longest prompts.
const PROSE: usize = 3;
/// The most training lengths: some 17 million bytes.
const LONGEST: usize = 1 << 16;
/// From how many training lengths on a model has forgotten nearly all, as the text below the tables says.
const FAR: usize = 32;

/// What was measured of one model.
pub struct Measured {
    pub name: &'static str,
    pub train_len: usize,
    pub rows: Vec<Row>,
}

pub struct Row {
    pub method: Method,
    pub length: usize,
    pub bits_per_byte: Estimate,
    pub recall: Estimate,
    timing: Timing,
}

impl Demo {
    pub fn run(self, output: &Output) -> Outcome {
        on_device!(self.device, |backend| self.on(backend, output))
    }

    fn on<B: Backend>(&self, backend: B, output: &Output) -> Outcome {
        if let Some(path) = &self.plot {
            check_writable("--plot", path)?;
        }
        if let Some(times) = self.lengths.0.iter().find(|&&times| times > LONGEST) {
            return Err(Failure::input(format!(
                "--lengths: {times} is too long; the limit is {LONGEST}"
            )));
        }
        // The one that shows it best comes first.
        let mut models: Vec<_> = builtin::all().iter().collect();
        models.sort_unstable_by_key(|b| std::cmp::Reverse(b.name));
        let mut all = Vec::new();
        for builtin in models {
            let loaded = Loaded::builtin(builtin, backend.clone())?;
            let plan = Arc::new(builtin.plan()?);
            let train_len = plan.train_len();
            if !output.json {
                let parameters = count(loaded.model.weights().parameters as f64);
                output.print(&format!(
                    "{}: {parameters} parameters, trained on {train_len} bytes at a time\n",
                    builtin.name
                ))?;
            }
            let methods = [
                (Method::Vanilla, SessionOptions::default()),
                (
                    Method::Longmamba,
                    SessionOptions { plan: Some(plan), ..SessionOptions::default() },
                ),
            ];
            let rows = self.measure(&loaded, train_len, &methods, output)?;
            let measured = Measured { name: builtin.name, train_len, rows };
            if !output.json {
                output.print(&(measured.table() + "\n"))?;
            }
            all.push(measured);
        }
        if let Some(path) = &self.plot {
            write_whole(path, plot::svg(&all)?.as_bytes())?;
            output.note(&format!("drawn: {}", path.display()));
        }
        let json = json!({ "models": all.iter().map(Measured::json).collect::<Vec<_>>() });
        output.result(&json, || sentence(&all))
    }

    fn measure<B: Backend>(
        &self,
        loaded: &Loaded<B>,
        train_len: usize,
        methods: &[(Method, SessionOptions)],
        output: &Output,
    ) -> Outcome<Vec<Row>> {
        let lengths: Vec<usize> = self.lengths.0.iter().map(|times| times * train_len).collect();
        let longest = lengths.last().copied().unwrap_or(0);
        let prose = prose(loaded, &[], PROSE * longest, self.seed, output)?;
        let tokenizer = loaded.tokenizer()?;
        let texts: Vec<Text> =
            prose.iter().map(|p| tokenizer.encode_text(p)).collect::<Result<_, _>>()?;
        let prose: Vec<&[u8]> = prose.iter().map(Vec::as_slice).collect();
        let samples = usize::from(self.samples);
        let windows = samples.min(10);
        let each = (samples + windows) * methods.len();
        let tokens = lengths.iter().sum::<usize>() * each;
        let bar = Bar::new(output, &format!("{}: reading", loaded.name), tokens, "tokens");
        let mut rows = Vec::new();
        for length in lengths {
            let prompts = RecallTask::new(length).prompts(&prose, samples, self.seed)?;
            let windows = Windows { windows, ..Windows::new(length) };
            for (method, options) in methods {
                let add = |n| bar.add(n);
                let ppl = perplexity(&loaded.model, &texts, windows, options, &add)?;
                let recall = recall(&loaded.model, &prompts, options, &add)?;
                rows.push(Row {
                    method: *method,
                    length,
                    // The bytes of a byte model's labels are known.
                    bits_per_byte: ppl.bits_per_byte.unwrap_or(ppl.nll),
                    recall: recall.right,
                    timing: Timing {
                        tokens: ppl.timing.tokens + recall.timing.tokens,
                        seconds: ppl.timing.seconds + recall.timing.seconds,
                    },
                });
            }
        }
        Ok(rows)
    }
}

impl Measured {
    /// The rows of one method, from the shortest length to the longest.
    pub fn of(&self, method: Method) -> impl Iterator<Item = &Row> + Clone {
        self.rows.iter().filter(move |row| row.method == method)
    }

    fn table(&self) -> String {
        let mut table = Table::new(0, ["", "", "bits per byte", "", "recall", "", "bytes/s", ""]);
        let methods = ["vanilla", "LongMamba"];
        table.row([&["bytes", "× training"][..], &methods, &methods, &methods].concat());
        for (vanilla, longmamba) in self.of(Method::Vanilla).zip(self.of(Method::Longmamba)) {
            table.row([
                vanilla.length.to_string(),
                (vanilla.length / self.train_len).to_string(),
                with_error(vanilla.bits_per_byte, 2),
                with_error(longmamba.bits_per_byte, 2),
                with_error(vanilla.recall, 2),
                with_error(longmamba.recall, 2),
                count(vanilla.timing.per_second()),
                count(longmamba.timing.per_second()),
            ]);
        }
        table.text()
    }

    fn json(&self) -> serde_json::Value {
        let row = |row: &Row| {
            json!({
                "method": row.method, "length": row.length, "bits_per_byte": row.bits_per_byte.mean,
                "passkey": row.recall.mean, "tokens_per_second": row.timing.per_second(),
            })
        };
        let rows: Vec<_> = self.rows.iter().map(row).collect();
        json!({ "name": self.name, "train_len": self.train_len, "rows": rows })
    }
}

/// What the reader has seen.
fn sentence(all: &[Measured]) -> String {
    let percent =
        |row: Option<&Row>| row.map_or("–".into(), |r| format!("{:.0} %", 100.0 * r.recall.mean));
    let model = |m: &Measured| {
        let [vanilla, longmamba] =
            [Method::Vanilla, Method::Longmamba].map(|method| m.of(method).last());
        format!(
            "{} recalls {} of the facts as it is and {} with LongMamba",
            m.name,
            percent(vanilla),
            percent(longmamba)
        )
    };
    let models = all.iter().map(model).collect::<Vec<_>>().join(", ");
    let times = |m: &Measured| m.rows.last().map_or(0, |row| row.length / m.train_len);
    match all.iter().map(times).max().unwrap_or(0) {
        times @ FAR.. => format!(
            "What you see: every token makes a model forget a little, so {times} times past the length that it \
             was trained on little is left of what it was told, unless the tokens that matter least are kept \
             from its memory: {models} (guessing: 6 %).\n"
        ),
        times => format!(
            "At {times} × the training length, {models} (guessing: 6 %). Without --lengths the demo goes to \
             {FAR} ×.\n"
        ),
    }
}
