//! Recall for byte models: facts `<K=v>` strewn in prose, asked again at the end.

use super::run::{Line, Part, Run, Shard};
use super::{Estimate, Progress, at_least_one};
use crate::backend::Backend;
use crate::generate::Timing;
use crate::model::Model;
use crate::sample::most_likely;
use crate::session::SessionOptions;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;

/// What is asked. A prompt of `length` bytes is prose with `facts` facts in it, then the same facts
/// again in another order; the model is to predict each value once it has read the key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecallTask {
    /// Bytes of a prompt, facts and questions included.
    pub length: usize,
    /// Facts, 1 to 16: each has a key of its own, A to P, and a value, a to p.
    pub facts: usize,
    /// Where the facts lie: `None` anywhere; 0 to 1 within 5 % of the prose around that share of it.
    pub depth: Option<f64>,
}

/// One prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecallPrompt {
    /// The bytes.
    pub tokens: Vec<u32>,
    /// Where in `tokens` the values asked for stand, ascending. Each is predicted from all tokens
    /// before it.
    pub answers: Vec<usize>,
}

/// What the model thinks comes at an answer's place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// The most likely token; the lowest of equals.
    pub token: u32,
    /// By how much its logit leads the second.
    pub margin: f32,
}

/// How much was recalled at one length.
#[derive(Clone, Debug, PartialEq)]
pub struct Recall {
    /// The share of the answers that were right; a sample is a prompt.
    pub right: Estimate,
    /// Tokens read.
    pub timing: Timing,
}

/// Bytes of `<K=v>`.
const FACT: usize = 5;
/// The index of v in it.
const VALUE: usize = 3;

impl RecallTask {
    /// Five facts anywhere.
    pub fn new(length: usize) -> Self {
        RecallTask { length, facts: 5, depth: None }
    }

    /// Bytes of prose in a prompt.
    ///
    /// # Errors
    /// [`Error::Argument`] where the facts or the depth are out of range, or the facts do not fit the
    /// length.
    pub fn prose_len(&self) -> Result<usize> {
        let RecallTask { length, facts, depth } = *self;
        if !(1..=16).contains(&facts) {
            return Err(Error::argument(format!(
                "the number of facts is {facts}, must be 1 to 16"
            )));
        }
        if let Some(depth) = depth.filter(|d| !(0.0..=1.0).contains(d)) {
            return Err(Error::argument(format!("depth is {depth}, must be between 0 and 1")));
        }
        let needed = 2 * FACT * facts;
        length.checked_sub(needed).filter(|&prose| prose > 0).ok_or_else(|| {
            Error::argument(format!(
                "a prompt of {length} bytes is too short: {facts} facts and as many questions take {needed}"
            ))
        })
    }

    /// Makes a prompt from a random piece of a random text, longer texts being chosen more often.
    /// `<` and `>` of the prose become parentheses.
    ///
    /// # Errors
    /// As [`RecallTask::prose_len`]; [`Error::Argument`] where no text is long enough.
    pub fn prompt(&self, texts: &[&[u8]], random: &mut fastrand::Rng) -> Result<RecallPrompt> {
        let prose_len = self.prose_len()?;
        let prose = piece(texts, prose_len, random)?;
        let facts = self.facts(random);
        let mut places: Vec<usize> = facts.iter().map(|_| self.place(prose_len, random)).collect();
        places.sort_unstable();

        let mut tokens = Vec::with_capacity(self.length);
        let mut from = 0;
        for (fact, &place) in facts.iter().zip(&places) {
            tokens.extend(prose[from..place].iter().map(|&b| harmless(b)));
            tokens.extend(fact.map(u32::from));
            from = place;
        }
        tokens.extend(prose[from..].iter().map(|&b| harmless(b)));

        let mut questions = facts;
        random.shuffle(&mut questions);
        let mut answers = Vec::with_capacity(questions.len());
        for question in questions {
            answers.push(tokens.len() + VALUE);
            tokens.extend(question.map(u32::from));
        }
        Ok(RecallPrompt { tokens, answers })
    }

    /// As many prompts as `count`; the same seed makes the same ones.
    ///
    /// # Errors
    /// As [`RecallTask::prompt`].
    pub fn prompts(&self, texts: &[&[u8]], count: usize, seed: u64) -> Result<Vec<RecallPrompt>> {
        at_least_one("the number of prompts", count)?;
        let mut random = fastrand::Rng::with_seed(seed);
        (0..count).map(|_| self.prompt(texts, &mut random)).collect()
    }

