//! The weights of a stage, on a device.

use super::Backend;
use longmamba_core::{DType, DtLimits};

/// A linear map `[outputs, inputs]`, with or without a bias.
#[derive(Debug)]
pub struct Linear<B: Backend> {
    /// `[outputs, inputs]`, in the checkpoint's own type or quantised.
    pub weight: B::Matrix,
    /// `[outputs]`.
    pub bias: Option<B::Vector>,
    /// Columns of the weight.
    pub inputs: usize,
    /// Rows of the weight.
    pub outputs: usize,
    /// The weight's type in the checkpoint.
    pub dtype: DType,
}

impl<B: Backend> Clone for Linear<B> {
    fn clone(&self) -> Self {
        Linear { weight: self.weight.clone(), bias: self.bias.clone(), ..*self }
    }
}

/// A norm over a row.
#[derive(Debug)]
pub struct Norm<B: Backend> {
    /// `[width]`.
    pub weight: B::Vector,
    /// `[width]`: where it is there, the mean is taken off first (layer norm).
    pub bias: Option<B::Vector>,
    /// Elements of a row.
    pub width: usize,
    /// Added to the mean square.
    pub eps: f32,
}

impl<B: Backend> Clone for Norm<B> {
    fn clone(&self) -> Self {
        let Norm { weight, bias, width, eps } = self;
        Norm { weight: weight.clone(), bias: bias.clone(), width: *width, eps: *eps }
    }
}

/// A causal depthwise convolution.
#[derive(Debug)]
pub struct Conv<B: Backend> {
    /// `[width, channels]`: a tap of all channels side by side.
    pub weight: B::Vector,
    /// `[channels]`.
    pub bias: Option<B::Vector>,
    /// Channels.
    pub channels: usize,
    /// Taps.
    pub width: usize,
    /// Whether SiLU follows.
    pub silu: bool,
}

/// The parameters of a layer's recurrence.
#[derive(Debug)]
pub struct Recurrence<B: Backend> {
    /// A = −exp(A_log): `[d_state, d_inner]` in Mamba-1, `[heads]` in Mamba-2.
    pub a: B::Vector,
    /// The skip, `[channels]`; in Mamba-2 also `[heads, head_dim]`.
    pub d: B::Vector,
    /// `[channels]`.
    pub dt_bias: B::Vector,
    /// Limits of Δ after softplus.
    pub dt_limits: DtLimits,
    /// The type of the layer's projections. A device may round x, B and C to it, where that makes it
    /// faster: they come from weights of no more precision.
    pub dtype: DType,
}

impl<B: Backend> Clone for Recurrence<B> {
    fn clone(&self) -> Self {
        let Recurrence { a, d, dt_bias, .. } = self;
        Recurrence { a: a.clone(), d: d.clone(), dt_bias: dt_bias.clone(), ..*self }
    }
}
