//! The mixers: which stages, in which order.

mod mamba1;
mod mamba2;

use crate::Result;
use crate::backend::{Backend, Recurrence};
use crate::config::MixerConfig;
use crate::load::Loader;
use crate::model::Step;
use crate::workspace::Workspace;
use longmamba_core::policy::Decay;
use mamba1::Mamba1;
use mamba2::Mamba2;

/// The mixer of one layer: reads the normed rows of a chunk, adds its result to the residual stream.
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
    pub(crate) fn forward(&self, step: &mut Step<'_, B>, index: usize) -> Result<()> {
        match self {
            Mixer::Mamba1(m) => m.forward(step, index),
            Mixer::Mamba2(m) => m.forward(step, index),
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
