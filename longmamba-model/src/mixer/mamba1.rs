use super::{Loader, Rates, transposed};
use crate::Result;
use crate::backend::{Backend, Columns, Conv, Linear, Recurrence, ScanInputs};
use crate::config::MixerConfig;
use crate::workspace::{LayerState, Workspace};
use longmamba_core::DtLimits;

/// Mamba-1 (arXiv 2312.00752): in_proj → conv → select → scan and gate → out_proj.
#[derive(Debug)]
pub(crate) struct Mamba1<B: Backend> {
    d_inner: usize,
    d_state: usize,
    dt_rank: usize,
    /// d_model → x, z.
    in_proj: Linear<B>,
    conv: Conv<B>,
    /// d_inner → low-rank Δ, B, C.
    x_proj: Linear<B>,
    /// dt_rank → Δ. Its bias is added in the scan.
    dt_proj: Linear<B>,
    recurrence: Recurrence<B>,
    out_proj: Linear<B>,
}

impl<B: Backend> Mamba1<B> {
    pub(super) fn load(loader: &mut Loader<'_, B>) -> Result<Self> {
        let config = loader.config;
        let MixerConfig::Mamba1 { d_inner, d_state, dt_rank, .. } = config.mixer else {
            unreachable!("the caller matched on the family")
        };
        let (d_model, bias) = (config.d_model, config.projection_bias);
        let a = loader.decay_rates(&[d_inner, d_state])?;
        let a = transposed(&a, d_inner, d_state);
        Ok(Mamba1 {
            d_inner,
            d_state,
            dt_rank,
            in_proj: loader.linear("in_proj", 2 * d_inner, d_model, bias)?,
            conv: loader.conv()?,
            x_proj: loader.linear("x_proj", dt_rank + 2 * d_state, d_inner, false)?,
            dt_proj: loader.linear("dt_proj", d_inner, dt_rank, false)?,
            recurrence: loader.recurrence(a, "dt_proj.bias", DtLimits::default())?,
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
        let Self { d_inner, d_state, dt_rank, .. } = *self;
        let Workspace { hidden, normed, projected, conv, select, dt_raw, y, .. } = work;

        let u = Columns::all(&*normed, self.out_proj.outputs);
        backend.project(rows, u, &self.in_proj, false, projected)?;
        let xz = Columns::all(&*projected, 2 * d_inner);

        backend.conv1d(rows, xz.part(0, d_inner), &self.conv, &mut state.conv_history, conv)?;
        let x = Columns::all(&*conv, d_inner);

        backend.project(rows, x, &self.x_proj, false, select)?;
        let selected = Columns::all(&*select, dt_rank + 2 * d_state);
        backend.project(rows, selected.part(0, dt_rank), &self.dt_proj, false, dt_raw)?;

        let inputs = ScanInputs {
            x,
            dt_raw: Columns::all(&*dt_raw, d_inner),
            b: selected.part(dt_rank, d_state),
            c: selected.part(dt_rank + d_state, d_state),
            z: xz.part(d_inner, d_inner),
        };
        let LayerState { ssm, sums, .. } = state;
        backend.selective_scan(rows, inputs, &self.recurrence, delta_min, ssm, sums, y)?;

        backend.project(rows, Columns::all(&*y, d_inner), &self.out_proj, true, hidden)
    }

    pub(super) fn rates(&self, backend: &B) -> Result<Rates> {
        let a = backend.read_vector(&self.recurrence.a)?;
        let a = transposed(&a, self.d_state, self.d_inner).to_vec();
        Ok(Rates::PerState { a, d_state: self.d_state })
    }

    pub(super) fn delta(
        &self,
        backend: &B,
        rows: usize,
        work: &Workspace<B>,
        out: &mut [f32],
    ) -> Result<()> {
        backend.delta(rows, Columns::all(&work.dt_raw, self.d_inner), &self.recurrence, out)
    }
}
