//! A session: the state of one sequence, and how tokens move it on.

use crate::backend::{Backend, CpuBackend, DeltaSums};
use crate::model::{Model, Observer};
use crate::workspace::{LayerState, Workspace};
use crate::{Error, Result};
use longmamba_core::policy::{Lookup, Plan};
use std::ops::Range;
use std::sync::Arc;

/// How a session reads its prompt.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Tokens that go through the layers together. Memory grows with it, and with nothing else.
    pub chunk_len: usize,
    /// LongMamba's calibrated plan. `None`: the model as it is.
    pub plan: Option<Arc<Plan>>,
    /// How the plan's table is read between its lengths.
    pub lookup: Lookup,
    /// b: the thresholds are multiplied by it.
    pub threshold_scale: f32,
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
            filter_decode: false,
        }
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
    pub(crate) states: Vec<LayerState<B>>,
    work: Workspace<B>,
    /// `[layers, channels]`, or empty: no mask.
    delta_min: Vec<f32>,
    /// Tokens of the prompt, once known.
    pub(crate) total: Option<usize>,
    /// Tokens read so far.
    pub(crate) position: usize,
    /// Of the last token read.
    pub(crate) logits: Vec<f32>,
}

impl<B: Backend> Session<B> {
    pub(crate) fn new(model: Arc<Model<B>>, options: SessionOptions) -> Result<Self> {
        if !(1..=1 << 16).contains(&options.chunk_len) {
            let why = format!("chunk_len is {}, must be 1 to 65536", options.chunk_len);
            return Err(Error::argument(why));
        }
        if !(options.threshold_scale >= 0.0 && options.threshold_scale.is_finite()) {
            let why =
                format!("threshold_scale is {}, must be finite and ≥ 0", options.threshold_scale);
            return Err(Error::argument(why));
        }
        if let Some(plan) = &options.plan {
            plan.check(model.fingerprint())?;
        }
        let config = model.config();
        let states = (0..config.layers)
            .map(|_| LayerState::new(config, model.backend()))
            .collect::<Result<_>>()?;
        Ok(Session {
            states,
            work: Workspace::new(config, options.chunk_len, model.backend())?,
            delta_min: Vec::new(),
            total: None,
            position: 0,
            logits: vec![0.0; config.vocab_size],
            options,
            model,
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model<B>> {
        &self.model
    }

    /// Tokens read so far, prompt and steps.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Logits `[vocab_size]` after the last token read; zeros before the first.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// What layer `layer` has seen of Δ, per channel: how much decay was accumulated, and how many
    /// tokens the mask kept. `None` past the last layer.
    pub fn delta_sums(&self, layer: usize) -> Option<&DeltaSums> {
        self.states.get(layer).map(|s| &s.sums)
    }

    /// Announces a prompt of `total` tokens, to be given in any number of [`prefill`](Self::prefill)
    /// calls.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`] for 0, [`Error::Announced`] where tokens have been read already.
    pub fn prefill_of(&mut self, total: usize) -> Result<()> {
        if total == 0 {
            return Err(Error::EmptyPrompt);
        }
        if self.position > 0 || self.total.is_some() {
            return Err(Error::Announced {
                announced: self.total.unwrap_or(self.position),
                given: self.position,
                hint: "announce the prompt's length once, before its first token",
            });
        }
        self.total = Some(total);
        self.set_thresholds(total)
    }

    /// The thresholds as they were when the session was saved.
    pub(crate) fn resume_thresholds(&mut self) -> Result<()> {
        match self.total {
            Some(total) if total > 0 && (self.position <= total || self.options.filter_decode) => {
                self.set_thresholds(total)
            }
            _ => Ok(()),
        }
    }

    /// The thresholds of a prompt of `total` tokens; none where nothing is to be filtered.
    fn set_thresholds(&mut self, total: usize) -> Result<()> {
        self.delta_min.clear();
        let Some(plan) = &self.options.plan else { return Ok(()) };
        let channels = self.model.config().mixer.channels();
        self.delta_min.resize(self.states.len() * channels, 0.0);
        for (layer, out) in self.delta_min.chunks_exact_mut(channels).enumerate() {
            plan.delta_min(layer, total, self.options.lookup, self.options.threshold_scale, out)?;
        }
        if self.delta_min.iter().all(|&d| d <= 0.0) {
            self.delta_min.clear();
        }
        Ok(())
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
        self.prefill_scored(tokens, tokens.len()..tokens.len(), |_, _| {})
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
        self.check_tokens(tokens)?;
        self.check_announced(tokens.len())?;
        let model = self.model.clone();
        model.backend().run(|| self.read(tokens, wanted, &mut sink, None))
    }

    /// As [`prefill`](Self::prefill), and calls `observer` with every layer's Δ, chunk by chunk.
    pub(crate) fn prefill_observed(
        &mut self,
        tokens: &[u32],
        observer: Observer<'_>,
    ) -> Result<()> {
        self.check_tokens(tokens)?;
        self.check_announced(tokens.len())?;
        let model = self.model.clone();
        let end = tokens.len();
        model.backend().run(|| self.read(tokens, end..end, &mut |_, _| {}, Some(observer)))
    }

    /// Reads one token after the prompt. LongMamba's filter is off here, unless
    /// [`filter_decode`](SessionOptions::filter_decode) is set.
    ///
    /// # Errors
    /// [`Error::Token`], or [`Error::Announced`] where the prompt is not complete.
    pub fn step(&mut self, token: u32) -> Result<()> {
        self.check_tokens(&[token])?;
        match self.total {
            Some(total) if self.position < total => {
                return Err(Error::Announced {
                    announced: total,
                    given: self.position,
                    hint: "prefill the rest of the prompt before the first step",
                });
            }
            Some(_) => {}
            // A sequence that begins with steps has no prompt.
            None => self.total = Some(0),
        }
        if !self.options.filter_decode {
            self.delta_min.clear();
        }
        let model = self.model.clone();
        model.backend().run(|| self.read(&[token], 1..1, &mut |_, _| {}, None))
    }

    /// A second session in the same state: the prefix is read once, and continued twice.
    ///
    /// # Errors
    /// [`Error`] of the backend, where its memory is full.
    pub fn fork(&self) -> Result<Self> {
        let backend = self.model.backend();
        let mut fork = Session::new(self.model.clone(), self.options.clone())?;
        let mut values = Vec::new();
        for (from, to) in self.states.iter().zip(&mut fork.states) {
            let (conv, ssm) = crate::workspace::state_lens(&self.model.config().mixer);
            for (len, from, to) in
                [(conv, &from.conv_history, &mut to.conv_history), (ssm, &from.ssm, &mut to.ssm)]
            {
                values.resize(len, 0.0);
                backend.read(from, 0, &mut values)?;
                backend.write(&values, to)?;
            }
            to.sums = from.sums.clone();
        }
        fork.delta_min.clone_from(&self.delta_min);
        fork.logits.clone_from(&self.logits);
        (fork.total, fork.position) = (self.total, self.position);
        Ok(fork)
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        let vocab = self.model.config().vocab_size;
        match tokens.iter().position(|&t| t as usize >= vocab) {
            Some(position) => Err(Error::Token { token: tokens[position], position, vocab }),
            None if tokens.is_empty() => Err(Error::EmptyPrompt),
            None => Ok(()),
        }
    }

    /// Whether `len` more tokens of the prompt may come; sets the thresholds with the first.
    fn check_announced(&mut self, len: usize) -> Result<()> {
        let given = self.position + len;
        match self.total {
            None => self.prefill_of(len),
            Some(total) if given <= total => Ok(()),
            // Without a plan the length changes nothing, so a conversation may go on.
            Some(_) if self.options.plan.is_none() => {
                self.total = Some(given);
                Ok(())
            }
            Some(announced) => Err(Error::Announced {
                announced,
                given,
                hint: "announce the total with prefill_of, or start a new session",
            }),
        }
    }

    fn read(
        &mut self,
        tokens: &[u32],
        wanted: Range<usize>,
        sink: &mut (dyn FnMut(usize, &[f32]) + Send),
        mut observer: Option<Observer<'_>>,
    ) -> Result<()> {
        let chunk_len = self.work.chunk_len;
        for (index, chunk) in tokens.chunks(chunk_len).enumerate() {
            let start = index * chunk_len;
            #[expect(
                clippy::option_as_ref_deref,
                reason = "it cannot shorten the closure's lifetime"
            )]
            let observer = observer.as_mut().map(|o| -> Observer<'_> { &mut **o });
            let Session { model, work, states, delta_min, .. } = self;
            model.forward(chunk, work, states, delta_min, observer)?;
            self.position += chunk.len();
            let end = start + chunk.len();
            let first = wanted.start.max(start);
            self.score(first..wanted.end.min(end).max(first), start, sink)?;
            if end == tokens.len() && !wanted.contains(&(end - 1)) {
                self.score(end - 1..end, start, &mut |_, _| {})?;
            }
        }
        Ok(())
    }

    /// Logits of tokens `rows`, which lie in the chunk that begins at `start`; the last are kept.
    fn score(
        &mut self,
        mut rows: Range<usize>,
        start: usize,
        sink: &mut (dyn FnMut(usize, &[f32]) + Send),
    ) -> Result<()> {
        let vocab = self.logits.len();
        while !rows.is_empty() {
            let count = rows.len().min(self.work.logit_rows);
            self.model.logits(rows.start - start, count, &mut self.work)?;
            for row in 0..count {
                let backend = self.model.backend();
                backend.read(&self.work.logits, row * vocab, &mut self.logits)?;
                sink(rows.start + row, &self.logits);
            }
            rows.start += count;
        }
        Ok(())
    }
}
