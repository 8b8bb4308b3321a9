use crate::args::{Method, ModelArg, PlanArgs};
use crate::device::{DeviceArg, on_device};
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::progress::Bar;
use crate::run_args::{RunArgs, with_methods};
use clap::Args;
use longmamba_model::Backend;
use longmamba_model::eval::longbench::{
    Edition, LongBench, PredictOptions, Prediction, Sample, predict,
};
use longmamba_model::eval::metrics::{DATASETS, Dataset, Similarity};
use longmamba_model::eval::run::{Settings, Shard};
use longmamba_model::eval::score::{LongBenchScore, Scores};
use serde_json::{Map, json};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// Answer the questions of LongBench, and score the answers
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  longmamba longbench path/to/model --data LongBench --e --run longbench-e\n\n\
    LongBench is not part of this program: unpack its data.zip, and put the folder config of its repository \
    beside the data. Prompts are read whole, without a chat template, and answered greedily.\n\
    With --run an evaluation that was stopped goes on where it was. A shard does every N-th sample; \
    `longmamba score` merges the shards."
)]
pub struct LongBenchCommand {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    device: DeviceArg,
    /// The folder with LongBench's .jsonl files, or with data in it
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// The folder with dataset2prompt.json and dataset2maxlen.json [default: beside the data]
    #[arg(long, value_name = "FOLDER")]
    config: Option<PathBuf>,
    /// LongBench-E, the files that end in _e
    #[arg(long)]
    e: bool,
    /// Which data sets [default: all that are there]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    datasets: Vec<String>,
    /// Only so many samples of each, the first ones
    #[arg(long, value_name = "N", value_parser = crate::args::length)]
    samples: Option<usize>,
    /// Cut the middle out of prompts of more tokens [default: read them whole]
    #[arg(long, value_name = "N", value_parser = crate::args::length)]
    max_prompt: Option<usize>,
    /// End answers of samsum with their first line, as LongBench's code does and LongMamba's does not
    #[arg(long)]
    samsum_newline: bool,
    /// Take the spaces before punctuation out of answers, as LongMamba's tokenizer does
    #[arg(long)]
    clean_up_spaces: bool,
    /// Which to run, of those that `longmamba methods` lists [default: vanilla, and longmamba where there is
    /// a plan]
    #[arg(long, value_delimiter = ',', value_name = "METHOD,...")]
    method: Vec<Method>,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    run: RunArgs,
}

impl LongBenchCommand {
    pub fn run(self, output: &Output) -> Outcome {
        on_device!(self.device, |backend| self.on(backend, output))
    }

    fn on<B: Backend>(&self, backend: B, output: &Output) -> Outcome {
        if self.max_prompt == Some(1) {
            return Err(Failure::input("--max-prompt is 1, must be at least 2"));
        }
        let shard = self.run.shard();
        let bench = LongBench::open(&self.data, self.config.as_deref())?;
        let datasets = self.datasets(&bench)?;
        let read = |dataset| -> Outcome<Vec<Sample>> {
            let mut samples = bench.samples(dataset, self.edition())?;
            samples.truncate(self.samples.unwrap_or(usize::MAX));
            Ok(samples)
        };
        // Whatever is wrong with the data is found before anything is read by the model.
        let mut digests = Map::new();
        let mut total = 0;
        for &dataset in &datasets {
            let samples = read(dataset)?;
            digests.insert(dataset.name.to_owned(), digest(&samples).into());
            total += shard.indices(samples.len()).count();
        }

        let loaded = self.model.load(backend)?;
        let (model, tokenizer) = (&loaded.model, loaded.tokenizer()?);
        let methods = self.plan.methods(&self.method, &loaded)?;
        let options = PredictOptions {
            max_prompt: self.max_prompt,
            samsum_newline: self.samsum_newline,
            clean_up_spaces: self.clean_up_spaces,
        };
        let settings = Settings::new("longbench", model)
            .with("e", self.e)
            .with("datasets", &digests)
            .with("answers", options)
            .noting("data", &self.data);
        let run = self.run.open(&with_methods(settings, &methods)?)?;

        let bar = Bar::new(output, "answering", total * methods.len(), "samples");
        let mut scores = Scores::default();
        for &dataset in &datasets {
            let samples = read(dataset)?;
            for (method, session) in &methods {
                let ending = if self.e { "_e" } else { "" };
                let name = format!("{}/{}{ending}", method.name(), dataset.name);
                let part = run.part::<Prediction>(&name, samples.len())?;
                bar.skip(part.done().len());
                let lines = part.finish(model, |index| {
                    let answer = predict(model, &tokenizer, &samples[index], options, session)?;
                    bar.add(1);
                    Ok(answer)
                })?;
                // A shard of a small data set may have no samples.
                if !lines.is_empty() {
                    let answers = lines.iter().map(|line| &line.sample);
                    let similarity = Similarity::default();
                    let score = LongBenchScore::of(method.name(), dataset, answers, similarity)?;
                    scores.longbench.push(score);
                }
            }
        }
        drop(bar);
        // The tables are by method.
        scores.longbench.sort_by(|a, b| a.run.cmp(&b.run));
        if shard != Shard::WHOLE {
            output
                .note("scores of this shard's samples alone; `longmamba score` merges the shards");
        }
        let more = [
            ("evaluation", json!("longbench")),
            ("model", json!(loaded.name)),
            ("shard", json!(shard.to_string())),
        ];
        let (json, text) = crate::score::tables(&scores, &more);
        run.write_result(&json)?;
        output.result(&json, || text)
    }

    fn edition(&self) -> Edition {
        if self.e { Edition::E } else { Edition::Whole }
    }

    /// Those that were named, or those that are there, in LongBench's order.
    fn datasets(&self, bench: &LongBench) -> Outcome<Vec<&'static Dataset>> {
        let named = self.datasets.iter().map(|name| Dataset::find(name));
        let named: Vec<_> = named
            .collect::<Result<_, _>>()
            .map_err(|e| Failure::input(format!("--datasets: {e}")))?;
        let datasets = match named.is_empty() {
            true => bench.datasets(self.edition()),
            false => DATASETS.iter().filter(|d| named.contains(d)).collect(),
        };
        if datasets.is_empty() {
            let ending = if self.e { "_e.jsonl" } else { ".jsonl" };
            return Err(Failure::input(format!(
                "--data {}: no data set of LongBench (such as hotpotqa{ending}) is there; unpack data.zip",
                self.data.display()
            )));
        }
        Ok(datasets)
    }
}

/// Of questions and right answers, so that a run is not continued with others.
fn digest(samples: &[Sample]) -> String {
    let mut hash = Sha256::new();
    for sample in samples {
        hash.update(sample.prompt.len().to_le_bytes());
        hash.update(&sample.prompt);
        let Sample { max_new, answers, all_classes, length, .. } = sample;
        hash.update(json!([max_new, answers, all_classes, length]).to_string());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
