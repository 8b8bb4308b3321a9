//! A session: one sequence, and how tokens move it on.

use crate::backend::{Backend, Columns, CpuBackend, DeltaSums};
use crate::model::{Model, Observer};
use crate::read::{read, read_one};
use crate::sample::Sampler;
use crate::sequence::{Sequence, StateMemory, check_tokens};
use crate::workspace::Workspace;
use crate::{Error, Result};
use longmamba_core::policy::{Lookup, Plan};
use std::ops::Range;
use std::slice;
use std::sync::Arc;

/// How a session reads its prompt.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Tokens that go through the layers together. Memory grows with it, and with nothing else but the
    /// cache of attention layers.
    pub chunk_len: usize,
    /// LongMamba's calibrated plan. `None`: the model as it is.
    pub plan: Option<Arc<Plan>>,
    /// How the plan's table is read between its lengths.
    pub lookup: Lookup,
    /// b: the thresholds are multiplied by it.
    pub threshold_scale: f32,
    /// How many tokens back the attention layers of a hybrid model see: their cache is then bounded,
    /// whatever the length. `None`: all, as the models were trained; the cache grows with the sequence.
    pub attention_window: Option<usize>,
    /// Filter the tokens after the prompt too. The paper's code does not.
    pub filter_decode: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            chunk_len: 256,
            plan: None,
            lookup: Lookup::default(),
            threshold_scale: 1.0,
            attention_window: None,
            filter_decode: false,
        }
    }
}

impl SessionOptions {
    /// Whether a sequence that was read with these may go on with `other`.
    pub(crate) fn reads_like(&self, other: &SessionOptions) -> bool {
        self.plan == other.plan
            && self.lookup == other.lookup
            && self.threshold_scale == other.threshold_scale
            && self.attention_window == other.attention_window
            && self.filter_decode == other.filter_decode
    }

    /// Checks the values, and the plan against the model.
    pub(crate) fn check<B: Backend>(&self, model: &Model<B>) -> Result<()> {
        if !(1..=1 << 16).contains(&self.chunk_len) {
            let why = format!("chunk_len is {}, must be 1 to 65536", self.chunk_len);
            return Err(Error::argument(why));
        }
        if !(self.threshold_scale >= 0.0 && self.threshold_scale.is_finite()) {
            let scale = self.threshold_scale;
            let why = format!("threshold_scale is {scale}, must be finite and ≥ 0");
            return Err(Error::argument(why));
        }
        if self.attention_window == Some(0) {
            return Err(Error::argument("attention_window is 0, must be at least 1 token"));
        }
        if let Some(plan) = &self.plan {
            plan.check(model.fingerprint())?;
        }
        Ok(())
    }
}

/// One sequence: convolution history and SSM state of every layer, and the logits of its last token.
///
/// A prompt may be read whole, in any chunks, or token by token: the results agree within rounding,
/// and the memory does not grow with the prompt. With a LongMamba plan the thresholds depend on the
/// prompt's total length, so it must be known first: give the whole prompt to one
/// [`prefill`](Session::prefill), or announce it with [`prefill_of`](Session::prefill_of).
///
/// ```no_run
/// # fn run(model: std::sync::Arc<longmamba_model::Model>, prompt: Vec<u32>) -> longmamba_model::Result<()> {
/// use longmamba_model::SessionOptions;
/// let mut session = model.session(SessionOptions::default())?;
/// session.prefill_of(prompt.len())?;
/// for chunk in prompt.chunks(1000) {
///     session.prefill(chunk)?;
/// }
/// let mut other = session.fork()?;
/// session.step(17)?;
/// other.step(18)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Session<B: Backend = CpuBackend> {
    pub(crate) model: Arc<Model<B>>,
    pub(crate) options: SessionOptions,
    pub(crate) sequence: Sequence<B>,
    work: Workspace<B>,
    /// Whether the logits of the last token are in `work` alone, and the sequence's are NaN.
    unfetched: bool,
}

impl<B: Backend> Session<B> {
    pub(crate) fn new(model: Arc<Model<B>>, options: SessionOptions) -> Result<Self> {
        options.check(&model)?;
        let sequence = Sequence::new(&model, &options)?;
        Self::of(model, options, sequence)
    }

