//! Our metrics against scores that the official Python code gave.
//!
//! A line of the file is an object with `id`, `metric` (the official function's name), `prediction`,
//! `reference`, `score` and `tag`, and where the metric needs them `all_classes`, `dataset` and `lengths`.
//! A `score` of null is one where the official code raises an exception.

use crate::eval::json_lines;
use crate::eval::metrics::{
    Context, Dataset, LengthBucket, Metric, MetricError, Similarity, StringMatch, bucket_scores,
    dataset_score, normalize_answer, normalize_zh_answer, ruler_postprocess, ruler_score,
    sample_score,
};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// The most by which a score may differ.
const TOLERANCE: f64 = 1e-9;

/// Tags of cases in which Python's own habits decide, which are not copied.
const EXCUSED: [&str; 3] = ["recursion_limit", "ws-1c-1f", "unicode-wordboundary"];

/// How the cases of a file went.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Golden {
    /// By metric.
    pub metrics: BTreeMap<String, Tally>,
    /// How many were excused, by tag; `zh` are those that need the feature `zh`.
    pub excused: BTreeMap<String, usize>,
    /// The cases that went wrong, in the file's order.
    pub wrong: Vec<Wrong>,
}

/// How the cases of one metric went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// All of them.
    pub cases: usize,
    /// The score is the official one.
    pub equal: usize,
    /// It is another, as it may be in such a case.
    pub excused: usize,
    /// It is another.
    pub wrong: usize,
}

/// A case that went wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Wrong {
    /// The case.
    pub id: String,
    /// The metric.
    pub metric: String,
    /// The case's tag.
    pub tag: String,
    /// The official score.
    pub expected: Value,
    /// Ours; what it says where it is none.
    pub actual: Value,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    metric: String,
    tag: String,
    prediction: Texts,
    reference: Option<References>,
    all_classes: Option<Vec<String>>,
    dataset: Option<String>,
    lengths: Option<Vec<u64>>,
    score: Value,
    score_levenshtein_backend: Option<f64>,
    score_unlimited_recursion: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum References {
    One(String),
    Lists(Vec<Vec<String>>),
}

/// Scores every case of the file.
///
/// # Errors
/// [`Error::Io`]; [`Error::Line`] for a line that is no case; [`Error::Malformed`] for a file without any.
pub fn golden(path: &Path) -> Result<Golden> {
    let mut golden = Golden::default();
    json_lines::for_each(path, |line, case: Case| {
        let bad = |reason: String| Error::line(path, line, reason);
        let outcome = case.run(Similarity::Difflib).map_err(bad)?;
        golden.count(&case, &case.metric, &case.score, outcome);
        if let Some(score) = case.score_levenshtein_backend {
            let outcome = case.run(Similarity::Levenshtein).map_err(bad)?;
            let metric = format!("{} (Levenshtein)", case.metric);
            golden.count(&case, &metric, &json!(score), outcome);
        }
        Ok(())
    })?;
    if golden.metrics.is_empty() {
        return Err(Error::malformed(path, "there is no case in it"));
    }
    Ok(golden)
}

impl Golden {
    /// Whether no case went wrong.
    pub fn passed(&self) -> bool {
        self.wrong.is_empty()
    }

    fn count(
        &mut self,
        case: &Case,
        metric: &str,
        expected: &Value,
        outcome: std::result::Result<Value, MetricError>,
    ) {
        let tally = self.metrics.entry(metric.to_owned()).or_default();
        tally.cases += 1;
        let no_dictionary = matches!(outcome, Err(MetricError::NoSegmentation { .. }));
        let (right, actual) = match outcome {
            Ok(actual) => (equal(expected, &actual), actual),
            Err(why) => (expected.is_null() && !no_dictionary, json!(why.to_string())),
        };
        let tag = match case.score_unlimited_recursion {
            // Another score than the official one, but one that is known.
            Some(score) if equal(&json!(score), &actual) => Some("recursion_limit"),
            Some(_) => None,
            None if no_dictionary => Some("zh"),
            None => EXCUSED.into_iter().find(|tag| case.tag == *tag),
        };
        match tag {
            _ if right => tally.equal += 1,
            Some(tag) => {
                tally.excused += 1;
                *self.excused.entry(tag.to_owned()).or_default() += 1;
            }
            None => {
                tally.wrong += 1;
                self.wrong.push(Wrong {
                    id: case.id.clone(),
                    metric: metric.to_owned(),
                    tag: case.tag.clone(),
                    expected: expected.clone(),
                    actual,
                });
            }
        }
    }
}

