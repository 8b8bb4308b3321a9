//! Samples of a task, as long as they may be.

use super::common::{CommonWords, List};
use super::fit::{Sizes, fit};
use super::frequent::FrequentWords;
use super::jsonl::Sample;
use super::niah::Needles;
use super::qa::Documents;
use super::source::{Essays, Questions, Sources};
use super::task::{Haystack, Kind, Niah, Source, TASKS, Task};
use super::template::Templates;
use super::variables::Variables;
use super::words::{Words, stream};
use crate::{Error, Result};
use fastrand::Rng;
use std::borrow::Cow;

/// The number of tokens of a text.
pub type Count<'a> = &'a (dyn Fn(&str) -> Result<usize> + Sync);

/// How the samples of a kind of task are made.
pub(super) trait Draw: Sync {
    fn sizes(&self) -> Sizes;

    /// How many samples there are, where there is an end to them.
    fn samples(&self) -> Option<usize> {
        None
    }

    /// A sample of a size.
    fn draw(&self, size: usize, index: usize, random: &mut Rng) -> Result<Prompt>;
}

/// What a model reads, and what it should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prompt {
    pub input: String,
    pub answer_prefix: String,
    pub outputs: Vec<String>,
}

/// Makes the samples of a task at a length.
///
/// A sample depends on the task, the length, the seed and its own number alone, never on how many are
/// made, nor in which order.
///
/// ```
/// use longmamba_model::eval::ruler::{Generator, Sources, Task, Templates};
/// let (templates, sources) = (Templates::own()?, Sources::default());
/// let words = |text: &str| Ok(text.split_whitespace().count());
/// let task = Task::find("niah_single_1").expect("it is a task");
/// let sample = Generator::new(task, 1024, 42, &templates, &sources, &words)?.sample(0)?;
/// assert!(sample.length <= 1024 && sample.input.contains(&sample.outputs[0]));
/// # Ok::<(), longmamba_model::Error>(())
/// ```
pub struct Generator<'a> {
    task: &'static Task,
    length: usize,
    seed: u64,
    draw: Box<dyn Draw + 'a>,
    size: usize,
    standin: bool,
    count: Count<'a>,
}

/// What random numbers are for.
enum Purpose {
    Fit,
    Sample,
    Order,
    Example,
}

/// How often a smallest sample is drawn again that came out too long.
const REDRAWS: usize = 16;