    fn facts(&self, random: &mut fastrand::Rng) -> Vec<[u8; FACT]> {
        let mut keys: Vec<u8> = (b'A'..=b'P').collect();
        random.shuffle(&mut keys);
        keys.truncate(self.facts);
        keys.into_iter().map(|key| [b'<', key, b'=', random.u8(b'a'..=b'p'), b'>']).collect()
    }

    /// Before which byte of the prose a fact comes.
    fn place(&self, prose_len: usize, random: &mut fastrand::Rng) -> usize {
        let Some(depth) = self.depth else { return random.usize(0..=prose_len) };
        let (len, spread) = (prose_len as f64, 0.05);
        let low = ((depth - spread).max(0.0) * len) as usize;
        let high = ((depth + spread).min(1.0) * len) as usize;
        random.usize(low..=high.max(low))
    }
}

/// `len` bytes from a random place of a random text.
fn piece<'t>(texts: &[&'t [u8]], len: usize, random: &mut fastrand::Rng) -> Result<&'t [u8]> {
    let places = |text: &[u8]| (text.len() + 1).saturating_sub(len);
    let all: usize = texts.iter().map(|t| places(t)).sum();
    if all == 0 {
        let longest = texts.iter().map(|t| t.len()).max().unwrap_or(0);
        return Err(Error::argument(format!(
            "the prompt needs {len} bytes of prose, the longest text has {longest}"
        )));
    }
    let mut place = random.usize(..all);
    for text in texts {
        let here = places(text);
        if place < here {
            return Ok(&text[place..place + len]);
        }
        place -= here;
    }
    // `place` is below the sum of all that was taken off it.
    Ok(&[])
}

/// Only facts may have angle brackets.
fn harmless(byte: u8) -> u32 {
    match byte {
        b'<' => b'(',
        b'>' => b')',
        other => other,
    }
    .into()
}

/// What the model expects at each answer's place, given all that stands before it.
///
/// # Errors
/// [`Error::Logit`] where the model breaks down; as [`Session::prefill`](crate::Session::prefill).
pub fn predict<B: Backend>(
    model: &Arc<Model<B>>,
    prompt: &RecallPrompt,
    options: &SessionOptions,
) -> Result<Vec<Prediction>> {
    let (Some(&first), Some(&last)) = (prompt.answers.first(), prompt.answers.last()) else {
        return Ok(Vec::new());
    };
    if first == 0 || last >= prompt.tokens.len() || !prompt.answers.is_sorted() {
        return Err(Error::argument(
            "answers must be ascending places after the prompt's first token",
        ));
    }
    let mut session = model.session(options.clone())?;
    let mut predictions = Vec::with_capacity(prompt.answers.len());
    let mut bad = None;
    session.prefill_scored(&prompt.tokens, first - 1..last, |index, logits| {
        if prompt.answers.binary_search(&(index + 1)).is_ok() {
            match most_likely(logits) {
                Ok((token, margin)) => predictions.push(Prediction { token, margin }),
                Err(e) => bad = bad.take().or(Some(e)),
            }
        }
    })?;
    bad.map_or(Ok(predictions), Err)
}

/// How many of the answers the model gets right.
///
/// # Errors
/// [`Error::Argument`] where there are no prompts; as [`predict`].
pub fn recall<B: Backend>(
    model: &Arc<Model<B>>,
    prompts: &[RecallPrompt],
    options: &SessionOptions,
    progress: Progress<'_>,
) -> Result<Recall> {
    let part = Run::in_memory(Shard::WHOLE).part("", prompts.len())?;
    recall_in(part, model, prompts, options, progress)
}

/// A prompt that was answered, as a run records it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromptScore {
    /// The share of its answers that were right.
    pub score: f64,
}

/// As [`recall`], as a part of a [`Run`] with a sample a prompt: what was done before is not done again, and
/// of several shards this one's prompts are read.
///
/// # Errors
/// As [`recall`], and [`Part::finish`].
pub fn recall_in<B: Backend>(
    part: Part<PromptScore>,
    model: &Arc<Model<B>>,
    prompts: &[RecallPrompt],
    options: &SessionOptions,
    progress: Progress<'_>,
) -> Result<Recall> {
    at_least_one("the number of prompts", prompts.len())?;
    let start = Instant::now();
    let tokens = part.left().iter().map(|&index| prompts[index].tokens.len()).sum();
    let lines = part.finish(model, |index| {
        let prompt = &prompts[index];
        let predictions = predict(model, prompt, options)?;
        let answers = prompt.answers.iter().map(|&at| prompt.tokens[at]);
        let right =
            predictions.iter().zip(answers).filter(|(p, answer)| p.token == *answer).count();
        progress(prompt.tokens.len());
        Ok(PromptScore { score: right as f64 / prompt.answers.len().max(1) as f64 })
    })?;
    let timing = Timing::since(start, tokens);
    Ok(Recall { right: mean(&lines, prompts.len())?, timing })
}

