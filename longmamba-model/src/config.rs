//! `config.json` of a checkpoint folder: JSON in, a checked [`Config`] out.

use crate::json::lenient;
use crate::{Error, Result};
use longmamba_core::DtLimits;
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

/// What a model is made of, in the field's terms.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The number of token ids.
    pub vocab_size: usize,
    /// The width of the residual stream.
    pub d_model: usize,
    /// The number of layers.
    pub layers: usize,
    /// Added to the mean square in every RMS norm.
    pub norm_eps: f32,
    /// Whether the embedding table is also the output head.
    pub tied_head: bool,
    /// Whether in_proj and out_proj have a bias.
    pub projection_bias: bool,
    /// Whether the convolution has a bias.
    pub conv_bias: bool,
    /// The mixer of every layer.
    pub mixer: MixerConfig,
    /// How text becomes tokens.
    pub tokenizer: TokenizerKind,
    /// The length of the sequences the model was trained on, where the folder says it.
    pub train_len: Option<usize>,
    /// Tokens that end a generation.
    pub eos_tokens: Vec<u32>,
}

/// The two kinds of mixer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MixerConfig {
    /// Selective scan, a state for every channel.
    Mamba1 {
        /// Channels.
        d_inner: usize,
        /// States a channel.
        d_state: usize,
        /// Taps of the convolution.
        d_conv: usize,
        /// The rank of the projection that makes Δ.
        dt_rank: usize,
    },
    /// State-space duality, a scalar decay for every head.
    Mamba2 {
        /// Heads.
        heads: usize,
        /// Channels a head; heads · head_dim is d_inner.
        head_dim: usize,
        /// Groups of heads that share B and C.
        groups: usize,
        /// States a channel.
        d_state: usize,
        /// Taps of the convolution.
        d_conv: usize,
        /// Limits of Δ after softplus.
        dt_limits: DtLimits,
    },
}

/// How text becomes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenizerKind {
    /// A token is a byte.
    Bytes,
    /// `tokenizer.json` beside the config.
    File,
}

impl MixerConfig {
    /// The family's name, as it stands in fingerprints: `mamba1` or `mamba2`.
    pub fn family(&self) -> &'static str {
        match self {
            MixerConfig::Mamba1 { .. } => "mamba1",
            MixerConfig::Mamba2 { .. } => "mamba2",
        }
    }

    /// The number of channels that have a Δ each: d_inner in Mamba-1, heads in Mamba-2.
    pub fn channels(&self) -> usize {
        match *self {
            MixerConfig::Mamba1 { d_inner, .. } => d_inner,
            MixerConfig::Mamba2 { heads, .. } => heads,
        }
    }

    /// The width of the mixer's inside.
    pub fn d_inner(&self) -> usize {
        match *self {
            MixerConfig::Mamba1 { d_inner, .. } => d_inner,
            MixerConfig::Mamba2 { heads, head_dim, .. } => heads * head_dim,
        }
    }

    /// Taps of the convolution.
    pub fn d_conv(&self) -> usize {
        match *self {
            MixerConfig::Mamba1 { d_conv, .. } | MixerConfig::Mamba2 { d_conv, .. } => d_conv,
        }
    }

    /// Channels that the convolution runs over: x in Mamba-1; x, B and C in Mamba-2.
    pub fn conv_dim(&self) -> usize {
        match *self {
            MixerConfig::Mamba1 { d_inner, .. } => d_inner,
            MixerConfig::Mamba2 { heads, head_dim, groups, d_state, .. } => {
                heads * head_dim + 2 * groups * d_state
            }
        }
    }

    /// Columns of in_proj: x, z in Mamba-1; z, x, B, C, Δ in Mamba-2.
    pub fn projected(&self) -> usize {
        match *self {
            MixerConfig::Mamba1 { d_inner, .. } => 2 * d_inner,
            MixerConfig::Mamba2 { heads, .. } => self.d_inner() + self.conv_dim() + heads,
        }
    }

    /// The shape in which the state of one sequence is stored, innermost last: `[d_state, d_inner]`
    /// or `[heads, d_state, head_dim]`. Neighbouring channels lie side by side, as SIMD lanes want.
    pub fn state_shape(&self) -> Vec<usize> {
        match *self {
            MixerConfig::Mamba1 { d_inner, d_state, .. } => vec![d_state, d_inner],
            MixerConfig::Mamba2 { heads, head_dim, d_state, .. } => vec![heads, d_state, head_dim],
        }
    }
}

