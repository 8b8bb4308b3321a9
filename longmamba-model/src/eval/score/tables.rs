//! The scores of predictions.

use super::predictions::{Benchmark, Group, Predictions, Sample};
use crate::eval::longbench::Prediction;
use crate::eval::metrics::{
    Context, DATASETS, Dataset, MetricError, Similarity, bucket_scores, dataset_score,
    ruler_postprocess, ruler_score, sample_score,
};
use crate::eval::ruler::{TASKS, Task};
use crate::{Error, Result};
use rayon::prelude::*;
use serde::Serialize;

/// One data set of LongBench. Scores are in percent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LongBenchScore {
    /// As [`Group::run`].
    pub run: String,
    /// The data set.
    pub dataset: &'static str,
    /// What it is scored with.
    pub metric: &'static str,
    /// How many predictions.
    pub samples: usize,
    /// How many are missing, as far as indices tell.
    pub missing: u64,
    /// Over all samples, as LongBench's `scorer` has it.
    pub score: f64,
    /// Of the samples of length 0-4k, 4-8k and 8k+, as its `scorer_e` has it; `None` where there are none, or
    /// some sample has no length.
    pub by_length: [Option<f64>; 3],
}

/// One task of RULER at one length. Scores are in percent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RulerScore {
    /// As [`Group::run`].
    pub run: String,
    /// The length, where it is known.
    pub length: Option<u64>,
    /// The task.
    pub task: String,
    /// How many predictions.
    pub samples: usize,
    /// How many are missing, as far as indices tell.
    pub missing: u64,
    /// The mean of its samples.
    pub score: f64,
}

/// All scores, by run, RULER's then by length, and in the official order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Scores {
    /// Data sets of LongBench.
    pub longbench: Vec<LongBenchScore>,
    /// Tasks of RULER.
    pub ruler: Vec<RulerScore>,
}

impl LongBenchScore {
    /// Of predictions that are in memory, as if they were all of a file.
    ///
    /// # Errors
    /// [`Error::Metric`].
    pub fn of<'a>(
        run: &str,
        dataset: &'static Dataset,
        predictions: impl Iterator<Item = &'a Prediction> + Clone,
        similarity: Similarity,
    ) -> Result<Self> {
        let all_classes = predictions.clone().last().and_then(|p| p.all_classes.as_deref());
        let context = Context { all_classes, similarity };
        let score = |p: &Prediction| sample_score(dataset, &p.pred, &p.answers, context);
        let scores: Vec<f64> =
            predictions.clone().map(score).collect::<std::result::Result<_, _>>()?;
        let lengths = predictions.map(|p| Some(p.length)).collect();
        Ok(LongBenchScore::new(run, dataset, &scores, lengths, 0)?)
    }

    fn new(
        run: &str,
        dataset: &Dataset,
        scores: &[f64],
        lengths: Option<Vec<u64>>,
        missing: u64,
    ) -> std::result::Result<Self, MetricError> {
        let by_length = lengths.map_or([None; 3], |lengths| {
            bucket_scores(&lengths.into_iter().zip(scores.iter().copied()).collect::<Vec<_>>())
        });
        Ok(LongBenchScore {
            run: run.to_owned(),
            dataset: dataset.name,
            metric: dataset.metric.name(),
            samples: scores.len(),
            missing,
            score: dataset_score(scores)?,
            by_length,
        })
    }
}

impl Predictions {
    /// Scores everything.
    ///
    /// A classification is made among the classes of its data set's last line, as LongBench's code has it.
    ///
    /// # Errors
    /// [`Error::Unscored`], with the line, as the metrics say.
    pub fn score(&self, similarity: Similarity) -> Result<Scores> {
        let mut scores = Scores::default();
        for group in &self.groups {
            match group.benchmark {
                Benchmark::LongBench => scores.longbench.push(self.longbench(group, similarity)?),
                Benchmark::Ruler => scores.ruler.push(self.ruler(group)?),
            }
        }
        let place = |name| DATASETS.iter().position(|d| d.name == name);
        scores.longbench.sort_by_key(|s| (s.run.clone(), place(s.dataset)));
        let place = |name: &str| TASKS.iter().position(|task| task.name == name);
        scores.ruler.sort_by_key(|s| (s.run.clone(), s.length, place(&s.task)));
        Ok(scores)
    }

    fn longbench(&self, group: &Group, similarity: Similarity) -> Result<LongBenchScore> {
        let dataset = Dataset::find(&group.name)?;
        let all_classes = group.samples.last().and_then(|s| s.all_classes.as_deref());
        let context = Context { all_classes, similarity };
        let scores = self.each(group, |sample| {
            sample_score(dataset, &sample.prediction, &sample.references, context)
        })?;
        let lengths = group.samples.iter().map(|s| s.length).collect();
        let missing = group.missing.count;
        Ok(LongBenchScore::new(&group.run, dataset, &scores, lengths, missing)?)
    }

    fn ruler(&self, group: &Group) -> Result<RulerScore> {
        let rule = Task::find(&group.name).map(|task| task.metric);
        let rule =
            rule.ok_or_else(|| Error::argument(format!("{} is no task of RULER", group.name)))?;
        let samples = self.each(group, |sample| {
            rule.sample(&ruler_postprocess(&sample.prediction), &sample.references)
        })?;
        Ok(RulerScore {
            run: group.run.clone(),
            length: group.length,
            task: group.name.clone(),
            samples: samples.len(),
            missing: group.missing.count,
            score: ruler_score(&samples)?,
        })
    }

    /// The score of each sample; the error of the first that has none.
    fn each(
        &self,
        group: &Group,
        score: impl Fn(&Sample) -> std::result::Result<f64, MetricError> + Sync + Send,
    ) -> Result<Vec<f64>> {
        let scored: Vec<_> = group.samples.par_iter().map(score).collect();
        let scored = scored.into_iter().zip(&group.samples);
        scored
            .map(|(score, sample)| {
                score.map_err(|source| {
                    let path = self.files[sample.place.file].clone();
                    Error::Unscored { path, line: sample.place.line, source }
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