impl<'a> Generator<'a> {
    /// Finds how much context fits `length` tokens, the answer's included.
    ///
    /// # Errors
    /// [`Error::TaskLength`] where not even the smallest context does; those of `count`.
    pub fn new(
        task: &'static Task,
        length: usize,
        seed: u64,
        templates: &'a Templates,
        sources: &'a Sources,
        count: Count<'a>,
    ) -> Result<Self> {
        let random = |purpose| stream(seed, &path(task, length, purpose, 0));
        let order = random(Purpose::Order);
        // Short samples grow by less.
        let unit = if length < 4096 { 5 } else { 25 };
        let draw: Box<dyn Draw + 'a> = match task.kind {
            Kind::Niah(niah) => Box::new(Needles {
                essays: essays(niah, length, sources),
                task: niah,
                template: &templates.niah,
                words: Words::new(),
                unit,
                order,
            }),
            Kind::VariableTracking => Box::new(Variables::new(
                &templates.variables,
                if length < 4096 { 5 } else { 10 },
                random(Purpose::Example),
                count,
            )?),
            Kind::CommonWords => {
                let (example, list) = List::pair(length);
                let template = &templates.common;
                Box::new(CommonWords { template, words: Words::new(), order, example, list })
            }
            Kind::FrequentWords => Box::new(FrequentWords {
                template: &templates.frequent,
                tokens: length.saturating_sub(task.tokens_to_generate),
            }),
            Kind::Qa(source) => Box::new(Documents {
                name: task.name,
                template: &templates.qa,
                questions: questions(source, sources),
                order,
            }),
        };
        let sizes = draw.sizes();
        let standin = task.source().is_some_and(|source| !sources.has(source));
        let size = sizes.least;
        let mut generator = Generator { task, length, seed, draw, size, standin, count };
        let mut random = random(Purpose::Fit);
        let fitted = fit(sizes, length, |size| {
            let prompt = generator.draw.draw(size, 0, &mut random)?;
            Ok(generator.measure(&prompt)?.1)
        })?;
        match fitted {
            Some(size) => generator.size = size,
            // It may have been bad luck; if not, this says so.
            None => drop(generator.sample(0)?),
        }
        Ok(generator)
    }

    /// The task.
    pub fn task(&self) -> &'static Task {
        self.task
    }

    /// The most tokens of a sample, its answer's included.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Whether a made-up text stands in for one that was not given.
    pub fn standin(&self) -> bool {
        self.standin
    }

    /// How many samples there are, where there is an end to them.
    pub fn samples(&self) -> Option<usize> {
        self.draw.samples()
    }

    /// Sample `index`.
    ///
    /// # Errors
    /// [`Error::TaskLength`] where this sample does not fit even with the smallest context;
    /// [`Error::Argument`] where there are not as many questions; those of `count`.
    pub fn sample(&self, index: usize) -> Result<Sample> {
        let mut random =
            stream(self.seed, &path(self.task, self.length, Purpose::Sample, index as u64));
        let Sizes { least, shrink, .. } = self.draw.sizes();
        let (mut size, mut redraws, mut longest) = (self.size, 0, 0);
        while redraws < REDRAWS {
            let prompt = self.draw.draw(size, index, &mut random)?;
            let (text, length) = self.measure(&prompt)?;
            if length <= self.length {
                let token_position_answer = self.position(&text, &prompt)?;
                let Prompt { input, answer_prefix, outputs } = prompt;
                return Ok(Sample {
                    index,
                    input,
                    outputs,
                    length,
                    length_w_model_temp: length,
                    answer_prefix,
                    token_position_answer,
                    standin: self.standin,
                });
            }
            if size == least {
                redraws += 1;
                longest = longest.max(length);
            }
            size = size.saturating_sub(shrink).max(least);
        }
        let (task, length, smallest) = (self.task.name, self.length, longest);
        Err(Error::TaskLength { task, sample: index, length, smallest })
    }

    /// The whole prompt, and its tokens and the answer's.
    fn measure(&self, prompt: &Prompt) -> Result<(String, usize)> {
        let text = [prompt.input.as_str(), &prompt.answer_prefix].concat();
        let length = (self.count)(&text)? + self.task.tokens_to_generate;
        Ok((text, length))
    }

    /// The tokens before the first answer, of tasks whose official samples say so.
    fn position(&self, text: &str, prompt: &Prompt) -> Result<Option<usize>> {
        let Kind::Niah(_) = self.task.kind else { return Ok(None) };
        let place = prompt.outputs.first().and_then(|answer| text.find(answer));
        place.map(|place| (self.count)(&text[..place])).transpose()
    }
}

impl std::fmt::Debug for Generator<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Generator { task, length, seed, size, .. } = self;
        f.debug_struct("Generator")
            .field("task", &task.name)
            .field("length", length)
            .field("seed", seed)
            .field("size", size)
            .finish_non_exhaustive()
    }
}

fn path(task: &Task, length: usize, purpose: Purpose, index: u64) -> [u64; 4] {
    let number = TASKS.iter().position(|t| t == task).unwrap_or(TASKS.len());
    [number as u64, length as u64, purpose as u64, index]
}

fn essays(niah: Niah, length: usize, sources: &Sources) -> Cow<'_, Essays> {
    match (&sources.essays, niah.haystack) {
        (Some(essays), _) => Cow::Borrowed(essays),
        // A word is a token at least. The same words for all lengths, as far as they go.
        (None, Haystack::Essays) => Cow::Owned(Essays::standin(length.max(1000))),
        (None, _) => Cow::Owned(Essays::standin(0)),
    }
}

fn questions(source: Source, sources: &Sources) -> Cow<'_, Questions> {
    let own = match source {
        Source::HotpotQa => &sources.hotpotqa,
        Source::Essays | Source::Squad => &sources.squad,
    };
    match own {
        Some(questions) => Cow::Borrowed(questions),
        None => Cow::Owned(Questions::standin(source == Source::HotpotQa)),
    }
}
