//! Several sequences that go through the model together.

use crate::backend::{Backend, CpuBackend, DeltaSums};
use crate::model::Model;
use crate::read::read;
use crate::sequence::{Sequence, StateMemory, check_tokens};
use crate::session::{Session, SessionOptions};
use crate::workspace::Workspace;
use crate::{Error, Result};
use std::sync::Arc;

/// Sequences of any lengths that share every read of the weights.
///
/// Nothing is padded: the tokens of all sequences lie one after the other, the projections take them
/// all at once, and convolution, scan and attention take each sequence with its own state. A sequence
/// in a batch gives what it gives alone, within rounding: a matrix product of fewer than 12 rows adds
/// in another order than one of more, so that the same prompt may differ in the last bits of `f32`,
/// by less than 2e-4 of the largest logit.
///
/// ```no_run
/// # fn run(model: std::sync::Arc<longmamba_model::Model>) -> longmamba_model::Result<()> {
/// use longmamba_model::{Batch, SessionOptions, most_likely};
/// let mut batch = Batch::new(model, SessionOptions::default(), 2)?;
/// batch.prefill(&[&[72, 105], &[87, 104, 121, 63]])?;
/// for _ in 0..20 {
///     let (first, _) = most_likely(batch.logits(0))?;
///     let (second, _) = most_likely(batch.logits(1))?;
///     batch.step(&[Some(first), Some(second)])?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Batch<B: Backend = CpuBackend> {
    model: Arc<Model<B>>,
    options: SessionOptions,
    sequences: Vec<Sequence<B>>,
    work: Workspace<B>,
}