/// The fields that are read; all others are ignored, as Hugging Face's loader does.
#[derive(Deserialize)]
struct Raw {
    model_type: Option<String>,
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    state_size: Option<usize>,
    expand: Option<f64>,
    intermediate_size: Option<usize>,
    conv_kernel: Option<usize>,
    use_bias: Option<bool>,
    use_conv_bias: Option<bool>,
    hidden_act: Option<String>,
    layer_norm_epsilon: Option<f64>,
    tie_word_embeddings: Option<bool>,
    time_step_rank: Option<Value>,
    time_step_limit: Option<Vec<Value>>,
    num_heads: Option<usize>,
    head_dim: Option<usize>,
    n_groups: Option<usize>,
    rms_norm: Option<bool>,
    eos_token_id: Option<Value>,
    tokenizer: Option<String>,
    train_length: Option<usize>,
}

/// No dimension of a real model comes near this; it keeps products of a few of them inside a u64.
const MAX_DIM: usize = 1 << 20;

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Config`], which names the field.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        Self::parse(&bytes, path)
    }

    /// Parses the text of a `config.json`; `path` is for messages only.
    ///
    /// # Errors
    /// [`Error::Config`], which names the field.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        Self::from_json(bytes).map_err(|reason| Error::Config { path: path.to_owned(), reason })
    }

    fn from_json(bytes: &[u8]) -> std::result::Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|e| format!("not UTF-8: {e}"))?;
        let raw: Raw =
            serde_json::from_str(&lenient(text)).map_err(|e| format!("not a model config: {e}"))?;
        let family = raw.model_type.as_deref().ok_or("field model_type is missing")?;
        let vocab_size = dim("vocab_size", raw.vocab_size)?;
        let d_model = dim("hidden_size", raw.hidden_size)?;
        let layers = dim("num_hidden_layers", raw.num_hidden_layers)?;
        let d_state = dim("state_size", raw.state_size)?;
        let d_conv = dim("conv_kernel", raw.conv_kernel.or(Some(4)))?;
        if let Some(act) = raw.hidden_act.as_deref().filter(|a| !matches!(*a, "silu" | "swish")) {
            return Err(format!("hidden_act is {act:?}, only \"silu\" is supported"));
        }
        let expanded = raw.expand.unwrap_or(2.0) * d_model as f64;
        let d_inner = dim("intermediate_size", raw.intermediate_size.or(Some(expanded as usize)))?;
        let mixer = match family {
            "mamba" => {
                let auto = Some(d_model.div_ceil(16));
                let dt_rank = match &raw.time_step_rank {
                    None => auto,
                    Some(Value::String(s)) if s == "auto" => auto,
                    Some(v) => v.as_u64().and_then(|v| usize::try_from(v).ok()),
                };
                MixerConfig::Mamba1 {
                    d_inner,
                    d_state,
                    d_conv,
                    dt_rank: dim("time_step_rank", dt_rank)?,
                }
            }
            "mamba2" => {
                if raw.rms_norm == Some(false) {
                    return Err("rms_norm is false, only the gated norm is supported".into());
                }
                let heads = dim("num_heads", raw.num_heads)?;
                let head_dim = dim("head_dim", raw.head_dim)?;
                let groups = dim("n_groups", raw.n_groups.or(Some(1)))?;
                if heads * head_dim != d_inner {
                    return Err(format!(
                        "num_heads · head_dim is {}, but expand · hidden_size is {d_inner}",
                        heads * head_dim
                    ));
                }
                if !heads.is_multiple_of(groups) {
                    return Err(format!("n_groups {groups} does not divide num_heads {heads}"));
                }
                let dt_limits = dt_limits(raw.time_step_limit.as_deref())?;
                MixerConfig::Mamba2 { heads, head_dim, groups, d_state, d_conv, dt_limits }
            }
            other => {
                return Err(format!(
                    "model_type {other:?} is not supported; supported are \"mamba\" and \"mamba2\""
                ));
            }
        };
        let norm_eps = raw.layer_norm_epsilon.unwrap_or(1e-5);
        if !(norm_eps > 0.0 && norm_eps < 1.0) {
            return Err(format!("layer_norm_epsilon is {norm_eps}, must be between 0 and 1"));
        }
        let tokenizer = match raw.tokenizer.as_deref() {
            None => TokenizerKind::File,
            Some("bytes") if vocab_size >= 256 => TokenizerKind::Bytes,
            Some("bytes") => {
                return Err(format!("tokenizer is \"bytes\" but vocab_size is only {vocab_size}"));
            }
            Some(other) => {
                return Err(format!("tokenizer is {other:?}, only \"bytes\" has a meaning"));
            }
        };
        let eos: Vec<u64> = match &raw.eos_token_id {
            Some(Value::Number(n)) => n.as_u64().into_iter().collect(),
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_u64).collect(),
            _ => Vec::new(),
        };
        Ok(Config {
            vocab_size,
            d_model,
            layers,
            norm_eps: norm_eps as f32,
            tied_head: raw.tie_word_embeddings.unwrap_or(true),
            projection_bias: raw.use_bias.unwrap_or(false),
            conv_bias: raw.use_conv_bias.unwrap_or(true),
            mixer,
            tokenizer,
            train_len: raw.train_length.filter(|&n| n > 0),
            eos_tokens: eos.into_iter().filter_map(|e| u32::try_from(e).ok()).collect(),
        })
    }
}

fn dim(field: &str, value: Option<usize>) -> std::result::Result<usize, String> {
    match value {
        None => Err(format!("field {field} is missing or not a whole number")),
        Some(v) if (1..=MAX_DIM).contains(&v) => Ok(v),
        Some(v) => Err(format!("{field} is {v}, must be between 1 and {MAX_DIM}")),
    }
}

/// Numbers, and the ways in which Python writes infinity: `Infinity`, quoted or as an object.
fn dt_limits(values: Option<&[Value]>) -> std::result::Result<DtLimits, String> {
    let Some(values) = values else { return Ok(DtLimits::default()) };
    let number = |v: &Value| match v {
        Value::Object(o) => o.get("__float__").and_then(Value::as_str).and_then(|s| s.parse().ok()),
        Value::String(s) => s.parse::<f32>().ok(),
        v => v.as_f64().map(|v| v as f32),
    };
    match values.iter().map(number).collect::<Option<Vec<f32>>>().as_deref() {
        Some(&[min, max]) if min >= 0.0 && min.is_finite() && max >= min => {
            Ok(DtLimits { min, max })
        }
        _ => Err("time_step_limit must be two numbers, 0 ≤ lower ≤ upper".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAMBA2: &str = r#"{"model_type":"mamba2","vocab_size":96,"hidden_size":64,"num_hidden_layers":3,
        "state_size":32,"num_heads":8,"head_dim":16,"n_groups":2,"time_step_limit":[0.0, Infinity]}"#;

    fn parse(text: &str) -> Result<Config> {
        Config::parse(text.as_bytes(), Path::new("config.json"))
    }

    #[test]
    fn bare_quoted_and_boxed_infinity_are_read() {
        for infinity in ["Infinity", "\"Infinity\"", r#"{"__float__": "Infinity"}"#] {
            let config = parse(&MAMBA2.replace("Infinity", infinity)).unwrap();
            let MixerConfig::Mamba2 { dt_limits, .. } = config.mixer else { panic!() };
            assert_eq!(dt_limits, DtLimits::default());
        }
        assert_eq!(parse(MAMBA2).unwrap().mixer.projected(), 128 + 128 + 2 * 2 * 32 + 8);
    }

    #[test]
    fn the_message_names_the_field() {
        for (from, to, expected) in [
            ("\"vocab_size\":96,", "", "vocab_size"),
            ("\"vocab_size\":96", "\"vocab_size\":0", "vocab_size is 0"),
            ("\"vocab_size\":96", "\"vocab_size\":99999999999", "vocab_size is 99999999999"),
            ("\"num_heads\":8", "\"num_heads\":7", "num_heads"),
            ("\"n_groups\":2", "\"n_groups\":3", "n_groups"),
            ("mamba2", "llama", "llama"),
            ("[0.0, Infinity]", "[0.5, 0.1]", "time_step_limit"),
            ("{", "", "not a model config"),
        ] {
            let message = parse(&MAMBA2.replace(from, to)).unwrap_err().to_string();
            assert!(
                message.contains(expected) && message.starts_with("config.json: "),
                "{message}"
            );
        }
    }
}
