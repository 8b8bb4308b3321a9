use crate::failure::Outcome;
use crate::output::{Output, count};
use crate::progress::Bar;
use clap::{Args, ValueEnum};
use longmamba_model::{DType, convert, hub};
use serde_json::json;
use std::path::PathBuf;

/// Write a checkpoint of any format as one safetensors file
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  longmamba convert path/to/mamba2-1.3b --out mamba2-1.3b-safetensors\n  \
    longmamba convert path/to/mamba2-1.3b --dtype bf16 --out mamba2-1.3b-bf16\n\n\
    Names and values stay, so that plans and saved sessions still fit, unless --dtype rounds them."
)]
pub struct Convert {
    /// A folder, a weights file beside its config.json, or an id in the Hugging Face cache
    #[arg(value_name = "MODEL")]
    model: String,
    /// The folder to make: config.json, model.safetensors, and the tokenizer
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Round all weights to this type [default: as they are]
    #[arg(long, value_enum)]
    dtype: Option<TypeArg>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TypeArg {
    F32,
    F16,
    Bf16,
}

impl Convert {
    pub fn run(self, output: &Output) -> Outcome {
        let from = hub::find(&self.model)?;
        let dtype = self.dtype.map(|dtype| match dtype {
            TypeArg::F32 => DType::F32,
            TypeArg::F16 => DType::F16,
            TypeArg::Bf16 => DType::BF16,
        });
        let bar = Bar::new(output, "converting", 0, "bytes");
        let done = convert(&from, &self.out, dtype, &mut |done, all| {
            bar.set_length(all);
            bar.set(done);
        })?;
        drop(bar);
        let json = json!({
            "model": self.model, "out": self.out, "tensors": done.tensors, "bytes": done.bytes
        });
        output.result(&json, || {
            let (out, bytes) = (self.out.display(), count(done.bytes as f64));
            format!("{out}: {} tensors, {bytes}B\n", done.tensors)
        })
    }
}