impl<B: Backend> Batch<B> {
    /// `count` sequences that have read nothing yet.
    ///
    /// # Errors
    /// As [`Model::session`]; [`Error::Argument`] for a method that looks at a whole prompt at once.
    pub fn new(model: Arc<Model<B>>, options: SessionOptions, count: usize) -> Result<Self> {
        options.check(&model)?;
        if let Some(method) = options.resolved()?.filter(|m| m.needs_whole()) {
            let name = method.name();
            return Err(Error::argument(format!(
                "method {name} looks at one whole prompt at a time; use a session for each, not a batch"
            )));
        }
        let sequences =
            (0..count).map(|_| Sequence::new(&model, &options)).collect::<Result<_>>()?;
        let work = options.workspace(&model)?;
        Ok(Batch { model, options, sequences, work })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model<B>> {
        &self.model
    }

    /// The number of sequences.
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Tokens that sequence `index` has read.
    ///
    /// # Panics
    /// Where there is no such sequence.
    pub fn position(&self, index: usize) -> usize {
        self.sequences[index].position
    }

    /// Logits `[vocab_size]` after the last token of sequence `index`; zeros before its first.
    ///
    /// # Panics
    /// Where there is no such sequence.
    pub fn logits(&self, index: usize) -> &[f32] {
        &self.sequences[index].logits
    }

    /// As [`Session::delta_sums`], of sequence `index`.
    ///
    /// # Errors
    /// As [`Session::delta_sums`].
    ///
    /// # Panics
    /// Where there is no such sequence.
    pub fn delta_sums(&self, index: usize, layer: usize) -> Result<DeltaSums> {
        self.sequences[index].delta_sums(self.model.backend(), layer)
    }

    /// What all states take in memory.
    pub fn memory(&self) -> StateMemory {
        let mut all = StateMemory { recurrent: 0, attention: 0 };
        for memory in self.sequences.iter().map(|s| s.memory(&self.model)) {
            all.recurrent += memory.recurrent;
            all.attention += memory.attention;
        }
        all
    }

    /// Announces prompts, one length a sequence, to be given in any number of
    /// [`prefill`](Self::prefill) calls. A length of 0 announces nothing: that sequence waits.
    ///
    /// # Errors
    /// As [`Session::prefill_of`], and [`Error::Argument`] for another number of lengths. After these
    /// the batch is as it was.
    pub fn prefill_of(&mut self, totals: &[usize]) -> Result<()> {
        self.check_count(totals.len())?;
        for (sequence, _) in self.sequences.iter().zip(totals).filter(|(_, total)| **total > 0) {
            sequence.check_unannounced()?;
        }
        for (sequence, &total) in self.sequences.iter_mut().zip(totals) {
            if total > 0 {
                sequence.announce(&self.model, total)?;
            }
        }
        Ok(())
    }

    /// Reads tokens of each sequence's prompt, one slice a sequence; an empty slice leaves its sequence
    /// as it is. Otherwise as [`Session::prefill`].
    ///
    /// # Errors
    /// As [`Session::prefill`], and [`Error::Argument`] for another number of slices. After these the
    /// batch is as it was.
    pub fn prefill(&mut self, prompts: &[&[u32]]) -> Result<()> {
        self.check_count(prompts.len())?;
        let given = |prompts: &[&[u32]]| prompts.iter().any(|p| !p.is_empty());
        if !given(prompts) {
            return Err(Error::EmptyPrompt);
        }
        for (sequence, prompt) in self.sequences.iter().zip(prompts).filter(|(_, p)| !p.is_empty())
        {
            check_tokens(&self.model, prompt)?;
            sequence.check_more(prompt.len())?;
        }
        for (sequence, prompt) in self.sequences.iter_mut().zip(prompts) {
            if !prompt.is_empty() {
                sequence.begin(&self.model, prompt.len())?;
            }
        }
        self.read(prompts)
    }

    /// Reads one token after the prompt of each sequence that has one here; the others wait. Otherwise
    /// as [`Session::step`].
    ///
    /// # Errors
    /// As [`Session::step`], and [`Error::Argument`] for another number of tokens. After these the
    /// batch is as it was.
    pub fn step(&mut self, tokens: &[Option<u32>]) -> Result<()> {
        self.check_count(tokens.len())?;
        for (sequence, token) in self.sequences.iter().zip(tokens) {
            if let Some(token) = token {
                check_tokens(&self.model, &[*token])?;
                sequence.check_step()?;
            }
        }
        for (sequence, token) in self.sequences.iter_mut().zip(tokens) {
            if token.is_some() {
                sequence.begin_step(&self.options);
            }
        }
        let prompts: Vec<&[u32]> = tokens.iter().map(|token| token.as_slice()).collect();
        self.read(&prompts)
    }

    /// Adds a copy of sequence `index` and returns its index: a prefix that is read once, and continued
    /// several times.
    ///
    /// # Errors
    /// [`Error`] of the backend, where its memory is full.
    ///
    /// # Panics
    /// Where there is no such sequence.
    pub fn fork(&mut self, index: usize) -> Result<usize> {
        let fork = self.sequences[index].fork(&self.model, &self.options)?;
        self.sequences.push(fork);
        Ok(self.len() - 1)
    }

    /// Adds the sequence of a session and returns its index.
    ///
    /// # Errors
    /// [`Error::Argument`] where the session is one of another model, or reads its prompt in another
    /// way (method, window).
    pub fn push(&mut self, session: Session<B>) -> Result<usize> {
        if !Arc::ptr_eq(&session.model, &self.model) {
            return Err(Error::argument("the session belongs to another model than the batch"));
        }
        if session.options.identity()? != self.options.identity()? {
            return Err(Error::argument("the session has another method or window than the batch"));
        }
        self.sequences.push(session.sequence);
        Ok(self.len() - 1)
    }

    /// Takes sequence `index` out, as a session of its own; those after it move up.
    ///
    /// # Errors
    /// [`Error`] of the backend, where its memory is full. The sequence is then lost.
    ///
    /// # Panics
    /// Where there is no such sequence.
    pub fn remove(&mut self, index: usize) -> Result<Session<B>> {
        let sequence = self.sequences.remove(index);
        Session::of(self.model.clone(), self.options.clone(), sequence)
    }

    fn check_count(&self, given: usize) -> Result<()> {
        match self.len() {
            count if count == given => Ok(()),
            count => Err(Error::argument(format!("{given} prompts for {count} sequences"))),
        }
    }

    fn read(&mut self, prompts: &[&[u32]]) -> Result<()> {
        let Batch { model, sequences, work, .. } = self;
        let sink = &mut |_: usize, _: usize, _: &[f32]| {};
        model.backend().run(|| read(model, work, sequences, prompts, 0..0, sink, None))
    }
}
