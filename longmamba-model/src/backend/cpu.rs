mod buffer;
mod matrix;
mod options;
mod pages;
mod products;
mod profile;
mod views;

use super::{
    Activation, AttentionInputs, Backend, Columns, ColumnsMut, Conv, DeltaSums, Linear, Norm,
    Position, Purpose, Recurrence, ScanInputs, SsdStageInputs,
};
use crate::config::Rope;
use crate::{Result, large};
pub use buffer::CpuBuffer;
use longmamba_core::{
    AlignedVec, ChannelStats, DType, SelectiveScan, SelectiveScanInputs, SelectiveScanOut, Ssd,
    SsdInputs, SsdOut, Tensor, View, ViewMut,
};
use longmamba_cpu::{AttentionArgs, IsaKind, KV_PAGE, Quantized, Rotation, Scratch, keep_awake};
pub use matrix::CpuMatrix;
pub use options::CpuBackend;
use pages::CpuPages;
pub use profile::{Profile, Spent, Stage};
use std::sync::Arc;
use views::start;

type Buffer = CpuBuffer;

fn stats(sums: &mut DeltaSums) -> Option<ChannelStats<'_>> {
    let DeltaSums { delta_sum, kept_sum, kept } = sums;
    Some(ChannelStats { delta_sum, kept_sum, kept })
}

impl Backend for CpuBackend {
    type Buffer = Buffer;
    type Matrix = CpuMatrix;
    type Vector = Arc<AlignedVec<f32>>;
    type Sums = DeltaSums;
    type Pages = CpuPages;
    type Scratch = Scratch;
    type Recording = ();

    fn keeps_weights(&self) -> bool {
        self.quantization.is_none()
    }

    /// So few that what one stage gives is still in a cache for the next, in whole tiles of a product and chunks
    /// of SSD; and the same with any number of threads, because results are rounded by it. With AMX products are so
    /// fast that they wait for the weights instead, and more tokens share those.
    fn chunk_len(&self) -> usize {
        if self.rounds && self.cpu.isa() == IsaKind::Amx { 512 } else { 192 }
    }

    fn matrix(&self, weight: Tensor) -> Result<CpuMatrix> {
        Ok(CpuMatrix::InPlace(weight))
    }

    fn for_products(&self, weight: CpuMatrix) -> Result<CpuMatrix> {
        let (Some(kind), CpuMatrix::InPlace(tensor)) = (self.quantization, &weight) else {
            return Ok(weight);
        };
        let quantized = self.run(|| Quantized::new(kind, tensor.any_view()?))?;
        Ok(CpuMatrix::Quantized(Arc::new(quantized)))
    }

    fn own(&self, weight: &CpuMatrix, purpose: Purpose) -> Result<Option<CpuMatrix>> {
        let CpuMatrix::InPlace(tensor) = weight else { return Ok(Some(weight.clone())) };
        let bytes = tensor.bytes().len();
        // Of `f16` there are no panels.
        if tensor.dtype() != DType::F16 && purpose == Purpose::Products && bytes >= self.packed_from
        {
            return self.run(|| matrix::packed(self.cpu, tensor, self.compact));
        }
        match bytes {
            // It is in memory of its own as it is.
            ..large::LARGE => Ok(Some(weight.clone())),
            _ => self.run(|| matrix::copied(tensor)),
        }
    }

    fn vector(&self, weight: AlignedVec<f32>) -> Result<Self::Vector> {
        Ok(Arc::new(weight))
    }

    fn read_vector(&self, vector: &Self::Vector) -> Result<Vec<f32>> {
        Ok(vector.to_vec())
    }

    fn buffer(&self, len: usize) -> Result<Buffer> {
        Ok(CpuBuffer::zeros(len))
    }

    fn state(&self, len: usize) -> Result<Buffer> {
        Ok(CpuBuffer::resident(len))
    }

    fn read(&self, buffer: &Buffer, first: usize, out: &mut [f32]) -> Result<()> {
        out.copy_from_slice(&buffer[first..first + out.len()]);
        Ok(())
    }

    fn write(&self, values: &[f32], buffer: &mut Buffer) -> Result<()> {
        buffer[..values.len()].copy_from_slice(values);
        Ok(())
    }

    fn sums(&self, channels: usize) -> Result<DeltaSums> {
        Ok(DeltaSums::new(channels))
    }

