//! What a model answers, and what that is worth.

use super::jsonl::Sample;
use super::task::Task;
use crate::Result;
use crate::backend::Backend;
use crate::eval::metrics::ruler_postprocess;
use crate::generate::{GenerateOptions, generate};
use crate::model::Model;
use crate::sample::{SampleOptions, Sampler};
use crate::session::SessionOptions;
use crate::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::sync::Arc;

/// An answer, and what it should have in it: a line of a run's file, as the official code writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The text of the new tokens.
    pub pred: String,
    /// The references.
    pub outputs: Vec<String>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
}

impl Answer {
    /// 0 to 1, as the task's metric has it.
    ///
    /// # Errors
    /// [`Error::Metric`](crate::Error::Metric) where there are no references.
    pub fn score(&self, task: &Task) -> Result<f64> {
        Ok(task.metric.sample(&ruler_postprocess(&self.pred), &self.outputs)?)
    }
}

/// Reads a sample's prompt from a fresh state and answers greedily, in at most as many tokens as the task
/// gives; what ends a text for the model ends it earlier.
///
/// # Errors
/// As [`Tokenizer::encode`] and [`generate`].
pub fn answer<B: Backend>(
    model: &Arc<Model<B>>,
    tokenizer: &Tokenizer,
    task: &Task,
    sample: &Sample,
    options: &SessionOptions,
) -> Result<Answer> {
    let prompt = tokenizer.encode(sample.prompt().as_bytes())?;
    let mut session = model.session(options.clone())?;
    let mut greedy = Sampler::new(SampleOptions::default())?;
    let mut new = Vec::with_capacity(task.tokens_to_generate);
    let until = GenerateOptions::new(model, task.tokens_to_generate);
    generate(&mut session, &prompt, &mut greedy, &until, |token| {
        new.push(token);
        ControlFlow::Continue(())
    })?;
    let pred = tokenizer.decode(&new)?;
    Ok(Answer { pred, outputs: sample.outputs.clone(), prompt_tokens: prompt.len() })
}
