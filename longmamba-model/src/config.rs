//! `config.json` of a checkpoint folder: JSON in, a checked [`Config`] out.

mod hugging_face;
mod original;
mod values;
mod zamba2;

use crate::json::lenient;
use crate::{Error, Result};
use longmamba_core::DtLimits;
use serde_json::Value;
use std::path::Path;
use values::Fields;

/// What a model is made of, in the field's terms.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Whose names the tensors bear.
    pub format: Format,
    /// The number of token ids.
    pub vocab_size: usize,
    /// Rows of the embedding table and of the head. Those past `vocab_size` are padding: no token has
    /// such an id, and their logits are not given out.
    pub vocab_rows: usize,
    /// The width of the residual stream.
    pub d_model: usize,
    /// What each layer is, in order.
    pub layers: Vec<LayerKind>,
    /// The norms in front of the layers and of the head.
    pub norm: NormKind,
    /// Added to the mean square in every norm.
    pub norm_eps: f32,
    /// Whether the embedding table is also the output head.
    pub tied_head: bool,
    /// Whether in_proj and out_proj have a bias.
    pub projection_bias: bool,
    /// Whether the convolution has a bias.
    pub conv_bias: bool,
    /// The mixer of every recurrent layer.
    pub mixer: MixerConfig,
    /// The attention of the layers that have it.
    pub attention: Option<AttentionConfig>,
    /// Zamba2: the blocks that hybrid layers share.
    pub shared: Option<SharedConfig>,
    /// The inner width of the gated MLP after every mixer, where there is one.
    pub d_intermediate: Option<usize>,
    /// How text becomes tokens.
    pub tokenizer: TokenizerKind,
    /// The length of the sequences the model was trained on, where the folder says it.
    pub train_len: Option<usize>,
    /// Tokens that end a generation.
    pub eos_tokens: Vec<u32>,
}

/// Whose names and config a checkpoint bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Hugging Face transformers: `mamba`, `mamba2`, `falcon_mamba`.
    HuggingFace,
    /// The state-spaces repository, which the first checkpoints were published for.
    Original,
    /// Hugging Face transformers: `zamba2`.
    Zamba2,
}

/// What a layer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerKind {
    /// A Mamba mixer.
    Recurrent,
    /// Attention in place of the mixer (`mamba2attn`).
    Attention,
    /// A Mamba mixer with a shared transformer block in front (Zamba2).
    Hybrid,
}

/// The norm in front of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// x / sqrt(mean(x²) + ε) · weight.
    Rms,
    /// (x − mean(x)) / sqrt(var(x) + ε) · weight + bias.
    Layer,
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
        /// Falcon-Mamba: the ε of the RMS norms of the low-rank Δ, B and C. `None`: no such norms.
        select_eps: Option<f32>,
    },
    /// State-space duality, a scalar decay for every head.
    Mamba2 {
        /// Heads.
        heads: usize,
        /// Channels a head; heads · head_dim is the width of the scan.
        head_dim: usize,
        /// Groups of heads that share B and C.
        groups: usize,
        /// States a channel.
        d_state: usize,
        /// Taps of the convolution.
        d_conv: usize,
        /// Limits of Δ after softplus.
        dt_limits: DtLimits,
        /// How y meets z.
        gate: GateKind,
        /// The width of the gated MLP beside the scan; 0 where there is none.
        d_mlp: usize,
        /// Whether the skip D has a value for every element of a head instead of one a head.
        d_per_element: bool,
    },
}

/// How the scan's y meets the gate z in a Mamba-2 mixer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateKind {
    /// norm(y · silu(z)), the norm within each group.
    Norm,
    /// norm(y) · silu(z).
    NormFirst,
    /// y · silu(z), no norm.
    Plain,
}

/// Attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionConfig {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; they divide the query heads.
    pub kv_heads: usize,
    /// The width of a head.
    pub head_dim: usize,
    /// The scores' factor.
    pub scale: f32,
    /// Rotary position embedding, where there is one.
    pub rope: Option<Rope>,
    /// Taps of the causal convolution over q, k and v; 0: none.
    pub d_conv: usize,
    /// The width of the gated MLP beside the heads; 0: none.
    pub d_mlp: usize,
    /// Whether the projection to q, k and v has a bias.
    pub qkv_bias: bool,
    /// Whether the projection after the heads has a bias.
    pub out_bias: bool,
}

/// Rotary position embedding (arXiv 2104.09864): pair `i` turns by `position · base^(−2i/width)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// θ of the paper.
    pub base: f32,
    /// How many elements of a head are rotated, from the first on; even.
    pub width: usize,
    /// Whether a pair is two neighbours; else it is element `i` of either half.
    pub interleaved: bool,
}

