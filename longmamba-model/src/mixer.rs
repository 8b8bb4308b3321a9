//! The mixers: which stages, in which order.

mod mamba1;
mod mamba2;

use crate::backend::{Backend, Conv, Linear, Recurrence};
use crate::checkpoint::Checkpoint;
use crate::config::{Config, MixerConfig};
use crate::workspace::{LayerState, Workspace};
use crate::{Error, Result};
use longmamba_core::{AlignedVec, DtLimits};
use mamba1::Mamba1;
use mamba2::Mamba2;

/// The mixer of one layer: reads the normed rows of a chunk, adds its result to the residual stream.
#[derive(Debug)]
pub(crate) enum Mixer<B: Backend> {
    Mamba1(Mamba1<B>),
    Mamba2(Mamba2<B>),
}

impl<B: Backend> Mixer<B> {
    /// `prefix` is `backbone.layers.N`.
    pub(crate) fn load(
        config: &Config,
        weights: &mut Checkpoint,
        prefix: &str,
        backend: &B,
    ) -> Result<Self> {
        let mut loader = Loader { config, weights, prefix, backend };
        Ok(match config.mixer {
            MixerConfig::Mamba1 { .. } => Mixer::Mamba1(Mamba1::load(&mut loader)?),
            MixerConfig::Mamba2 { .. } => Mixer::Mamba2(Mamba2::load(&mut loader)?),
        })
    }

    /// One chunk of `rows` tokens; `delta_min` masks the scan where given.
    pub(crate) fn forward(
        &self,
        backend: &B,
        rows: usize,
        work: &mut Workspace<B>,
        state: &mut LayerState<B>,
        delta_min: Option<&[f32]>,
    ) -> Result<()> {
        match self {
            Mixer::Mamba1(m) => m.forward(backend, rows, work, state, delta_min),
            Mixer::Mamba2(m) => m.forward(backend, rows, work, state, delta_min),
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
pub(crate) enum Rates {
    /// `[heads]`.
    PerHead(Vec<f32>),
    /// `[d_inner, d_state]`.
    PerState { a: Vec<f32>, d_state: usize },
}

/// What the two mixers load alike.
struct Loader<'a, B: Backend> {
    config: &'a Config,
    weights: &'a mut Checkpoint,
    prefix: &'a str,
    backend: &'a B,
}

impl<B: Backend> Loader<'_, B> {
    fn name(&self, part: &str) -> String {
        format!("{}.mixer.{part}", self.prefix)
    }

    fn values(&mut self, part: &str, shape: &[usize]) -> Result<AlignedVec<f32>> {
        let name = self.name(part);
        self.weights.take_f32(&name, shape)
    }

    fn vector(&mut self, part: &str, shape: &[usize]) -> Result<B::Vector> {
        let values = self.values(part, shape)?;
        self.backend.vector(values)
    }

    /// `part.weight` `[outputs, inputs]`, and `part.bias` where `bias`.
    fn linear(
        &mut self,
        part: &str,
        outputs: usize,
        inputs: usize,
        bias: bool,
    ) -> Result<Linear<B>> {
        let name = self.name(&format!("{part}.weight"));
        let weight = self.weights.take(&name, &[outputs, inputs])?;
        let bias = bias.then(|| self.vector(&format!("{part}.bias"), &[outputs])).transpose()?;
        Ok(Linear { weight: self.backend.matrix(weight)?, bias, outputs })
    }

    fn conv(&mut self) -> Result<Conv<B>> {
        let (channels, width) = (self.config.mixer.conv_dim(), self.config.mixer.d_conv());
        let weight = self.values("conv1d.weight", &[channels, 1, width])?;
        let has_bias = self.config.conv_bias;
        let bias = has_bias.then(|| self.vector("conv1d.bias", &[channels])).transpose()?;
        let weight = self.backend.vector(transposed(&weight, channels, width))?;
        Ok(Conv { weight, bias, channels, width })
    }

    /// A_log `[rows]` or `[rows, columns]`, as A = −exp(A_log).
    fn decay_rates(&mut self, shape: &[usize]) -> Result<AlignedVec<f32>> {
        let mut a = self.values("A_log", shape)?;
        for (index, value) in a.iter_mut().enumerate() {
            *value = -value.exp();
            if !value.is_finite() {
                let (path, tensor) = (self.weights.path().to_owned(), self.name("A_log"));
                return Err(Error::NonFinite { path, tensor, index });
            }
        }
        Ok(a)
    }

    fn recurrence(
        &mut self,
        a: AlignedVec<f32>,
        dt_bias: &str,
        dt_limits: DtLimits,
    ) -> Result<Recurrence<B>> {
        let channels = self.config.mixer.channels();
        Ok(Recurrence {
            a: self.backend.vector(a)?,
            d: self.vector("D", &[channels])?,
            dt_bias: self.vector(dt_bias, &[channels])?,
            dt_limits,
        })
    }
}

/// `[rows, columns]` to `[columns, rows]`.
fn transposed(values: &[f32], rows: usize, columns: usize) -> AlignedVec<f32> {
    let mut out = AlignedVec::zeros(values.len());
    for (r, row) in values.chunks_exact(columns).enumerate() {
        for (c, &value) in row.iter().enumerate() {
            out[c * rows + r] = value;
        }
    }
    out
}
