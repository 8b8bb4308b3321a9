mod draw;
mod memory;
mod options;
mod step;

use super::{
    Activation, AttentionInputs, Backend, Columns, ColumnsMut, Conv, DeltaSums, GatedProjection,
    Linear, Norm, NormedConv, Position, Recurrence, ScanInputs, SelectScan, SsdStageInputs,
    StepMemory,
};
use crate::Result;
use crate::config::Rope;
use crate::sample::SampleOptions;
use draw::DrawScratch;
use longmamba_core::{AlignedVec, Tensor};
use longmamba_cuda::{
    AttentionArgs, Buffer, CausalConv1dInputs, KvPages, Matrix, Positions, Rotation, RowsMut,
    SelectiveScanInputs, SsdInputs,
};
pub use memory::{CudaRecording, CudaScratch, CudaSums};
use memory::{room, stored};
pub use options::CudaBackend;
use std::sync::{Arc, PoisonError};

impl Backend for CudaBackend {
    type Buffer = Buffer<f32>;
    type Matrix = Matrix;
    type Vector = Arc<Buffer<f32>>;
    type Sums = CudaSums;
    type Pages = KvPages;
    type Scratch = CudaScratch;
    type Recording = CudaRecording;

    fn chunk_len(&self) -> usize {
        512
    }

    fn keeps_weights(&self) -> bool {
        false
    }

    fn matrix(&self, weight: Tensor) -> Result<Self::Matrix> {
        Ok(Matrix::upload(&self.device, weight.any_view()?)?)
    }

    fn vector(&self, weight: AlignedVec<f32>) -> Result<Self::Vector> {
        Ok(Arc::new(self.device.upload(&weight)?))
    }

    fn loaded(&self) {
        self.device.free_staging();
    }

    fn read_vector(&self, vector: &Self::Vector) -> Result<Vec<f32>> {
        Ok(vector.to_vec()?)
    }

    fn buffer(&self, len: usize) -> Result<Self::Buffer> {
        Ok(self.device.zeros(len)?)
    }

    fn read(&self, buffer: &Self::Buffer, first: usize, out: &mut [f32]) -> Result<()> {
        Ok(buffer.read(first, out)?)
    }

    fn write(&self, values: &[f32], buffer: &mut Self::Buffer) -> Result<()> {
        Ok(buffer.write(values, 0)?)
    }

    fn sums(&self, channels: usize) -> Result<CudaSums> {
        Ok(CudaSums {
            delta_sum: self.device.zeros(channels)?,
            kept_sum: self.device.zeros(channels)?,
            kept: self.device.zeros(channels)?,
        })
    }

    fn read_sums(&self, sums: &CudaSums) -> Result<DeltaSums> {
        let (delta_sum, kept_sum) = (sums.delta_sum.to_vec()?, sums.kept_sum.to_vec()?);
        Ok(DeltaSums { delta_sum, kept_sum, kept: sums.kept.to_vec()? })
    }

    fn write_sums(&self, values: &DeltaSums, sums: &mut CudaSums) -> Result<()> {
        sums.delta_sum.write(&values.delta_sum, 0)?;
        sums.kept_sum.write(&values.kept_sum, 0)?;
        Ok(sums.kept.write(&values.kept, 0)?)
    }

    fn repeat(
        &self,
        recording: &mut CudaRecording,
        key: &[u64],
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        if recording.key != key || key.is_empty() {
            // Done once as it is: that loads the kernels and makes room in the scratch.
            recording.graph = None;
            recording.key.clear();
            work()?;
            recording.key.extend_from_slice(key);
            return Ok(());
        }
        if recording.graph.is_none() {
            recording.graph = self.device.capture(work)?;
        }
        match &mut recording.graph {
            Some(graph) => Ok(graph.launch()?),
            None => Ok(()),
        }
    }

    fn positions(
        &self,
        scratch: &mut CudaScratch,
        positions: impl ExactSizeIterator<Item = usize>,
    ) -> Result<()> {
        let stored = match scratch.positions.take() {
            Some(stored) if stored.len() >= positions.len() => stored,
            _ => Positions::new(&self.device, positions.len().next_power_of_two())?,
        };
        Ok(scratch.positions.insert(stored).set(positions)?)
    }

    fn sequences_at_once(&self) -> usize {
        1
    }

    fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        // What a panic left behind is checked by whoever caught it.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    fn embedding(
        &self,
        scratch: &mut CudaScratch,
        table: &Self::Matrix,
        tokens: &[u32],
        out: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<()> {
        let drawn = scratch.drawn.take();
        let buffer = room(&mut scratch.tokens, &self.device, tokens.len())?;
        // A token that was drawn here is here.
        if tokens != drawn.as_slice() {
            buffer.write(tokens, 0)?;
        }
        Ok(table.gather_rows(buffer, tokens.len(), out.rows())?)
    }

