//! The selective scan of Mamba-1.

mod step;

pub use step::{SelectNorms, SelectiveStepInputs};

use crate::arguments::{Strided, all, optional, product, size};
use crate::launch::{Grid, Pointer};
use crate::ptx::Module;
use crate::{Buffer, ChannelSums, Device, DeviceElement, Result, Rows, RowsMut};
use half::{bf16, f16};
use longmamba_core::DtLimits;

/// The element types of the scan and the convolution: `f32`, [`half::f16`], [`half::bf16`]. All arithmetic
/// is in f32.
pub trait ScanElement: DeviceElement + sealed::Names {}

pub(crate) mod sealed {
    /// The kernels for an element type.
    pub trait Names {
        /// With 4 threads a channel.
        const SCAN_4: &'static str;
        /// With 8 threads a channel.
        const SCAN_8: &'static str;
        /// Of one token.
        const STEP: &'static str;
        /// Up to 4 taps.
        const CONV1D_4: &'static str;
        /// Up to 8 taps.
        const CONV1D_8: &'static str;
    }
}

macro_rules! elements {
    ($($element:ident)*) => {$(
        impl ScanElement for $element {}

        impl sealed::Names for $element {
            const SCAN_4: &'static str = concat!("selective_scan_4_", stringify!($element));
            const SCAN_8: &'static str = concat!("selective_scan_8_", stringify!($element));
            const STEP: &'static str = concat!("selective_step_", stringify!($element));
            const CONV1D_4: &'static str = concat!("causal_conv1d_4_", stringify!($element));
            const CONV1D_8: &'static str = concat!("causal_conv1d_8_", stringify!($element));
        }
    )*};
}

elements!(f32 f16 bf16);

/// What a Mamba-1 selective scan reads. Row `s · len + t` of every [`Rows`] is token `t` of sequence `s`.
///
/// For channel `c` of `d_inner`, state `n` of `d_state`, token `t`:
///
/// ```text
/// Δ[t,c]   = clamp(softplus(dt_raw[t,c] + dt_bias[c]), dt_limits), 0 where Δ ≤ delta_min[c]
/// h[t,c,n] = exp(Δ[t,c]·A[c,n])·h[t-1,c,n] + Δ[t,c]·B[t,n]·x[t,c]
/// y[t,c]   = (Σ_n C[t,n]·h[t,c,n] + D[c]·x[t,c]) · silu(z[t,c])
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SelectiveScanInputs<'a, T> {
    /// The number of sequences.
    pub batch: usize,
    /// `[batch · len, d_inner]`, after convolution and SiLU.
    pub x: Rows<'a, T>,
    /// `[batch · len, d_inner]`, Δ before bias and softplus.
    pub dt_raw: Rows<'a, T>,
    /// `[batch · len, d_state]`.
    pub b: Rows<'a, T>,
    /// `[batch · len, d_state]`.
    pub c: Rows<'a, T>,
    /// The gate, `[batch · len, d_inner]`. `None`: y is not gated.
    pub z: Option<Rows<'a, T>>,
    /// `[d_state, d_inner]`: neighbouring channels side by side. Finite and ≤ 0, which is not checked.
    pub a: &'a Buffer<f32>,
    /// The skip, `[d_inner]`. `None`: 0.
    pub d: Option<&'a Buffer<f32>>,
    /// `[d_inner]`. `None`: 0.
    pub dt_bias: Option<&'a Buffer<f32>>,
    /// LongMamba's thresholds, `[d_inner]`: a token is kept where Δ > delta_min, and everywhere where
    /// delta_min is 0. `None`: every token is kept.
    pub delta_min: Option<&'a Buffer<f32>>,
    /// Limits of Δ after softplus.
    pub dt_limits: DtLimits,
    /// The number of tokens of each sequence, `[batch]`; more than len count as len. A token past it
    /// leaves the state as it is, is not counted, and its y is 0. `None`: len each.
    pub lengths: Option<&'a Buffer<u32>>,
}

/// `ScanArguments` of kernels/scan/arguments.cuh.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct ScanArguments {
    x: Strided,
    dt_raw: Strided,
    b: Strided,
    c: Strided,
    z: Strided,
    y: Strided,
    a: Pointer,
    d: Pointer,
    dt_bias: Pointer,
    delta_min: Pointer,
    lengths: Pointer,
    state: Pointer,
    delta_sum: Pointer,
    kept_sum: Pointer,
    kept: Pointer,
    len: u32,
    d_inner: u32,
    d_state: u32,
    dt_min: f32,
    dt_max: f32,
    padding: u32,
}

const KERNEL: &str = "selective_scan";

