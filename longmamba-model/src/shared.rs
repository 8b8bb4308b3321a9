//! Zamba2's transformer blocks (arXiv 2411.15242): a few, each used by several layers, each use with
//! adapters of its own.
//!
//! A block reads the residual stream and the token's embedding side by side; what it gives goes, through
//! a projection of the layer's own, to the input of the layer's mixer, not to the residual stream.

use crate::attention::attend;
use crate::backend::{Activation, Backend, Columns, ColumnsMut, Linear, Norm};
use crate::config::{AttentionConfig, SharedConfig};
use crate::load::Loader;
use crate::model::Step;
use crate::workspace::Workspace;
use crate::{Error, Result};
use std::sync::Arc;

/// The weights that all uses of a block share.
#[derive(Debug)]
struct Block<B: Backend> {
    input_norm: Norm<B>,
    /// 2 · d_model → q, k and v.
    qkv: [Linear<B>; 3],
    o_proj: Linear<B>,
    mlp_norm: Norm<B>,
    /// d_model → gate, value.
    gate_up: Linear<B>,
    down: Linear<B>,
}

/// A low-rank addition to a linear map.
#[derive(Debug)]
struct Adapter<B: Backend> {
    down: Linear<B>,
    up: Linear<B>,
}

/// One use of a block, by one layer.
#[derive(Debug)]
pub(crate) struct SharedCall<B: Backend> {
    attention: AttentionConfig,
    d_model: usize,
    block: Arc<Block<B>>,
    qkv_adapters: Option<[Adapter<B>; 3]>,
    mlp_adapter: Adapter<B>,
    /// The layer's own projection of what the block gives.
    linear: Linear<B>,
}

/// The blocks that have been loaded, by where they are kept.
pub(crate) struct Blocks<B: Backend>(Vec<(String, Arc<Block<B>>)>);

impl<B: Backend> Default for Blocks<B> {
    fn default() -> Self {
        Blocks(Vec::new())
    }
}

impl<B: Backend> SharedCall<B> {
    /// `home` is where the block's tensors are; `call` counts the hybrid layers, `layer` is the
    /// layer's own prefix.
    pub(crate) fn load(
        loader: &mut Loader<'_, B>,
        blocks: &mut Blocks<B>,
        home: &str,
        call: usize,
        layer: &str,
    ) -> Result<Self> {
        let (Some(attention), Some(shared)) = (loader.config.attention, loader.config.shared)
        else {
            return Err(Error::argument("a hybrid layer without a shared block in its config"));
        };
        let d_model = loader.config.d_model;
        let block = match blocks.0.iter().find(|(name, _)| name == home) {
            Some((_, block)) => block.clone(),
            None => {
                let block = Arc::new(Block::load(loader, home, &attention, &shared)?);
                blocks.0.push((home.to_owned(), block.clone()));
                block
            }
        };
        let wide = 2 * d_model;
        let mut adapter = |part: &str, inputs: usize, outputs: usize| {
            let name = |half: usize| format!("{home}.{part}_adapter_list.{call}.{half}");
            let rank = shared.adapter_rank;
            let down = loader.linear(&name(0), rank, inputs, false)?;
            Ok::<_, Error>(Adapter { down, up: loader.linear(&name(1), outputs, rank, false)? })
        };
        let qkv_adapters = match shared.attention_adapters {
            false => None,
            true => Some([
                adapter("self_attn.linear_q", wide, attention.q_width())?,
                adapter("self_attn.linear_k", wide, attention.kv_width())?,
                adapter("self_attn.linear_v", wide, attention.kv_width())?,
            ]),
        };
        let mlp_adapter = adapter("feed_forward.gate_up_proj", d_model, 2 * shared.d_intermediate)?;
        let linear = loader.linear(&format!("{layer}.linear"), d_model, d_model, false)?;
        Ok(SharedCall { attention, d_model, block, qkv_adapters, mlp_adapter, linear })
    }

