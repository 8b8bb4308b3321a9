//! `longmamba ruler`.

mod files;
mod table;

use crate::args::{Lengths, Loaded, Method, ModelArg, PlanArgs};
use crate::device::{DeviceArg, on_device};
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::progress::Bar;
use crate::run_args::{RunArgs, with_methods};
use clap::Args;
use files::{DataFile, Files, find_data};
use longmamba_model::eval::Estimate;
use longmamba_model::eval::ruler::{
    Answer, Count, Generator, Sample, Source, Sources, TASKS, Task, Templates, answer,
    write_samples,
};
use longmamba_model::eval::run::{Run, Settings};
use longmamba_model::{Backend, SessionOptions, Tokenizer, write_whole};
use serde_json::json;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use table::{Row, Table};

/// RULER: thirteen kinds of questions on contexts of any length
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    longmamba ruler builtin:mamba2-tiny --lengths 4096 --tasks niah_single_1,vt --samples 20\n  \
    longmamba ruler path/to/model --lengths 4096,8192 --essays PaulGrahamEssays.json --squad dev-v2.0.json \
    --hotpotqa hotpot_dev_distractor_v1.json --run results\n  \
    longmamba ruler path/to/model --lengths 4096 --write samples\n  \
    longmamba ruler path/to/model --data samples\n\n\
    Samples are made as RULER's own generators make them, in this program's words: as much context as fits \
    the length with the model's tokenizer, the answer's tokens included. --template takes other words from \
    a JSON file; --write puts this program's own beside the samples as template.json, which is the pattern for it: one object for each kind \
    of task (niah, variable_tracking, common_words_extraction, freq_words_extraction, qa; what is left out \
    stays), with `template`, `answer_prefix` (where the model goes on) and the sentences of the context. \
    Placeholders are {context}, {query}, {type_needle_v}, {num_v}, and in sentences of the context {key} and \
    {value}. Of niah, Some, are all, are and answers become A, is, is and answer where one value is asked for.\n\n\
    Without a file, essays, SQuAD and HotpotQA have made-up stand-ins, and the scores are not those of RULER; \
    the result says so.\n\n\
    A score is the mean over samples, in percent: the share of the references that the answer has in it, for \
    qa whether it has any of them. The average is over the tasks that were run.")]
pub struct Ruler {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    device: DeviceArg,
    /// The most tokens of a sample, ascending, as in 4096,8192 or 4k,8k (4000, 8000)
    #[arg(long, value_name = "N,...", required_unless_present = "data", conflicts_with = "data")]
    lengths: Option<Lengths>,
    /// Which tasks [default: all thirteen, or those that there is data of]
    #[arg(long, value_name = "TASK,...", value_delimiter = ',', value_parser = task)]
    tasks: Vec<&'static Task>,
    /// Samples of each task at each length [default: 500, or all that there are in --data]
    #[arg(long, value_name = "N")]
    samples: Option<NonZeroUsize>,
    /// The same seed makes the same samples
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// Samples that were made before, by this command or by RULER's: a .jsonl file, or a folder of them
    #[arg(long, value_name = "FILE|FOLDER", conflicts_with_all = ["essays", "squad", "hotpotqa", "template"])]
    data: Option<PathBuf>,
    /// The haystack of five tasks: JSON with a "text"
    #[arg(long, value_name = "FILE")]
    essays: Option<PathBuf>,
    /// The questions of qa_1: SQuAD v2.0's JSON
    #[arg(long, value_name = "FILE")]
    squad: Option<PathBuf>,
    /// The questions of qa_2: HotpotQA's JSON, distractor setting
    #[arg(long, value_name = "FILE")]
    hotpotqa: Option<PathBuf>,
    /// The words of the prompts, where they are to be others than this program's
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Write the samples to FOLDER/LENGTH/TASK/validation.jsonl, and the words they are made with to
    /// FOLDER/template.json, instead of running them
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["data", "run", "shard", "method"])]
    write: Option<PathBuf>,
    /// Which to run, of those that `longmamba methods` lists [default: vanilla, and longmamba where there is
    /// a plan]
    #[arg(long, value_delimiter = ',', value_name = "METHOD,...")]
    method: Vec<Method>,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    run: RunArgs,
}

