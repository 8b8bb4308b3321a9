use crate::args::ModelArg;
use crate::failure::Outcome;
use crate::output::{Output, Table, count};
use clap::Args;
use longmamba_model::{MixerConfig, TokenizerKind};
use serde_json::json;

/// What a model is made of: config, layers, parameters, dtypes
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  longmamba inspect builtin:mamba2-tiny")]
pub struct Inspect {
    #[command(flatten)]
    model: ModelArg,
}

impl Inspect {
    pub fn run(self, output: &Output) -> Outcome {
        let loaded = self.model.load()?;
        let model = &loaded.model;
        let (config, weights, fingerprint) = (model.config(), model.weights(), model.fingerprint());
        let tokenizer = match config.tokenizer {
            TokenizerKind::Bytes => "bytes",
            TokenizerKind::File => "tokenizer.json",
        };
        let mixer = match config.mixer {
            MixerConfig::Mamba1 { d_inner, d_state, d_conv, dt_rank } => json!({
                "d_inner": d_inner, "d_state": d_state, "d_conv": d_conv, "dt_rank": dt_rank
            }),
            MixerConfig::Mamba2 { heads, head_dim, groups, d_state, d_conv, dt_limits } => json!({
                "heads": heads, "head_dim": head_dim, "groups": groups, "d_state": d_state,
                "d_conv": d_conv, "dt_min": dt_limits.min, "dt_max": dt_limits.max
            }),
        };
        let state: usize = config.mixer.state_shape().iter().product::<usize>() * config.layers;
        let json = json!({
            "model": loaded.name, "family": config.mixer.family(), "layers": config.layers,
            "d_model": config.d_model, "vocab_size": config.vocab_size, "mixer": mixer,
            "tied_head": config.tied_head, "norm_eps": config.norm_eps, "tokenizer": tokenizer,
            "train_len": config.train_len, "eos_tokens": config.eos_tokens,
            "parameters": weights.parameters, "parameters_by_dtype": weights.by_dtype,
            "bytes": weights.bytes, "state_elements": state, "digest": fingerprint.digest,
        });
        output.result(&json, || {
            let mut table = Table::new(2, ["model", &loaded.name]);
            table.row(["family", config.mixer.family()]);
            table.row(["layers", &config.layers.to_string()]);
            table.row(["d_model", &config.d_model.to_string()]);
            table.row(["vocabulary", &config.vocab_size.to_string()]);
            if let Some(fields) = mixer.as_object() {
                // An upper limit of infinity is no limit, and has no JSON.
                for (name, value) in fields.iter().filter(|(_, v)| !v.is_null()) {
                    table.row([name, &value.to_string()]);
                }
            }
            table.row(["head", if config.tied_head { "tied to the embedding" } else { "its own" }]);
            table.row(["tokenizer", tokenizer]);
            let train_len = config.train_len.map_or("not said".into(), |l| format!("{l} tokens"));
            table.row(["trained on", &train_len]);
            table.row(["parameters", &count(weights.parameters as f64)]);
            for (dtype, parameters) in &weights.by_dtype {
                table.row([format!("  {dtype}"), count(*parameters as f64)]);
            }
            table.row(["weights", &format!("{}B", count(weights.bytes as f64))]);
            table.row(["state", &format!("{}B a sequence", count(4.0 * state as f64))]);
            table.row(["digest", &fingerprint.digest]);
            table.text()
        })
    }
}
