//! The config of the state-spaces repository: `d_model`, `n_layer`, `ssm_cfg` and so on, where a field
//! that is missing has the default of the code that reads it.

use super::values::{Fields, check_dim, check_mamba2, gate};
use super::{
    AttentionConfig, Checked, Config, Format, LayerKind, MixerConfig, NormKind, Rope, TokenizerKind,
};
use serde_json::{Map, Value};

pub(super) fn config(fields: &Fields<'_>) -> Checked<Config> {
    let none = Value::Object(Map::new());
    let inner = |name: &str| match fields.get(name).unwrap_or(&none) {
        Value::Object(map) => Ok(Fields(map)),
        other => Err(format!("{name} is {other}, must be an object")),
    };
    let (ssm, attention) = (inner("ssm_cfg")?, inner("attn_cfg")?);

    let d_model = fields.dim("d_model")?;
    let mut layers = vec![LayerKind::Recurrent; fields.layers("n_layer")?];
    for index in fields.numbers("attn_layer_idx")? {
        let count = layers.len();
        let layer = layers
            .get_mut(index)
            .ok_or_else(|| format!("attn_layer_idx has {index}, but there are {count} layers"))?;
        *layer = LayerKind::Attention;
    }
    let attention = match layers.contains(&LayerKind::Attention) {
        true => Some(attention_config(&attention, d_model)?),
        false => None,
    };
    let vocab = fields.dim("vocab_size")?;
    let multiple = fields.dim_or("pad_vocab_size_multiple", 8)?;
    Ok(Config {
        format: Format::Original,
        vocab_size: vocab,
        vocab_rows: check_dim("vocab_size", vocab.checked_next_multiple_of(multiple))?,
        d_model,
        layers,
        norm: if fields.flag("rms_norm", true)? { NormKind::Rms } else { NormKind::Layer },
        norm_eps: 1e-5,
        tied_head: fields.flag("tie_embeddings", true)?,
        projection_bias: ssm.flag("bias", false)?,
        conv_bias: ssm.flag("conv_bias", true)?,
        mixer: mixer(&ssm, d_model)?,
        attention,
        shared: None,
        d_intermediate: rounded_up(fields, "d_intermediate", 128)?,
        tokenizer: TokenizerKind::File,
        train_len: None,
        eos_tokens: Vec::new(),
    })
}

/// A width that is a multiple of `multiple`; 0 is none.
fn rounded_up(fields: &Fields<'_>, name: &str, multiple: usize) -> Checked<Option<usize>> {
    match fields.number(name)? {
        None | Some(0) => Ok(None),
        Some(width) => check_dim(name, width.checked_next_multiple_of(multiple)).map(Some),
    }
}

fn mixer(ssm: &Fields<'_>, d_model: usize) -> Checked<MixerConfig> {
    let d_inner = ssm.expanded("expand", d_model)?;
    let d_conv = ssm.dim_or("d_conv", 4)?;
    match ssm.text("layer")? {
        None | Some("Mamba1") => Ok(MixerConfig::Mamba1 {
            d_inner,
            d_state: ssm.dim_or("d_state", 16)?,
            d_conv,
            dt_rank: ssm.dt_rank("dt_rank", d_model)?,
            select_eps: None,
        }),
        Some("Mamba2") => {
            let head_dim = ssm.dim_or("headdim", 64)?;
            let scan_width = ssm.dim_or("d_ssm", d_inner)?;
            let d_mlp = d_inner
                .checked_sub(scan_width)
                .ok_or_else(|| format!("d_ssm is {scan_width}, but d_inner is only {d_inner}"))?;
            let norm = ssm.flag("rmsnorm", true)?;
            let mixer = MixerConfig::Mamba2 {
                heads: scan_width / head_dim,
                head_dim,
                groups: ssm.dim_or("ngroups", 1)?,
                d_state: ssm.dim_or("d_state", 128)?,
                d_conv,
                dt_limits: ssm.dt_limits("dt_limit")?,
                gate: gate(norm, ssm.flag("norm_before_gate", false)?),
                d_mlp,
                d_per_element: ssm.flag("D_has_hdim", false)?,
            };
            check_mamba2(mixer, scan_width)
        }
        Some(other) => {
            Err(format!("ssm_cfg.layer is {other:?}, supported are \"Mamba1\" and \"Mamba2\""))
        }
    }
}

fn attention_config(fields: &Fields<'_>, d_model: usize) -> Checked<AttentionConfig> {
    if !fields.flag("causal", false)? {
        return Err("attn_cfg.causal is not true; only causal attention continues a text".into());
    }
    let interleaved = fields.flag("rotary_emb_interleaved", false)?;
    let heads = fields.dim("num_heads")?;
    let head_dim = fields.dim_or("head_dim", d_model / heads)?;
    let rotated = fields.number("rotary_emb_dim")?.unwrap_or(0);
    let base = fields.float("rotary_emb_base", 10_000.0)?;
    let scale = fields.float("softmax_scale", (head_dim as f64).powf(-0.5))?;
    // Value and gate together, rounded up as that code does.
    let mlp = rounded_up(fields, "mlp_dim", 256)?.unwrap_or(0) / 2;
    Ok(AttentionConfig {
        heads,
        kv_heads: fields.dim_or("num_heads_kv", heads)?,
        head_dim,
        scale: scale as f32,
        rope: (rotated > 0).then_some(Rope { base: base as f32, width: rotated, interleaved }),
        d_conv: fields.number("d_conv")?.unwrap_or(0).min(1 << 10),
        d_mlp: mlp,
        qkv_bias: fields.flag("qkv_proj_bias", true)?,
        out_bias: fields.flag("out_proj_bias", true)?,
    })
}
