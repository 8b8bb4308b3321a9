//! One model, timed end to end on the CPU: prompts of several lengths, and writing token by token.
//!
//! ```text
//! cargo run --release -p longmamba-benches --bin speed -- MODEL --threads 2 \
//!     --prefill 512 --prefill 2048 --decode 128
//! ```
//!
//! Each figure is a line of JSON; `--help` lists what else there is. `benches/rivals` compares this with other engines.

mod cells;

use cells::{Engine, Options, Result, run};
use longmamba_model::{
    CpuBackend, LoadOptions, Model, Placement, Quantization, Session, SessionOptions,
};
use std::sync::Arc;

struct Ours {
    model: Arc<Model<CpuBackend>>,
    session: Session<CpuBackend>,
    options: SessionOptions,
}

fn main() -> Result<()> {
    run("ours", |options| {
        let placement = options.map.then_some(Placement::Map);
        let load = LoadOptions { placement, ..LoadOptions::default() };
        let model = Model::load_with(&options.model, backend(options)?, load)?;
        let session = SessionOptions { chunk_len: options.chunk, ..SessionOptions::default() };
        Ok(Ours { session: model.session(session.clone())?, options: session, model })
    })
}

/// The processor, computing in the numbers that are asked for.
fn backend(options: &Options) -> Result<CpuBackend> {
    let backend = CpuBackend::new(Some(options.threads))?;
    match options.compute.as_deref() {
        None | Some("auto") => Ok(backend),
        Some("whole") => Ok(backend.compact(false)),
        Some("int8") => Ok(backend.quantized(Quantization::Int8)),
        Some("int4") => Ok(backend.quantized(Quantization::Int4)),
        Some(other) => {
            Err(format!("--compute knows auto, whole, int8 and int4, not {other:?}").into())
        }
    }
}

impl Engine for Ours {
    fn reset(&mut self) -> Result<()> {
        self.session = self.model.session(self.options.clone())?;
        Ok(())
    }

    fn prefill(&mut self, tokens: &[u32]) -> Result<()> {
        Ok(self.session.prefill(tokens)?)
    }

    fn step(&mut self, token: u32) -> Result<()> {
        Ok(self.session.step(token)?)
    }

    fn logits(&mut self) -> Result<Vec<f32>> {
        Ok(self.session.logits().to_vec())
    }
}
