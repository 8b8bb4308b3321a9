//! Files of samples.

use super::config::Setup;
use crate::eval::json_lines;
use crate::eval::metrics::{Context, Dataset, sample_score};
use crate::{Error, Result};
use serde::Deserialize;
use std::path::Path;

/// One question.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Which of its data set's samples, in the file's order, from 0 on.
    pub index: usize,
    /// The data set.
    pub dataset: &'static Dataset,
    /// What the model reads.
    pub prompt: String,
    /// The most tokens of an answer.
    pub max_new: usize,
    /// The right answers.
    pub answers: Vec<String>,
    /// Among what classes the answer is, where it is one.
    pub all_classes: Option<Vec<String>>,
    /// How long the text is, as LongBench counts: in words of English.
    pub length: u64,
}

#[derive(Deserialize)]
struct Line {
    input: String,
    context: String,
    answers: Vec<String>,
    length: u64,
    dataset: Option<String>,
    all_classes: Option<Vec<String>>,
}

pub(super) fn read(path: &Path, dataset: &'static Dataset, setup: &Setup) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    json_lines::for_each(path, |number, line: Line| {
        if let Some(name) = &line.dataset
            && Dataset::find(name).ok() != Some(dataset)
        {
            let reason = format!("of the data set {name:?}, not of {}", dataset.name);
            return Err(Error::line(path, number, reason));
        }
        // What will have no score is better known before hours of work.
        let context = Context { all_classes: line.all_classes.as_deref(), ..Context::default() };
        sample_score(dataset, "", &line.answers, context).map_err(|source| Error::Unscored {
            path: path.to_owned(),
            line: number,
            source,
        })?;
        samples.push(Sample {
            index: samples.len(),
            dataset,
            prompt: setup.template.fill(&line.context, &line.input),
            max_new: setup.max_new,
            answers: line.answers,
            all_classes: line.all_classes,
            length: line.length,
        });
        Ok(())
    })?;
    if samples.is_empty() {
        return Err(Error::malformed(path, "there is no sample in it"));
    }
    Ok(samples)
}