impl Device {
    /// Scans `len` tokens of each of `inputs.batch` sequences; the equation is that of
    /// [`SelectiveScanInputs`].
    ///
    /// * `y`: `[batch · len, d_inner]`.
    /// * `state`: `[batch, d_state, d_inner]`, the first elements of the buffer: the initial state on
    ///   entry, the final state on return.
    /// * `sums`: where wanted, sums of Δ are added to it.
    ///
    /// A sequence may be cut anywhere: with the state carried over, the parts give the same state as the
    /// whole, to the last bit, and the same y within rounding. A NaN in x, dt_raw or z stays in its channel.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument), naming the tensor;
    /// [`Error::Unsupported`](crate::Error::Unsupported) beyond 2·10⁹ tokens;
    /// [`Error::Driver`](crate::Error::Driver).
    pub fn selective_scan<T: ScanElement>(
        &self,
        len: usize,
        inputs: SelectiveScanInputs<'_, T>,
        mut y: RowsMut<'_, T>,
        state: &mut Buffer<f32>,
        mut sums: Option<ChannelSums<'_>>,
    ) -> Result<()> {
        let SelectiveScanInputs { batch, x, dt_raw, b, c, z, a, .. } = inputs;
        let (d_inner, d_state) = (x.width, b.width);
        inputs.dt_limits.check()?;
        let rows = product([batch, len])?;
        let [delta_sum, kept_sum, kept] = match &mut sums {
            Some(sums) => sums.pointers(self, batch, d_inner)?,
            None => [Pointer::NULL; 3],
        };
        let arguments = ScanArguments {
            x: Strided::new(self, "x", x, rows, d_inner)?,
            dt_raw: Strided::new(self, "dt_raw", dt_raw, rows, d_inner)?,
            b: Strided::new(self, "B", b, rows, d_state)?,
            c: Strided::new(self, "C", c, rows, d_state)?,
            z: z.map_or(Ok(Strided::NULL), |z| Strided::new(self, "z", z, rows, d_inner))?,
            y: Strided::new_mut(self, "y", &mut y, rows, d_inner)?,
            a: all(self, "A", a, [d_state, d_inner])?,
            d: optional(self, "D", inputs.d, [d_inner])?,
            dt_bias: optional(self, "dt_bias", inputs.dt_bias, [d_inner])?,
            delta_min: optional(self, "delta_min", inputs.delta_min, [d_inner])?,
            lengths: optional(self, "lengths", inputs.lengths, [batch])?,
            state: state.pointer(self, 0, product([batch, d_state, d_inner])?)?,
            delta_sum,
            kept_sum,
            kept,
            len: size(KERNEL, "len", i32::MAX as u32 - 128, len)?,
            d_inner: size(KERNEL, "d_inner", u32::MAX - 32, d_inner)?,
            d_state: size(KERNEL, "d_state", 1 << 16, d_state)?,
            dt_min: inputs.dt_limits.min,
            dt_max: inputs.dt_limits.max,
            padding: 0,
        };
        let plan = Plan::new(self.multiprocessors(), [batch, len, d_inner, d_state])?;
        let name = match plan.lanes {
            None => T::STEP,
            Some(4) => T::SCAN_4,
            Some(_) => T::SCAN_8,
        };
        self.launch(Module::Scan, name, plan.grid, &arguments)
    }
}

/// Which kernel, and how many blocks of it.
#[derive(Debug)]
struct Plan {
    /// Threads that share the states of a channel; `None`: the kernel of a single token.
    lanes: Option<usize>,
    grid: Grid,
}

impl Plan {
    fn new(multiprocessors: u32, [batch, len, d_inner, d_state]: [usize; 4]) -> Result<Self> {
        let blocks = |channels: usize| -> Result<usize> {
            let blocks = product([batch, d_inner.div_ceil(channels), len.min(1)])?;
            Ok(size(KERNEL, "blocks", i32::MAX as u32, blocks)? as usize)
        };
        if len == 1 {
            return Ok(Plan { lanes: None, grid: Grid::line(blocks(32)?, 512) });
        }
        let blocks = blocks(16)?;
        let lanes = if blocks >= 4 * multiprocessors as usize { 4 } else { 8 };
        let steps = product([len.div_ceil(8 * lanes), d_state.div_ceil(16).max(1)])?;
        size(KERNEL, "steps of 32 tokens and 16 states", u32::MAX - 2, steps)?;
        Ok(Plan { lanes: Some(lanes), grid: Grid::line(blocks, 32 * lanes as u32) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_goes_by_tokens_and_channels() {
        let plan = |dims| {
            let Plan { lanes, grid } = Plan::new(132, dims).unwrap();
            (lanes, grid.blocks[0], grid.threads[0])
        };
        assert_eq!(plan([3, 1, 1536, 16]), (None, 144, 512));
        assert_eq!(plan([1, 2, 1536, 16]), (Some(8), 96, 256));
        assert_eq!(plan([1, 2, 8433, 16]), (Some(4), 528, 128));
        assert_eq!(plan([0, 2, 1536, 16]), (Some(8), 0, 256));
        assert_eq!(plan([1, 0, 1536, 16]), (Some(8), 0, 256));
        assert!(Plan::new(132, [1 << 31, 2, 1, 16]).is_err());
        assert!(Plan::new(132, [1, i32::MAX as usize, 1, 1 << 16]).is_err());
    }
}
