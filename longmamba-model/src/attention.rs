//! Attention layers: what Zamba2's shared blocks and `mamba2attn`'s layers have in common, and the
//! latter.

use crate::Result;
use crate::backend::{
    Activation, AttentionInputs, Backend, Columns, ColumnsMut, Conv, Linear, Position,
};
use crate::config::AttentionConfig;
use crate::load::Loader;
use crate::model::Step;
use crate::workspace::Workspace;

/// Attention of the q, k and v in `work.qkv` (rows of `stride`), to `work.attended`: rotation, the new
/// keys and values into the cache of attention layer `index`, softmax.
pub(crate) fn attend<B: Backend>(
    step: &mut Step<'_, B>,
    config: &AttentionConfig,
    index: usize,
    stride: usize,
) -> Result<()> {
    let Step { backend, work, segments, sequences, .. } = step;
    let Workspace { scratch, qkv, attended, .. } = &mut **work;
    let (q_width, kv_width) = (config.q_width(), config.kv_width());
    for (segment, s) in segments.iter().enumerate() {
        let sequence = &mut sequences[s.sequence];
        let position = Position { position: sequence.position, segment };
        if let Some(rope) = config.rope {
            // q and k lie side by side, in heads of one width.
            let qk = ColumnsMut::all(qkv, stride).part(0, q_width + kv_width).skip_rows(s.first);
            backend.rope(scratch, s.rows, qk, config.head_dim, rope, position)?;
        }
        let all = Columns::all(&*qkv, stride).skip_rows(s.first);
        let (keys, values) = (all.part(q_width, kv_width), all.part(q_width + kv_width, kv_width));
        let cache = &mut sequence.caches[index];
        backend.fill_pages(scratch, s.rows, keys, values, &mut cache.pages, position)?;
        let inputs = AttentionInputs {
            q: all.part(0, q_width),
            pages: &cache.pages,
            position,
            window: cache.window(),
            heads: config.heads,
            scale: config.scale,
        };
        let out = ColumnsMut::all(attended, q_width + config.d_mlp).part(0, q_width);
        backend.attention(scratch, s.rows, inputs, out.skip_rows(s.first))?;
    }
    Ok(())
}

/// An attention layer of `mamba2attn`: in_proj → conv → attention, a gated MLP beside it → out_proj.
#[derive(Debug)]
pub(crate) struct Attention<B: Backend> {
    config: AttentionConfig,
    /// d_model → q, k, v, the MLP's value and gate.
    in_proj: Linear<B>,
    conv: Option<Conv<B>>,
    /// The heads' and the MLP's columns → d_model.
    out_proj: Linear<B>,
}

impl<B: Backend> Attention<B> {
    pub(crate) fn load(
        loader: &mut Loader<'_, B>,
        config: AttentionConfig,
        name: &str,
    ) -> Result<Self> {
        let (d_model, qkv) = (loader.config.d_model, config.qkv_width());
        let (in_proj, out_proj) = (format!("{name}.in_proj"), format!("{name}.out_proj"));
        let conv = match config.d_conv {
            0 => None,
            taps => Some(loader.conv(&format!("{name}.conv1d"), qkv, taps, true, false)?),
        };
        let projected = qkv + 2 * config.d_mlp;
        let gathered = config.q_width() + config.d_mlp;
        Ok(Attention {
            config,
            in_proj: loader.linear(&in_proj, projected, d_model, config.qkv_bias)?,
            conv,
            out_proj: loader.linear(&out_proj, d_model, gathered, config.out_bias)?,
        })
    }

    /// One chunk, from `work.normed` to the residual stream; `index` counts the attention layers.
    pub(crate) fn forward(&self, step: &mut Step<'_, B>, index: usize) -> Result<()> {
        let (qkv_width, d_mlp) = (self.config.qkv_width(), self.config.d_mlp);
        let width = self.in_proj.outputs;
        let Step { backend, rows, work, segments, sequences } = step;
        let (backend, rows) = (*backend, *rows);
        let Workspace { scratch, normed, projected, qkv, attended, .. } = &mut **work;
        let u = Columns::all(&*normed, self.in_proj.inputs);
        backend.project(
            scratch,
            rows,
            u,
            &self.in_proj,
            false,
            ColumnsMut::all(projected, width),
        )?;
        let all = Columns::all(&*projected, width);
        let from = all.part(0, qkv_width);
        match &self.conv {
            None => backend.copy(rows, from, false, ColumnsMut::all(qkv, qkv_width))?,
            Some(conv) => {
                for s in &**segments {
                    let history = &mut sequences[s.sequence].caches[index].conv_history;
                    let out = ColumnsMut::all(qkv, qkv_width).skip_rows(s.first);
                    backend.conv1d(s.rows, from.skip_rows(s.first), conv, history, out)?;
                }
            }
        }
        if d_mlp > 0 {
            let (value, gate) = (all.part(qkv_width, d_mlp), all.part(qkv_width + d_mlp, d_mlp));
            let out = ColumnsMut::all(attended, self.out_proj.inputs);
            let out = out.part(self.config.q_width(), d_mlp);
            backend.gate(rows, value, gate, Activation::Silu, out)?;
        }
        attend(step, &self.config, index, qkv_width)?;
        let Step { work, .. } = step;
        let Workspace { scratch, attended, hidden, .. } = &mut **work;
        let gathered = Columns::all(&*attended, self.out_proj.inputs);
        let residual = ColumnsMut::all(hidden, self.out_proj.outputs);
        backend.project(scratch, rows, gathered, &self.out_proj, true, residual)
    }
}
