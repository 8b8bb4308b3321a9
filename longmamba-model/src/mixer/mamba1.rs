use super::{Rates, Source, memories, project_in};
use crate::Result;
use crate::backend::{
    Backend, Columns, ColumnsMut, Conv, Linear, Norm, Recurrence, ScanInputs, SelectScan,
};
use crate::config::MixerConfig;
use crate::load::{Loader, transposed};
use crate::methods::{Selection, keep_rows, read_rows};
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
    pub(super) recurrence: Recurrence<B>,
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
            dt_proj: loader.plain_linear(&part("dt_proj"), d_inner, dt_rank)?,
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
        let Workspace { scratch, conv, select, .. } = &mut *step.work;
        let (x, to) = (Columns::all(&*conv, self.d_inner), ColumnsMut::all(select, width));
        step.backend.project(scratch, step.rows, x, &self.x_proj, false, to)?;
        if !self.select_scan(step, index)? {
            self.select(step)?;
            self.cut(step, index)?;
            self.scan(step, index)?;
        }
        let Workspace { scratch, hidden, y, .. } = &mut *step.work;
        let y = Columns::all(&*y, self.d_inner);
        let residual = ColumnsMut::all(hidden, self.out_proj.outputs);
        step.backend.project(scratch, step.rows, y, &self.out_proj, true, residual)
    }

    /// In a step, from what was selected to y, where the device does that in one.
    fn select_scan(&self, step: &mut Step<'_, B>, index: usize) -> Result<bool> {
        let Self { d_inner, d_state, dt_rank, .. } = *self;
        let Step { backend, rows, work, segments, sequences } = step;
        let Workspace { projected, conv, select, dt_raw, y, .. } = &mut **work;
        let Some(memories) = memories(segments, sequences, index) else { return Ok(false) };
        let chosen = Columns::all(&*select, dt_rank + 2 * d_state);
        let stages = SelectScan {
            x: Columns::all(&*conv, d_inner),
            low: chosen.part(0, dt_rank),
            b: chosen.part(dt_rank, d_state),
            c: chosen.part(dt_rank + d_state, d_state),
            z: Columns::all(&*projected, 2 * d_inner).part(d_inner, d_inner),
            norms: self.select_norms.as_ref(),
            dt_proj: &self.dt_proj,
            recurrence: &self.recurrence,
        };
        let raw = ColumnsMut::all(dt_raw, d_inner);
        backend.select_scan(*rows, stages, memories, raw, ColumnsMut::all(y, d_inner))
    }

    /// The norms of what was selected, and Δ.
    fn select(&self, step: &mut Step<'_, B>) -> Result<()> {
        let Self { d_inner, d_state, dt_rank, .. } = *self;
        let (backend, rows, width) = (step.backend, step.rows, dt_rank + 2 * d_state);
        let Workspace { scratch, select, selected, dt_raw, .. } = &mut *step.work;
        let mut chosen = Columns::all(&*select, width);
        if let Some([of_delta, of_state]) = &self.select_norms {
            for (first, norm) in [(0, of_delta), (dt_rank, of_state), (dt_rank + d_state, of_state)]
            {
                let out = ColumnsMut::all(selected, width).part(first, norm.width);
                backend.norm(rows, chosen.part(first, norm.width), norm, out)?;
            }
            chosen = Columns::all(&*selected, width);
        }
        let raw = ColumnsMut::all(dt_raw, d_inner);
        backend.project(scratch, rows, chosen.part(0, dt_rank), &self.dt_proj, false, raw)
    }

    /// From here on a method may see fewer tokens.
    fn cut(&self, step: &mut Step<'_, B>, index: usize) -> Result<()> {
        let dt_raw = Columns::all(&step.work.dt_raw, self.d_inner);
        let Some(kept) = step.kept(index, &self.recurrence, dt_raw)? else { return Ok(()) };
        let Workspace { hidden, projected, conv, select, selected, dt_raw, .. } = &mut *step.work;
        let selected = if self.select_norms.is_some() { selected } else { select };
        for (buffer, width) in [
            (hidden, self.out_proj.outputs),
            (projected, 2 * self.d_inner),
            (conv, self.d_inner),
            (selected, self.x_proj.outputs),
            (dt_raw, self.d_inner),
        ] {
            keep_rows(step.backend, &kept, buffer, width)?;
        }
        step.shorten(kept);
        Ok(())
    }

    /// From what was selected to y.
    fn scan(&self, step: &mut Step<'_, B>, index: usize) -> Result<()> {
        let Self { d_inner, d_state, dt_rank, .. } = *self;
        let Step { backend, work, segments, sequences, .. } = step;
        let backend = *backend;
        let Workspace { projected, conv, select, selected, dt_raw, rewritten, y, .. } = &mut **work;
        let (x, xz) = (Columns::all(&*conv, d_inner), Columns::all(&*projected, 2 * d_inner));
        let chosen = if self.select_norms.is_some() { selected } else { select };
        let chosen = Columns::all(&*chosen, dt_rank + 2 * d_state);
        let inputs = ScanInputs {
            x,
            dt_raw: Columns::all(&*dt_raw, d_inner),
            b: chosen.part(dt_rank, d_state),
            c: chosen.part(dt_rank + d_state, d_state),
            z: xz.part(d_inner, d_inner),
        };
        for s in &**segments {
            let sequence = &mut sequences[s.sequence];
            let mut inputs = inputs.skip_rows(s.first);
            let selection = || {
                Ok(Selection {
                    b: read_rows(backend, s.rows, inputs.b)?,
                    c: read_rows(backend, s.rows, inputs.c)?,
                    groups: 1,
                    d_state,
                    rates: self.rates(backend)?,
                })
            };
            let (own, dt_raw) = (&self.recurrence, inputs.dt_raw);
            let changed =
                sequence.rewrite(backend, index, s.rows, own, dt_raw, &selection, rewritten)?;
            if let Some(rewritten) = rewritten.buffer.as_ref().filter(|_| changed) {
                inputs.dt_raw = Columns::all(rewritten, d_inner);
            }
            let (state, recurrence, delta_min) = sequence.scan(index, own, changed);
            backend.selective_scan(
                s.rows,
                inputs,
                recurrence,
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
