//! What a device must be able to do: the stages of a layer over its own buffers.
//!
//! The model is written once, against this trait. Activations are row-major `f32`, one row a token;
//! a stage that needs only some columns of a buffer takes them in place through [`Columns`].

mod columns;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod inputs;
mod parameters;
mod step;

pub use columns::{Activations, Columns, ColumnsMut};
pub use cpu::{CpuBackend, CpuBuffer, CpuMatrix, Profile, Spent, Stage};
#[cfg(feature = "cuda")]
pub use cuda::CudaBackend;
pub use inputs::{AttentionInputs, Position, ScanInputs, SsdStageInputs};
pub use parameters::{Conv, Linear, Norm, Recurrence};
pub use step::{GatedProjection, NormedConv, SelectScan, StepMemory};

use crate::Result;
use crate::config::Rope;
use crate::sample::SampleOptions;
use longmamba_core::{AlignedVec, Tensor};
pub use longmamba_cpu::Activation;

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

/// What a large weight is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Its rows, one by one: an embedding table, and a head that is tied to it.
    Rows,
    /// Products with all of it: a linear map.
    Products,
}

/// A device: its buffers, and the stages on them. `rows` is the number of tokens that a stage works
/// on; inputs and outputs say where in their buffers those lie.
///
/// The methods that return a `bool` do several stages in one, where that is faster and the device can do
/// it: within rounding they give the same. `Ok(false)`: nothing was done, and the stages are to be done one
/// by one. Row i of those that take memories is the one token of the i-th sequence.
pub trait Backend: Clone + Send + Sync + std::fmt::Debug {
    /// Activations and state, `f32`, of a fixed size.
    type Buffer: Activations + Send + Sync + std::fmt::Debug;
    /// A large weight, used in place where that is possible. Clones share it.
    type Matrix: Clone + Send + Sync + std::fmt::Debug;
    /// A small weight, `f32`. Clones share it.
    type Vector: Clone + Send + Sync + std::fmt::Debug;
    /// What a layer has seen of Δ, where the scan adds to it.
    type Sums: Send + Sync + std::fmt::Debug;
    /// Keys and values of one layer and sequence, [`KV_PAGE`] positions a page.
    type Pages: Send + Sync + std::fmt::Debug;
    /// Room that stages work in; one a session.
    type Scratch: Send + Default + std::fmt::Debug;
    /// What was recorded of a step; one a session.
    type Recording: Send + Default + std::fmt::Debug;

    /// Whether it computes with large weights where they lie, so that it matters where that is.
    fn keeps_weights(&self) -> bool;
    /// Tokens that are best read together, where nobody says how many.
    fn chunk_len(&self) -> usize;
    /// Takes over a large weight.
    fn matrix(&self, weight: Tensor) -> Result<Self::Matrix>;
    /// The same weight as linear maps want it: as it is, or in fewer bits.
    fn for_products(&self, weight: Self::Matrix) -> Result<Self::Matrix> {
        Ok(weight)
    }
    /// The same weight in memory that is the model's own, laid out for `purpose`. `None` where there is not
    /// enough memory.
    fn own(&self, weight: &Self::Matrix, purpose: Purpose) -> Result<Option<Self::Matrix>> {
        let _ = purpose;
        Ok(Some(weight.clone()))
    }
    /// Takes over a small weight.
    fn vector(&self, weight: AlignedVec<f32>) -> Result<Self::Vector>;
    /// A model has been loaded: what only that needed can go.
    fn loaded(&self) {}
    /// Copies a small weight to the host.
    fn read_vector(&self, vector: &Self::Vector) -> Result<Vec<f32>>;
    /// A buffer of zeros.
    fn buffer(&self, len: usize) -> Result<Self::Buffer>;
    /// The same for who will use all of it: its memory may be there from the start.
    fn state(&self, len: usize) -> Result<Self::Buffer> {
        self.buffer(len)
    }
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