    fn read_sums(&self, sums: &DeltaSums) -> Result<DeltaSums> {
        Ok(sums.clone())
    }

    fn write_sums(&self, values: &DeltaSums, sums: &mut DeltaSums) -> Result<()> {
        sums.clone_from(values);
        Ok(())
    }

    fn repeat(&self, (): &mut (), _: &[u64], work: impl FnOnce() -> Result<()>) -> Result<()> {
        work()
    }

    fn positions(&self, _: &mut Scratch, _: impl ExactSizeIterator<Item = usize>) -> Result<()> {
        Ok(())
    }

    fn sequences_at_once(&self) -> usize {
        // Stages are timed one by one.
        if self.profile.is_some() { 1 } else { self.threads() }
    }

    fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let work = || keep_awake(work);
        match &self.pool {
            Some(pool) => pool.install(work),
            // From outside of a pool every stage would have to wake it up.
            None => rayon::scope(|_| work()),
        }
    }

    fn embedding(
        &self,
        _: &mut Scratch,
        table: &CpuMatrix,
        tokens: &[u32],
        mut out: ColumnsMut<'_, Buffer>,
    ) -> Result<()> {
        let table = table.in_place()?;
        let [_, width] = table.shape();
        self.timed(
            tokens.len(),
            "embedding",
            [width, 0, 0],
            profile::rows(tokens.len(), 0, 0, 2 * width),
            || Ok(self.cpu.gather_rows(table, tokens, out.rows(tokens.len())?)?),
        )
    }

    fn copy(
        &self,
        rows: usize,
        x: Columns<'_, Buffer>,
        accumulate: bool,
        mut out: ColumnsMut<'_, Buffer>,
    ) -> Result<()> {
        self.timed(rows, "copy", [x.width, 0, 0], profile::rows(rows, 0, 0, 2 * x.width), || {
            match accumulate {
                true => Ok(self.cpu.add(x.rows(rows)?, out.rows(rows)?)?),
                false => Ok(self.cpu.copy(x.rows(rows)?, out.rows(rows)?)?),
            }
        })
    }

    fn norm(
        &self,
        rows: usize,
        x: Columns<'_, Buffer>,
        norm: &Norm<Self>,
        mut out: ColumnsMut<'_, Buffer>,
    ) -> Result<()> {
        self.timed(rows, "norm", [x.width, 0, 0], profile::norm(rows, x.width), || {
            let normed = products::normed(x.rows(rows)?, norm)?;
            Ok(self.cpu.normed(normed, out.rows(rows)?)?)
        })
    }

    fn project(
        &self,
        scratch: &mut Scratch,
        rows: usize,
        x: Columns<'_, Buffer>,
        linear: &Linear<Self>,
        accumulate: bool,
        out: ColumnsMut<'_, Buffer>,
    ) -> Result<()> {
        self.product(scratch, rows, x, linear, accumulate, out)
    }

    fn norm_project(
        &self,
        scratch: &mut Scratch,
        rows: usize,
        x: Columns<'_, Buffer>,
        norm: &Norm<Self>,
        linear: &Linear<Self>,
        out: ColumnsMut<'_, Buffer>,
    ) -> Result<bool> {
        self.normed_product(scratch, rows, x, norm, linear, out)
    }

    fn gated_norm_project(
        &self,
        scratch: &mut Scratch,
        rows: usize,
        y: Columns<'_, Buffer>,
        z: Columns<'_, Buffer>,
        norm: &Norm<Self>,
        group: usize,
        linear: &Linear<Self>,
        out: ColumnsMut<'_, Buffer>,
    ) -> Result<bool> {
        self.gated_product(scratch, rows, y, z, norm, group, linear, out)
    }

    fn conv1d(
        &self,
        rows: usize,
        x: Columns<'_, Buffer>,
        conv: &Conv<Self>,
        history: &mut Buffer,
        mut out: ColumnsMut<'_, Buffer>,
    ) -> Result<()> {
        self.timed(
            rows,
            "conv1d",
            [conv.channels, conv.width, 0],
            profile::rows(rows, 2 * conv.width * conv.channels, conv.channels, 2 * conv.channels),
            || {
                let Conv { channels, width, .. } = *conv;
                let weight = View::new(&conv.weight, [width, channels])?.permute([1, 0])?;
                let bias = conv.bias.as_ref().map(|b| &b[..]);
                let history = start(history, [1, width - 1, channels])?;
                let (x, out) = (x.sequence(rows)?, out.sequence(rows)?);
                match conv.silu {
                    true => Ok(self.cpu.causal_conv1d(x, weight, bias, history, out, None)?),
                    false => {
                        Ok(self.cpu.causal_conv1d_linear(x, weight, bias, history, out, None)?)
                    }
                }
            },
        )
    }

    fn selective_scan(
        &self,
        rows: usize,
        inputs: ScanInputs<'_, Buffer>,
        recurrence: &Recurrence<Self>,
        delta_min: Option<&Self::Vector>,
        state: &mut Buffer,
        sums: &mut DeltaSums,
        mut y: ColumnsMut<'_, Buffer>,
    ) -> Result<()> {
        self.timed(
            rows,
            "selective_scan",
            [inputs.x.width, inputs.b.width, 0],
            profile::with_state(
                profile::rows(
                    rows,
                    6 * inputs.x.width * (inputs.b.width + 1),
                    inputs.x.width * (inputs.b.width + 3),
                    4 * inputs.x.width + 2 * inputs.b.width,
                ),
                inputs.x.width * inputs.b.width,
            ),
            || {
                let (d_inner, d_state) = (inputs.x.width, inputs.b.width);
                let args = SelectiveScan::new(SelectiveScanInputs {
                    x: inputs.x.sequence(rows)?,
                    dt_raw: inputs.dt_raw.sequence(rows)?,
                    a: View::new(&recurrence.a, [d_state, d_inner])?.permute([1, 0])?,
                    b: inputs.b.sequence(rows)?,
                    c: inputs.c.sequence(rows)?,
                    z: Some(inputs.z.sequence(rows)?),
                    d: Some(&recurrence.d),
                    dt_bias: Some(&recurrence.dt_bias),
                    delta_min: delta_min.map(|d| &d[..]),
                    dt_limits: recurrence.dt_limits,
                    lengths: None,
                })?;
                let out = SelectiveScanOut {
                    y: y.sequence(rows)?,
                    state: start(state, [1, d_state, d_inner])?.permute([0, 2, 1])?,
                    stats: stats(sums),
                };
                Ok(self.cpu.selective_scan(&args, out)?)
            },
        )
    }

    fn ssd(
        &self,
        scratch: &mut Scratch,
        rows: usize,
        inputs: SsdStageInputs<'_, Buffer>,
        recurrence: &Recurrence<Self>,
        delta_min: Option<&Self::Vector>,
        state: &mut Buffer,
        sums: &mut DeltaSums,
        mut y: ColumnsMut<'_, Buffer>,
    ) -> Result<()> {
        self.timed(
            rows,
            "ssd",
            [inputs.x.width, inputs.b.width / inputs.groups, inputs.heads],
            profile::ssd(rows, &inputs, self.rounds),
            || {
                let SsdStageInputs { x, heads, groups, .. } = inputs;
                let (head_dim, d_state) = (x.width / heads, inputs.b.width / groups);
                let args = Ssd::new(SsdInputs {
                    x: x.parts(rows, heads)?,
                    dt_raw: inputs.dt_raw.sequence(rows)?,
                    a: &recurrence.a,
                    b: inputs.b.parts(rows, groups)?,
                    c: inputs.c.parts(rows, groups)?,
                    d: Some(&recurrence.d),
                    dt_bias: Some(&recurrence.dt_bias),
                    delta_min: delta_min.map(|d| &d[..]),
                    dt_limits: recurrence.dt_limits,
                    lengths: None,
                })?;
                let out = SsdOut {
                    y: y.parts(rows, heads)?,
                    state: start(state, [1, heads, d_state, head_dim])?.permute([0, 1, 3, 2])?,
                    stats: stats(sums),
                };
                Ok(match self.rounds && recurrence.dtype == DType::BF16 {
                    true => self.cpu.ssd_bf16(&args, out, scratch),
                    false => self.cpu.ssd(&args, out, scratch),
                }?)
            },
        )
    }

    fn gated_norm(
        &self,
        rows: usize,
        y: Columns<'_, Buffer>,
        z: Columns<'_, Buffer>,
        norm: &Norm<Self>,
        group: usize,
        mut out: ColumnsMut<'_, Buffer>,
    ) -> Result<()> {
        self.timed(
            rows,
            "gated_norm",
            [y.width, group, 0],
            profile::gated_norm(rows, y.width),
            || {
                let (y, z, out) = (y.rows(rows)?, z.rows(rows)?, out.rows(rows)?);
                Ok(self.cpu.gated_rms_norm(y, z, &norm.weight, group, norm.eps, out)?)
            },
        )
    }

    fn gate(
        &self,
        rows: usize,
        y: Columns<'_, Buffer>,
        z: Columns<'_, Buffer>,
        activation: Activation,
        mut out: ColumnsMut<'_, Buffer>,
    ) -> Result<()> {
        self.timed(
            rows,
            "gate",
            [y.width, 0, 0],
            profile::rows(rows, y.width, y.width, 3 * y.width),
            || Ok(self.cpu.gate(y.rows(rows)?, z.rows(rows)?, activation, out.rows(rows)?)?),
        )
    }

    fn rope(
        &self,
        _: &Scratch,
        rows: usize,
        mut x: ColumnsMut<'_, Buffer>,
        head_dim: usize,
        rope: Rope,
        Position { position, .. }: Position,
    ) -> Result<()> {
        let Rope { base, width, interleaved } = rope;
        let rotation = Rotation { head_dim, width, base, interleaved, position };
        Ok(self.cpu.rope(x.rows(rows)?, rotation)?)
    }

    fn pages(&self, kv_heads: usize, head_dim: usize) -> Result<CpuPages> {
        Ok(CpuPages::new(kv_heads, head_dim))
    }

    fn arrange_pages(
        &self,
        pages: &mut CpuPages,
        unused: usize,
        count: usize,
        first: usize,
    ) -> Result<bool> {
        pages.arrange(unused, count, first);
        Ok(false)
    }

    fn fill_pages(
        &self,
        _: &Scratch,
        rows: usize,
        keys: Columns<'_, Buffer>,
        values: Columns<'_, Buffer>,
        pages: &mut CpuPages,
        Position { position, .. }: Position,
    ) -> Result<()> {
        pages.fill(keys.rows(rows)?, values.rows(rows)?, position)
    }

    fn read_page(
        &self,
        pages: &CpuPages,
        index: usize,
        keys: &mut [f32],
        values: &mut [f32],
    ) -> Result<()> {
        let page = &pages.pages[index];
        let width = page.width().max(1);
        let rows = keys.chunks_exact_mut(width).zip(values.chunks_exact_mut(width));
        for (row, (keys, values)) in rows.take(KV_PAGE).enumerate() {
            page.read(row, keys, values);
        }
        Ok(())
    }

    fn write_page(
        &self,
        keys: &[f32],
        values: &[f32],
        pages: &mut CpuPages,
        index: usize,
    ) -> Result<()> {
        let page = &mut pages.pages[index];
        let shape = [KV_PAGE, page.width()];
        Ok(page.fill(0, View::new(keys, shape)?, View::new(values, shape)?)?)
    }

    fn attention(
        &self,
        scratch: &mut Scratch,
        rows: usize,
        inputs: AttentionInputs<'_, Self>,
        mut out: ColumnsMut<'_, Buffer>,
    ) -> Result<()> {
        self.timed(
            rows,
            "attention",
            [inputs.q.width, inputs.heads, 0],
            profile::rows(rows, 0, 0, 2 * inputs.q.width),
            || {
                let args = AttentionArgs {
                    q: inputs.q.rows(rows)?,
                    heads: inputs.heads,
                    pages: &inputs.pages.pages,
                    first: inputs.pages.first,
                    position: inputs.position.position,
                    window: inputs.window,
                    scale: inputs.scale,
                };
                Ok(self.cpu.attention(&args, out.rows(rows)?, scratch)?)
            },
        )
    }

    fn delta(
        &self,
        rows: usize,
        dt_raw: Columns<'_, Buffer>,
        recurrence: &Recurrence<Self>,
        out: &mut [f32],
    ) -> Result<()> {
        let out = ViewMut::new(out, [1, rows, dt_raw.width])?;
        let bias = Some(&recurrence.dt_bias[..]);
        Ok(self.cpu.delta(dt_raw.sequence(rows)?, bias, recurrence.dt_limits, out)?)
    }
}
