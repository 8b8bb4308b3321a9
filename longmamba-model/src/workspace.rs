//! Room for the activations of one chunk.

use crate::Result;
use crate::backend::{Activations, Backend};
use crate::config::{Config, MixerConfig};
use crate::methods::Room;

/// Some neighbouring rows of a chunk, which belong to one sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// Which sequence.
    pub sequence: usize,
    /// The first row.
    pub first: usize,
    /// Fewer than tokens where a method dropped some on the way.
    pub rows: usize,
    /// Tokens that it stands for.
    pub tokens: usize,
    /// The index of the first row's token among those that the sequence was given.
    pub token: usize,
}

/// Activations of one chunk; allocated once a session. Shapes: `[chunk_len, …]`, rows
/// [`row_stride`](Activations::row_stride) apart. Buffers that a family does not need are empty.
#[derive(Debug)]
pub(crate) struct Workspace<B: Backend> {
    pub scratch: B::Scratch,
    pub recording: B::Recording,
    /// [`Sequence::buffers`](crate::sequence::Sequence::buffers) of the sequences in a step.
    pub key: Vec<u64>,
    /// `d_model`: the residual stream.
    pub hidden: B::Buffer,
    /// `d_model`: after the norm.
    pub normed: B::Buffer,
    /// [`MixerConfig::projected`], or what an attention layer's in_proj gives, if that is wider.
    pub projected: B::Buffer,
    /// `conv_dim`: after convolution and SiLU.
    pub conv: B::Buffer,
    /// `dt_rank + 2 · d_state`: the low-rank Δ, B and C. Mamba-1.
    pub select: B::Buffer,
    /// The same after their norms. Falcon-Mamba.
    pub selected: B::Buffer,
    /// `d_inner`: Δ before bias and softplus. Mamba-1.
    pub dt_raw: B::Buffer,
    /// `d_inner`: after the scan.
    pub y: B::Buffer,
    /// [`MixerConfig::gated_width`]: after gate and norm. Mamba-2.
    pub gated: B::Buffer,
    /// `q, k, v`. Attention.
    pub qkv: B::Buffer,
    /// Heads, and the MLP beside them. Attention.
    pub attended: B::Buffer,
    /// `2 · d_model`: the residual stream and the embedding. Zamba2.
    pub paired: B::Buffer,
    /// `2 · d_model`: after the norm. Zamba2.
    pub paired_normed: B::Buffer,
    /// `adapter_rank`. Zamba2.
    pub low: B::Buffer,
    /// `d_model`: what a shared block gives. Zamba2.
    pub mixed: B::Buffer,
    /// `d_model`: inside a shared block. Zamba2.
    pub mixed_normed: B::Buffer,
    /// `2 · d_intermediate`: the gated MLP.
    pub mlp_up: B::Buffer,
    /// `d_intermediate`.
    pub mlp: B::Buffer,
    /// `channels`: Δ that a method has rewritten, before softplus.
    pub rewritten: Room<B>,
    /// `[logit_rows, vocab_rows]`.
    pub logits: B::Buffer,
    /// Tokens a chunk.
    pub chunk_len: usize,
    /// Rows of logits made at a time.
    pub logit_rows: usize,
    /// The tokens of the chunk.
    pub tokens: Vec<u32>,
    /// Whose they are.
    pub segments: Vec<Segment>,
    /// Which rows of the chunk are left, where a method dropped some; else empty.
    pub kept: Vec<usize>,
    /// Rows whose logits are wanted, with the segment they belong to.
    pub scored: Vec<(usize, usize)>,
}

impl<B: Backend> Workspace<B> {
    pub(crate) fn new(config: &Config, chunk_len: usize, backend: &B) -> Result<Self> {
        let rows = |width| backend.buffer(chunk_len * B::Buffer::row_stride(width));
        let (mixer, d_model) = (&config.mixer, config.d_model);
        let (select, selected, dt_raw, gated) = match *mixer {
            MixerConfig::Mamba1 { d_inner, d_state, dt_rank, select_eps, .. } => {
                let select = dt_rank + 2 * d_state;
                (select, select_eps.map_or(0, |_| select), d_inner, 0)
            }
            MixerConfig::Mamba2 { .. } => (0, 0, 0, mixer.gated_width()),
        };
        let (qkv, attended, attention_projected) = match &config.attention {
            Some(a) => (a.qkv_width(), a.q_width() + a.d_mlp, a.qkv_width() + 2 * a.d_mlp),
            None => (0, 0, 0),
        };
        let (d_shared, rank, shared_inner) = match config.shared {
            Some(s) => (d_model, s.adapter_rank, s.d_intermediate),
            None => (0, 0, 0),
        };
        let inner = config.d_intermediate.unwrap_or(0).max(shared_inner);
        let logit_rows = chunk_len.min(64);
        Ok(Workspace {
            scratch: B::Scratch::default(),
            recording: B::Recording::default(),
            key: Vec::with_capacity(1),
            hidden: rows(d_model)?,
            normed: rows(d_model)?,
            projected: rows(mixer.projected().max(attention_projected))?,
            conv: rows(mixer.conv_dim())?,
            select: rows(select)?,
            selected: rows(selected)?,
            dt_raw: rows(dt_raw)?,
            y: rows(mixer.d_inner())?,
            gated: rows(gated)?,
            qkv: rows(qkv)?,
            attended: rows(attended)?,
            paired: rows(2 * d_shared)?,
            paired_normed: rows(2 * d_shared)?,
            low: rows(rank)?,
            mixed: rows(d_shared)?,
            mixed_normed: rows(d_shared)?,
            mlp_up: rows(2 * inner)?,
            mlp: rows(inner)?,
            rewritten: Room::new(chunk_len),
            logits: backend.buffer(logit_rows * B::Buffer::row_stride(config.vocab_rows))?,
            chunk_len,
            logit_rows,
            tokens: Vec::with_capacity(chunk_len),
            segments: Vec::with_capacity(1),
            kept: Vec::new(),
            scored: Vec::with_capacity(chunk_len),
        })
    }
    /// The index of the token, among those that its sequence was given, that a row of the chunk is of.
    pub(crate) fn token(&self, segment: &Segment, row: usize) -> usize {
        segment.token + self.kept.get(row).copied().unwrap_or(row) - segment.first
    }
}
