//! What a model remembers of one sequence, and how its prompt is announced.

use crate::backend::{Backend, Columns, DeltaSums, Recurrence};
use crate::cache::KvCache;
use crate::config::MixerConfig;
use crate::methods::{Applied, Reading, Room, Selection};
use crate::model::Model;
use crate::session::SessionOptions;
use crate::{Error, Result};
use longmamba_core::AlignedVec;
use std::sync::atomic::{AtomicU64, Ordering};

/// What one recurrent layer remembers of a sequence.
#[derive(Debug)]
pub(crate) struct LayerState<B: Backend> {
    /// `[d_conv - 1, conv_dim]`: the last inputs of the convolution, oldest first.
    pub conv_history: B::Buffer,
    /// [`MixerConfig::state_shape`].
    pub ssm: B::Buffer,
    /// What was seen of Δ.
    pub sums: B::Sums,
}

/// Elements of a layer's convolution history and SSM state.
pub(crate) fn state_lens(mixer: &MixerConfig) -> (usize, usize) {
    (mixer.history_shape().iter().product(), mixer.state_shape().iter().product())
}

/// How many bytes a sequence takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StateMemory {
    /// Convolution history and SSM state: the same for every length.
    pub recurrent: usize,
    /// Keys and values of the attention layers: grows with the sequence, up to the window.
    pub attention: usize,
}

/// The state of one sequence.
#[derive(Debug)]
pub(crate) struct Sequence<B: Backend> {
    /// One a recurrent layer.
    pub states: Vec<LayerState<B>>,
    /// One an attention layer.
    pub caches: Vec<KvCache<B>>,
    /// How it reads.
    pub applied: Applied<B>,
    /// `[channels]` for each recurrent layer, or empty: no mask.
    pub delta_min: Vec<B::Vector>,
    /// Tokens of the prompt, once known.
    pub total: Option<usize>,
    /// Tokens read so far.
    pub position: usize,
    /// Of the last token read.
    pub logits: Vec<f32>,
    /// Another number whenever another buffer, or another mask, comes into use.
    pub buffers: u64,
}

