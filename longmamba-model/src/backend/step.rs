//! What the fused stages of a step read. A step gives each of its sequences one token.

use super::{Backend, Columns, Conv, Linear, Norm, Recurrence};

/// What a sequence remembers in one recurrent layer.
#[derive(Debug)]
pub struct StepMemory<'a, B: Backend> {
    /// `[d_conv - 1, conv_dim]`: the last inputs of the convolution.
    pub history: &'a mut B::Buffer,
    /// The state of the scan.
    pub state: &'a mut B::Buffer,
    /// What was seen of Δ.
    pub sums: &'a mut B::Sums,
    /// The thresholds of the mask, where there is one.
    pub delta_min: Option<&'a B::Vector>,
}

/// A norm, the linear map behind it, and the convolution of some of what that gives.
#[derive(Debug)]
pub struct NormedConv<'a, B: Backend> {
    /// The norm of each row.
    pub norm: &'a Norm<B>,
    /// What takes the normed rows.
    pub linear: &'a Linear<B>,
    /// The convolution.
    pub conv: &'a Conv<B>,
    /// The output of `linear` that is its first channel.
    pub first: usize,
}

/// From what a Mamba-1 mixer selects to what its scan gives.
#[derive(Debug)]
pub struct SelectScan<'a, B: Backend> {
    /// After convolution and SiLU, d_inner columns.
    pub x: Columns<'a, B::Buffer>,
    /// dt_rank columns.
    pub low: Columns<'a, B::Buffer>,
    /// d_state columns.
    pub b: Columns<'a, B::Buffer>,
    /// d_state columns.
    pub c: Columns<'a, B::Buffer>,
    /// The gate, d_inner columns.
    pub z: Columns<'a, B::Buffer>,
    /// Falcon-Mamba: of `low`, and of `b` and `c`.
    pub norms: Option<&'a [Norm<B>; 2]>,
    /// From `low` to Δ before bias and softplus.
    pub dt_proj: &'a Linear<B>,
    /// The scan's parameters.
    pub recurrence: &'a Recurrence<B>,
}

/// What follows the scan of a Mamba-2 mixer: gate, norm, and a linear map.
#[derive(Debug)]
pub struct GatedProjection<'a, B: Backend> {
    /// The gate, heads · head_dim columns.
    pub z: Columns<'a, B::Buffer>,
    /// The norm of `y · silu(z)` within each group, where there is one.
    pub norm: Option<&'a Norm<B>>,
    /// What takes that.
    pub linear: &'a Linear<B>,
}
