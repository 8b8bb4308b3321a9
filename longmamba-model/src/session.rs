//! A session: one sequence, and how tokens move it on.

use crate::backend::{Backend, Columns, CpuBackend, DeltaSums};
use crate::methods::{LongMamba, Method, longmamba};
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
    /// cache of attention layers. `None`: as many as suit the device ([`Backend::chunk_len`]). Another number
    /// changes how results are rounded.
    pub chunk_len: Option<usize>,
    /// LongMamba's calibrated plan: short for a `method` of [`LongMamba`]. With neither, the model reads as
    /// it is.
    pub plan: Option<Arc<Plan>>,
    /// How the plan's table is read between its lengths.
    pub lookup: Lookup,
    /// b: the plan's thresholds are multiplied by it.
    pub threshold_scale: f32,
    /// A training-free method; not together with a plan.
    pub method: Option<Arc<dyn Method>>,
    /// How many tokens back the attention layers of a hybrid model see: their cache is then bounded,
    /// whatever the length. `None`: all, as the models were trained; the cache grows with the sequence.
    pub attention_window: Option<usize>,
    /// Filter the tokens after the prompt too. The paper's code does not.
    pub filter_decode: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            chunk_len: None,
            plan: None,
            lookup: Lookup::default(),
            threshold_scale: 1.0,
            method: None,
            attention_window: None,
            filter_decode: false,
        }
    }
}

impl SessionOptions {
    /// The method: the given one, or LongMamba with the plan.
    pub(crate) fn resolved(&self) -> Result<Option<Arc<dyn Method>>> {
        match (&self.method, &self.plan) {
            (None, None) => Ok(None),
            (Some(method), None) => Ok(Some(method.clone())),
            (None, Some(plan)) => {
                let method = LongMamba::new(plan.clone(), self.lookup, self.threshold_scale)?;
                Ok(Some(Arc::new(method)))
            }
            (Some(method), Some(_)) => {
                let name = method.name();
                let why =
                    format!("both a plan, for LongMamba, and method {name}; give one of them");
                Err(Error::argument(why))
            }
        }
    }

    /// A text that two share only if a sequence that was read with the one may go on with the other; empty
    /// for a model as it is.
    pub(crate) fn identity(&self) -> Result<String> {
        let method = self.resolved()?;
        if method.is_none() && self.attention_window.is_none() {
            return Ok(String::new());
        }
        let method = method.map_or(String::new(), |m| format!("{} {}", m.name(), m.identity()));
        Ok(format!("{method} window {:?} {}", self.attention_window, self.filter_decode))
    }

    /// Room for a chunk.
    pub(crate) fn workspace<B: Backend>(&self, model: &Model<B>) -> Result<Workspace<B>> {
        let backend = model.backend();
        let chunk_len = self.chunk_len.unwrap_or_else(|| backend.chunk_len());
        Workspace::new(model.config(), chunk_len, backend)
    }

    /// Checks the values, and the method against the model.
    pub(crate) fn check<B: Backend>(&self, model: &Model<B>) -> Result<()> {
        if let Some(len) = self.chunk_len.filter(|len| !(1..=1 << 16).contains(len)) {
            let why = format!("chunk_len is {len}, must be 1 to 65536");
            return Err(Error::argument(why));
        }
        longmamba::check_scale(self.threshold_scale)?;
        if self.attention_window == Some(0) {
            return Err(Error::argument("attention_window is 0, must be at least 1 token"));
        }
        match self.resolved()? {
            Some(method) => method.check(model.config(), model.fingerprint()),
            None => Ok(()),
        }
    }
}

/// One sequence: convolution history and SSM state of every layer, and the logits of its last token.
///
/// A prompt may be read whole, in any chunks, or token by token: the results agree within rounding,
/// and the memory does not grow with the prompt; but some [methods](crate::methods) look at the whole
/// prompt at once. With a LongMamba plan the thresholds depend on the prompt's total length, so it must
/// be known first: give the whole prompt to one [`prefill`](Session::prefill), or announce it with
/// [`prefill_of`](Session::prefill_of).
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
        let work = options.workspace(&model)?;
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
        self.sequence.announce(&self.model, total)
    }

    /// Reads tokens of the prompt; [`logits`](Self::logits) are then those of the last.
    ///
    /// Without [`prefill_of`](Self::prefill_of) the first call is taken for the whole prompt. Where no method
    /// depends on the prompt's length, more may be given at any time.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`], [`Error::Token`], [`Error::Announced`] where more tokens come than were
    /// announced, or [`Error::Whole`] where fewer come and the method looks at all at once. After these
    /// the session is as it was.
    pub fn prefill(&mut self, tokens: &[u32]) -> Result<()> {
        self.prefill_scored(tokens, 0..0, |_, _| {})
    }

    /// As [`prefill`](Self::prefill), and calls `sink` with the logits `[vocab_size]` of each token
    /// whose index in `tokens` lies in `wanted`, in order.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill); [`Error::Dropped`] where the method may drop one of those tokens.
    pub fn prefill_scored(
        &mut self,
        tokens: &[u32],
        wanted: Range<usize>,
        mut sink: impl FnMut(usize, &[f32]) + Send,
    ) -> Result<()> {
        self.check_wanted(tokens.len(), &wanted)?;
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

    pub(crate) fn looks_at_whole_prompt(&self) -> bool {
        self.sequence.applied.method().is_some_and(|m| m.needs_whole())
    }

    /// That the method drops none of the tokens whose logits are wanted.
    fn check_wanted(&self, total: usize, wanted: &Range<usize>) -> Result<()> {
        let Some(method) = self.sequence.applied.method() else { return Ok(()) };
        let (sure, token) = (method.sure(total), wanted.start);
        if wanted.is_empty() || token >= total.saturating_sub(sure) {
            return Ok(());
        }
        Err(Error::Dropped { method: method.name(), sure, total, token })
    }

    fn begin(&mut self, tokens: &[u32]) -> Result<()> {
        check_tokens(&self.model, tokens)?;
        self.sequence.check_more(tokens.len())?;
        self.sequence.begin(&self.model, tokens.len())
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
        // A method that looks at the whole prompt has room made for it, and given back.
        let whole = sequence.applied.method().is_some_and(|m| m.needs_whole());
        let mut wide = match whole && tokens.len() > work.chunk_len {
            true => Some(Workspace::new(model.config(), tokens.len(), model.backend())?),
            false => None,
        };
        let work = wide.as_mut().unwrap_or(work);
        let sequences = slice::from_mut(sequence);
        model.backend().run(|| read(model, work, sequences, &[tokens], wanted, sink, observer))
    }
}
