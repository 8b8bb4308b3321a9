//! The fused stages of a step. What the kernels do not cover is left to the separate stages: layer norm, more
//! than [`STEP_SEQUENCES`] rows, widths that are no multiple of 4.

use super::CudaBackend;
use crate::Result;
use crate::backend::{
    Columns, ColumnsMut, GatedProjection, Linear, Norm, NormedConv, Recurrence, SelectScan,
    SsdStageInputs, StepMemory,
};
use longmamba_cuda::{
    Buffer, InputNorm, NewInputs, Precision, Rows, STEP_SEQUENCES, SelectNorms,
    SelectiveStepInputs, SsdInputs, StepSequence,
};

/// The norm as a kernel takes it in front of a product, if it does.
fn input_norm<'a>(
    rows: usize,
    x: Rows<'_, f32>,
    norm: &'a Norm<CudaBackend>,
    group: usize,
) -> Option<InputNorm<'a>> {
    let input = InputNorm { weight: &norm.weight, group, eps: norm.eps };
    (norm.bias.is_none() && input.takes(rows, x)).then_some(input)
}

fn sequence(memory: StepMemory<'_, CudaBackend>) -> StepSequence<'_> {
    let StepMemory { state, sums, delta_min, .. } = memory;
    StepSequence { state, delta_min: delta_min.map(|d| &**d), sums: sums.all() }
}

impl CudaBackend {
    pub(super) fn normed_product(
        &self,
        rows: usize,
        x: Columns<'_, Buffer<f32>>,
        norm: &Norm<Self>,
        linear: &Linear<Self>,
        out: ColumnsMut<'_, Buffer<f32>>,
    ) -> Result<bool> {
        let (x, out, bias) = (x.rows(), out.rows(), linear.bias.as_deref());
        let Some(norm) = input_norm(rows, x, norm, norm.width) else { return Ok(false) };
        self.device.normed_matmul(rows, x, norm, &linear.weight, bias, false, out)?;
        Ok(true)
    }

    pub(super) fn normed_conv<'a>(
        &self,
        rows: usize,
        x: Columns<'_, Buffer<f32>>,
        stages: NormedConv<'_, Self>,
        memories: impl Iterator<Item = StepMemory<'a, Self>>,
        out: ColumnsMut<'_, Buffer<f32>>,
        conv_out: ColumnsMut<'_, Buffer<f32>>,
    ) -> Result<bool> {
        let NormedConv { norm, linear, conv, first } = stages;
        let (x, bias) = (x.rows(), linear.bias.as_deref());
        let Some(norm) = input_norm(rows, x, norm, norm.width) else { return Ok(false) };
        let inputs = NewInputs {
            first,
            width: conv.width,
            weight: &conv.weight,
            bias: conv.bias.as_deref(),
            silu: conv.silu,
            out: conv_out.rows(),
        };
        let (weight, out) = (&linear.weight, out.rows());
        let histories = memories.map(|memory| memory.history);
        self.device.normed_matmul_conv1d(rows, x, norm, weight, bias, out, inputs, histories)?;
        Ok(true)
    }

    pub(super) fn selective_step<'a>(
        &self,
        rows: usize,
        stages: SelectScan<'_, Self>,
        memories: impl Iterator<Item = StepMemory<'a, Self>>,
        dt_raw: ColumnsMut<'_, Buffer<f32>>,
        y: ColumnsMut<'_, Buffer<f32>>,
    ) -> Result<bool> {
        let SelectScan { x, low, b, c, z, norms, dt_proj, recurrence } = stages;
        let biased = norms.is_some_and(|norms| norms.iter().any(|norm| norm.bias.is_some()));
        if rows > STEP_SEQUENCES || biased || dt_proj.bias.is_some() {
            return Ok(false);
        }
        let inputs = SelectiveStepInputs {
            x: x.rows(),
            low: low.rows(),
            b: b.rows(),
            c: c.rows(),
            z: z.rows(),
            norms: norms.map(|[low, state]| SelectNorms {
                low: (&low.weight, low.eps),
                state: (&state.weight, state.eps),
            }),
            dt_proj: &dt_proj.weight,
            a: &recurrence.a,
            d: Some(&recurrence.d),
            dt_bias: Some(&recurrence.dt_bias),
            dt_limits: recurrence.dt_limits,
        };
        let (dt_raw, y, sequences) = (dt_raw.rows(), y.rows(), memories.map(sequence));
        self.device.selective_step(rows, inputs, dt_raw, y, sequences)?;
        Ok(true)
    }

    #[allow(clippy::too_many_arguments, reason = "those of the stage")]
    pub(super) fn ssd_step<'a>(
        &self,
        rows: usize,
        inputs: SsdStageInputs<'_, Buffer<f32>>,
        recurrence: &Recurrence<Self>,
        memories: impl Iterator<Item = StepMemory<'a, Self>>,
        stages: GatedProjection<'_, Self>,
        y: &mut Buffer<f32>,
        residual: ColumnsMut<'_, Buffer<f32>>,
    ) -> Result<bool> {
        let GatedProjection { z, norm, linear } = stages;
        let SsdStageInputs { x, dt_raw, b, c, heads, groups } = inputs;
        let width = x.width;
        let gated = Rows::all(y, width);
        let norm = match norm.map(|norm| input_norm(rows, gated, norm, width / groups)) {
            Some(None) => return Ok(false),
            Some(norm) => norm,
            None => None,
        };
        if rows > STEP_SEQUENCES {
            return Ok(false);
        }
        let inputs = SsdInputs {
            batch: rows,
            heads,
            groups,
            x: x.rows(),
            dt_raw: dt_raw.rows(),
            b: b.rows(),
            c: c.rows(),
            a: &recurrence.a,
            d: Some(&recurrence.d),
            dt_bias: Some(&recurrence.dt_bias),
            delta_min: None,
            dt_limits: recurrence.dt_limits,
            lengths: None,
            precision: Precision::Exact,
        };
        let to = ColumnsMut::all(&mut *y, width).rows();
        self.device.ssd_step(inputs, z.rows(), to, memories.map(sequence))?;
        let gated = Columns::all(&*y, width);
        match norm {
            Some(norm) => {
                let (weight, bias) = (&linear.weight, linear.bias.as_deref());
                let (gated, to) = (gated.rows(), residual.rows());
                self.device.normed_matmul(rows, gated, norm, weight, bias, true, to)?;
            }
            None => self.product(rows, gated, linear, true, residual)?,
        }
        Ok(true)
    }
}
