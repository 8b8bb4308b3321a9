//! The result: a row for each task, a column for each length.

use crate::args::Method;
use crate::failure::Outcome;
use crate::output::{self, Output};
use longmamba_model::eval::Estimate;
use longmamba_model::eval::metrics::python_round;
use longmamba_model::eval::ruler::{Source, Task};
use longmamba_model::eval::run::{Run, Shard};
use serde_json::json;

/// The score of a task at a length, in percent.
#[derive(Debug)]
pub struct Row {
    pub method: Method,
    pub length: usize,
    pub task: &'static Task,
    pub score: Estimate,
}

pub struct Table<'a> {
    pub rows: Vec<Row>,
    pub standins: Vec<Source>,
    pub shard: Shard,
    pub model: &'a str,
}

/// What stood in for what was not given; nothing where all was.
pub fn standin_note(standins: &[Source]) -> String {
    if standins.is_empty() {
        return String::new();
    }
    let flags: Vec<&str> = standins.iter().map(|source| source.flag()).collect();
    format!(
        "STAND-IN TEXTS were used for want of {}: not RULER's tasks, and not to be compared with them.\n",
        flags.join(" and ")
    )
}

impl Table<'_> {
    pub fn print(&self, run: &Run, output: &Output) -> Outcome {
        let rows = self.rows.iter().map(|Row { method, length, task, score }| {
            json!({
                "method": method, "length": length, "task": task.name, "samples": score.samples,
                "score": python_round(score.mean), "standard_error": score.standard_error,
                "standin": task.source().is_some_and(|source| self.standins.contains(&source)),
            })
        });
        let averages = self.lengths().into_iter().flat_map(|(method, lengths)| {
            let method = method.clone();
            lengths.into_iter().map(move |length| {
                let scores = self.scores(&method, length);
                let average = mean(&scores);
                json!({
                    "method": method, "length": length, "tasks": scores.len(), "score": python_round(average),
                })
            })
        });
        let json = json!({
            "evaluation": "ruler", "model": self.model, "shard": self.shard.to_string(),
            "standin": !self.standins.is_empty(), "standins": self.standins,
            "rows": rows.collect::<Vec<_>>(), "averages": averages.collect::<Vec<_>>(),
        });
        run.write_result(&json)?;
        output.result(&json, || self.text())
    }

    fn text(&self) -> String {
        let mut lengths: Vec<usize> = self.rows.iter().map(|row| row.length).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let header = ["method".into(), "task".into()].into_iter();
        let mut table = output::Table::new(2, header.chain(lengths.iter().map(usize::to_string)));
        for (method, _) in self.lengths() {
            let mut tasks: Vec<&Task> = Vec::new();
            for row in self.rows.iter().filter(|row| row.method == method) {
                if !tasks.contains(&row.task) {
                    tasks.push(row.task);
                }
            }
            let cell = |value: Option<f64>| value.map_or("–".into(), |v| format!("{v:.2}"));
            for task in tasks {
                let score = |&length: &usize| {
                    let of =
                        |row: &&Row| (&row.method, row.length, row.task) == (&method, length, task);
                    cell(self.rows.iter().find(of).map(|row| python_round(row.score.mean)))
                };
                let name = [method.name().to_owned(), task.name.to_owned()];
                table.row(name.into_iter().chain(lengths.iter().map(score)));
            }
            let average = |&length: &usize| {
                let scores = self.scores(&method, length);
                cell((!scores.is_empty()).then(|| python_round(mean(&scores))))
            };
            let name = [method.name().to_owned(), "average".to_owned()];
            table.row(name.into_iter().chain(lengths.iter().map(average)));
        }
        let mut text = table.text() + &standin_note(&self.standins);
        if self.shard != Shard::WHOLE {
            text += &format!("Shard {} of the samples only.\n", self.shard);
        }
        text
    }

    /// The methods, each with its lengths, in the order of the rows.
    fn lengths(&self) -> Vec<(Method, Vec<usize>)> {
        let mut all: Vec<(Method, Vec<usize>)> = Vec::new();
        for row in &self.rows {
            match all.iter_mut().find(|(method, _)| *method == row.method) {
                Some((_, lengths)) if lengths.contains(&row.length) => {}
                Some((_, lengths)) => lengths.push(row.length),
                None => all.push((row.method.clone(), vec![row.length])),
            }
        }
        all
    }

    /// Of all tasks, rounded, as the official average takes them.
    fn scores(&self, method: &Method, length: usize) -> Vec<f64> {
        let rows = self.rows.iter().filter(|row| (&row.method, row.length) == (method, length));
        rows.map(|row| python_round(row.score.mean)).collect()
    }
}

fn mean(scores: &[f64]) -> f64 {
    scores.iter().sum::<f64>() / scores.len().max(1) as f64
}
