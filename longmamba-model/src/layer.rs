//! One layer: norm, mixer, residual, and around them what some families add.

use crate::Result;
use crate::attention::Attention;
use crate::backend::{Activation, Backend, Columns, ColumnsMut, Linear, Norm};
use crate::load::Loader;
use crate::mixer::{Mixer, Source};
use crate::model::Step;
use crate::shared::SharedCall;
use crate::workspace::Workspace;

/// One layer.
#[derive(Debug)]
pub(crate) struct Layer<B: Backend> {
    /// Zamba2: the shared block in front, and which attention layer this is.
    pub shared: Option<(SharedCall<B>, usize)>,
    pub norm: Norm<B>,
    pub mixing: Mixing<B>,
    pub mlp: Option<Mlp<B>>,
}

/// What mixes the tokens, and which of its kind it is.
#[derive(Debug)]
pub(crate) enum Mixing<B: Backend> {
    Recurrent(Mixer<B>, usize),
    Attention(Attention<B>, usize),
}

impl<B: Backend> Layer<B> {
    /// One chunk: `work.hidden` to itself.
    pub(crate) fn forward(&self, step: &mut Step<'_, B>) -> Result<()> {
        if let Some((block, index)) = &self.shared {
            block.forward(step, *index)?;
        }
        let (backend, rows, width) = (step.backend, step.rows, self.norm.width);
        let Workspace { hidden, mixed, normed, .. } = step.work;
        let input = Columns::all(&*hidden, width);
        match &self.mixing {
            Mixing::Recurrent(mixer, index) => {
                let from_mixed = self.shared.is_some();
                if from_mixed {
                    // The block speaks to the mixer only; the residual stream stays as it is.
                    backend.copy(rows, input, true, ColumnsMut::all(mixed, width))?;
                }
                mixer.forward(step, *index, Source { norm: &self.norm, from_mixed })?;
            }
            Mixing::Attention(attention, index) => {
                backend.norm(rows, input, &self.norm, ColumnsMut::all(normed, width))?;
                attention.forward(step, *index)?;
            }
        }
        match &self.mlp {
            Some(mlp) => mlp.forward(step),
            None => Ok(()),
        }
    }
}

/// The rows of `x` through a norm and a linear map, to the rows of `out`; `normed` is room for what is between.
#[allow(clippy::too_many_arguments)]
pub(crate) fn norm_project<B: Backend>(
    backend: &B,
    scratch: &mut B::Scratch,
    rows: usize,
    x: Columns<'_, B::Buffer>,
    norm: &Norm<B>,
    normed: &mut B::Buffer,
    linear: &Linear<B>,
    out: &mut B::Buffer,
) -> Result<()> {
    let (width, outputs) = (norm.width, linear.outputs);
    if backend.norm_project(scratch, rows, x, norm, linear, ColumnsMut::all(&mut *out, outputs))? {
        return Ok(());
    }
    backend.norm(rows, x, norm, ColumnsMut::all(normed, width))?;
    let normed = Columns::all(&*normed, width);
    backend.project(scratch, rows, normed, linear, false, ColumnsMut::all(out, outputs))
}

/// The gated MLP after the mixer, in the state-spaces format.
#[derive(Debug)]
pub(crate) struct Mlp<B: Backend> {
    norm: Norm<B>,
    /// d_model → value, gate.
    up: Linear<B>,
    down: Linear<B>,
}

impl<B: Backend> Mlp<B> {
    pub(crate) fn load(loader: &mut Loader<'_, B>, layer: &str, inner: usize) -> Result<Self> {
        let width = loader.config.d_model;
        Ok(Mlp {
            norm: loader.norm(&format!("{layer}.norm2"), width)?,
            up: loader.linear(&format!("{layer}.mlp.fc1"), 2 * inner, width, false)?,
            down: loader.linear(&format!("{layer}.mlp.fc2"), width, inner, false)?,
        })
    }

    fn forward(&self, step: &mut Step<'_, B>) -> Result<()> {
        let (backend, rows) = (step.backend, step.rows);
        let (width, inner) = (self.norm.width, self.down.inputs);
        let Workspace { scratch, hidden, normed, mlp_up, mlp, .. } = step.work;
        let from = Columns::all(&*hidden, width);
        norm_project(backend, scratch, rows, from, &self.norm, normed, &self.up, mlp_up)?;
        let up = Columns::all(&*mlp_up, 2 * inner);
        let (value, gate) = (up.part(0, inner), up.part(inner, inner));
        backend.gate(rows, value, gate, Activation::Silu, ColumnsMut::all(mlp, inner))?;
        let (from, to) = (Columns::all(&*mlp, inner), ColumnsMut::all(hidden, width));
        backend.project(scratch, rows, from, &self.down, true, to)
    }
}
