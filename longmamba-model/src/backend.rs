//! What a device must be able to do: the stages of a layer over its own buffers.
//!
//! The model is written once, against this trait. Activations are row-major `f32`, one row a token;
//! a stage that needs only some columns of a buffer takes them in place through [`Columns`].

mod cpu;

pub use cpu::CpuBackend;

use crate::Result;
use longmamba_core::{AlignedVec, DtLimits, Tensor};

/// Some neighbouring columns of a row-major buffer of activations.
#[derive(Debug)]
pub struct Columns<'a, Buffer> {
    /// The whole buffer.
    pub buffer: &'a Buffer,
    /// The first column.
    pub first: usize,
    /// The number of columns.
    pub width: usize,
    /// The distance between rows, in elements.
    pub stride: usize,
}

impl<Buffer> Clone for Columns<'_, Buffer> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Buffer> Copy for Columns<'_, Buffer> {}

impl<'a, Buffer> Columns<'a, Buffer> {
    /// All columns of a buffer with rows of `width`.
    pub fn all(buffer: &'a Buffer, width: usize) -> Self {
        Columns { buffer, first: 0, width, stride: width }
    }

    /// Columns `first..first + width` of these.
    pub fn part(self, first: usize, width: usize) -> Self {
        Columns { first: self.first + first, width, ..self }
    }
}

/// A linear map `[outputs, inputs]`, with or without a bias.
#[derive(Debug)]
pub struct Linear<B: Backend> {
    /// `[outputs, inputs]`, in the checkpoint's own type.
    pub weight: B::Matrix,
    /// `[outputs]`.
    pub bias: Option<B::Vector>,
    /// Rows of the weight.
    pub outputs: usize,
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
}

/// The parameters of a layer's recurrence.
#[derive(Debug)]
pub struct Recurrence<B: Backend> {
    /// A = −exp(A_log): `[d_state, d_inner]` in Mamba-1, `[heads]` in Mamba-2.
    pub a: B::Vector,
    /// The skip, `[channels]`.
    pub d: B::Vector,
    /// `[channels]`.
    pub dt_bias: B::Vector,
    /// Limits of Δ after softplus.
    pub dt_limits: DtLimits,
}

/// The activations that a Mamba-1 scan reads.
#[derive(Debug)]
pub struct ScanInputs<'a, Buffer> {
    /// After convolution and SiLU, d_inner columns.
    pub x: Columns<'a, Buffer>,
    /// Before bias and softplus, d_inner columns.
    pub dt_raw: Columns<'a, Buffer>,
    /// d_state columns.
    pub b: Columns<'a, Buffer>,
    /// d_state columns.
    pub c: Columns<'a, Buffer>,
    /// The gate, d_inner columns.
    pub z: Columns<'a, Buffer>,
}

/// The activations that a Mamba-2 scan reads.
#[derive(Debug)]
pub struct SsdStageInputs<'a, Buffer> {
    /// After convolution and SiLU, heads · head_dim columns.
    pub x: Columns<'a, Buffer>,
    /// Before bias and softplus, one column a head.
    pub dt_raw: Columns<'a, Buffer>,
    /// groups · d_state columns.
    pub b: Columns<'a, Buffer>,
    /// groups · d_state columns.
    pub c: Columns<'a, Buffer>,
    /// Heads.
    pub heads: usize,
    /// Groups of heads.
    pub groups: usize,
}

/// What a layer has seen of Δ, per channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeltaSums {
    /// Σ Δ before the mask.
    pub delta_sum: Vec<f64>,
    /// Σ Δ of the tokens kept.
    pub kept_sum: Vec<f64>,
    /// The number of tokens kept.
    pub kept: Vec<u64>,
}

impl DeltaSums {
    /// Zeros for `channels` channels.
    pub fn new(channels: usize) -> Self {
        DeltaSums {
            delta_sum: vec![0.0; channels],
            kept_sum: vec![0.0; channels],
            kept: vec![0; channels],
        }
    }
}

