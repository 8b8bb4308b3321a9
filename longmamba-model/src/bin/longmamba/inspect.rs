use crate::args::ModelArg;
use crate::failure::Outcome;
use crate::output::{Output, Table, count};
use clap::Args;
use longmamba_model::{CpuBackend, MixerConfig, TokenizerKind};
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
        let loaded = self.model.load(CpuBackend::new(None)?)?;
        let model = &loaded.model;
        let (config, weights, fingerprint) = (model.config(), model.weights(), model.fingerprint());
        let tokenizer = match config.tokenizer {
            TokenizerKind::Bytes => "bytes",
            TokenizerKind::File => "tokenizer.json",
        };
        let mixer = mixer(&config.mixer);
        let attention = config.attention.map(|a| {
            json!({
                "layers": config.attention_layers(), "heads": a.heads, "kv_heads": a.kv_heads,
                "head_dim": a.head_dim, "rotary_base": a.rope.map(|r| decimal(r.base)),
                "rotary_width": a.rope.map(|r| r.width), "d_conv": a.d_conv, "d_mlp": a.d_mlp,
                "cache_bytes_a_token": 8 * a.kv_width() * config.attention_layers(),
            })
        });
        let shared = config.shared.map(|s| {
            json!({
                "blocks": s.blocks, "adapter_rank": s.adapter_rank,
                "attention_adapters": s.attention_adapters, "d_intermediate": s.d_intermediate,
            })
        });
        let conv = config.mixer.history_shape().iter().product::<usize>();
        let ssm = config.mixer.state_shape().iter().product::<usize>();
        let state = (conv + ssm) * config.recurrent_layers();
        let json = json!({
            "model": loaded.name, "format": format!("{:?}", config.format),
            "family": config.mixer.family(), "layers": config.layers.len(),
            "recurrent_layers": config.recurrent_layers(),
            "d_model": config.d_model, "vocab_size": config.vocab_size, "mixer": mixer,
            "attention": attention, "shared": shared, "d_intermediate": config.d_intermediate,
            "tied_head": config.tied_head, "norm": format!("{:?}", config.norm).to_lowercase(),
            "norm_eps": decimal(config.norm_eps), "tokenizer": tokenizer,
            "train_len": config.train_len, "eos_tokens": config.eos_tokens,
            "parameters": weights.parameters, "parameters_by_dtype": weights.by_dtype,
            "bytes": weights.bytes, "state_elements": state, "digest": fingerprint.digest,
        });
        output.result(&json, || {
            let mut table = Table::new(2, ["model", &loaded.name]);
            table.row(["format", &format!("{:?}", config.format)]);
            table.row(["family", config.mixer.family()]);
            table.row(["layers", &config.layers.len().to_string()]);
            table.row(["d_model", &config.d_model.to_string()]);
            table.row(["vocabulary", &config.vocab_size.to_string()]);
            for (group, fields) in [
                ("", Some(&mixer)),
                ("attention ", attention.as_ref()),
                ("shared ", shared.as_ref()),
            ] {
                // What is null is not there: an upper limit of infinity, too, which has no JSON.
                let fields = fields.and_then(|f| f.as_object()).into_iter().flatten();
                for (name, value) in fields.filter(|(_, v)| !v.is_null()) {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    table.row([format!("{group}{name}"), value]);
                }
            }
            table.row(["head", if config.tied_head { "tied to the embedding" } else { "its own" }]);
            table.row(["tokenizer", tokenizer]);
            let train_len = config.train_len.map_or("not said".into(), |l| format!("{l} tokens"));
            table.row(["trained on", &train_len]);
            table.row(["parameters", &grouped(weights.parameters)]);
            for (dtype, parameters) in &weights.by_dtype {
                table.row([format!("  {dtype}"), grouped(*parameters)]);
            }
            table.row(["weights", &format!("{}B", count(weights.bytes as f64))]);
            table.row(["state", &format!("{}B a sequence", count(4.0 * state as f64))]);
            table.row(["digest", &fingerprint.digest]);
            table.text()
        })
    }
}

fn mixer(mixer: &MixerConfig) -> serde_json::Value {
    match *mixer {
        MixerConfig::Mamba1 { d_inner, d_state, d_conv, dt_rank, select_eps } => json!({
            "d_inner": d_inner, "d_state": d_state, "d_conv": d_conv, "dt_rank": dt_rank,
            "select_eps": select_eps.map(decimal),
        }),
        MixerConfig::Mamba2 {
            heads,
            head_dim,
            groups,
            d_state,
            d_conv,
            dt_limits,
            gate,
            d_mlp,
            d_per_element,
        } => json!({
            "heads": heads, "head_dim": head_dim, "groups": groups, "d_state": d_state,
            "d_conv": d_conv, "dt_min": decimal(dt_limits.min), "dt_max": decimal(dt_limits.max),
            "gate": format!("{gate:?}").to_lowercase(), "d_mlp": d_mlp,
            "d_per_element": d_per_element,
        }),
    }
}

/// 129135360 as 129,135,360.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The number as it was written: 0.001, not the f64 nearest to its f32.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(value.into())
}

#[cfg(test)]
mod tests {
    #[test]
    fn digits_are_grouped_by_three() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (129_135_360, "129,135,360")]
        {
            assert_eq!(super::grouped(number), text);
        }
    }
}
