use super::{Loader, Rates};
use crate::Result;
use crate::backend::{Backend, Columns, Conv, Linear, Recurrence, SsdStageInputs};
use crate::config::MixerConfig;
use crate::workspace::{LayerState, Workspace};

/// Mamba-2 (arXiv 2405.21060): in_proj → conv → scan → gate and norm → out_proj.
#[derive(Debug)]
pub(crate) struct Mamba2<B: Backend> {
    heads: usize,
    groups: usize,
    d_state: usize,
    d_inner: usize,
    norm_eps: f32,
    /// d_model → z, x, B, C, Δ.
    in_proj: Linear<B>,
    conv: Conv<B>,
    recurrence: Recurrence<B>,
    /// Weight of the gated norm, `[d_inner]`.
    norm: B::Vector,
    out_proj: Linear<B>,
}

impl<B: Backend> Mamba2<B> {
    pub(super) fn load(loader: &mut Loader<'_, B>) -> Result<Self> {
        let config = loader.config;
        let MixerConfig::Mamba2 { heads, groups, d_state, dt_limits, .. } = config.mixer else {
            unreachable!("the caller matched on the family")
        };
        let (d_model, bias, d_inner) =
            (config.d_model, config.projection_bias, config.mixer.d_inner());
        let a = loader.decay_rates(&[heads])?;
        Ok(Mamba2 {
            heads,
            groups,
            d_state,
            d_inner,
            norm_eps: config.norm_eps,
            in_proj: loader.linear("in_proj", config.mixer.projected(), d_model, bias)?,
            conv: loader.conv()?,
            recurrence: loader.recurrence(a, "dt_bias", dt_limits)?,
            norm: loader.vector("norm.weight", &[d_inner])?,
            out_proj: loader.linear("out_proj", d_model, d_inner, bias)?,
        })
    }

    pub(super) fn forward(
        &self,
        backend: &B,
        rows: usize,
        work: &mut Workspace<B>,
        state: &mut LayerState<B>,
        delta_min: Option<&[f32]>,
    ) -> Result<()> {
        let Self { heads, groups, d_inner, .. } = *self;
        let Workspace { scratch, hidden, normed, projected, conv, y, gated, .. } = work;

        let u = Columns::all(&*normed, self.out_proj.outputs);
        backend.project(rows, u, &self.in_proj, false, projected)?;
        let zxbcdt = Columns::all(&*projected, self.in_proj.outputs);

        let xbc = zxbcdt.part(d_inner, self.conv.channels);
        backend.conv1d(rows, xbc, &self.conv, &mut state.conv_history, conv)?;
        let xbc = Columns::all(&*conv, self.conv.channels);

        let inputs = SsdStageInputs {
            x: xbc.part(0, d_inner),
            dt_raw: self.dt_raw(zxbcdt),
            b: xbc.part(d_inner, groups * self.d_state),
            c: xbc.part(d_inner + groups * self.d_state, groups * self.d_state),
            heads,
            groups,
        };
        let LayerState { ssm, sums, .. } = state;
        backend.ssd(scratch, rows, inputs, &self.recurrence, delta_min, ssm, sums, y)?;

        let z = zxbcdt.part(0, d_inner);
        backend.gated_norm(rows, y, z, &self.norm, d_inner / groups, self.norm_eps, gated)?;

        backend.project(rows, Columns::all(&*gated, d_inner), &self.out_proj, true, hidden)
    }

    fn dt_raw<'a>(&self, zxbcdt: Columns<'a, B::Buffer>) -> Columns<'a, B::Buffer> {
        zxbcdt.part(self.d_inner + self.conv.channels, self.heads)
    }

    pub(super) fn rates(&self, backend: &B) -> Result<Rates> {
        Ok(Rates::PerHead(backend.read_vector(&self.recurrence.a)?))
    }

    pub(super) fn delta(
        &self,
        backend: &B,
        rows: usize,
        work: &Workspace<B>,
        out: &mut [f32],
    ) -> Result<()> {
        let zxbcdt = Columns::all(&work.projected, self.in_proj.outputs);
        backend.delta(rows, self.dt_raw(zxbcdt), &self.recurrence, out)
    }
}
