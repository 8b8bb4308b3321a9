//! What a device must be able to do: the stages of a layer over its own buffers.
//!
//! The model is written once, against this trait. Activations are row-major `f32`, one row a token;
//! a stage that needs only some columns of a buffer takes them in place through [`Columns`].

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

pub use cpu::CpuBackend;
#[cfg(feature = "cuda")]
pub use cuda::CudaBackend;

use crate::Result;
use crate::config::Rope;
use crate::sample::SampleOptions;
use longmamba_core::{AlignedVec, DType, DtLimits, Tensor};
pub use longmamba_cpu::Activation;

/// Some neighbouring columns of a row-major buffer of activations.
#[derive(Debug)]
pub struct Columns<'a, Buffer> {
    /// The whole buffer.
    pub buffer: &'a Buffer,
    /// The element of the buffer that the first row begins with.
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

    /// The rows from `rows` on.
    pub fn skip_rows(self, rows: usize) -> Self {
        Columns { first: self.first + rows * self.stride, ..self }
    }
}

/// Some neighbouring columns of a row-major buffer of activations, to be written.
#[derive(Debug)]
pub struct ColumnsMut<'a, Buffer> {
    /// The whole buffer.
    pub buffer: &'a mut Buffer,
    /// The element of the buffer that the first row begins with.
    pub first: usize,
    /// The number of columns.
    pub width: usize,
    /// The distance between rows, in elements.
    pub stride: usize,
}

impl<'a, Buffer> ColumnsMut<'a, Buffer> {
    /// All columns of a buffer with rows of `width`.
    pub fn all(buffer: &'a mut Buffer, width: usize) -> Self {
        ColumnsMut { buffer, first: 0, width, stride: width }
    }

    /// Columns `first..first + width` of these.
    pub fn part(self, first: usize, width: usize) -> Self {
        ColumnsMut { first: self.first + first, width, ..self }
    }

    /// The rows from `rows` on.
    pub fn skip_rows(self, rows: usize) -> Self {
        ColumnsMut { first: self.first + rows * self.stride, ..self }
    }
}

/// A linear map `[outputs, inputs]`, with or without a bias.
#[derive(Debug)]
pub struct Linear<B: Backend> {
    /// `[outputs, inputs]`, in the checkpoint's own type.
    pub weight: B::Matrix,
    /// `[outputs]`.
    pub bias: Option<B::Vector>,
    /// Columns of the weight.
    pub inputs: usize,
    /// Rows of the weight.
    pub outputs: usize,
    /// The weight's type.
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

impl<Buffer> ScanInputs<'_, Buffer> {
    /// The rows from `rows` on.
    pub fn skip_rows(&self, rows: usize) -> Self {
        ScanInputs {
            x: self.x.skip_rows(rows),
            dt_raw: self.dt_raw.skip_rows(rows),
            b: self.b.skip_rows(rows),
            c: self.c.skip_rows(rows),
            z: self.z.skip_rows(rows),
        }
    }
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

impl<Buffer> SsdStageInputs<'_, Buffer> {
    /// The rows from `rows` on.
    pub fn skip_rows(&self, rows: usize) -> Self {
        SsdStageInputs {
            x: self.x.skip_rows(rows),
            dt_raw: self.dt_raw.skip_rows(rows),
            b: self.b.skip_rows(rows),
            c: self.c.skip_rows(rows),
            ..*self
        }
    }
}

/// What attention reads, and how.
#[derive(Debug)]
pub struct AttentionInputs<'a, B: Backend> {
    /// heads · head_dim columns, rotated.
    pub q: Columns<'a, B::Buffer>,
    /// The keys and values of the sequence, [`KV_PAGE`] positions a page; the queries' own are there.
    pub pages: &'a [B::Page],
    /// The position of the first page's first row.
    pub first: usize,
    /// The position of the first query.
    pub position: usize,
    /// How many positions a query sees, its own included; `usize::MAX`: all before it.
    pub window: usize,
    /// Query heads.
    pub heads: usize,
    /// The scores' factor.
    pub scale: f32,
}

/// Positions to a page of keys and values.
pub const KV_PAGE: usize = longmamba_cpu::KV_PAGE;

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

/// A device: its buffers, and the stages on them. `rows` is the number of tokens that a stage works
/// on; inputs and outputs say where in their buffers those lie.
pub trait Backend: Clone + Send + Sync + std::fmt::Debug {
    /// Activations and state, `f32`, of a fixed size.
    type Buffer: Send + Sync + std::fmt::Debug;
    /// A large weight, used in place where that is possible. Clones share it.
    type Matrix: Clone + Send + Sync + std::fmt::Debug;
    /// A small weight, `f32`. Clones share it.
    type Vector: Clone + Send + Sync + std::fmt::Debug;
    /// What a layer has seen of Δ, where the scan adds to it.
    type Sums: Send + Sync + std::fmt::Debug;
    /// Keys and values of [`KV_PAGE`] positions.
    type Page: Send + Sync + std::fmt::Debug;
    /// Room that stages work in; one a session.
    type Scratch: Send + Default + std::fmt::Debug;
    /// What was recorded of a step; one a session.
    type Recording: Send + Default + std::fmt::Debug;

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

    /// Sums of zero for `channels` channels.
    fn sums(&self, channels: usize) -> Result<Self::Sums>;
    /// Copies sums to the host.
    fn read_sums(&self, sums: &Self::Sums) -> Result<DeltaSums>;
    /// The reverse of [`Backend::read_sums`]; as many channels.
    fn write_sums(&self, values: &DeltaSums, sums: &mut Self::Sums) -> Result<()>;