fn task(name: &str) -> Result<&'static Task, String> {
    Task::find(name.trim()).ok_or_else(|| {
        let names: Vec<&str> = TASKS.iter().map(|task| task.name).collect();
        format!("{name:?} is no task; there are {}", names.join(", "))
    })
}

/// The samples of a task at a length.
struct Group<'a> {
    task: &'static Task,
    length: usize,
    count: usize,
    samples: Samples<'a>,
}

enum Samples<'a> {
    Made(Generator<'a>),
    Read(Vec<Sample>),
}

/// What texts others stand in for.
fn standins(groups: &[Group<'_>]) -> Vec<Source> {
    let stands_in = |source: &Source| {
        let here = |g: &&Group<'_>| g.task.source() == Some(*source);
        groups.iter().filter(here).any(|g| g.samples.standin())
    };
    [Source::Essays, Source::Squad, Source::HotpotQa].into_iter().filter(stands_in).collect()
}

impl Samples<'_> {
    fn standin(&self) -> bool {
        match self {
            Samples::Made(generator) => generator.standin(),
            Samples::Read(samples) => samples.iter().any(|sample| sample.standin),
        }
    }

    fn get(&self, index: usize) -> longmamba_model::Result<Sample> {
        match self {
            Samples::Made(generator) => generator.sample(index),
            Samples::Read(samples) => Ok(samples[index].clone()),
        }
    }
}

impl Ruler {
    pub fn run(self, output: &Output) -> Outcome {
        on_device!(self.device, |backend| self.on(backend, output))
    }

    fn on<B: Backend>(&self, backend: B, output: &Output) -> Outcome {
        let mut files = Files::default();
        let sources = self.sources(&mut files)?;
        let templates = match &self.template {
            Some(path) => files.read("template", path, Templates::read)?,
            None => Templates::own()?,
        };
        let data = match &self.data {
            Some(path) => find_data(path, &self.tasks, &mut files)?,
            None => Vec::new(),
        };
        let loaded = self.model.load(backend)?;
        let tokenizer = loaded.tokenizer()?;
        let methods = match self.write {
            Some(_) => Vec::new(),
            None => self.plan.methods(&self.method, &loaded)?,
        };
        let count: Count<'_> = &|text| Ok(tokenizer.encode(text.as_bytes())?.len());
        let groups = match self.data {
            Some(_) => self.read(data),
            None => self.make(&templates, &sources, count, output)?,
        };
        let standins = standins(&groups);
        if let Some(folder) = &self.write {
            return self.write(folder, &groups, &standins, output);
        }
        let settings = Settings::new("ruler", &loaded.model)
            .with("files", files.digests())
            .with("standin", !standins.is_empty())
            .noting("standins", &standins);
        let mut settings = with_methods(settings, &methods)?;
        if self.data.is_none() {
            settings = settings.with("seed", self.seed);
        }
        let run = self.run.open(&settings)?;
        let rows = self.answer(&loaded, &tokenizer, &groups, &methods, &run, output)?;
        Table { rows, standins, shard: self.run.shard(), model: &loaded.name }.print(&run, output)
    }

    fn sources(&self, files: &mut Files) -> Outcome<Sources> {
        use longmamba_model::eval::ruler::{Essays, Questions};
        let essays = self.essays.as_ref().map(|path| files.read("essays", path, Essays::read));
        let squad = self.squad.as_ref().map(|path| files.read("squad", path, Questions::squad));
        let hotpotqa =
            self.hotpotqa.as_ref().map(|path| files.read("hotpotqa", path, Questions::hotpotqa));
        Ok(Sources {
            essays: essays.transpose()?,
            squad: squad.transpose()?,
            hotpotqa: hotpotqa.transpose()?,
        })
    }