fn equal(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::Number(a), Value::Number(b)) => {
            let difference = a.as_f64().zip(b.as_f64()).map(|(a, b)| (a - b).abs());
            difference.is_some_and(|d| d <= TOLERANCE)
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        (a, b) => a == b,
    }
}

/// The score that a metric gives, or why it gives none.
type Scored = std::result::Result<Value, MetricError>;

impl Case {
    /// The outer error says what the case lacks.
    fn run(&self, similarity: Similarity) -> std::result::Result<Scored, String> {
        let context = Context { all_classes: self.all_classes.as_deref(), similarity };
        let score = |metric: Metric| {
            let (prediction, reference) = self.pair()?;
            Ok(metric.score(prediction, reference, context).map(|score| json!(score)))
        };
        match &*self.metric {
            "qa_f1_score" => score(Metric::QaF1),
            "qa_f1_zh_score" => score(Metric::QaF1Zh),
            "rouge_score" => score(Metric::RougeL),
            "rouge_zh_score" => score(Metric::RougeLZh),
            "classification_score" => score(Metric::Classification),
            "retrieval_score" => score(Metric::Retrieval),
            "retrieval_zh_score" => score(Metric::RetrievalZh),
            "count_score" => score(Metric::Count),
            "code_sim_score" => score(Metric::CodeSim),
            "normalize_answer" => Ok(Ok(json!(normalize_answer(self.prediction()?)))),
            "normalize_zh_answer" => Ok(Ok(json!(normalize_zh_answer(self.prediction()?)))),
            "ruler_postprocess" => Ok(Ok(json!(ruler_postprocess(self.prediction()?)))),
            "string_match_all" => self.ruler(StringMatch::All),
            "string_match_part" => self.ruler(StringMatch::Part),
            "scorer" => {
                Ok(self.samples(context)?.and_then(|s| dataset_score(&s)).map(|score| json!(score)))
            }
            "scorer_e" => self.buckets(context),
            other => Err(format!("metric {other:?} is none of LongBench's and RULER's")),
        }
    }

    fn prediction(&self) -> std::result::Result<&str, String> {
        match &self.prediction {
            Texts::One(text) => Ok(text),
            Texts::Many(_) => Err(format!("the prediction of {} must be a string", self.metric)),
        }
    }

    fn pair(&self) -> std::result::Result<(&str, &str), String> {
        match (&self.prediction, &self.reference) {
            (Texts::One(prediction), Some(References::One(reference))) => {
                Ok((prediction, reference))
            }
            _ => Err(format!("prediction and reference of {} must be strings", self.metric)),
        }
    }

    /// Predictions, each with its references.
    fn lists(&self) -> std::result::Result<impl Iterator<Item = (&str, &[String])>, String> {
        match (&self.prediction, &self.reference) {
            (Texts::Many(predictions), Some(References::Lists(references)))
                if predictions.len() == references.len() =>
            {
                let references = references.iter().map(Vec::as_slice);
                Ok(predictions.iter().map(String::as_str).zip(references))
            }
            _ => Err(format!(
                "{} takes a list of strings and as many lists of references",
                self.metric
            )),
        }
    }

    fn ruler(&self, rule: StringMatch) -> std::result::Result<Scored, String> {
        let samples =
            self.lists()?.map(|(prediction, references)| rule.sample(prediction, references));
        let samples: std::result::Result<Vec<f64>, _> = samples.collect();
        Ok(samples.and_then(|samples| ruler_score(&samples)).map(|score| json!(score)))
    }

    fn samples(
        &self,
        context: Context<'_>,
    ) -> std::result::Result<std::result::Result<Vec<f64>, MetricError>, String> {
        let name =
            self.dataset.as_deref().ok_or_else(|| format!("{} needs a dataset", self.metric))?;
        let dataset = Dataset::find(name).map_err(|e| e.to_string())?;
        let score = |(prediction, references): (&str, &[String])| {
            sample_score(dataset, prediction, references, context)
        };
        Ok(self.lists()?.map(score).collect())
    }

    fn buckets(&self, context: Context<'_>) -> std::result::Result<Scored, String> {
        let samples = self.samples(context)?;
        let lengths = self.lengths.as_deref().unwrap_or(&[]);
        Ok(match samples {
            Ok(samples) if samples.len() != lengths.len() => {
                return Err("scorer_e needs a length for each prediction".into());
            }
            Ok(samples) => {
                let samples: Vec<(u64, f64)> = lengths.iter().copied().zip(samples).collect();
                let names = LengthBucket::ALL.map(|bucket| bucket.name().to_owned());
                let scores = bucket_scores(&samples).map(|score| json!(score));
                Ok(Value::Object(names.into_iter().zip(scores).collect()))
            }
            Err(why) => Err(why),
        })
    }
}
