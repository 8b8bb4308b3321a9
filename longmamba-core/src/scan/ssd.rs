use super::{
    ChannelStats, DtLimits, expect, expect_len, expect_rows, expect_rows_mut, expect_values,
};
use crate::{Error, Result, View, ViewMut};
use std::ops::Deref;

/// The arguments of a Mamba-2 scan (SSD, state-space duality), unchecked; [`Ssd::new`] checks them.
///
/// For head `k` of `heads`, its group `g = k / (heads / groups)`, element `p` of `head_dim`, state
/// `n` of `d_state`, token `t`:
///
/// ```text
/// Δ[t,k]     = clamp(softplus(dt_raw[t,k] + dt_bias[k]), dt_limits), 0 where Δ ≤ delta_min[k]
/// h[t,k,p,n] = exp(Δ[t,k]·A[k])·h[t-1,k,p,n] + Δ[t,k]·B[t,g,n]·x[t,k,p]
/// y[t,k,p]   = Σ_n C[t,g,n]·h[t,k,p,n] + D[k]·x[t,k,p], or D[k,p]
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SsdInputs<'a> {
    /// `[batch, len, heads, head_dim]`, after convolution and SiLU; rows contiguous.
    pub x: View<'a, f32, 4>,
    /// `[batch, len, heads]`, Δ before bias and softplus; rows contiguous.
    pub dt_raw: View<'a, f32, 3>,
    /// `[heads]`, ≤ 0.
    pub a: &'a [f32],
    /// `[batch, len, groups, d_state]`; rows contiguous. `groups` divides `heads`.
    pub b: View<'a, f32, 4>,
    /// `[batch, len, groups, d_state]`; rows contiguous.
    pub c: View<'a, f32, 4>,
    /// The skip, `[heads]`, or `[heads · head_dim]`: a value for each element. `None`: 0.
    pub d: Option<&'a [f32]>,
    /// `[heads]`. `None`: 0.
    pub dt_bias: Option<&'a [f32]>,
    /// LongMamba's thresholds, `[heads]`: a token is kept where Δ > delta_min, and everywhere where
    /// delta_min is 0. `None`: every token is kept.
    pub delta_min: Option<&'a [f32]>,
    /// Limits of Δ after softplus.
    pub dt_limits: DtLimits,
    /// The number of tokens of each sequence, `[batch]`, each ≤ len. A token past it leaves the
    /// state as it is, is not counted, and its y is 0. `None`: len each.
    pub lengths: Option<&'a [usize]>,
}

/// Checked [`SsdInputs`].
#[derive(Clone, Copy, Debug)]
pub struct Ssd<'a>(SsdInputs<'a>);

impl<'a> Ssd<'a> {
    /// Checks that all shapes agree with x and B, that the rows that kernels stream are contiguous
    /// and that the values keep the recurrence from growing.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotContiguous`] or [`Error::Value`], naming the argument.
    pub fn new(inputs: SsdInputs<'a>) -> Result<Self> {
        let [batch, len, heads, head_dim] = inputs.x.shape();
        let [_, _, groups, d_state] = inputs.b.shape();
        if groups == 0 || !heads.is_multiple_of(groups) {
            let (value, allowed) = (groups as f64, "a divisor of the number of heads");
            return Err(Error::Value { tensor: "groups", index: 0, value, allowed });
        }
        expect_rows("x", &inputs.x, [batch, len, heads, head_dim])?;
        expect_rows("dt_raw", &inputs.dt_raw, [batch, len, heads])?;
        expect("A", [inputs.a.len()], [heads])?;
        expect_rows("B", &inputs.b, [batch, len, groups, d_state])?;
        expect_rows("C", &inputs.c, [batch, len, groups, d_state])?;
        if inputs.d.is_none_or(|d| d.len() != heads * head_dim) {
            expect_len("D", inputs.d, heads)?;
        }
        expect_len("dt_bias", inputs.dt_bias, heads)?;
        expect_len("delta_min", inputs.delta_min, heads)?;
        inputs.dt_limits.check()?;
        expect_values(inputs.a.iter().copied(), inputs.delta_min, inputs.lengths, batch, len)?;
        Ok(Ssd(inputs))
    }

    /// `[batch, len, heads, head_dim, groups, d_state]`.
    pub fn dims(&self) -> [usize; 6] {
        let [batch, len, heads, head_dim] = self.x.shape();
        let [_, _, groups, d_state] = self.b.shape();
        [batch, len, heads, head_dim, groups, d_state]
    }

    /// The number of tokens of sequence `batch`.
    pub fn length(&self, batch: usize) -> usize {
        self.lengths.map_or(self.x.shape()[1], |lengths| lengths[batch])
    }

    /// Checks the outputs against these arguments.
    ///
    /// # Errors
    /// As [`Ssd::new`].
    pub fn check_out(&self, out: &SsdOut<'_>) -> Result<()> {
        let [batch, len, heads, head_dim, _, d_state] = self.dims();
        expect_rows_mut("y", &out.y, [batch, len, heads, head_dim])?;
        expect("state", out.state.shape(), [batch, heads, head_dim, d_state])?;
        out.stats.as_ref().map_or(Ok(()), |s| s.check(batch, heads))
    }
}

impl<'a> Deref for Ssd<'a> {
    type Target = SsdInputs<'a>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// Where a Mamba-2 scan writes.
#[derive(Debug)]
pub struct SsdOut<'a> {
    /// `[batch, len, heads, head_dim]`; rows contiguous.
    pub y: ViewMut<'a, f32, 4>,
    /// `[batch, heads, head_dim, d_state]`, any strides: the initial state on entry (zeros for a
    /// fresh sequence), the final state on return. Fastest where neighbouring `head_dim` elements
    /// are contiguous.
    pub state: ViewMut<'a, f32, 4>,
    /// Sums of Δ, where wanted; the channels are the heads.
    pub stats: Option<ChannelStats<'a>>,
}
