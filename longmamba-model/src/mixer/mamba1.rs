use super::{Rates, Source, memories, project_in};
use crate::Result;
use crate::backend::{
    Backend, Columns, ColumnsMut, Conv, Linear, Norm, Recurrence, ScanInputs, SelectScan,
};
use crate::config::MixerConfig;
use crate::load::{Loader, transposed};
use crate::model::Step;
use crate::workspace::Workspace;
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
    /// Falcon-Mamba: of the low-rank Δ, and of B and C.
    select_norms: Option<[Norm<B>; 2]>,
    /// dt_rank → Δ. Its bias is added in the scan.
    dt_proj: Linear<B>,
    recurrence: Recurrence<B>,
    out_proj: Linear<B>,
}

impl<B: Backend> Mamba1<B> {
    pub(super) fn load(loader: &mut Loader<'_, B>, name: &str) -> Result<Self> {
        let config = loader.config;
        let MixerConfig::Mamba1 { d_inner, d_state, dt_rank, d_conv, select_eps } = config.mixer
        else {
            unreachable!("the caller matched on the family")
        };
        let (d_model, bias) = (config.d_model, config.projection_bias);
        let part = |part: &str| format!("{name}.{part}");
        let a = loader.decay_rates(name, &[d_inner, d_state])?;
        let a = transposed(&a, d_inner, d_state);
        let select_norms = match select_eps {
            None => None,
            Some(eps) => Some([loader.plain_norm(dt_rank, eps)?, loader.plain_norm(d_state, eps)?]),
        };
        let in_proj = loader.linear(&part("in_proj"), 2 * d_inner, d_model, bias)?;
        let dtype = in_proj.dtype;
        Ok(Mamba1 {
            d_inner,
            d_state,
            dt_rank,
            in_proj,
            conv: loader.conv(&part("conv1d"), d_inner, d_conv, config.conv_bias, true)?,
            x_proj: loader.linear(&part("x_proj"), dt_rank + 2 * d_state, d_inner, false)?,
            select_norms,
            dt_proj: loader.linear(&part("dt_proj"), d_inner, dt_rank, false)?,
            recurrence: Recurrence {
                a: loader.backend.vector(a)?,
                d: loader.vector(&part("D"), &[d_inner])?,
                dt_bias: loader.vector(&part("dt_proj.bias"), &[d_inner])?,
                dt_limits: DtLimits::default(),
                dtype,
            },
            out_proj: loader.linear(&part("out_proj"), d_model, d_inner, bias)?,
        })
    }

    pub(super) fn forward(
        &self,
        step: &mut Step<'_, B>,
        index: usize,
        source: Source<'_, B>,
    ) -> Result<()> {
        project_in(step, index, source, &self.in_proj, 0, &self.conv)?;
        let width = self.dt_rank + 2 * self.d_state;
        let Workspace { conv, select, .. } = &mut *step.work;
        let (x, to) = (Columns::all(&*conv, self.d_inner), ColumnsMut::all(select, width));
        step.backend.project(step.rows, x, &self.x_proj, false, to)?;
        self.scan(step, index)?;
        let Workspace { hidden, y, .. } = &mut *step.work;
        let y = Columns::all(&*y, self.d_inner);
        let residual = ColumnsMut::all(hidden, self.out_proj.outputs);
        step.backend.project(step.rows, y, &self.out_proj, true, residual)
    }

    /// From what was selected to y.
    fn scan(&self, step: &mut Step<'_, B>, index: usize) -> Result<()> {
        let Self { d_inner, d_state, dt_rank, .. } = *self;
        let Step { backend, rows, work, segments, sequences } = step;
        let (backend, rows) = (*backend, *rows);
        let Workspace { projected, conv, select, selected, dt_raw, y, .. } = &mut **work;
        let x = Columns::all(&*conv, d_inner);
        let z = Columns::all(&*projected, 2 * d_inner).part(d_inner, d_inner);
        let width = dt_rank + 2 * d_state;
        let mut chosen = Columns::all(&*select, width);
        if let Some(memories) = memories(segments, sequences, index) {
            let stages = SelectScan {
                x,
                low: chosen.part(0, dt_rank),
                b: chosen.part(dt_rank, d_state),
                c: chosen.part(dt_rank + d_state, d_state),
                z,
                norms: self.select_norms.as_ref(),
                dt_proj: &self.dt_proj,
                recurrence: &self.recurrence,
            };
            let raw = ColumnsMut::all(&mut *dt_raw, d_inner);
            let to = ColumnsMut::all(&mut *y, d_inner);
            if backend.select_scan(rows, stages, memories, raw, to)? {
                return Ok(());
            }
        }
        if let Some([of_delta, of_state]) = &self.select_norms {
            for (first, norm) in [(0, of_delta), (dt_rank, of_state), (dt_rank + d_state, of_state)]
            {
                let out = ColumnsMut::all(selected, width).part(first, norm.width);
                backend.norm(rows, chosen.part(first, norm.width), norm, out)?;
            }
            chosen = Columns::all(&*selected, width);
        }
        let raw = ColumnsMut::all(dt_raw, d_inner);
        backend.project(rows, chosen.part(0, dt_rank), &self.dt_proj, false, raw)?;

        let inputs = ScanInputs {
            x,
            dt_raw: Columns::all(&*dt_raw, d_inner),
            b: chosen.part(dt_rank, d_state),
            c: chosen.part(dt_rank + d_state, d_state),
            z,
        };
        for s in *segments {
            let (state, delta_min) = sequences[s.sequence].recurrent(index);
            backend.selective_scan(
                s.rows,
                inputs.skip_rows(s.first),
                &self.recurrence,
                delta_min,
                &mut state.ssm,
                &mut state.sums,
                ColumnsMut::all(&mut *y, d_inner).skip_rows(s.first),
            )?;
        }
        Ok(())
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
