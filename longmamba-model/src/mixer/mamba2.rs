use super::{Rates, Source, memories, project_in};
use crate::Result;
use crate::backend::{
    Activation, Backend, Columns, ColumnsMut, Conv, GatedProjection, Linear, Norm, Recurrence,
    SsdStageInputs,
};
use crate::config::{Format, GateKind, MixerConfig};
use crate::load::Loader;
use crate::methods::{Selection, keep_rows, read_rows};
use crate::model::Step;
use crate::workspace::Workspace;
use longmamba_core::AlignedVec;

/// Mamba-2 (arXiv 2405.21060): in_proj → conv → scan → gate and norm → out_proj. Where the scan is
/// narrower than the mixer, a gated MLP goes beside it.
#[derive(Debug)]
pub(crate) struct Mamba2<B: Backend> {
    heads: usize,
    groups: usize,
    d_state: usize,
    /// The width of the scan.
    d_inner: usize,
    /// The width of the MLP; usually 0.
    d_mlp: usize,
    /// d_model → the MLP's gate and value, z, x, B, C, Δ.
    in_proj: Linear<B>,
    conv: Conv<B>,
    pub(super) recurrence: Recurrence<B>,
    gate: Gate<B>,
    /// The MLP's and the scan's columns → d_model.
    out_proj: Linear<B>,
}

/// How y meets z.
#[derive(Debug)]
enum Gate<B: Backend> {
    /// norm(y · silu(z)).
    Norm(Norm<B>),
    /// norm(y) · silu(z), one norm a group.
    NormFirst(Vec<Norm<B>>),
    /// y · silu(z).
    Plain,
}

impl<B: Backend> Gate<B> {
    fn load(
        loader: &mut Loader<'_, B>,
        name: &str,
        kind: GateKind,
        width: usize,
        groups: usize,
    ) -> Result<Self> {
        // In Zamba2 this norm does not follow the config.
        let eps = match loader.config.format {
            Format::Zamba2 => 1e-5,
            Format::HuggingFace | Format::Original => loader.config.norm_eps,
        };
        Ok(match kind {
            GateKind::Plain => Gate::Plain,
            GateKind::Norm => {
                let weight = loader.vector(&format!("{name}.weight"), &[width])?;
                Gate::Norm(Norm { weight, bias: None, width, eps })
            }
            GateKind::NormFirst => {
                let weight = loader.values(&format!("{name}.weight"), &[width])?;
                let group = width / groups;
                let norms = weight.chunks_exact(group).map(|weight| {
                    let weight = loader.backend.vector(AlignedVec::from_slice(weight))?;
                    Ok(Norm { weight, bias: None, width: group, eps })
                });
                Gate::NormFirst(norms.collect::<Result<_>>()?)
            }
        })
    }
}

impl<B: Backend> Mamba2<B> {
    pub(super) fn load(loader: &mut Loader<'_, B>, name: &str) -> Result<Self> {
        let config = loader.config;
        let MixerConfig::Mamba2 {
            heads,
            head_dim,
            groups,
            d_state,
            d_conv,
            dt_limits,
            gate,
            d_mlp,
            d_per_element,
        } = config.mixer
        else {
            unreachable!("the caller matched on the family")
        };
        let (d_model, bias, d_inner) = (config.d_model, config.projection_bias, heads * head_dim);
        let (projected, conv_dim) = (config.mixer.projected(), config.mixer.conv_dim());
        let part = |part: &str| format!("{name}.{part}");
        let a = loader.decay_rates(name, &[heads])?;
        let skip = if d_per_element { d_inner } else { heads };
        let in_proj = loader.linear(&part("in_proj"), projected, d_model, bias)?;
        let dtype = in_proj.dtype;
        Ok(Mamba2 {
            heads,
            groups,
            d_state,
            d_inner,
            d_mlp,
            in_proj,
            conv: loader.conv(&part("conv1d"), conv_dim, d_conv, config.conv_bias, true)?,
            recurrence: Recurrence {
                a: loader.backend.vector(a)?,
                d: loader.vector(&part("D"), &[skip])?,
                dt_bias: loader.vector(&part("dt_bias"), &[heads])?,
                dt_limits,
                dtype,
            },
            gate: Gate::load(loader, &part("norm"), gate, d_inner, groups)?,
            out_proj: loader.linear(&part("out_proj"), d_model, d_mlp + d_inner, bias)?,
        })
    }

    pub(super) fn forward(
        &self,
        step: &mut Step<'_, B>,
        index: usize,
        source: Source<'_, B>,
    ) -> Result<()> {
        let first = 2 * self.d_mlp + self.d_inner;
        project_in(step, index, source, &self.in_proj, first, &self.conv)?;
        if self.scan_gate_project(step, index)? {
            return Ok(());
        }
        self.cut(step, index)?;
        self.scan(step, index)
    }

    /// In a step, from the convolution to the residual stream, where the device does that in one.
    fn scan_gate_project(&self, step: &mut Step<'_, B>, index: usize) -> Result<bool> {
        let Step { backend, rows, work, segments, sequences } = step;
        let Workspace { hidden, projected, conv, y, .. } = &mut **work;
        let norm = match (&self.gate, self.d_mlp) {
            (Gate::Norm(norm), 0) => Some(norm),
            (Gate::Plain, 0) => None,
            // The gate comes after the norm, or the MLP's columns go through the same projection.
            _ => return Ok(false),
        };
        let Some(memories) = memories(segments, sequences, index) else { return Ok(false) };
        let all = Columns::all(&*projected, self.in_proj.outputs);
        let stages = GatedProjection { z: all.part(0, self.d_inner), norm, linear: &self.out_proj };
        let inputs = self.inputs(all, conv);
        let residual = ColumnsMut::all(hidden, self.out_proj.outputs);
        backend.scan_gate_project(*rows, inputs, &self.recurrence, memories, stages, y, residual)
    }