    fn read(&self, data: Vec<DataFile>) -> Vec<Group<'static>> {
        let group = |DataFile { task, length, mut samples }| {
            samples.truncate(self.samples.map_or(usize::MAX, NonZeroUsize::get));
            Group { task, length, count: samples.len(), samples: Samples::Read(samples) }
        };
        data.into_iter().map(group).collect()
    }

    /// Finds what does not fit its length before anything is run.
    fn make<'a>(
        &self,
        templates: &'a Templates,
        sources: &'a Sources,
        count: Count<'a>,
        output: &Output,
    ) -> Outcome<Vec<Group<'a>>> {
        let lengths = self.lengths.as_ref().map_or(&[][..], |lengths| &lengths.0);
        let all: Vec<&Task> = TASKS.iter().collect();
        let tasks = if self.tasks.is_empty() { &all } else { &self.tasks };
        let samples = self.samples.map_or(500, NonZeroUsize::get);
        let bar = Bar::new(output, "fitting samples", lengths.len() * tasks.len(), "tasks");
        let mut groups = Vec::new();
        for &length in lengths {
            for &task in tasks {
                let made = Generator::new(task, length, self.seed, templates, sources, count)?;
                let enough = made.samples().is_none_or(|most| samples <= most);
                if !enough {
                    return Err(Failure::input(format!(
                        "--samples {samples}: {} has {} questions",
                        task.name,
                        made.samples().unwrap_or_default()
                    )));
                }
                groups.push(Group { task, length, count: samples, samples: Samples::Made(made) });
                bar.add(1);
            }
        }
        Ok(groups)
    }

    fn write(
        &self,
        folder: &Path,
        groups: &[Group<'_>],
        standins: &[Source],
        output: &Output,
    ) -> Outcome {
        let samples = groups.iter().map(|g| g.count).sum();
        let bar = Bar::new(output, "writing samples", samples, "samples");
        let mut written = Vec::new();
        for Group { task, length, count, samples } in groups {
            let made = (0..*count).map(|index| samples.get(index).inspect(|_| bar.add(1)));
            let made = made.collect::<longmamba_model::Result<Vec<_>>>()?;
            let folder = folder.join(length.to_string()).join(task.name);
            fs::create_dir_all(&folder)
                .map_err(|e| Failure::input(format!("{}: {e}", folder.display())))?;
            let path = folder.join("validation.jsonl");
            write_samples(&path, &made)?;
            written.push(path.display().to_string());
        }
        drop(bar);
        if self.template.is_none() {
            write_whole(&folder.join("template.json"), Templates::OWN.as_bytes())?;
        }
        let json = json!({
            "samples": samples, "files": written, "seed": self.seed,
            "standin": !standins.is_empty(), "standins": standins,
        });
        output.result(&json, || {
            written.iter().map(|path| format!("{path}\n")).collect::<String>()
                + &table::standin_note(standins)
        })
    }

    fn answer<B: Backend>(
        &self,
        loaded: &Loaded<B>,
        tokenizer: &Tokenizer,
        groups: &[Group<'_>],
        methods: &[(Method, SessionOptions)],
        run: &Run,
        output: &Output,
    ) -> Outcome<Vec<Row>> {
        let left = |g: &Group<'_>| g.length * run.shard().indices(g.count).count();
        let tokens = groups.iter().map(left).sum::<usize>() * methods.len();
        let bar = Bar::new(output, "reading prompts", tokens, "tokens");
        let mut rows = Vec::new();
        for Group { task, length, count, samples } in groups {
            for (method, options) in methods {
                let name = format!("{}/{length}/{}", method.name(), task.name);
                let part = run.part::<Answer>(&name, *count)?;
                bar.skip(part.done().len() * length);
                let lines = part.finish(&loaded.model, |index| {
                    let sample = samples.get(index)?;
                    let answer = answer(&loaded.model, tokenizer, task, &sample, options)?;
                    bar.add(*length);
                    Ok(answer)
                })?;
                let scores = lines.iter().map(|line| line.sample.score(task));
                let scores = scores.collect::<longmamba_model::Result<Vec<f64>>>()?;
                // A shard may have none of few samples.
                if let Some(score) = Estimate::of(&scores) {
                    let score = score.scaled(100.0);
                    rows.push(Row { method: method.clone(), length: *length, task, score });
                }
            }
        }
        Ok(rows)
    }
}
