use crate::args::{Lengths, Loaded, Method, prose};
use crate::device::{DeviceArg, on_device};
use crate::failure::{Failure, Outcome};
use crate::figures::{self, Axis, Level, LineChart, Look, Panels, Point, Series};
use crate::output::{Output, Table, count, with_error};
use crate::progress::Bar;
use clap::Args;
use longmamba_model::eval::Estimate;
use longmamba_model::eval::perplexity::{Windows, perplexity};
use longmamba_model::eval::recall::{RecallTask, recall};
use longmamba_model::methods::{self, Context};
use longmamba_model::policy::Lookup;
use longmamba_model::{Backend, SessionOptions, Text, Timing, builtin};
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
    #[arg(long, value_name = "FILE.svg|FILE.png")]
    plot: Option<PathBuf>,
    /// Which to run, of those that `longmamba methods` lists and that need no file
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "METHOD,...",
        default_value = "vanilla,longmamba"
    )]
    method: Vec<Method>,
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
        on_device!(self.device.exactly(), |backend| self.on(backend, output))
    }

    fn on<B: Backend>(&self, backend: B, output: &Output) -> Outcome {
        if let Some(path) = &self.plot {
            figures::check_target("--plot", path)?;
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
            let context = Context {
                config: loaded.model.config(),
                plan: Some(plan),
                lookup: Lookup::default(),
                threshold_scale: 1.0,
                scales: &[],
            };
            let options = |method: &Method| {
                let built = methods::build(method.name(), &context)?;
                Ok((method.clone(), SessionOptions { method: built, ..SessionOptions::default() }))
            };
            let methods = self.method.iter().map(options).collect::<Outcome<Vec<_>>>()?;
            let rows = self.measure(&loaded, train_len, &methods, output)?;
            let measured = Measured { name: builtin.name, train_len, rows };
            if !output.json {
                output.print(&(measured.table() + "\n"))?;
            }
            all.push(measured);
        }
        if let Some(path) = &self.plot {
            figures::write("--plot", path, &figure(&all))?;
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
                    method: method.clone(),
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
    pub fn of<'a>(&'a self, method: &'a str) -> impl Iterator<Item = &'a Row> + Clone {
        self.rows.iter().filter(move |row| row.method.name() == method)
    }

    /// The methods, in order, each once.
    pub fn methods(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !names.contains(&row.method.name()) {
                names.push(row.method.name());
            }
        }
        names
    }

    fn table(&self) -> String {
        let methods = self.methods();
        let titles = ["bits per byte", "recall", "bytes/s"]
            .map(|title| std::iter::once(title).chain(std::iter::repeat_n("", methods.len() - 1)));
        let header = ["", ""].into_iter().chain(titles.into_iter().flatten());
        let mut table = Table::new(0, header);
        let names: Vec<&str> = methods.iter().map(|&m| shown(m)).collect();
        table.row([&["bytes", "× training"][..], &names, &names, &names].concat());
        for rows in self.rows.chunks(methods.len()) {
            let Some(first) = rows.first() else { continue };
            let lengths = [first.length, first.length / self.train_len].map(|n| n.to_string());
            let bits = rows.iter().map(|row| with_error(row.bits_per_byte, 2));
            let recall = rows.iter().map(|row| with_error(row.recall, 2));
            let speed = rows.iter().map(|row| count(row.timing.per_second()));
            table.row(lengths.into_iter().chain(bits).chain(recall).chain(speed));
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

/// Recall and bits per byte against length.
fn figure(all: &[Measured]) -> Panels {
    let chart = |title: &str, value: &str, of: fn(&Row) -> Estimate| {
        let series = all.iter().enumerate().flat_map(|(group, measured)| {
            measured.methods().into_iter().enumerate().map(move |(number, method)| Series {
                name: format!("{}, {}", measured.name, shown(method)),
                look: Look::new(number, group),
                points: measured.of(method).map(|row| Point::new(row.length, of(row))).collect(),
            })
        });
        LineChart {
            title: title.into(),
            axis: Axis::Length("bytes".into()),
            value: value.into(),
            range: None,
            series: series.collect(),
            level: None,
            marks: all.iter().map(|m| (m.train_len, "training length")).collect(),
        }
    };
    let recall = chart("Recall: five facts asked for at the end", "share known", |row| row.recall);
    let recall = LineChart {
        range: Some((0.0, 1.0)),
        level: Some(Level { name: "chance (1/16)", value: 1.0 / 16.0 }),
        ..recall
    };
    let bits = "Prediction of the last 100 bytes (less is better)";
    let bits = chart(bits, "bits per byte", |row| row.bits_per_byte);
    let highest = bits.series.iter().flat_map(|s| &s.points).map(|p| p.value).fold(0.0, f64::max);
    let bits = LineChart { range: Some((0.0, (highest * 1.25).max(1.0).ceil())), ..bits };
    Panels {
        title: "Reading far past the training length, without and with LongMamba".into(),
        panels: vec![recall, bits],
    }
}

/// A method's name as people write it.
pub fn shown(method: &str) -> &str {
    if method == Method::LONGMAMBA { "LongMamba" } else { method }
}

/// What the reader has seen, where both methods were run.
fn sentence(all: &[Measured]) -> String {
    let percent =
        |row: Option<&Row>| row.map_or("–".into(), |r| format!("{:.0} %", 100.0 * r.recall.mean));
    let both = [Method::VANILLA, Method::LONGMAMBA];
    if all.iter().any(|m| both.iter().any(|&method| m.of(method).next().is_none())) {
        return String::new();
    }
    let model = |m: &Measured| {
        let [vanilla, longmamba] = both.map(|method| m.of(method).last());
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
