//! transformers' config of `zamba2`.

use super::values::{Fields, check_dim, check_mamba2};
use super::{
    AttentionConfig, Checked, Config, Format, GateKind, LayerKind, MixerConfig, NormKind, Rope,
    SharedConfig, TokenizerKind,
};
use longmamba_core::DtLimits;
use serde_json::Value;

pub(super) fn config(fields: &Fields<'_>) -> Checked<Config> {
    fields.only("hidden_act", &["gelu"])?;
    if fields.flag("use_long_context", false)? {
        return Err("use_long_context is true; the rescaled rotary base is not supported".into());
    }
    let vocab_size = fields.dim("vocab_size")?;
    let d_model = fields.dim("hidden_size")?;
    let layers = layers(fields)?;
    let bias = fields.flag("add_bias_linear", false)?;

    let heads = fields.dim_or("n_mamba_heads", 8)?;
    let scan_width = fields.expanded("mamba_expand", d_model)?;
    let mixer = MixerConfig::Mamba2 {
        heads,
        head_dim: check_dim("mamba_headdim", Some(scan_width / heads))?,
        groups: fields.dim_or("mamba_ngroups", 1)?,
        d_state: fields.dim_or("mamba_d_state", 64)?,
        d_conv: fields.dim_or("mamba_d_conv", 4)?,
        // The lower limit is the smallest Δ of the initialisation; there is no upper one.
        dt_limits: match fields.float("time_step_min", 0.001)? as f32 {
            min if min >= 0.0 && min.is_finite() => DtLimits { min, max: f32::INFINITY },
            min => return Err(format!("time_step_min is {min}, must be a number ≥ 0")),
        },
        gate: GateKind::Norm,
        d_mlp: 0,
        d_per_element: false,
    };

    let attention_heads = fields.dim("num_attention_heads")?;
    // The blocks read the residual stream and the embedding side by side.
    let head_dim = check_dim("attention_head_dim", Some(2 * d_model / attention_heads))?;
    let parameters = fields.get("rope_parameters").and_then(Fields::of);
    let base = match parameters {
        Some(rope) => {
            rope.only("rope_type", &["default"])?;
            rope.float("rope_theta", 10_000.0)?
        }
        None => fields.float("rope_theta", 10_000.0)?,
    };
    let rope = Rope { base: base as f32, width: head_dim, interleaved: false };
    let attention = AttentionConfig {
        heads: attention_heads,
        kv_heads: fields.dim_or("num_key_value_heads", attention_heads)?,
        head_dim,
        // Half the width, because half of the input is the embedding.
        scale: (head_dim as f64 / 2.0).powf(-0.5) as f32,
        rope: fields.flag("use_mem_rope", false)?.then_some(rope),
        d_conv: 0,
        d_mlp: 0,
        qkv_bias: false,
        out_bias: false,
    };
    let hybrid = layers.contains(&LayerKind::Hybrid);
    let shared = SharedConfig {
        blocks: fields.dim_or("num_mem_blocks", 1)?,
        adapter_rank: fields.dim_or("adapter_rank", 128)?,
        attention_adapters: fields.flag("use_shared_attention_adapter", false)?,
        d_intermediate: fields.dim_or("intermediate_size", 4 * d_model)?,
        mlp_bias: bias,
    };
    Ok(Config {
        format: Format::Zamba2,
        vocab_size,
        vocab_rows: vocab_size,
        d_model,
        layers,
        norm: NormKind::Rms,
        norm_eps: fields.float("rms_norm_eps", 1e-5)? as f32,
        tied_head: fields.flag("tie_word_embeddings", true)?,
        projection_bias: bias,
        // transformers reads `use_conv_bias` and then has one all the same.
        conv_bias: true,
        mixer: check_mamba2(mixer, scan_width)?,
        attention: hybrid.then_some(attention),
        shared: hybrid.then_some(shared),
        d_intermediate: None,
        tokenizer: TokenizerKind::File,
        train_len: None,
        eos_tokens: Vec::new(),
    })
}

/// `layers_block_type` names each layer; older configs have `hybrid_layer_ids` alone.
fn layers(fields: &Fields<'_>) -> Checked<Vec<LayerKind>> {
    let count = fields.layers("num_hidden_layers")?;
    let mut layers = vec![LayerKind::Recurrent; count];
    if let Some(Value::Array(kinds)) = fields.get("layers_block_type") {
        if kinds.len() != count {
            let named = kinds.len();
            return Err(format!("layers_block_type names {named} layers, there are {count}"));
        }
        for (layer, kind) in layers.iter_mut().zip(kinds) {
            *layer = match kind.as_str() {
                Some("linear_attention" | "mamba" | "m") => LayerKind::Recurrent,
                Some("hybrid" | "g") => LayerKind::Hybrid,
                _ => return Err(format!("layers_block_type has {kind}, which is no such layer")),
            };
        }
        return Ok(layers);
    }
    if !fields.has("hybrid_layer_ids") {
        return Err("field layers_block_type is missing".into());
    }
    for index in fields.numbers("hybrid_layer_ids")? {
        let layer = layers
            .get_mut(index)
            .ok_or_else(|| format!("hybrid_layer_ids has {index}, there are {count} layers"))?;
        *layer = LayerKind::Hybrid;
    }
    Ok(layers)
}