    /// What the scan reads, of the projection's columns and the convolution's.
    fn inputs<'a>(
        &self,
        projected: Columns<'a, B::Buffer>,
        conv: &'a B::Buffer,
    ) -> SsdStageInputs<'a, B::Buffer> {
        let Self { heads, groups, d_inner, d_state, .. } = *self;
        let xbc = Columns::all(conv, self.conv.channels);
        SsdStageInputs {
            x: xbc.part(0, d_inner),
            dt_raw: self.dt_raw(projected),
            b: xbc.part(d_inner, groups * d_state),
            c: xbc.part(d_inner + groups * d_state, groups * d_state),
            heads,
            groups,
        }
    }

    /// From here on a method may see fewer tokens.
    fn cut(&self, step: &mut Step<'_, B>, index: usize) -> Result<()> {
        let dt_raw = self.dt_raw(Columns::all(&step.work.projected, self.in_proj.outputs));
        let Some(kept) = step.kept(index, &self.recurrence, dt_raw)? else { return Ok(()) };
        let Workspace { hidden, projected, conv, .. } = &mut *step.work;
        for (buffer, width) in [
            (hidden, self.out_proj.outputs),
            (projected, self.in_proj.outputs),
            (conv, self.conv.channels),
        ] {
            keep_rows(step.backend, &kept, buffer, width)?;
        }
        step.shorten(kept);
        Ok(())
    }

    /// What was selected, through scan and gate to the residual stream.
    fn scan(&self, step: &mut Step<'_, B>, index: usize) -> Result<()> {
        let Self { heads, groups, d_inner, d_mlp, .. } = *self;
        let Step { backend, rows, work, segments, sequences } = step;
        let (backend, rows) = (*backend, *rows);
        let Workspace { scratch, hidden, projected, conv, rewritten, y, gated, .. } = &mut **work;
        let all = Columns::all(&*projected, self.in_proj.outputs);
        let z = all.part(2 * d_mlp, d_inner);
        let inputs = self.inputs(all, conv);
        for s in &**segments {
            let sequence = &mut sequences[s.sequence];
            let mut inputs = inputs.skip_rows(s.first);
            let selection = || {
                Ok(Selection {
                    b: read_rows(backend, s.rows, inputs.b)?,
                    c: read_rows(backend, s.rows, inputs.c)?,
                    groups,
                    d_state: self.d_state,
                    rates: self.rates(backend)?,
                })
            };
            let (own, dt_raw) = (&self.recurrence, inputs.dt_raw);
            let changed =
                sequence.rewrite(backend, index, s.rows, own, dt_raw, &selection, rewritten)?;
            if let Some(rewritten) = rewritten.buffer.as_ref().filter(|_| changed) {
                inputs.dt_raw = Columns::all(rewritten, heads);
            }
            let (state, recurrence, delta_min) = sequence.scan(index, own, changed);
            backend.ssd(
                scratch,
                s.rows,
                inputs,
                recurrence,
                delta_min,
                &mut state.ssm,
                &mut state.sums,
                ColumnsMut::all(&mut *y, d_inner).skip_rows(s.first),
            )?;
        }

        let width = d_mlp + d_inner;
        let y = Columns::all(&*y, d_inner);
        if let (Gate::Norm(norm), 0) = (&self.gate, d_mlp) {
            let (group, linear) = (d_inner / groups, &self.out_proj);
            let to = ColumnsMut::all(&mut *hidden, linear.outputs);
            if backend.gated_norm_project(scratch, rows, y, z, norm, group, linear, to)? {
                return Ok(());
            }
        }
        let out = ColumnsMut::all(gated, width).part(d_mlp, d_inner);
        match &self.gate {
            Gate::Norm(norm) => backend.gated_norm(rows, y, z, norm, d_inner / groups, out)?,
            Gate::Plain => backend.gate(rows, y, z, Activation::Silu, out)?,
            Gate::NormFirst(norms) => {
                // The scan's x is no longer needed; its buffer is at least as wide as y.
                let stride = self.conv.channels;
                for (g, norm) in norms.iter().enumerate() {
                    let part = (g * norm.width, norm.width);
                    let to = ColumnsMut::all(conv, stride).part(part.0, part.1);
                    backend.norm(rows, y.part(part.0, part.1), norm, to)?;
                }
                let y = Columns::all(&*conv, stride).part(0, d_inner);
                backend.gate(rows, y, z, Activation::Silu, out)?;
            }
        }
        if d_mlp > 0 {
            let (gate, value) = (all.part(0, d_mlp), all.part(d_mlp, d_mlp));
            let out = ColumnsMut::all(gated, width).part(0, d_mlp);
            backend.gate(rows, value, gate, Activation::Silu, out)?;
        }

        let gated = Columns::all(&*gated, width);
        let residual = ColumnsMut::all(hidden, self.out_proj.outputs);
        backend.project(scratch, rows, gated, &self.out_proj, true, residual)
    }

    fn dt_raw<'a>(&self, projected: Columns<'a, B::Buffer>) -> Columns<'a, B::Buffer> {
        projected.part(self.in_proj.outputs - self.heads, self.heads)
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
        let projected = Columns::all(&work.projected, self.in_proj.outputs);
        backend.delta(rows, self.dt_raw(projected), &self.recurrence, out)
    }
}
