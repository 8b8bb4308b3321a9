//! candle's Mamba and Mamba-2 models, used as candle's own examples use them: token by token, and with
//! `--chunk N` (Mamba-2 only) the whole prompt at once in chunks of N. Either way each token that is read
//! has its logits computed; there is no other way through these models.

#[path = "../../../../src/bin/speed/cells.rs"]
mod cells;

use candle::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{mamba, mamba2};
use cells::{Engine, Options, Result, run};
use serde_json::Value;
use std::fs;

enum Model {
    Mamba(mamba::Model, mamba::Config, mamba::State),
    Mamba2(mamba2::Model, mamba2::Config, mamba2::State),
}

struct Candle {
    model: Model,
    dtype: DType,
    chunk: Option<usize>,
    logits: Option<Tensor>,
}

fn main() -> Result<()> {
    run("candle", load)
}

fn load(options: &Options) -> Result<Candle> {
    // candle takes its threads from rayon's variable, before anything runs.
    if std::env::var("RAYON_NUM_THREADS").ok() != Some(options.threads.to_string()) {
        return Err("set RAYON_NUM_THREADS to the number of threads".into());
    }
    if options.compute.is_some() {
        return Err(
            "candle computes in the numbers of its weights, so there is no --compute".into()
        );
    }
    let dtype = match options.dtype.as_str() {
        "f32" => DType::F32,
        "bf16" => DType::BF16,
        other => return Err(format!("no dtype {other}").into()),
    };
    let config: Value = serde_json::from_slice(&fs::read(options.model.join("config.json"))?)?;
    let tensors = candle::safetensors::load(options.model.join("model.safetensors"), &Device::Cpu)?;
    let weights = VarBuilder::from_tensors(tensors, dtype, &Device::Cpu);
    let model = if config["model_type"] == "mamba2" {
        let config: mamba2::Config = serde_json::from_value(config)?;
        let state = mamba2::State::new(1, &config, dtype, &Device::Cpu)?;
        Model::Mamba2(mamba2::Model::new(&config, weights.pp("backbone"))?, config, state)
    } else {
        let field = |name: &str| {
            let number = config[name].as_u64().ok_or(format!("config.json: no {name}"))?;
            Ok::<_, String>(number as usize)
        };
        let config = mamba::Config {
            d_model: field("hidden_size")?,
            n_layer: field("num_hidden_layers")?,
            vocab_size: field("vocab_size")?,
            pad_vocab_size_multiple: 1,
        };
        // This model knows the original names only.
        let weights =
            weights.rename_f(|name| name.replace("backbone.embedding.", "backbone.embeddings."));
        let state = mamba::State::new(1, &config, dtype, &Device::Cpu)?;
        Model::Mamba(mamba::Model::new(&config, weights.pp("backbone"))?, config, state)
    };
    if options.chunk.is_some() && matches!(model, Model::Mamba(..)) {
        return Err("candle's Mamba reads token by token, so there is no --chunk".into());
    }
    Ok(Candle { model, dtype, chunk: options.chunk, logits: None })
}

impl Engine for Candle {
    fn reset(&mut self) -> Result<()> {
        match &mut self.model {
            Model::Mamba(_, config, state) => {
                *state = mamba::State::new(1, config, self.dtype, &Device::Cpu)?;
            }
            Model::Mamba2(_, config, state) => {
                *state = mamba2::State::new(1, config, self.dtype, &Device::Cpu)?;
            }
        }
        Ok(())
    }

    fn prefill(&mut self, tokens: &[u32]) -> Result<()> {
        let (Model::Mamba2(model, _, state), Some(chunk)) = (&mut self.model, self.chunk) else {
            return tokens.iter().try_for_each(|&token| self.step(token));
        };
        let input = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let logits = model.forward_prefill(&input, state, chunk)?;
        self.logits = Some(logits.narrow(1, tokens.len() - 1, 1)?.squeeze(1)?);
        Ok(())
    }

    fn step(&mut self, token: u32) -> Result<()> {
        let input = Tensor::new(&[token], &Device::Cpu)?;
        self.logits = Some(match &mut self.model {
            Model::Mamba(model, _, state) => model.forward(&input, state)?,
            Model::Mamba2(model, _, state) => model.forward(&input, state)?,
        });
        Ok(())
    }

    fn logits(&mut self) -> Result<Vec<f32>> {
        let logits = self.logits.as_ref().ok_or("nothing was read")?;
        Ok(logits.squeeze(0)?.to_dtype(DType::F32)?.to_vec1()?)
    }
}