    fn copy(
        &self,
        rows: usize,
        x: Columns<'_, Self::Buffer>,
        accumulate: bool,
        out: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<()> {
        Ok(self.device.copy(rows, x.rows(), accumulate, out.rows())?)
    }

    fn norm(
        &self,
        rows: usize,
        x: Columns<'_, Self::Buffer>,
        norm: &Norm<Self>,
        out: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<()> {
        let (x, out) = (x.rows(), out.rows());
        match &norm.bias {
            None => Ok(self.device.rms_norm(rows, x, &norm.weight, norm.eps, out)?),
            Some(bias) => Ok(self.device.layer_norm(rows, x, &norm.weight, bias, norm.eps, out)?),
        }
    }

    fn project(
        &self,
        _: &mut Self::Scratch,
        rows: usize,
        x: Columns<'_, Self::Buffer>,
        linear: &Linear<Self>,
        accumulate: bool,
        out: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<()> {
        self.product(rows, x, linear, accumulate, out)
    }

    fn conv1d(
        &self,
        rows: usize,
        x: Columns<'_, Self::Buffer>,
        conv: &Conv<Self>,
        history: &mut Self::Buffer,
        out: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<()> {
        let inputs = CausalConv1dInputs {
            batch: 1,
            x: x.rows(),
            width: conv.width,
            weight: &conv.weight,
            bias: conv.bias.as_deref(),
            silu: conv.silu,
            lengths: None,
        };
        Ok(self.device.causal_conv1d(rows, inputs, history, out.rows())?)
    }

    fn selective_scan(
        &self,
        rows: usize,
        inputs: ScanInputs<'_, Self::Buffer>,
        recurrence: &Recurrence<Self>,
        delta_min: Option<&Self::Vector>,
        state: &mut Self::Buffer,
        sums: &mut CudaSums,
        y: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<()> {
        let inputs = SelectiveScanInputs {
            batch: 1,
            x: inputs.x.rows(),
            dt_raw: inputs.dt_raw.rows(),
            b: inputs.b.rows(),
            c: inputs.c.rows(),
            z: Some(inputs.z.rows()),
            a: &recurrence.a,
            d: Some(&recurrence.d),
            dt_bias: Some(&recurrence.dt_bias),
            delta_min: delta_min.map(|d| &**d),
            dt_limits: recurrence.dt_limits,
            lengths: None,
        };
        Ok(self.device.selective_scan(rows, inputs, y.rows(), state, sums.all())?)
    }

    fn ssd(
        &self,
        scratch: &mut CudaScratch,
        rows: usize,
        inputs: SsdStageInputs<'_, Self::Buffer>,
        recurrence: &Recurrence<Self>,
        delta_min: Option<&Self::Vector>,
        state: &mut Self::Buffer,
        sums: &mut CudaSums,
        y: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<()> {
        let scratch = scratch.ssd.get_or_insert_default();
        let inputs = SsdInputs {
            batch: 1,
            heads: inputs.heads,
            groups: inputs.groups,
            x: inputs.x.rows(),
            dt_raw: inputs.dt_raw.rows(),
            b: inputs.b.rows(),
            c: inputs.c.rows(),
            a: &recurrence.a,
            d: Some(&recurrence.d),
            dt_bias: Some(&recurrence.dt_bias),
            delta_min: delta_min.map(|d| &**d),
            dt_limits: recurrence.dt_limits,
            lengths: None,
            precision: self.precision(recurrence.dtype),
        };
        Ok(self.device.ssd(rows, inputs, y.rows(), state, sums.all(), scratch)?)
    }

    fn gated_norm(
        &self,
        rows: usize,
        y: Columns<'_, Self::Buffer>,
        z: Columns<'_, Self::Buffer>,
        norm: &Norm<Self>,
        group: usize,
        out: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<()> {
        let (y, z, out) = (y.rows(), z.rows(), out.rows());
        Ok(self.device.gated_rms_norm(rows, y, z, &norm.weight, group, norm.eps, out)?)
    }

    fn gate(
        &self,
        rows: usize,
        y: Columns<'_, Self::Buffer>,
        z: Columns<'_, Self::Buffer>,
        activation: Activation,
        out: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<()> {
        let activation = match activation {
            Activation::Silu => longmamba_cuda::Activation::Silu,
            Activation::Gelu => longmamba_cuda::Activation::Gelu,
        };
        Ok(self.device.gate(rows, y.rows(), z.rows(), activation, out.rows())?)
    }

    fn rope(
        &self,
        scratch: &CudaScratch,
        rows: usize,
        x: ColumnsMut<'_, Self::Buffer>,
        head_dim: usize,
        rope: Rope,
        position: Position,
    ) -> Result<()> {
        let Rope { base, width, interleaved } = rope;
        let rotation = Rotation { head_dim, width, base, interleaved };
        Ok(self.device.rope(rows, x.rows(), rotation, stored(&scratch.positions, position)?)?)
    }

    fn pages(&self, kv_heads: usize, head_dim: usize) -> Result<KvPages> {
        Ok(KvPages::new(&self.device, kv_heads, head_dim)?)
    }

    fn arrange_pages(
        &self,
        pages: &mut KvPages,
        unused: usize,
        count: usize,
        first: usize,
    ) -> Result<bool> {
        Ok(pages.arrange(unused, count, first)?)
    }

    fn fill_pages(
        &self,
        scratch: &CudaScratch,
        rows: usize,
        keys: Columns<'_, Self::Buffer>,
        values: Columns<'_, Self::Buffer>,
        pages: &mut KvPages,
        position: Position,
    ) -> Result<()> {
        Ok(pages.fill(rows, keys.rows(), values.rows(), stored(&scratch.positions, position)?)?)
    }

    fn read_page(
        &self,
        pages: &KvPages,
        index: usize,
        keys: &mut [f32],
        values: &mut [f32],
    ) -> Result<()> {
        Ok(pages.read(index, keys, values)?)
    }

    fn write_page(
        &self,
        keys: &[f32],
        values: &[f32],
        pages: &mut KvPages,
        index: usize,
    ) -> Result<()> {
        Ok(pages.write(index, keys, values)?)
    }

    fn attention(
        &self,
        scratch: &mut CudaScratch,
        rows: usize,
        inputs: AttentionInputs<'_, Self>,
        out: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<()> {
        let CudaScratch { positions, attention, .. } = scratch;
        let args = AttentionArgs {
            q: inputs.q.rows(),
            heads: inputs.heads,
            pages: inputs.pages,
            position: stored(positions, inputs.position)?,
            window: inputs.window,
            scale: inputs.scale,
        };
        let scratch = attention.get_or_insert_default();
        Ok(self.device.attention(rows, args, out.rows(), scratch)?)
    }

    fn delta(
        &self,
        rows: usize,
        dt_raw: Columns<'_, Self::Buffer>,
        recurrence: &Recurrence<Self>,
        out: &mut [f32],
    ) -> Result<()> {
        let width = dt_raw.width;
        let mut delta = self.device.zeros(rows * width)?;
        let (bias, to) = (Some(&*recurrence.dt_bias), RowsMut::all(&mut delta, width));
        self.device.delta(rows, dt_raw.rows(), bias, recurrence.dt_limits, to)?;
        Ok(delta.read(0, out)?)
    }

    fn norm_project(
        &self,
        _: &mut Self::Scratch,
        rows: usize,
        x: Columns<'_, Self::Buffer>,
        norm: &Norm<Self>,
        linear: &Linear<Self>,
        out: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<bool> {
        self.normed_product(rows, x, norm, linear, out)
    }

    fn norm_project_conv<'a>(
        &self,
        rows: usize,
        x: Columns<'_, Self::Buffer>,
        stages: NormedConv<'_, Self>,
        memories: impl Iterator<Item = StepMemory<'a, Self>>,
        out: ColumnsMut<'_, Self::Buffer>,
        conv_out: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<bool> {
        self.normed_conv(rows, x, stages, memories, out, conv_out)
    }

    fn select_scan<'a>(
        &self,
        rows: usize,
        stages: SelectScan<'_, Self>,
        memories: impl Iterator<Item = StepMemory<'a, Self>>,
        dt_raw: ColumnsMut<'_, Self::Buffer>,
        y: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<bool> {
        self.selective_step(rows, stages, memories, dt_raw, y)
    }

    fn scan_gate_project<'a>(
        &self,
        rows: usize,
        inputs: SsdStageInputs<'_, Self::Buffer>,
        recurrence: &Recurrence<Self>,
        memories: impl Iterator<Item = StepMemory<'a, Self>>,
        stages: GatedProjection<'_, Self>,
        y: &mut Self::Buffer,
        residual: ColumnsMut<'_, Self::Buffer>,
    ) -> Result<bool> {
        self.ssd_step(rows, inputs, recurrence, memories, stages, y, residual)
    }

    fn sample(
        &self,
        scratch: &mut CudaScratch,
        logits: Columns<'_, Self::Buffer>,
        options: &SampleOptions,
        uniform: f64,
    ) -> Result<Option<u32>> {
        let CudaScratch { tokens, drawn, draw, .. } = scratch;
        *drawn = None;
        let tokens = room(tokens, &self.device, 1)?;
        let draw = match draw {
            Some(draw) => draw,
            None => draw.insert(DrawScratch::new(&self.device)?),
        };
        *drawn = draw.draw(logits.rows(), options, uniform, tokens)?;
        Ok(*drawn)
    }
}