/// Of this shard's prompts.
pub(super) fn mean(lines: &[Line<PromptScore>], prompts: usize) -> Result<Estimate> {
    let scores: Vec<f64> = lines.iter().map(|line| line.sample.score).collect();
    Estimate::of(&scores).ok_or_else(|| {
        Error::argument(format!("this shard has none of the {prompts} prompts; take fewer shards"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn text(prompt: &RecallPrompt) -> String {
        prompt.tokens.iter().map(|&t| char::from(u8::try_from(t).unwrap())).collect()
    }

    /// The facts in order, as (place, key, value).
    fn facts(text: &str) -> Vec<(usize, u8, u8)> {
        let b = text.as_bytes();
        (0..b.len()).filter(|&i| b[i] == b'<').map(|i| (i, b[i + 1], b[i + 3])).collect()
    }

    #[test]
    fn a_prompt_is_prose_facts_and_the_facts_again() {
        let prose = b"a < b > c, and so on and on; ".repeat(20);
        for length in [51, 52, 100, 256, 600] {
            for prompt in RecallTask::new(length).prompts(&[&prose], 20, 3).unwrap() {
                let text = text(&prompt);
                assert_eq!(text.len(), length);
                let facts = facts(&text);
                assert_eq!(facts.len(), 10, "{text}");
                let told: BTreeMap<u8, u8> = facts[..5].iter().map(|f| (f.1, f.2)).collect();
                let asked: BTreeMap<u8, u8> = facts[5..].iter().map(|f| (f.1, f.2)).collect();
                assert_eq!(told, asked);
                assert_eq!(told.len(), 5, "keys are distinct");
                assert!(
                    told.iter()
                        .all(|(k, v)| (b'A'..=b'P').contains(k) && (b'a'..=b'p').contains(v))
                );
                let places: Vec<usize> = facts[5..].iter().map(|f| f.0 + 3).collect();
                assert_eq!(prompt.answers, places);
                assert_eq!(facts[5].0, length - 25);
                assert!(
                    facts.iter().all(|f| text.as_bytes()[f.0 + 4] == b'>'),
                    "no fact is cut: {text}"
                );
            }
        }
    }

    #[test]
    fn depth_gathers_the_facts_and_seeds_repeat() {
        let prose = vec![b'.'; 5000];
        for (depth, range) in [(0.0, 0..=225), (0.5, 1700..=2300), (1.0, 3700..=3975)] {
            let task = RecallTask { depth: Some(depth), ..RecallTask::new(4000) };
            for prompt in task.prompts(&[&prose], 10, 1).unwrap() {
                let facts = facts(&text(&prompt));
                assert!(facts[..5].iter().all(|f| range.contains(&f.0)), "{depth}: {facts:?}");
            }
        }
        let task = RecallTask::new(300);
        let make = |seed| task.prompts(&[&prose], 3, seed).unwrap();
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
        assert_eq!(make(1).iter().map(text).collect::<BTreeSet<_>>().len(), 3);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let prose = [b'.'; 100];
        let make = |task: RecallTask| task.prompts(&[&prose], 1, 0);
        for length in [0, 1, 50] {
            let error = make(RecallTask::new(length)).unwrap_err().to_string();
            assert!(error.contains("too short"), "{error}");
        }
        assert!(make(RecallTask::new(150)).is_ok());
        let error = make(RecallTask::new(151)).unwrap_err().to_string();
        assert!(error.contains("needs 101 bytes of prose, the longest text has 100"), "{error}");
        assert!(make(RecallTask { facts: 17, ..RecallTask::new(150) }).is_err());
        assert!(make(RecallTask { facts: 0, ..RecallTask::new(150) }).is_err());
        assert!(make(RecallTask { depth: Some(1.5), ..RecallTask::new(150) }).is_err());
        assert!(RecallTask::new(100).prompts(&[&prose], 0, 0).is_err());
        assert!(RecallTask::new(100).prompts(&[], 1, 0).is_err());
    }
}