/// Zamba2's transformer blocks, shared by the hybrid layers in turn (arXiv 2411.15242).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedConfig {
    /// How many there are; hybrid layer `i` uses block `i mod blocks`.
    pub blocks: usize,
    /// The rank of the adapters that make each use of a block its own.
    pub adapter_rank: usize,
    /// Whether q, k and v have adapters too; the MLP always has one.
    pub attention_adapters: bool,
    /// The inner width of the MLP.
    pub d_intermediate: usize,
    /// Whether the MLP's projections have a bias.
    pub mlp_bias: bool,
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

    /// The width of the scan.
    pub fn d_inner(&self) -> usize {
        match *self {
            MixerConfig::Mamba1 { d_inner, .. } => d_inner,
            MixerConfig::Mamba2 { heads, head_dim, .. } => heads * head_dim,
        }
    }

    /// Columns that out_proj reads: the gated MLP's, where there is one, and the scan's.
    pub fn gated_width(&self) -> usize {
        match *self {
            MixerConfig::Mamba1 { d_inner, .. } => d_inner,
            MixerConfig::Mamba2 { d_mlp, .. } => d_mlp + self.d_inner(),
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

    /// Columns of in_proj: x, z in Mamba-1; the MLP's gate and value, z, x, B, C, Δ in Mamba-2.
    pub fn projected(&self) -> usize {
        match *self {
            MixerConfig::Mamba1 { d_inner, .. } => 2 * d_inner,
            MixerConfig::Mamba2 { heads, d_mlp, .. } => {
                2 * d_mlp + self.d_inner() + self.conv_dim() + heads
            }
        }
    }

    /// The shape of the convolution's history: its last inputs, `[d_conv - 1, conv_dim]`.
    pub fn history_shape(&self) -> [usize; 2] {
        [self.d_conv() - 1, self.conv_dim()]
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

impl AttentionConfig {
    /// Columns of q.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Columns of k, and of v.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Columns of q, k and v together.
    pub fn qkv_width(&self) -> usize {
        self.q_width() + 2 * self.kv_width()
    }

    fn check(&self) -> Checked<()> {
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(format!(
                "{} key and value heads do not divide {} query heads",
                self.kv_heads, self.heads
            ));
        }
        match self.rope {
            Some(Rope { base, .. }) if !(base > 0.0 && base.is_finite()) => {
                Err(format!("the rotary base is {base}, must be positive"))
            }
            Some(Rope { width, .. }) if width > self.head_dim || !width.is_multiple_of(2) => {
                Err(format!(
                    "{width} rotated elements do not fit a head of {}, or are odd",
                    self.head_dim
                ))
            }
            _ => Ok(()),
        }
    }
}

/// What is wrong with a config, until the file's name is added.
type Checked<T> = std::result::Result<T, String>;

impl Config {
    /// Reads `config.json`: Hugging Face's for `mamba`, `mamba2`, `falcon_mamba` and `zamba2`, or the
    /// state-spaces repository's own.
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

    fn from_json(bytes: &[u8]) -> Checked<Self> {
        let text = std::str::from_utf8(bytes).map_err(|e| format!("not UTF-8: {e}"))?;
        let json: Value =
            serde_json::from_str(&lenient(text)).map_err(|e| format!("not a model config: {e}"))?;
        let fields = Fields::of(&json).ok_or("not a model config: no object")?;
        let mut config = match fields.text("model_type")? {
            Some("mamba" | "mamba2" | "falcon_mamba") => hugging_face::config(&fields)?,
            Some("zamba2") => zamba2::config(&fields)?,
            Some(other) => {
                return Err(format!(
                    "model_type {other:?} is not supported; supported are \"mamba\", \"mamba2\", \
                     \"falcon_mamba\" and \"zamba2\""
                ));
            }
            None if fields.has("d_model") => original::config(&fields)?,
            None => {
                return Err("field model_type is missing, and d_model of the state-spaces \
                            repository's format too"
                    .into());
            }
        };
        if !(config.norm_eps > 0.0 && config.norm_eps < 1.0) {
            return Err(format!("the norm's ε is {}, must be between 0 and 1", config.norm_eps));
        }
        config.tokenizer = match fields.text("tokenizer")? {
            None => TokenizerKind::File,
            Some("bytes") if config.vocab_size >= 256 => TokenizerKind::Bytes,
            Some("bytes") => {
                let vocab = config.vocab_size;
                return Err(format!("tokenizer is \"bytes\" but vocab_size is only {vocab}"));
            }
            Some(other) => {
                return Err(format!("tokenizer is {other:?}, only \"bytes\" has a meaning"));
            }
        };
        config.train_len = fields.number("train_length")?.filter(|&n| n > 0);
        config.eos_tokens = fields.eos_tokens();
        if let Some(attention) = &config.attention {
            attention.check()?;
        }
        Ok(config)
    }

    /// The number of layers with a Mamba mixer: those that a plan counts.
    pub fn recurrent_layers(&self) -> usize {
        self.layers.iter().filter(|&&kind| kind != LayerKind::Attention).count()
    }

    /// The number of layers that keep keys and values.
    pub fn attention_layers(&self) -> usize {
        self.layers.iter().filter(|&&kind| kind != LayerKind::Recurrent).count()
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