    /// Does `work`: stages that are the same, with the same buffers and sizes, whenever `key` is; only
    /// [`Position::position`] may be another. A device may record them, and do the recorded ones from then
    /// on, at the [`positions`](Self::positions) that it was told last.
    fn repeat(
        &self,
        recording: &mut Self::Recording,
        key: &[u64],
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()>;

    /// Tells the device where the segments of the next chunk begin, for stages that take a [`Position`].
    fn positions(
        &self,
        scratch: &mut Self::Scratch,
        positions: impl ExactSizeIterator<Item = usize>,
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
        scratch: &mut Self::Scratch,
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
        scratch: &Self::Scratch,
        rows: usize,
        x: ColumnsMut<'_, Self::Buffer>,
        head_dim: usize,
        rope: Rope,
        position: Position,
    ) -> Result<()>;

    /// No pages, of keys and values with so many heads.
    fn pages(&self, kv_heads: usize, head_dim: usize) -> Result<Self::Pages>;

    /// Moves the first `unused` pages behind the others, to be used again, and adds pages of zeros until
    /// there are `count`; the first row is then that of position `first`. `true` where stages that were
    /// recorded with the pages must not be done again.
    fn arrange_pages(
        &self,
        pages: &mut Self::Pages,
        unused: usize,
        count: usize,
        first: usize,
    ) -> Result<bool>;

    /// Writes the keys and values of the positions from `position` on: kv_heads · head_dim columns each.
    fn fill_pages(
        &self,
        scratch: &Self::Scratch,
        rows: usize,
        keys: Columns<'_, Self::Buffer>,
        values: Columns<'_, Self::Buffer>,
        pages: &mut Self::Pages,
        position: Position,
    ) -> Result<()>;

    /// Copies page `index` to the host: keys and values, each `[KV_PAGE, kv_heads, head_dim]`.
    fn read_page(
        &self,
        pages: &Self::Pages,
        index: usize,
        keys: &mut [f32],
        values: &mut [f32],
    ) -> Result<()>;

    /// The reverse of [`Backend::read_page`].
    fn write_page(
        &self,
        keys: &[f32],
        values: &[f32],
        pages: &mut Self::Pages,
        index: usize,
    ) -> Result<()>;

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

    /// [`norm`](Self::norm) and [`project`](Self::project) of that, in one.
    fn norm_project(
        &self,
        scratch: &mut Self::Scratch,
        rows: usize,
        x: Columns<'_, Self::Buffer>,
        norm: &Norm<Self>,
        linear: &Linear<Self>,
        out: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<bool> {
        let _ = (scratch, rows, x, norm, linear, out);
        Ok(false)
    }

    /// [`gated_norm`](Self::gated_norm) and [`project`](Self::project) of that, added to `out`, in one.
    #[allow(clippy::too_many_arguments)]
    fn gated_norm_project(
        &self,
        scratch: &mut Self::Scratch,
        rows: usize,
        y: Columns<'_, Self::Buffer>,
        z: Columns<'_, Self::Buffer>,
        norm: &Norm<Self>,
        group: usize,
        linear: &Linear<Self>,
        out: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<bool> {
        let _ = (scratch, rows, y, z, norm, group, linear, out);
        Ok(false)
    }

    /// [`norm`](Self::norm), [`project`](Self::project) and [`conv1d`](Self::conv1d) in one. What goes
    /// through the convolution need not be in `out`.
    fn norm_project_conv<'a>(
        &self,
        rows: usize,
        x: Columns<'_, Self::Buffer>,
        stages: NormedConv<'_, Self>,
        memories: impl Iterator<Item = StepMemory<'a, Self>>,
        out: ColumnsMut<'_, Self::Buffer>,
        conv_out: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<bool>
    where
        Self: 'a,
    {
        let _ = (rows, x, stages, memories, out, conv_out);
        Ok(false)
    }

    /// Mamba-1: the norms of what was selected, the projection of Δ, and
    /// [`selective_scan`](Self::selective_scan), in one.
    fn select_scan<'a>(
        &self,
        rows: usize,
        stages: SelectScan<'_, Self>,
        memories: impl Iterator<Item = StepMemory<'a, Self>>,
        dt_raw: ColumnsMut<'_, Self::Buffer>,
        y: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<bool>
    where
        Self: 'a,
    {
        let _ = (rows, stages, memories, dt_raw, y);
        Ok(false)
    }

    /// Mamba-2: [`ssd`](Self::ssd), gate, norm, and [`project`](Self::project) of that, added to
    /// `residual`. `y` is room for what is between, heads · head_dim columns.
    #[allow(clippy::too_many_arguments)]
    fn scan_gate_project<'a>(
        &self,
        rows: usize,
        inputs: SsdStageInputs<'_, Self::Buffer>,
        recurrence: &Recurrence<Self>,
        memories: impl Iterator<Item = StepMemory<'a, Self>>,
        stages: GatedProjection<'_, Self>,
        y: &mut Self::Buffer,
        residual: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<bool>
    where
        Self: 'a,
    {
        let _ = (rows, inputs, recurrence, memories, stages, y, residual);
        Ok(false)
    }

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
