//! One token of several sequences, from what x_proj selects to y.

use super::ScanArguments;
use crate::arguments::{Strided, all, optional, refuse, size};
use crate::launch::{Grid, Pointer};
use crate::matmul::{Values, address};
use crate::ptx::Module;
use crate::step::{Sequences, StepSequence, sequences};
use crate::{Buffer, Device, Matrix, Result, Rows, RowsMut};
use longmamba_core::DtLimits;

/// What [`Device::selective_step`] reads. Row `s` of every [`Rows`] is the token of
/// sequence `s`.
///
/// ```text
/// low, B, C = their norms, where there are any
/// dt_raw[c] = Σ_k dt_proj[c,k] · low[k]
/// ```
///
/// and from there on the equations of [`SelectiveScanInputs`](super::SelectiveScanInputs).
#[derive(Clone, Copy, Debug)]
pub struct SelectiveStepInputs<'a> {
    /// `[sequences, d_inner]`, after convolution and SiLU.
    pub x: Rows<'a, f32>,
    /// `[sequences, dt_rank]`: Δ before its projection.
    pub low: Rows<'a, f32>,
    /// `[sequences, d_state]`.
    pub b: Rows<'a, f32>,
    /// `[sequences, d_state]`.
    pub c: Rows<'a, f32>,
    /// The gate, `[sequences, d_inner]`.
    pub z: Rows<'a, f32>,
    /// The norms of Falcon-Mamba.
    pub norms: Option<SelectNorms<'a>>,
    /// `[d_inner, dt_rank]`.
    pub dt_proj: &'a Matrix,
    /// `[d_state, d_inner]`, as in the scan.
    pub a: &'a Buffer<f32>,
    /// The skip, `[d_inner]`. `None`: 0.
    pub d: Option<&'a Buffer<f32>>,
    /// `[d_inner]`. `None`: 0.
    pub dt_bias: Option<&'a Buffer<f32>>,
    /// Limits of Δ after softplus.
    pub dt_limits: DtLimits,
}

/// RMS norms of what x_proj selects.
#[derive(Clone, Copy, Debug)]
pub struct SelectNorms<'a> {
    /// The weight of the norm of the low-rank Δ, `[dt_rank]`, and what is added to the mean square.
    pub low: (&'a Buffer<f32>, f32),
    /// The same of the norms of B and of C, `[d_state]`.
    pub state: (&'a Buffer<f32>, f32),
}

/// `SelectiveStep` of kernels/step/scan.cuh.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct SelectiveStep {
    scan: ScanArguments,
    low: Strided,
    weight: Pointer,
    weight_stride: u64,
    low_norm: Pointer,
    state_norm: Pointer,
    dt_raw: Strided,
    low_eps: f32,
    state_eps: f32,
    dt_rank: u32,
    padding: u32,
    of: Sequences,
}

const KERNEL: &str = "selective_step_projected";

/// Channels and threads of a block.
const CHANNELS: usize = 32;
const THREADS: u32 = 512;

impl Device {
    /// Scans one token of each of `rows` sequences, up to [`STEP_SEQUENCES`](crate::STEP_SEQUENCES), with
    /// dt_proj in front. Within rounding what [`Device::rms_norm`], [`Device::matmul`] and
    /// [`Device::selective_scan`] give.
    ///
    /// * `dt_raw`: `[sequences, d_inner]`: Δ before bias and softplus.
    /// * `y`: `[sequences, d_inner]`.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument), naming the tensor, also for another number of sequences
    /// than `rows`; [`Error::Unsupported`](crate::Error::Unsupported) for too many;
    /// [`Error::Driver`](crate::Error::Driver).
    pub fn selective_step<'s>(
        &self,
        rows: usize,
        inputs: SelectiveStepInputs<'_>,
        mut dt_raw: RowsMut<'_, f32>,
        mut y: RowsMut<'_, f32>,
        all_sequences: impl IntoIterator<Item = StepSequence<'s>>,
    ) -> Result<()> {
        let SelectiveStepInputs { x, low, b, c, z, norms, dt_proj, a, .. } = inputs;
        let (d_inner, d_state, dt_rank) = (x.width, b.width, low.width);
        inputs.dt_limits.check()?;
        if [dt_proj.outputs(), dt_proj.inputs()] != [d_inner, dt_rank] {
            let expected = [d_inner, dt_rank].into();
            let actual = [dt_proj.outputs(), dt_proj.inputs()].into();
            return Err(longmamba_core::Error::Shape { tensor: "dt_proj", expected, actual }.into());
        }
        let state = |state: &Buffer<f32>| all(self, "state", state, [d_state, d_inner]);
        let of = sequences(self, KERNEL, rows, all_sequences, d_inner, state)?;
        let norm = |tensor, norm: Option<(&Buffer<f32>, f32)>, width| match norm {
            Some((_, eps)) if !(eps >= 0.0 && eps.is_finite()) => {
                refuse("eps", eps.into(), "a finite number ≥ 0")
            }
            Some((weight, eps)) => Ok((all(self, tensor, weight, [width])?, eps)),
            None => Ok((Pointer::NULL, 0.0)),
        };
        let (low_norm, low_eps) = norm("the norm of Δ", norms.map(|n| n.low), dt_rank)?;
        let (state_norm, state_eps) = norm("the norm of B and C", norms.map(|n| n.state), d_state)?;
        let scan = ScanArguments {
            x: Strided::new(self, "x", x, rows, d_inner)?,
            dt_raw: Strided::NULL,
            b: Strided::new(self, "B", b, rows, d_state)?,
            c: Strided::new(self, "C", c, rows, d_state)?,
            z: Strided::new(self, "z", z, rows, d_inner)?,
            y: Strided::new_mut(self, "y", &mut y, rows, d_inner)?,
            a: all(self, "A", a, [d_state, d_inner])?,
            d: optional(self, "D", inputs.d, [d_inner])?,
            dt_bias: optional(self, "dt_bias", inputs.dt_bias, [d_inner])?,
            delta_min: Pointer::NULL,
            lengths: Pointer::NULL,
            state: Pointer::NULL,
            delta_sum: Pointer::NULL,
            kept_sum: Pointer::NULL,
            kept: Pointer::NULL,
            len: 1,
            d_inner: size(KERNEL, "d_inner", i32::MAX as u32, d_inner)?,
            d_state: size(KERNEL, "d_state", 1 << 16, d_state)?,
            dt_min: inputs.dt_limits.min,
            dt_max: inputs.dt_limits.max,
            padding: 0,
        };
        let arguments = SelectiveStep {
            scan,
            low: Strided::new(self, "the low-rank Δ", low, rows, dt_rank)?,
            weight: address(self, dt_proj)?,
            weight_stride: dt_proj.stride() as u64,
            low_norm,
            state_norm,
            dt_raw: Strided::new_mut(self, "dt_raw", &mut dt_raw, rows, d_inner)?,
            low_eps,
            state_eps,
            dt_rank: size(KERNEL, "dt_rank", i32::MAX as u32, dt_rank)?,
            padding: 0,
            of,
        };
        let name = match dt_proj.values() {
            Values::F32(_) => "selective_step_projected_f32",
            Values::F16(_) => "selective_step_projected_f16",
            Values::BF16(_) => "selective_step_projected_bf16",
        };
        let blocks = rows * d_inner.div_ceil(CHANNELS);
        let blocks = size(KERNEL, "blocks", i32::MAX as u32, blocks)? as usize;
        self.launch(Module::Step, name, Grid::line(blocks, THREADS), &arguments)
    }
}
