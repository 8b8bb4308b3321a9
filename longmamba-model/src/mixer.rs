//! The mixers: which stages, in which order.

mod mamba1;
mod mamba2;

use crate::Result;
use crate::backend::{
    Backend, Columns, ColumnsMut, Conv, Linear, Norm, NormedConv, Recurrence, StepMemory,
};
use crate::config::MixerConfig;
use crate::layer::norm_project;
use crate::load::Loader;
use crate::model::Step;
use crate::sequence::{LayerState, Sequence};
use crate::workspace::{Segment, Workspace};
use longmamba_core::policy::Decay;
use mamba1::Mamba1;
use mamba2::Mamba2;

/// What a mixer reads.
#[derive(Debug)]
pub(crate) struct Source<'a, B: Backend> {
    /// The layer's norm.
    pub norm: &'a Norm<B>,
    /// Whether it is of `work.mixed`; else it is of the residual stream.
    pub from_mixed: bool,
}

/// The mixer of one layer: reads the rows of a chunk, adds its result to the residual stream.
#[derive(Debug)]
pub(crate) enum Mixer<B: Backend> {
    Mamba1(Mamba1<B>),
    Mamba2(Mamba2<B>),
}

impl<B: Backend> Mixer<B> {
    /// `name` is what all of the mixer's tensors begin with.
    pub(crate) fn load(loader: &mut Loader<'_, B>, name: &str) -> Result<Self> {
        Ok(match loader.config.mixer {
            MixerConfig::Mamba1 { .. } => Mixer::Mamba1(Mamba1::load(loader, name)?),
            MixerConfig::Mamba2 { .. } => Mixer::Mamba2(Mamba2::load(loader, name)?),
        })
    }

    /// One chunk; `index` counts the recurrent layers.
    pub(crate) fn forward(
        &self,
        step: &mut Step<'_, B>,
        index: usize,
        source: Source<'_, B>,
    ) -> Result<()> {
        match self {
            Mixer::Mamba1(m) => m.forward(step, index, source),
            Mixer::Mamba2(m) => m.forward(step, index, source),
        }
    }

    /// As the checkpoint has it.
    pub(crate) fn recurrence(&self) -> &Recurrence<B> {
        match self {
            Mixer::Mamba1(m) => &m.recurrence,
            Mixer::Mamba2(m) => &m.recurrence,
        }
    }

    /// A, for calibration.
    pub(crate) fn rates(&self, backend: &B) -> Result<Rates> {
        match self {
            Mixer::Mamba1(m) => m.rates(backend),
            Mixer::Mamba2(m) => m.rates(backend),
        }
    }

    /// Δ `[rows, channels]` of the chunk that went through [`Mixer::forward`] last.
    pub(crate) fn delta(
        &self,
        backend: &B,
        rows: usize,
        work: &Workspace<B>,
        out: &mut [f32],
    ) -> Result<()> {
        match self {
            Mixer::Mamba1(m) => m.delta(backend, rows, work, out),
            Mixer::Mamba2(m) => m.delta(backend, rows, work, out),
        }
    }
}

/// What both mixers begin with: norm, in_proj to `work.projected`, and the convolution, of the columns from
/// `first` on, to `work.conv`. In a step those columns may be left out of `work.projected`.
fn project_in<B: Backend>(
    step: &mut Step<'_, B>,
    index: usize,
    source: Source<'_, B>,
    in_proj: &Linear<B>,
    first: usize,
    conv: &Conv<B>,
) -> Result<()> {
    let Step { backend, rows, work, segments, sequences } = step;
    let (backend, rows) = (*backend, *rows);
    let Workspace { scratch, hidden, mixed, normed, projected, conv: convolved, .. } = &mut **work;
    let Source { norm, from_mixed } = source;
    let (channels, width) = (conv.channels, in_proj.outputs);
    let x = Columns::all(if from_mixed { &*mixed } else { &*hidden }, norm.width);
    if let Some(memories) = memories(segments, sequences, index) {
        let stages = NormedConv { norm, linear: in_proj, conv, first };
        let out = ColumnsMut::all(&mut *projected, width);
        let to = ColumnsMut::all(&mut *convolved, channels);
        if backend.norm_project_conv(rows, x, stages, memories, out, to)? {
            return Ok(());
        }
    }
    norm_project(backend, scratch, rows, x, norm, normed, in_proj, projected)?;
    let x = Columns::all(&*projected, width).part(first, channels);
    for s in &**segments {
        let (state, _) = sequences[s.sequence].recurrent(index);
        let out = ColumnsMut::all(&mut *convolved, channels).skip_rows(s.first);
        backend.conv1d(s.rows, x.skip_rows(s.first), conv, &mut state.conv_history, out)?;
    }
    Ok(())
}

/// In a step, where every sequence has one row: what they remember in recurrent layer `index`, row by row. None
/// where a method does something to the layer's Δ or A that is not a threshold.
fn memories<'a, B: Backend>(
    segments: &'a [Segment],
    sequences: &'a mut [Sequence<B>],
    index: usize,
) -> Option<impl Iterator<Item = StepMemory<'a, B>>> {
    let plain = |s: &Segment| s.rows == 1 && sequences[s.sequence].leaves_scan(index);
    if !segments.iter().all(plain) {
        return None;
    }
    // They come in the order of the sequences.
    let mut left = segments.iter().peekable();
    let memory = move |(number, sequence): (usize, &'a mut Sequence<B>)| {
        left.next_if(|segment| segment.sequence == number)?;
        let (LayerState { conv_history: history, ssm: state, sums }, delta_min) =
            sequence.recurrent(index);
        Some(StepMemory { history, state, sums, delta_min })
    };
    Some(sequences.iter_mut().enumerate().filter_map(memory))
}

/// The decay rates A of a layer, on the host.
#[derive(Clone, Debug)]
pub enum Rates {
    /// `[heads]`.
    PerHead(Vec<f32>),
    /// One a channel and state.
    PerState {
        /// `[d_inner, d_state]`.
        a: Vec<f32>,
        /// States.
        d_state: usize,
    },
}

impl Rates {
    /// As the policy takes them.
    pub(crate) fn decay(&self) -> Decay<'_> {
        match self {
            Rates::PerHead(a) => Decay::PerHead(a),
            Rates::PerState { a, d_state } => Decay::PerState { a, d_state: *d_state },
        }
    }
}