    /// A session of a sequence that has been read before.
    pub(crate) fn of(
        model: Arc<Model<B>>,
        options: SessionOptions,
        sequence: Sequence<B>,
    ) -> Result<Self> {
        let work = Workspace::new(model.config(), options.chunk_len, model.backend())?;
        Ok(Session { model, options, sequence, work, unfetched: false })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model<B>> {
        &self.model
    }

    /// Tokens read so far, prompt and steps.
    pub fn position(&self) -> usize {
        self.sequence.position
    }

    /// Logits `[vocab_size]` after the last token read; zeros before the first.
    pub fn logits(&self) -> &[f32] {
        &self.sequence.logits
    }

    /// What recurrent layer `layer` has seen of Δ, per channel: how much decay was accumulated, and
    /// how many tokens the mask kept.
    ///
    /// # Errors
    /// [`Error::Argument`] where there is no such layer.
    pub fn delta_sums(&self, layer: usize) -> Result<DeltaSums> {
        self.sequence.delta_sums(self.model.backend(), layer)
    }

    /// What the sequence's state takes in memory.
    pub fn memory(&self) -> StateMemory {
        self.sequence.memory(&self.model)
    }

    /// Announces a prompt of `total` tokens, to be given in any number of [`prefill`](Self::prefill)
    /// calls.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`] for 0, [`Error::Announced`] where tokens have been read already.
    pub fn prefill_of(&mut self, total: usize) -> Result<()> {
        self.sequence.announce(&self.model, &self.options, total)
    }

    /// Reads tokens of the prompt; [`logits`](Self::logits) are then those of the last.
    ///
    /// Without [`prefill_of`](Self::prefill_of) the first call is taken for the whole prompt. A model
    /// without a plan may be given more at any time.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`], [`Error::Token`], or [`Error::Announced`] where more tokens come than
    /// were announced. After these the session is as it was.
    pub fn prefill(&mut self, tokens: &[u32]) -> Result<()> {
        self.prefill_scored(tokens, 0..0, |_, _| {})
    }

    /// As [`prefill`](Self::prefill), and calls `sink` with the logits `[vocab_size]` of each token
    /// whose index in `tokens` lies in `wanted`, in order.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill).
    pub fn prefill_scored(
        &mut self,
        tokens: &[u32],
        wanted: Range<usize>,
        mut sink: impl FnMut(usize, &[f32]) + Send,
    ) -> Result<()> {
        self.begin(tokens)?;
        self.read(tokens, wanted, &mut |_, token, logits| sink(token, logits), None)
    }

    /// As [`prefill`](Self::prefill), and calls `observer` with every layer's Δ, chunk by chunk.
    pub(crate) fn prefill_observed(
        &mut self,
        tokens: &[u32],
        observer: Observer<'_>,
    ) -> Result<()> {
        self.begin(tokens)?;
        self.read(tokens, 0..0, &mut |_, _, _| {}, Some(observer))
    }

    fn begin(&mut self, tokens: &[u32]) -> Result<()> {
        check_tokens(&self.model, tokens)?;
        self.sequence.check_more(&self.options, tokens.len())?;
        self.sequence.begin(&self.model, &self.options, tokens.len())
    }

    /// Reads one token after the prompt. LongMamba's filter is off here, unless
    /// [`filter_decode`](SessionOptions::filter_decode) is set.
    ///
    /// # Errors
    /// [`Error::Token`], or [`Error::Announced`] where the prompt is not complete.
    pub fn step(&mut self, token: u32) -> Result<()> {
        self.begin_step(token)?;
        self.read(&[token], 0..0, &mut |_, _, _| {}, None)
    }

    fn begin_step(&mut self, token: u32) -> Result<()> {
        check_tokens(&self.model, &[token])?;
        self.sequence.check_step()?;
        self.sequence.begin_step(&self.options);
        Ok(())
    }

    /// As [`step`](Self::step), and draws the next token where the logits are. The host has them after
    /// [`fetch_logits`](Self::fetch_logits).
    pub(crate) fn step_and_sample(&mut self, token: u32, sampler: &mut Sampler) -> Result<u32> {
        self.begin_step(token)?;
        let Session { model, sequence, work, unfetched, .. } = self;
        let (backend, config) = (model.backend(), model.config());
        backend.run(|| {
            *unfetched = false;
            read_one(model, work, sequence, token)?;
            *unfetched = true;
            let uniform = sampler.uniform();
            let logits = Columns::all(&work.logits, config.vocab_rows).part(0, config.vocab_size);
            let scratch = &mut work.scratch;
            if let Some(token) = backend.sample(scratch, logits, sampler.options(), uniform)? {
                return Ok(token);
            }
            backend.read(&work.logits, 0, &mut sequence.logits)?;
            *unfetched = false;
            sampler.sample_at(&sequence.logits, uniform)
        })
    }

    /// Copies the logits of the last token to the host, where they are not there yet.
    pub(crate) fn fetch_logits(&mut self) -> Result<()> {
        if self.unfetched {
            self.model.backend().read(&self.work.logits, 0, &mut self.sequence.logits)?;
            self.unfetched = false;
        }
        Ok(())
    }

    /// A second session in the same state: the prefix is read once, and continued twice.
    ///
    /// # Errors
    /// [`Error`] of the backend, where its memory is full.
    pub fn fork(&self) -> Result<Self> {
        let sequence = self.sequence.fork(&self.model, &self.options)?;
        Self::of(self.model.clone(), self.options.clone(), sequence)
    }

    fn read(
        &mut self,
        tokens: &[u32],
        wanted: Range<usize>,
        sink: crate::read::Sink<'_>,
        observer: Option<Observer<'_>>,
    ) -> Result<()> {
        let Session { model, sequence, work, unfetched, .. } = self;
        *unfetched = false;
        let sequences = slice::from_mut(sequence);
        model.backend().run(|| read(model, work, sequences, &[tokens], wanted, sink, observer))
    }
}
