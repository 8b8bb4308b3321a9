//! transformers' configs of `mamba`, `mamba2` and `falcon_mamba`.

use super::values::{Fields, check_dim, check_mamba2, gate};
use super::{Checked, Config, Format, LayerKind, MixerConfig, NormKind, TokenizerKind};

pub(super) fn config(fields: &Fields<'_>) -> Checked<Config> {
    fields.only("hidden_act", &["silu", "swish"])?;
    let vocab_size = fields.dim("vocab_size")?;
    let d_model = fields.dim("hidden_size")?;
    let d_state = fields.dim("state_size")?;
    let d_conv = fields.dim_or("conv_kernel", 4)?;
    let expanded = fields.expanded("expand", d_model)?;
    let family = fields.text("model_type")?;
    let mixer = if family == Some("mamba2") {
        let mixer = MixerConfig::Mamba2 {
            heads: fields.dim("num_heads")?,
            head_dim: fields.dim("head_dim")?,
            groups: fields.dim_or("n_groups", 8)?,
            d_state,
            d_conv,
            dt_limits: fields.dt_limits("time_step_limit")?,
            // transformers reads `rms_norm` and `norm_before_gate` and then normalises all the same.
            gate: gate(true, false),
            d_mlp: 0,
            d_per_element: false,
        };
        check_mamba2(mixer, expanded)?
    } else {
        let eps = fields.float("mixer_rms_eps", 1e-6)?;
        MixerConfig::Mamba1 {
            d_inner: check_dim(
                "intermediate_size",
                fields.number("intermediate_size")?.or(Some(expanded)),
            )?,
            d_state,
            d_conv,
            dt_rank: fields.dt_rank("time_step_rank", d_model)?,
            select_eps: (family == Some("falcon_mamba")).then_some(eps as f32),
        }
    };
    Ok(Config {
        format: Format::HuggingFace,
        vocab_size,
        vocab_rows: vocab_size,
        d_model,
        layers: vec![LayerKind::Recurrent; fields.layers("num_hidden_layers")?],
        norm: NormKind::Rms,
        norm_eps: fields.float("layer_norm_epsilon", 1e-5)? as f32,
        tied_head: fields.flag("tie_word_embeddings", family != Some("mamba2"))?,
        projection_bias: fields.flag("use_bias", false)?,
        conv_bias: fields.flag("use_conv_bias", true)?,
        mixer,
        attention: None,
        shared: None,
        d_intermediate: None,
        tokenizer: TokenizerKind::File,
        train_len: None,
        eos_tokens: Vec::new(),
    })
}