    /// Does `work`: stages that are the same, with the same buffers and sizes, whenever `key` is. A
    /// device may record them, and do the recorded ones from then on.
    fn repeat(
        &self,
        recording: &mut Self::Recording,
        key: &[u64],
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()>;

    /// How many sequences are best read at the same time, each in a thread of its own.
    fn sequences_at_once(&self) -> usize;

    /// Runs `work` where this device's stages run best (on the CPU: inside its thread pool). It may only
    /// be called inside itself where [`sequences_at_once`](Self::sequences_at_once) is above 1.
    fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R;

    /// Embedding: row `tokens[i]` of `table` to row i of `out`.
    fn embedding(
        &self,
        scratch: &mut Self::Scratch,
        table: &Self::Matrix,
        tokens: &[u32],
        out: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<()>;

    /// `out = x`, or `out += x` where `accumulate`.
    fn copy(
        &self,
        rows: usize,
        x: Columns<'_, Self::Buffer>,
        accumulate: bool,
        out: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<()>;

    /// The norm of each row of `x`.
    fn norm(
        &self,
        rows: usize,
        x: Columns<'_, Self::Buffer>,
        norm: &Norm<Self>,
        out: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<()>;

    /// `out = x · wᵀ + bias`, or `out += x · wᵀ + bias` where `accumulate`.
    fn project(
        &self,
        rows: usize,
        x: Columns<'_, Self::Buffer>,
        linear: &Linear<Self>,
        accumulate: bool,
        out: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<()>;

    /// Causal convolution, and SiLU where the convolution has one; `history` `[width - 1, channels]`
    /// is read and renewed.
    fn conv1d(
        &self,
        rows: usize,
        x: Columns<'_, Self::Buffer>,
        conv: &Conv<Self>,
        history: &mut Self::Buffer,
        out: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<()>;

    /// Mamba-1: scan, skip and gate. `delta_min` `[d_inner]` masks where given; `sums` grow.
    #[allow(clippy::too_many_arguments)]
    fn selective_scan(
        &self,
        rows: usize,
        inputs: ScanInputs<'_, Self::Buffer>,
        recurrence: &Recurrence<Self>,
        delta_min: Option<&Self::Vector>,
        state: &mut Self::Buffer,
        sums: &mut Self::Sums,
        y: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<()>;

    /// Mamba-2: scan and skip. `delta_min` `[heads]` masks where given; `sums` grow.
    #[allow(clippy::too_many_arguments)]
    fn ssd(
        &self,
        scratch: &mut Self::Scratch,
        rows: usize,
        inputs: SsdStageInputs<'_, Self::Buffer>,
        recurrence: &Recurrence<Self>,
        delta_min: Option<&Self::Vector>,
        state: &mut Self::Buffer,
        sums: &mut Self::Sums,
        y: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<()>;

    /// Gate and norm of Mamba-2: RMS norm of `y · silu(z)` within each `group` of columns.
    fn gated_norm(
        &self,
        rows: usize,
        y: Columns<'_, Self::Buffer>,
        z: Columns<'_, Self::Buffer>,
        norm: &Norm<Self>,
        group: usize,
        out: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<()>;

    /// A gate without a norm, and that of every MLP: `out = y · activation(z)`.
    fn gate(
        &self,
        rows: usize,
        y: Columns<'_, Self::Buffer>,
        z: Columns<'_, Self::Buffer>,
        activation: Activation,
        out: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<()>;

    /// Rotates every head of `x`, whose first row is at `position`, in place.
    fn rope(
        &self,
        rows: usize,
        x: ColumnsMut<'_, Self::Buffer>,
        head_dim: usize,
        rope: Rope,
        position: usize,
    ) -> Result<()>;

    /// An empty page.
    fn page(&self, kv_heads: usize, head_dim: usize) -> Result<Self::Page>;

    /// Writes rows `first..` of a page: kv_heads · head_dim columns each of keys and values.
    fn fill_page(
        &self,
        rows: usize,
        keys: Columns<'_, Self::Buffer>,
        values: Columns<'_, Self::Buffer>,
        page: &mut Self::Page,
        first: usize,
    ) -> Result<()>;

    /// Copies a page to the host: keys and values, each `[KV_PAGE, kv_heads, head_dim]`.
    fn read_page(&self, page: &Self::Page, keys: &mut [f32], values: &mut [f32]) -> Result<()>;

    /// The reverse of [`Backend::read_page`].
    fn write_page(&self, keys: &[f32], values: &[f32], page: &mut Self::Page) -> Result<()>;

    /// Softmax attention of the queries to the positions that they see, causal.
    fn attention(
        &self,
        scratch: &mut Self::Scratch,
        rows: usize,
        inputs: AttentionInputs<'_, Self>,
        out: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<()>;

    /// Δ after softplus, of all columns of `dt_raw`; what calibration records.
    fn delta(
        &self,
        rows: usize,
        dt_raw: Columns<'_, Self::Buffer>,
        recurrence: &Recurrence<Self>,
        out: &mut [f32],
    ) -> Result<()>;

    /// Draws the token that [`Sampler::sample_at`](crate::Sampler::sample_at) draws of a copy of `logits`,
    /// one row with a column a token. `None` where the host is to do it: on a device that cannot, and for
    /// logits that are an error, which is then the host's to name.
    fn sample(
        &self,
        scratch: &mut Self::Scratch,
        logits: Columns<'_, Self::Buffer>,
        options: &SampleOptions,
        uniform: f64,
    ) -> Result<Option<u32>> {
        let _ = (scratch, logits, options, uniform);
        Ok(None)
    }
}
