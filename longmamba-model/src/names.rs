//! What the tensors of each format are called.

use crate::checkpoint::Checkpoint;
use crate::config::{Config, Format, LayerKind};

pub(crate) const HEAD: &str = "lm_head.weight";

/// The names of one layer's parts.
pub(crate) struct LayerNames {
    pub norm: String,
    pub mixer: String,
    /// The layer itself, for the parts that only one format has.
    pub prefix: String,
}

impl Format {
    /// The embedding table. transformers renamed it once, so both names are found in the wild.
    pub(crate) fn embedding(self, weights: &Checkpoint) -> &'static str {
        const NEW: &str = "backbone.embeddings.weight";
        const OLD: &str = "backbone.embedding.weight";
        match self {
            Format::Zamba2 => "model.embed_tokens.weight",
            Format::HuggingFace if weights.has(OLD) && !weights.has(NEW) => OLD,
            Format::HuggingFace => NEW,
            Format::Original => OLD,
        }
    }

    pub(crate) fn final_norm(self) -> &'static str {
        match self {
            Format::HuggingFace | Format::Original => "backbone.norm_f",
            Format::Zamba2 => "model.final_layernorm",
        }
    }

    pub(crate) fn layer(self, index: usize, kind: LayerKind) -> LayerNames {
        match self {
            Format::HuggingFace | Format::Original => {
                let prefix = format!("backbone.layers.{index}");
                LayerNames {
                    norm: format!("{prefix}.norm"),
                    mixer: format!("{prefix}.mixer"),
                    prefix,
                }
            }
            Format::Zamba2 => {
                let prefix = format!("model.layers.{index}");
                let mamba = match kind {
                    LayerKind::Hybrid => format!("{prefix}.mamba_decoder"),
                    LayerKind::Recurrent | LayerKind::Attention => prefix.clone(),
                };
                LayerNames {
                    norm: format!("{mamba}.input_layernorm"),
                    mixer: format!("{mamba}.mamba"),
                    prefix,
                }
            }
        }
    }
}

/// Where the blocks that Zamba2's hybrid layers use are kept, one prefix a hybrid layer, in order: in
/// the first layer that uses each; or, where a checkpoint does not share them, in the layer itself.
pub(crate) fn shared_blocks(config: &Config, weights: &Checkpoint) -> Vec<String> {
    let blocks = config.shared.map_or(1, |s| s.blocks);
    let hybrid = config.layers.iter().enumerate().filter(|(_, k)| **k == LayerKind::Hybrid);
    let all: Vec<String> =
        hybrid.map(|(index, _)| format!("model.layers.{index}.shared_transformer")).collect();
    let own = |prefix: &String| weights.has(&format!("{prefix}.self_attn.q_proj.weight"));
    let home = |(call, prefix): (usize, &String)| match own(prefix) {
        true => prefix.clone(),
        false => all[call % blocks].clone(),
    };
    all.iter().enumerate().map(home).collect()
}

/// Forgets what is written but not used: a head that is the embedding table, shared blocks that are
/// repeated in every layer that uses them, and adapters in a block for layers that use another one.
/// A copy that differs from its original is none, and stays.
pub(crate) fn drop_copies(config: &Config, weights: &mut Checkpoint) {
    if config.tied_head {
        let embedding = config.format.embedding(weights);
        weights.drop_copy(HEAD, embedding);
    }
    let blocks = config.shared.map_or(1, |s| s.blocks);
    let before = shared_blocks(config, weights);
    for (call, own) in before.iter().enumerate().skip(blocks) {
        let home = &before[call % blocks];
        let copies = parts(weights, own);
        if own != home
            && copies.iter().all(|p| weights.same(&format!("{own}{p}"), &format!("{home}{p}")))
        {
            for part in copies {
                weights.discard(&format!("{own}{part}"));
            }
        }
    }
    let homes = shared_blocks(config, weights);
    for home in &homes {
        for part in parts(weights, home) {
            let slot =
                part.split_once("_adapter_list.").and_then(|(_, rest)| rest.split('.').next());
            let call: Option<usize> = slot.and_then(|slot| slot.parse().ok());
            if call.is_some_and(|call| homes.get(call).is_some_and(|other| other != home)) {
                weights.discard(&format!("{home}{part}"));
            }
        }
    }
}

/// What follows `prefix` in the names of the tensors below it, dot included.
fn parts(weights: &Checkpoint, prefix: &str) -> Vec<String> {
    let below = weights.tensors().filter_map(|t| t.name.strip_prefix(prefix));
    below.filter(|part| part.starts_with('.')).map(str::to_owned).collect()
}