/// A device: its buffers, and the stages on them. `rows` is the number of tokens in the buffers.
pub trait Backend: Sized + Send + Sync + std::fmt::Debug {
    /// Activations and state, `f32`, of a fixed size.
    type Buffer: Send + std::fmt::Debug;
    /// A large weight, used in place where that is possible. Clones share it.
    type Matrix: Clone + Send + Sync + std::fmt::Debug;
    /// A small weight, `f32`.
    type Vector: Send + Sync + std::fmt::Debug;
    /// Room that stages work in; one a session.
    type Scratch: Send + Default + std::fmt::Debug;

    /// Takes over a large weight.
    fn matrix(&self, weight: Tensor) -> Result<Self::Matrix>;
    /// Takes over a small weight.
    fn vector(&self, weight: AlignedVec<f32>) -> Result<Self::Vector>;
    /// Copies a small weight to the host.
    fn read_vector(&self, vector: &Self::Vector) -> Result<Vec<f32>>;
    /// A buffer of zeros.
    fn buffer(&self, len: usize) -> Result<Self::Buffer>;
    /// Copies `out.len()` elements, from element `first` on, to the host.
    fn read(&self, buffer: &Self::Buffer, first: usize, out: &mut [f32]) -> Result<()>;
    /// Copies `values` to the start of the buffer.
    fn write(&self, values: &[f32], buffer: &mut Self::Buffer) -> Result<()>;

    /// Runs `work` where this device's stages run best (on the CPU: inside its thread pool).
    fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R;

    /// Embedding: row `tokens[i]` of `table` to row i of `out`.
    fn embedding(
        &self,
        table: &Self::Matrix,
        tokens: &[u32],
        width: usize,
        out: &mut Self::Buffer,
    ) -> Result<()>;

    /// RMS norm of rows `first..first + rows` of `x`, to the first rows of `out`.
    fn norm(
        &self,
        x: &Self::Buffer,
        first: usize,
        rows: usize,
        weight: &Self::Vector,
        eps: f32,
        out: &mut Self::Buffer,
    ) -> Result<()>;

    /// `out = x · wᵀ + bias`, or `out += x · wᵀ + bias` where `accumulate`.
    fn project(
        &self,
        rows: usize,
        x: Columns<'_, Self::Buffer>,
        linear: &Linear<Self>,
        accumulate: bool,
        out: &mut Self::Buffer,
    ) -> Result<()>;

    /// Causal convolution and SiLU; `history` `[width - 1, channels]` is read and renewed.
    fn conv1d(
        &self,
        rows: usize,
        x: Columns<'_, Self::Buffer>,
        conv: &Conv<Self>,
        history: &mut Self::Buffer,
        out: &mut Self::Buffer,
    ) -> Result<()>;

    /// Mamba-1: scan, skip and gate. `delta_min` `[d_inner]` masks where given; `sums` grow.
    #[allow(clippy::too_many_arguments)]
    fn selective_scan(
        &self,
        rows: usize,
        inputs: ScanInputs<'_, Self::Buffer>,
        recurrence: &Recurrence<Self>,
        delta_min: Option<&[f32]>,
        state: &mut Self::Buffer,
        sums: &mut DeltaSums,
        y: &mut Self::Buffer,
    ) -> Result<()>;

    /// Mamba-2: scan and skip. `delta_min` `[heads]` masks where given; `sums` grow.
    #[allow(clippy::too_many_arguments)]
    fn ssd(
        &self,
        scratch: &mut Self::Scratch,
        rows: usize,
        inputs: SsdStageInputs<'_, Self::Buffer>,
        recurrence: &Recurrence<Self>,
        delta_min: Option<&[f32]>,
        state: &mut Self::Buffer,
        sums: &mut DeltaSums,
        y: &mut Self::Buffer,
    ) -> Result<()>;

    /// Gate and norm of Mamba-2: RMS norm of `y · silu(z)` within each `group` of columns.
    #[allow(clippy::too_many_arguments)]
    fn gated_norm(
        &self,
        rows: usize,
        y: &Self::Buffer,
        z: Columns<'_, Self::Buffer>,
        weight: &Self::Vector,
        group: usize,
        eps: f32,
        out: &mut Self::Buffer,
    ) -> Result<()>;

    /// Δ after softplus, of all columns of `dt_raw`; what calibration records.
    fn delta(
        &self,
        rows: usize,
        dt_raw: Columns<'_, Self::Buffer>,
        recurrence: &Recurrence<Self>,
        out: &mut [f32],
    ) -> Result<()>;
}
