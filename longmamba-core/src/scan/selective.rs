use super::{
    ChannelStats, DtLimits, all_rates, expect, expect_len, expect_rows, expect_rows_mut,
    expect_values,
};
use crate::{Result, View, ViewMut};
use std::ops::Deref;

/// The arguments of a Mamba-1 selective scan, unchecked; [`SelectiveScan::new`] checks them.
///
/// For channel `c` of `d_inner`, state `n` of `d_state`, token `t`:
///
/// ```text
/// Δ[t,c]   = clamp(softplus(dt_raw[t,c] + dt_bias[c]), dt_limits), 0 where Δ ≤ delta_min[c]
/// h[t,c,n] = exp(Δ[t,c]·A[c,n])·h[t-1,c,n] + Δ[t,c]·B[t,n]·x[t,c]
/// y[t,c]   = (Σ_n C[t,n]·h[t,c,n] + D[c]·x[t,c]) · silu(z[t,c])
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SelectiveScanInputs<'a> {
    /// `[batch, len, d_inner]`, after convolution and SiLU; rows contiguous.
    pub x: View<'a, f32, 3>,
    /// `[batch, len, d_inner]`, Δ before bias and softplus; rows contiguous.
    pub dt_raw: View<'a, f32, 3>,
    /// `[d_inner, d_state]`, ≤ 0, any strides; fastest where neighbouring channels are contiguous.
    pub a: View<'a, f32, 2>,
    /// `[batch, len, d_state]`; rows contiguous.
    pub b: View<'a, f32, 3>,
    /// `[batch, len, d_state]`; rows contiguous.
    pub c: View<'a, f32, 3>,
    /// The gate, `[batch, len, d_inner]`; rows contiguous. `None`: y is not gated.
    pub z: Option<View<'a, f32, 3>>,
    /// The skip, `[d_inner]`. `None`: 0.
    pub d: Option<&'a [f32]>,
    /// `[d_inner]`. `None`: 0.
    pub dt_bias: Option<&'a [f32]>,
    /// LongMamba's thresholds, `[d_inner]`: a token is kept where Δ > delta_min, and everywhere where
    /// delta_min is 0. `None`: every token is kept.
    pub delta_min: Option<&'a [f32]>,
    /// Limits of Δ after softplus.
    pub dt_limits: DtLimits,
    /// The number of tokens of each sequence, `[batch]`, each ≤ len. A token past it leaves the
    /// state as it is, is not counted, and its y is 0. `None`: len each.
    pub lengths: Option<&'a [usize]>,
}

/// Checked [`SelectiveScanInputs`].
#[derive(Clone, Copy, Debug)]
pub struct SelectiveScan<'a>(SelectiveScanInputs<'a>);

impl<'a> SelectiveScan<'a> {
    /// Checks that all shapes agree with x and A, that the rows that kernels stream are contiguous
    /// and that the values keep the recurrence from growing.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), [`Error::NotContiguous`](crate::Error::NotContiguous) or
    /// [`Error::Value`](crate::Error::Value), naming the argument.
    pub fn new(inputs: SelectiveScanInputs<'a>) -> Result<Self> {
        let [batch, len, d_inner] = inputs.x.shape();
        let [_, d_state] = inputs.a.shape();
        let per_channel = [batch, len, d_inner];
        expect_rows("x", &inputs.x, per_channel)?;
        expect_rows("dt_raw", &inputs.dt_raw, per_channel)?;
        expect("A", inputs.a.shape(), [d_inner, d_state])?;
        expect_rows("B", &inputs.b, [batch, len, d_state])?;
        expect_rows("C", &inputs.c, [batch, len, d_state])?;
        inputs.z.map_or(Ok(()), |z| expect_rows("z", &z, per_channel))?;
        expect_len("D", inputs.d, d_inner)?;
        expect_len("dt_bias", inputs.dt_bias, d_inner)?;
        expect_len("delta_min", inputs.delta_min, d_inner)?;
        inputs.dt_limits.check()?;
        let a = inputs.a;
        let looked_at = if all_rates(&a) { 0 } else { d_inner };
        let rates =
            (0..looked_at).flat_map(move |c| (0..d_state).filter_map(move |n| a.get([c, n])));
        expect_values(rates, inputs.delta_min, inputs.lengths, batch, len)?;
        Ok(SelectiveScan(inputs))
    }

    /// `[batch, len, d_inner, d_state]`.
    pub fn dims(&self) -> [usize; 4] {
        let [batch, len, d_inner] = self.x.shape();
        [batch, len, d_inner, self.a.shape()[1]]
    }

    /// The number of tokens of sequence `batch`.
    pub fn length(&self, batch: usize) -> usize {
        self.lengths.map_or(self.x.shape()[1], |lengths| lengths[batch])
    }

    /// Checks the outputs against these arguments.
    ///
    /// # Errors
    /// As [`SelectiveScan::new`].
    pub fn check_out(&self, out: &SelectiveScanOut<'_>) -> Result<()> {
        let [batch, len, d_inner, d_state] = self.dims();
        expect_rows_mut("y", &out.y, [batch, len, d_inner])?;
        expect("state", out.state.shape(), [batch, d_inner, d_state])?;
        out.stats.as_ref().map_or(Ok(()), |s| s.check(batch, d_inner))
    }
}

impl<'a> Deref for SelectiveScan<'a> {
    type Target = SelectiveScanInputs<'a>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// Where a Mamba-1 scan writes.
#[derive(Debug)]
pub struct SelectiveScanOut<'a> {
    /// `[batch, len, d_inner]`; rows contiguous.
    pub y: ViewMut<'a, f32, 3>,
    /// `[batch, d_inner, d_state]`, any strides: the initial state on entry (zeros for a fresh
    /// sequence), the final state on return. Fastest where neighbouring channels are contiguous.
    pub state: ViewMut<'a, f32, 3>,
    /// Sums of Δ, where wanted.
    pub stats: Option<ChannelStats<'a>>,
}
