//! Another program that continues a prompt: `cargo run --release --example embed -- MODEL_FOLDER`.

use longmamba_model::{CpuBackend, Model, Result, SessionOptions, most_likely};
use std::path::Path;

/// The `count` most likely next tokens, one after the other.
pub fn continue_prompt(folder: &Path, prompt: &[u32], count: usize) -> Result<Vec<u32>> {
    let model = Model::load(folder, CpuBackend::new(Some(2))?)?;
    let mut session = model.session(SessionOptions::default())?;
    session.prefill(prompt)?;
    let mut tokens = Vec::new();
    for _ in 0..count {
        let (next, _) = most_likely(session.logits())?;
        tokens.push(next);
        session.step(next)?;
    }
    Ok(tokens)
}

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "path/to/model".into());
    println!("{:?}", continue_prompt(folder.as_ref(), &[1, 2, 3], 10)?);
    Ok(())
}
