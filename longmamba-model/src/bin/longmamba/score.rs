use crate::failure::{Failure, Outcome};
use crate::output::{Output, Table};
use clap::{Args, ValueEnum};
use longmamba_model::eval::metrics::{LengthBucket, Similarity};
use longmamba_model::eval::ruler::TASKS;
use longmamba_model::eval::score::golden::{Wrong, golden};
use longmamba_model::eval::score::{
    Group, LongBenchScore, Missing, Order, Predictions, RulerScore, Scores,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Score predictions for LongBench and RULER, from here or elsewhere, or check the metrics
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  longmamba score longbench-e\n  longmamba score pred/model/*.jsonl --json\n  \
    longmamba score --golden metrics.jsonl\n\n\
    A line of LongBench's has pred, answers, all_classes and length, one of RULER's pred and outputs. The data \
    set or task is the field dataset or task, or the file's name up to its first dot; RULER's length is the \
    field max_seq_length, or a folder's name. The shards of a run are merged by index.\n\
    Scores are in percent; an average is over data sets or tasks, each of the same weight.\n\
    Exit code 1: a golden case has another score than the official code gives."
)]
pub struct Score {
    /// Files of JSON lines, or folders with .jsonl files in and below them
    #[arg(value_name = "RUN", required_unless_present = "golden")]
    runs: Vec<PathBuf>,
    /// Instead, compare our metrics with the scores in this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["runs", "partial", "unindexed", "similarity"])]
    golden: Option<PathBuf>,
    /// Score what is there, though samples are missing
    #[arg(long)]
    partial: bool,
    /// Take lines as they stand: their index is not the sample's number, as in RULER's own niah files
    #[arg(long)]
    unindexed: bool,
    /// How lines of code are compared
    #[arg(long, value_enum, default_value = "difflib")]
    similarity: SimilarityArg,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SimilarityArg {
    /// As LongBench's list of requirements has it
    Difflib,
    /// As where python-Levenshtein is installed too
    Levenshtein,
}

impl Score {
    pub fn run(self, output: &Output) -> Outcome {
        if let Some(file) = &self.golden {
            return check(file, output);
        }
        let order = if self.unindexed { Order::Lines } else { Order::Index };
        let predictions = Predictions::read(&self.runs, order)?;
        if !self.partial {
            predictions.groups.iter().try_for_each(whole)?;
        }
        let scores = predictions.score(match self.similarity {
            SimilarityArg::Difflib => Similarity::Difflib,
            SimilarityArg::Levenshtein => Similarity::Levenshtein,
        })?;
        let (json, text) = tables(&scores, &[]);
        output.result(&json, || text)
    }
}

/// Samples that are missing are not passed over in silence.
fn whole(group: &Group) -> Outcome {
    let Missing { count, first } = &group.missing;
    if *count == 0 {
        return Ok(());
    }
    let first: Vec<String> = first.iter().map(u64::to_string).collect();
    let more = if *count > first.len() as u64 { ", …" } else { "" };
    let length = group.length.map_or(String::new(), |length| format!(" of length {length}"));
    Err(Failure::input(format!(
        "{}{length}{}: {count} samples are missing (index {}{more}); give all shards, or --partial",
        group.name,
        if group.run.is_empty() { String::new() } else { format!(" in {}", group.run) },
        first.join(", ")
    )))
}

/// The tables, and as one JSON object, in which `more` is too.
pub fn tables(scores: &Scores, more: &[(&str, Value)]) -> (Value, String) {
    let longbench = averages(&scores.longbench, |s| s.run.clone());
    let ruler = averages(&scores.ruler, |s| (s.run.clone(), s.length));
    let mut json = json!({
        "longbench": scores.longbench.iter().map(longbench_json).collect::<Vec<_>>(),
        "longbench_averages": longbench.iter().map(|(run, rows)| json!({
            "run": run, "datasets": rows.len(), "score": mean(rows, |s| Some(s.score)),
            "by_length": by_length(|i| mean(rows, |s| s.by_length[i])),
        })).collect::<Vec<_>>(),
        "ruler": scores.ruler,
        "ruler_averages": ruler.iter().map(|((run, length), rows)| json!({
            "run": run, "length": length, "tasks": rows.len(), "score": mean(rows, |s| Some(s.score)),
        })).collect::<Vec<_>>(),
    });
    for (name, value) in more {
        json[*name] = value.clone();
    }
    let mut texts = Vec::new();
    if !longbench.is_empty() {
        texts.push(longbench_table(&longbench));
    }
    if !ruler.is_empty() {
        texts.push(ruler_table(&ruler));
    }
    (json, texts.join("\n"))
}

/// What is averaged together.
fn averages<S, K: Ord>(scores: &[S], key: impl Fn(&S) -> K) -> BTreeMap<K, Vec<&S>> {
    let mut groups: BTreeMap<K, Vec<&S>> = BTreeMap::new();
    for score in scores {
        groups.entry(key(score)).or_default().push(score);
    }
    groups
}

/// The mean of those that have a score.
fn mean<S>(rows: &[&S], score: impl Fn(&S) -> Option<f64>) -> Option<f64> {
    let scores: Vec<f64> = rows.iter().filter_map(|row| score(row)).collect();
    (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
}

fn by_length(score: impl Fn(usize) -> Option<f64>) -> Value {
    let scores = LengthBucket::ALL.into_iter().enumerate();
    Value::Object(scores.map(|(i, bucket)| (bucket.name().into(), json!(score(i)))).collect())
}

fn longbench_json(score: &LongBenchScore) -> Value {
    let mut json = json!(score);
    json["by_length"] = by_length(|i| score.by_length[i]);
    json
}

fn percent(score: Option<f64>) -> String {
    score.map_or("–".into(), |score| format!("{score:.2}"))
}

fn samples(samples: usize, missing: u64) -> String {
    match missing {
        0 => samples.to_string(),
        _ => format!("{samples}, {missing} missing"),
    }
}

fn longbench_table(averages: &BTreeMap<String, Vec<&LongBenchScore>>) -> String {
    let lengths = LengthBucket::ALL.map(LengthBucket::name);
    let header = ["run", "data set", "metric", "samples", "score"];
    let mut table = Table::new(3, header.into_iter().chain(lengths));
    for (run, rows) in averages {
        let row =
            |table: &mut Table, name: &str, metric: &str, samples, scores: [Option<f64>; 4]| {
                let cells = [run.clone(), name.into(), metric.into(), samples];
                table.row(cells.into_iter().chain(scores.map(percent)));
            };
        for s in rows {
            let [short, middle, long] = s.by_length;
            let scores = [Some(s.score), short, middle, long];
            row(&mut table, s.dataset, s.metric, samples(s.samples, s.missing), scores);
        }
        let [short, middle, long] = [0, 1, 2].map(|i| mean(rows, |s| s.by_length[i]));
        let of = match rows.len() {
            1 => "1 data set".into(),
            n => format!("{n} data sets"),
        };
        let scores = [mean(rows, |s| Some(s.score)), short, middle, long];
        row(&mut table, "average", &of, String::new(), scores);
    }
    table.text()
}

fn ruler_table(averages: &BTreeMap<(String, Option<u64>), Vec<&RulerScore>>) -> String {
    let mut table = Table::new(3, ["run", "length", "task", "samples", "score"]);
    for ((run, length), rows) in averages {
        let length = length.map_or("–".into(), |length| length.to_string());
        let row = |table: &mut Table, name: String, samples, score| {
            table.row([run.clone(), length.clone(), name, samples, percent(score)]);
        };
        for s in rows {
            row(&mut table, s.task.clone(), samples(s.samples, s.missing), Some(s.score));
        }
        let name = format!("average, {} of {} tasks", rows.len(), TASKS.len());
        row(&mut table, name, String::new(), mean(rows, |s| Some(s.score)));
    }
    table.text()
}

/// `--golden`
fn check(file: &Path, output: &Output) -> Outcome {
    let report = golden(file)?;
    let json = json!({ "golden": file, "passed": report.passed(), "report": report });
    output.result(&json, || {
        let mut table = Table::new(1, ["metric", "cases", "equal", "excused", "wrong"]);
        for (metric, tally) in &report.metrics {
            let counts = [tally.cases, tally.equal, tally.excused, tally.wrong];
            table.row([metric.clone()].into_iter().chain(counts.map(|count| count.to_string())));
        }
        let mut text = table.text();
        for (tag, count) in &report.excused {
            text += &format!("excused: {tag} {count}\n");
        }
        for wrong in &report.wrong {
            let Wrong { id, metric, tag, expected, actual } = wrong;
            text += &format!("WRONG: {id} ({metric}, {tag}): {actual}, expected {expected}\n");
        }
        text
    })?;
    if report.passed() { Ok(()) } else { Err(Failure::Compared) }
}
