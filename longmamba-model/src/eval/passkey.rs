//! Passkey retrieval: a sentence with a number, hidden in prose, asked for at the end.

use super::recall::{PromptScore, mean};
use super::run::{Part, Run, Shard};
use super::{Estimate, Progress, at_least_one};
use crate::backend::Backend;
use crate::generate::{GenerateOptions, Timing, generate};
use crate::model::Model;
use crate::sample::{SampleOptions, Sampler};
use crate::session::SessionOptions;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PasskeyTask {
    /// Tokens of a prompt, everything included.
    pub length: usize,
    /// Where the number stands: 0 at the beginning of the prose, 1 at its end.
    pub depth: f64,
}

/// One prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasskeyPrompt {
    /// The prompt.
    pub tokens: Vec<u32>,
    /// The digits that the answer must contain.
    pub number: String,
}

/// How many numbers were found.
#[derive(Clone, Debug, PartialEq)]
pub struct Passkey {
    /// The share found; a sample is a prompt.
    pub found: Estimate,
    /// Tokens of the prompts, and the time for prompts and answers.
    pub timing: Timing,
}

/// Tokens in which the number must come: enough for seven digits in as many tokens and some words.
const ANSWER_TOKENS: usize = 24;

impl PasskeyTask {
    /// Makes a prompt from a random piece of the tokens of `prose`.
    ///
    /// # Errors
    /// [`Error::Argument`] where the depth is out of range, the length has no room for the question,
    /// or the prose is too short; [`Error::Tokenizer`].
    pub fn prompt(
        &self,
        tokenizer: &Tokenizer,
        prose: &[u32],
        random: &mut fastrand::Rng,
    ) -> Result<PasskeyPrompt> {
        let PasskeyTask { length, depth } = *self;
        if !(0.0..=1.0).contains(&depth) {
            return Err(Error::argument(format!("depth is {depth}, must be between 0 and 1")));
        }
        let number = random.u32(1_000_000..10_000_000).to_string();
        let encode = |text: String| tokenizer.encode(text.as_bytes());
        let opening = encode("One number in the text below is worth keeping.\n\n".into())?;
        let needle = encode(format!(" The number to keep is {number}. "))?;
        let question = encode("\n\nWhich number was worth keeping? The number to keep is".into())?;
        let fixed = opening.len() + needle.len() + question.len();
        let room = length.checked_sub(fixed).filter(|&room| room > 0).ok_or_else(|| {
            Error::argument(format!(
                "a prompt of {length} tokens is too short: the question takes {fixed}"
            ))
        })?;
        let Some(spare) = prose.len().checked_sub(room) else {
            return Err(Error::argument(format!(
                "a prompt of {length} tokens needs {room} tokens of prose, the text has {}",
                prose.len()
            )));
        };
        let start = random.usize(0..=spare);
        let prose = &prose[start..start + room];
        let place = sentence_end(tokenizer, prose, (depth * room as f64).round() as usize)?;
        let (before, after) = prose.split_at(place);
        Ok(PasskeyPrompt { tokens: [&opening, before, &needle, after, &question].concat(), number })
    }

    /// As many prompts as `count`; the same seed makes the same ones.
    ///
    /// # Errors
    /// As [`PasskeyTask::prompt`].
    pub fn prompts(
        &self,
        tokenizer: &Tokenizer,
        prose: &[u32],
        count: usize,
        seed: u64,
    ) -> Result<Vec<PasskeyPrompt>> {
        at_least_one("the number of prompts", count)?;
        let mut random = fastrand::Rng::with_seed(seed);
        (0..count).map(|_| self.prompt(tokenizer, prose, &mut random)).collect()
    }
}

/// The first place from `place` on, within some fifty tokens, at which a sentence has ended; `place`
/// itself where there is none.
fn sentence_end(tokenizer: &Tokenizer, prose: &[u32], place: usize) -> Result<usize> {
    for end in place.max(1)..prose.len().min(place + 50) {
        let text = tokenizer.decode(&prose[end - 1..end])?;
        if text.trim_end().ends_with(['.', '!', '?']) {
            return Ok(end);
        }
    }
    Ok(place)
}

/// How many numbers the model finds, answering greedily.
///
/// # Errors
/// [`Error::Argument`] where there are no prompts; as [`generate`].
pub fn passkey<B: Backend>(
    model: &Arc<Model<B>>,
    tokenizer: &Tokenizer,
    prompts: &[PasskeyPrompt],
    options: &SessionOptions,
    progress: Progress<'_>,
) -> Result<Passkey> {
    let part = Run::in_memory(Shard::WHOLE).part("", prompts.len())?;
    passkey_in(part, model, tokenizer, prompts, options, progress)
}

/// As [`passkey`], as a part of a [`Run`] with a sample a prompt: what was done before is not done again, and
/// of several shards this one's prompts are read.
///
/// # Errors
/// As [`passkey`], and [`Part::finish`].
pub fn passkey_in<B: Backend>(
    part: Part<PromptScore>,
    model: &Arc<Model<B>>,
    tokenizer: &Tokenizer,
    prompts: &[PasskeyPrompt],
    options: &SessionOptions,
    progress: Progress<'_>,
) -> Result<Passkey> {
    at_least_one("the number of prompts", prompts.len())?;
    let start = Instant::now();
    let tokens = part.left().iter().map(|&index| prompts[index].tokens.len()).sum();
    let lines = part.finish(model, |index| {
        let PasskeyPrompt { tokens, number } = &prompts[index];
        let mut session = model.session(options.clone())?;
        let mut greedy = Sampler::new(SampleOptions::default())?;
        let mut answer = Vec::with_capacity(ANSWER_TOKENS);
        let until = GenerateOptions::new(model, ANSWER_TOKENS);
        generate(&mut session, tokens, &mut greedy, &until, |token| {
            answer.push(token);
            ControlFlow::Continue(())
        })?;
        progress(tokens.len());
        let found = tokenizer.decode(&answer)?.contains(number);
        Ok(PromptScore { score: if found { 1.0 } else { 0.0 } })
    })?;
    let timing = Timing::since(start, tokens);
    Ok(Passkey { found: mean(&lines, prompts.len())?, timing })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(length: usize, depth: f64) -> Result<PasskeyPrompt> {
        let tokenizer = Tokenizer::bytes();
        let prose = tokenizer.encode(super::super::prose::plain(600, 5).as_bytes())?;
        Ok(PasskeyTask { length, depth }.prompts(&tokenizer, &prose, 1, 9)?.remove(0))
    }

    #[test]
    fn the_number_stands_where_it_should() {
        for (depth, low, high) in [(0.0, 0, 150), (0.5, 900, 1150), (1.0, 1800, 2000)] {
            let prompt = make(2000, depth).unwrap();
            let text = Tokenizer::bytes().decode(&prompt.tokens).unwrap();
            assert_eq!(text.len(), 2000);
            assert_eq!(text.matches(&prompt.number).count(), 1);
            let place = text.find(&prompt.number).unwrap();
            assert!((low..=high).contains(&place), "{depth}: {place}");
            assert!(text.ends_with("The number to keep is"));
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        for (length, depth, why) in [
            (0, 0.5, "too short"),
            (100, 0.5, "too short"),
            (1_000_000, 0.5, "tokens of prose"),
            (1000, 1.5, "depth"),
            (1000, f64::NAN, "depth"),
        ] {
            let error = make(length, depth).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
