//! The buffers of a session: state that lives as long as the sequence, and room for one chunk.

use crate::Result;
use crate::backend::{Backend, DeltaSums};
use crate::config::{Config, MixerConfig};

/// What one layer remembers of a sequence.
#[derive(Debug)]
pub(crate) struct LayerState<B: Backend> {
    /// `[d_conv - 1, conv_dim]`: the last inputs of the convolution, oldest first.
    pub conv_history: B::Buffer,
    /// [`MixerConfig::state_shape`].
    pub ssm: B::Buffer,
    /// What was seen of Δ.
    pub sums: DeltaSums,
}

impl<B: Backend> LayerState<B> {
    pub(crate) fn new(config: &Config, backend: &B) -> Result<Self> {
        let (conv, ssm) = state_lens(&config.mixer);
        Ok(LayerState {
            conv_history: backend.buffer(conv)?,
            ssm: backend.buffer(ssm)?,
            sums: DeltaSums::new(config.mixer.channels()),
        })
    }
}

/// Elements of a layer's convolution history and SSM state.
pub(crate) fn state_lens(mixer: &MixerConfig) -> (usize, usize) {
    ((mixer.d_conv() - 1) * mixer.conv_dim(), mixer.state_shape().iter().product())
}

/// Activations of one chunk; allocated once a session. Shapes: `[chunk_len, …]`.
#[derive(Debug)]
pub(crate) struct Workspace<B: Backend> {
    pub scratch: B::Scratch,
    /// `d_model`: the residual stream.
    pub hidden: B::Buffer,
    /// `d_model`: after the norm.
    pub normed: B::Buffer,
    /// [`MixerConfig::projected`]: after in_proj.
    pub projected: B::Buffer,
    /// `conv_dim`: after convolution and SiLU.
    pub conv: B::Buffer,
    /// `dt_rank + 2 · d_state`: the low-rank Δ, B and C. Mamba-1 only.
    pub select: B::Buffer,
    /// `d_inner`: Δ before bias and softplus. Mamba-1 only.
    pub dt_raw: B::Buffer,
    /// `d_inner`: after the scan.
    pub y: B::Buffer,
    /// `d_inner`: after gate and norm. Mamba-2 only.
    pub gated: B::Buffer,
    /// `[logit_rows, vocab_size]`.
    pub logits: B::Buffer,
    /// Tokens a chunk.
    pub chunk_len: usize,
    /// Rows of logits made at a time.
    pub logit_rows: usize,
}

impl<B: Backend> Workspace<B> {
    pub(crate) fn new(config: &Config, chunk_len: usize, backend: &B) -> Result<Self> {
        let rows = |width: usize| backend.buffer(chunk_len * width);
        let d_inner = config.mixer.d_inner();
        let (select, dt_raw, gated) = match config.mixer {
            MixerConfig::Mamba1 { d_state, dt_rank, .. } => (dt_rank + 2 * d_state, d_inner, 0),
            MixerConfig::Mamba2 { .. } => (0, 0, d_inner),
        };
        let logit_rows = chunk_len.min(64);
        Ok(Workspace {
            scratch: B::Scratch::default(),
            hidden: rows(config.d_model)?,
            normed: rows(config.d_model)?,
            projected: rows(config.mixer.projected())?,
            conv: rows(config.mixer.conv_dim())?,
            select: rows(select)?,
            dt_raw: rows(dt_raw)?,
            y: rows(d_inner)?,
            gated: rows(gated)?,
            logits: backend.buffer(logit_rows * config.vocab_size)?,
            chunk_len,
            logit_rows,
        })
    }
}