/// A number that no sequence had.
fn unused() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl<B: Backend> Sequence<B> {
    pub(crate) fn new(model: &Model<B>, options: &SessionOptions) -> Result<Self> {
        Self::with(model, options, Applied::new(model, options.resolved()?)?)
    }

    fn with(model: &Model<B>, options: &SessionOptions, applied: Applied<B>) -> Result<Self> {
        let (config, backend) = (model.config(), model.backend());
        let (conv, ssm) = state_lens(&config.mixer);
        let state = |_| {
            Ok(LayerState {
                conv_history: backend.buffer(conv)?,
                ssm: backend.state(ssm)?,
                sums: backend.sums(config.mixer.channels())?,
            })
        };
        let window = options.attention_window.unwrap_or(usize::MAX);
        let caches = match &config.attention {
            Some(attention) => (0..config.attention_layers())
                .map(|_| KvCache::new(attention, window, backend))
                .collect::<Result<_>>()?,
            None => Vec::new(),
        };
        Ok(Sequence {
            states: (0..config.recurrent_layers()).map(state).collect::<Result<_>>()?,
            caches,
            applied,
            delta_min: Vec::new(),
            total: None,
            position: 0,
            logits: vec![0.0; config.vocab_size],
            buffers: unused(),
        })
    }

    /// The state of a recurrent layer, and its thresholds where there are some.
    pub(crate) fn recurrent(&mut self, index: usize) -> (&mut LayerState<B>, Option<&B::Vector>) {
        (&mut self.states[index], self.delta_min.get(index))
    }

    /// What the scan of a recurrent layer, whose own recurrence is `own`, works with: state, recurrence,
    /// thresholds. `rewritten`: the method has rewritten Δ.
    pub(crate) fn scan<'a>(
        &'a mut self,
        index: usize,
        own: &'a Recurrence<B>,
        rewritten: bool,
    ) -> (&'a mut LayerState<B>, &'a Recurrence<B>, Option<&'a B::Vector>) {
        let state = &mut self.states[index];
        match self.applied.rewritten(index).filter(|_| rewritten) {
            Some((recurrence, above_zero)) => (state, recurrence, Some(above_zero)),
            None => (state, self.applied.recurrence(index, own), self.delta_min.get(index)),
        }
    }

    /// Rewrites Δ for a layer's scan, where the method does: [`Applied::rewrite`].
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn rewrite(
        &self,
        backend: &B,
        index: usize,
        rows: usize,
        own: &Recurrence<B>,
        dt_raw: Columns<'_, B::Buffer>,
        selection: &dyn Fn() -> Result<Selection>,
        room: &mut Room<B>,
    ) -> Result<bool> {
        let reading = self.reading();
        self.applied.rewrite(backend, index, reading, rows, own, dt_raw, selection, room)
    }

    /// Whether the scan of a recurrent layer takes its own recurrence, and Δ as it is.
    pub(crate) fn leaves_scan(&self, index: usize) -> bool {
        self.applied.leaves_scan(index, self.reading())
    }

    /// What is being read.
    pub(crate) fn reading(&self) -> Reading {
        match self.total {
            Some(total) if self.position < total => Reading::Prompt(total),
            _ => Reading::Step,
        }
    }

    /// What recurrent layer `layer` has seen of Δ.
    pub(crate) fn delta_sums(&self, backend: &B, layer: usize) -> Result<DeltaSums> {
        match self.states.get(layer) {
            Some(state) => backend.read_sums(&state.sums),
            None => Err(Error::argument(format!("there is no recurrent layer {layer}"))),
        }
    }

    pub(crate) fn memory(&self, model: &Model<B>) -> StateMemory {
        let (conv, ssm) = state_lens(&model.config().mixer);
        StateMemory {
            recurrent: self.states.len() * (conv + ssm) * size_of::<f32>(),
            attention: self.caches.iter().map(KvCache::bytes).sum(),
        }
    }

    /// Makes room for the keys and values of the next `rows` tokens.
    pub(crate) fn reserve(&mut self, backend: &B, rows: usize) -> Result<()> {
        for cache in &mut self.caches {
            if cache.reserve(backend, self.position, rows)? {
                self.buffers = unused();
            }
        }
        Ok(())
    }

    pub(crate) fn announce(&mut self, model: &Model<B>, total: usize) -> Result<()> {
        if total == 0 {
            return Err(Error::EmptyPrompt);
        }
        self.check_unannounced()?;
        self.set_thresholds(model, total)?;
        self.total = Some(total);
        Ok(())
    }

    /// Whether a prompt may be announced; changes nothing.
    pub(crate) fn check_unannounced(&self) -> Result<()> {
        if self.position == 0 && self.total.is_none() {
            return Ok(());
        }
        Err(Error::Announced {
            announced: self.total.unwrap_or(self.position),
            given: self.position,
            hint: "announce the prompt's length once, before its first token",
        })
    }

    /// The thresholds as they were when the session was saved.
    pub(crate) fn resume_thresholds(
        &mut self,
        model: &Model<B>,
        options: &SessionOptions,
    ) -> Result<()> {
        match self.total {
            Some(total) if total > 0 && (self.position <= total || options.filter_decode) => {
                self.set_thresholds(model, total)
            }
            _ => Ok(()),
        }
    }

    /// The thresholds of a prompt of `total` tokens; none where nothing is to be filtered.
    fn set_thresholds(&mut self, model: &Model<B>, total: usize) -> Result<()> {
        self.delta_min.clear();
        self.buffers = unused();
        let Some(method) = self.applied.method().filter(|m| m.needs_length()) else {
            return Ok(());
        };
        let channels = model.config().mixer.channels();
        let mut all = Vec::with_capacity(self.states.len());
        for layer in 0..self.states.len() {
            let mut delta_min = AlignedVec::zeros(channels);
            method.thresholds(layer, total, &mut delta_min)?;
            all.push(delta_min);
        }
        if all.iter().flat_map(|layer| layer.iter()).any(|&d| d > 0.0) {
            let vectors = all.into_iter().map(|layer| model.backend().vector(layer));
            self.delta_min = vectors.collect::<Result<_>>()?;
        }
        Ok(())
    }

    /// Whether `len` more tokens of the prompt may come; changes nothing.
    pub(crate) fn check_more(&self, len: usize) -> Result<()> {
        let Some(method) = self.applied.method().filter(|m| m.needs_length()) else {
            // The length changes nothing, so a conversation may go on.
            return Ok(());
        };
        let given = self.position + len;
        match self.total {
            Some(announced) if given > announced => Err(Error::Announced {
                announced,
                given,
                hint: "announce the total with prefill_of, or start a new session",
            }),
            Some(announced) if method.needs_whole() && given < announced => {
                Err(Error::Whole { method: method.name(), announced, given })
            }
            _ => Ok(()),
        }
    }

    /// After [`check_more`](Self::check_more): the first tokens of a prompt set its length and the
    /// thresholds.
    pub(crate) fn begin(&mut self, model: &Model<B>, len: usize) -> Result<()> {
        match self.total {
            None => self.announce(model, len),
            Some(total) => {
                self.total = Some(total.max(self.position + len));
                Ok(())
            }
        }
    }

    /// Whether a step may come; changes nothing.
    pub(crate) fn check_step(&self) -> Result<()> {
        match self.total {
            Some(total) if self.position < total => Err(Error::Announced {
                announced: total,
                given: self.position,
                hint: "prefill the rest of the prompt before the first step",
            }),
            _ => Ok(()),
        }
    }

    /// After [`check_step`](Self::check_step).
    pub(crate) fn begin_step(&mut self, options: &SessionOptions) {
        // A sequence that begins with steps has no prompt.
        self.total.get_or_insert(0);
        if !options.filter_decode && !self.delta_min.is_empty() {
            self.delta_min.clear();
            self.buffers = unused();
        }
    }

    /// The same state once more.
    pub(crate) fn fork(&self, model: &Model<B>, options: &SessionOptions) -> Result<Self> {
        let backend = model.backend();
        let mut fork = Sequence::with(model, options, self.applied.clone())?;
        let mut values = Vec::new();
        let mut copy = |from: &B::Buffer, to: &mut B::Buffer, len: usize| {
            values.resize(len, 0.0);
            backend.read(from, 0, &mut values)?;
            backend.write(&values, to)
        };
        let (conv, ssm) = state_lens(&model.config().mixer);
        for (from, to) in self.states.iter().zip(&mut fork.states) {
            copy(&from.conv_history, &mut to.conv_history, conv)?;
            copy(&from.ssm, &mut to.ssm, ssm)?;
            backend.write_sums(&backend.read_sums(&from.sums)?, &mut to.sums)?;
        }
        let history = model.config().attention.as_ref().map_or(0, crate::cache::history_len);
        for (from, to) in self.caches.iter().zip(&mut fork.caches) {
            copy(&from.conv_history, &mut to.conv_history, history)?;
            let (first, keys, values) = from.read(backend, self.position)?;
            to.write(backend, first, &keys, &values)?;
        }
        fork.delta_min.clone_from(&self.delta_min);
        fork.logits.clone_from(&self.logits);
        (fork.total, fork.position) = (self.total, self.position);
        Ok(fork)
    }
}

/// That all tokens are in the vocabulary, and that there is one.
pub(crate) fn check_tokens<B: Backend>(model: &Model<B>, tokens: &[u32]) -> Result<()> {
    let vocab = model.config().vocab_size;
    match tokens.iter().position(|&t| t as usize >= vocab) {
        Some(position) => Err(Error::Token { token: tokens[position], position, vocab }),
        None if tokens.is_empty() => Err(Error::EmptyPrompt),
        None => Ok(()),
    }
}