    /// One chunk: what the mixer reads in addition to `work.hidden`, to `work.mixed`. `index` counts
    /// the attention layers.
    pub(crate) fn forward(&self, step: &mut Step<'_, B>, index: usize) -> Result<()> {
        let (block, width) = (&*self.block, self.d_model);
        let (backend, rows) = (step.backend, step.rows);
        let Workspace { scratch, hidden, paired, paired_normed, low, qkv, .. } = step.work;

        // The embedding has been waiting in the right half since the chunk began.
        let left = ColumnsMut::all(paired, 2 * width).part(0, width);
        backend.copy(rows, Columns::all(&*hidden, width), false, left)?;
        let pair = Columns::all(&*paired, 2 * width);
        let normed = ColumnsMut::all(paired_normed, 2 * width);
        backend.norm(rows, pair, &block.input_norm, normed)?;
        let u = Columns::all(&*paired_normed, 2 * width);

        let stride = self.attention.qkv_width();
        let mut first = 0;
        for (i, linear) in block.qkv.iter().enumerate() {
            let part = (first, linear.outputs);
            let out = ColumnsMut::all(qkv, stride).part(part.0, part.1);
            backend.project(scratch, rows, u, linear, false, out)?;
            if let Some(adapters) = &self.qkv_adapters {
                let out = ColumnsMut::all(qkv, stride).part(part.0, part.1);
                adapters[i].add(backend, scratch, rows, u, low, out)?;
            }
            first += linear.outputs;
        }
        attend(step, &self.attention, index, stride)?;

        let Workspace { scratch, attended, low, mixed, mixed_normed, mlp_up, mlp, .. } = step.work;
        let heads = Columns::all(&*attended, block.o_proj.inputs);
        backend.project(
            scratch,
            rows,
            heads,
            &block.o_proj,
            false,
            ColumnsMut::all(mixed, width),
        )?;
        let (from, to) = (Columns::all(&*mixed, width), ColumnsMut::all(mixed_normed, width));
        backend.norm(rows, from, &block.mlp_norm, to)?;

        let u = Columns::all(&*mixed_normed, width);
        let inner = block.down.inputs;
        backend.project(
            scratch,
            rows,
            u,
            &block.gate_up,
            false,
            ColumnsMut::all(mlp_up, 2 * inner),
        )?;
        self.mlp_adapter.add(backend, scratch, rows, u, low, ColumnsMut::all(mlp_up, 2 * inner))?;
        let up = Columns::all(&*mlp_up, 2 * inner);
        let (gate, value) = (up.part(0, inner), up.part(inner, inner));
        backend.gate(rows, value, gate, Activation::Gelu, ColumnsMut::all(mlp, inner))?;
        let (from, to) = (Columns::all(&*mlp, inner), ColumnsMut::all(mixed_normed, width));
        backend.project(scratch, rows, from, &block.down, false, to)?;

        let (from, to) = (Columns::all(&*mixed_normed, width), ColumnsMut::all(mixed, width));
        backend.project(scratch, rows, from, &self.linear, false, to)
    }
}

impl<B: Backend> Block<B> {
    fn load(
        loader: &mut Loader<'_, B>,
        home: &str,
        attention: &AttentionConfig,
        shared: &SharedConfig,
    ) -> Result<Self> {
        let d_model = loader.config.d_model;
        let (wide, inner, bias) = (2 * d_model, shared.d_intermediate, shared.mlp_bias);
        let part = |part: &str| format!("{home}.{part}");
        let (q, kv) = (attention.q_width(), attention.kv_width());
        Ok(Block {
            input_norm: loader.norm(&part("input_layernorm"), wide)?,
            qkv: [
                loader.linear(&part("self_attn.q_proj"), q, wide, false)?,
                loader.linear(&part("self_attn.k_proj"), kv, wide, false)?,
                loader.linear(&part("self_attn.v_proj"), kv, wide, false)?,
            ],
            o_proj: loader.linear(&part("self_attn.o_proj"), d_model, q, false)?,
            mlp_norm: loader.norm(&part("pre_ff_layernorm"), d_model)?,
            gate_up: loader.linear(&part("feed_forward.gate_up_proj"), 2 * inner, d_model, bias)?,
            down: loader.linear(&part("feed_forward.down_proj"), d_model, inner, bias)?,
        })
    }
}

impl<B: Backend> Adapter<B> {
    /// `out += up(down(u))`.
    fn add(
        &self,
        backend: &B,
        scratch: &mut B::Scratch,
        rows: usize,
        u: Columns<'_, B::Buffer>,
        low: &mut B::Buffer,
        out: ColumnsMut<'_, B::Buffer>,
    ) -> Result<()> {
        let rank = self.down.outputs;
        backend.project(scratch, rows, u, &self.down, false, ColumnsMut::all(low, rank))?;
        backend.project(scratch, rows, Columns::all(&*low, rank), &self.up, true, out)
    }
}
