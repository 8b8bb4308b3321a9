//! Models of published shapes with random weights: written to disk in bf16, loaded through the memory
//! map, timed.
//!
//! ```text
//! cargo run --release -p longmamba-benches --bin full_size -- FOLDER [SHAPE…]
//! ```
//!
//! FOLDER gets a checkpoint of each shape (up to 5.6 GB), which is removed again after its turn unless
//! `--keep` is given.

use half::bf16;
use longmamba_model::{Batch, Config, CpuBackend, LoadOptions, Model, SessionOptions};
use safetensors::Dtype;
use safetensors::tensor::View;
use std::borrow::Cow;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

macro_rules! shapes {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../longmamba-model/tests/shapes/", $name, ".json")))),*]
    };
}

/// Tokens of the prompt.
const PROMPT: usize = 512;
/// Tokens after it.
const STEPS: usize = 16;
/// Sequences that are decoded together.
const BATCH: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let shapes = shapes!["mamba-130m", "mamba-1.4b", "mamba-2.8b", "mamba2-1.3b", "zamba2-1.2b"];
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let keep = arguments.iter().any(|a| a == "--keep");
    arguments.retain(|a| a != "--keep");
    let Some((folder, wanted)) = arguments.split_first() else {
        return Err("give the folder that checkpoints are written to".into());
    };
    println!(
        "| model | parameters | bytes | load s | load unchecked s | first token s | prefill tokens/s | \
         decode tokens/s | {BATCH} together | peak resident |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (name, config) in shapes {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            let path = Path::new(folder).join(name);
            write(&path, config)?;
            println!("{}", measure(name, &path)?);
            if !keep {
                std::fs::remove_dir_all(&path)?;
            }
        }
    }
    Ok(())
}

/// A row of the table.
fn measure(name: &str, path: &Path) -> Result<String, Box<dyn Error>> {
    let load = |check_finite| {
        let start = Instant::now();
        let options = LoadOptions { check_finite, ..LoadOptions::default() };
        let model = Model::load_with(path, CpuBackend::new(None)?, options)?;
        Ok::<_, longmamba_model::Error>((model, start.elapsed().as_secs_f64()))
    };
    let (_, unchecked) = load(false)?;
    let start = Instant::now();
    let (model, checked) = load(true)?;
    let mut session = model.session(SessionOptions::default())?;
    session.prefill(&[1])?;
    let first = start.elapsed().as_secs_f64();
    let vocab = u32::try_from(model.config().vocab_size)?;
    let mut rng = fastrand::Rng::with_seed(1);
    let prompt: Vec<u32> = (0..PROMPT).map(|_| rng.u32(..vocab)).collect();
    let mut session = model.session(SessionOptions::default())?;
    let start = Instant::now();
    session.prefill(&prompt)?;
    let prefill = PROMPT as f64 / start.elapsed().as_secs_f64();
    let start = Instant::now();
    for &token in &prompt[..STEPS] {
        session.step(token)?;
    }
    let decode = STEPS as f64 / start.elapsed().as_secs_f64();
    if !session.logits().iter().all(|l| l.is_finite()) {
        return Err(format!("{name}: a logit is not finite").into());
    }
    let mut batch = Batch::new(model.clone(), SessionOptions::default(), BATCH)?;
    let prompts: Vec<&[u32]> = (1..=BATCH).map(|n| &prompt[..4 * n]).collect();
    batch.prefill(&prompts)?;
    let start = Instant::now();
    for &token in &prompt[..STEPS] {
        batch.step(&[Some(token); BATCH])?;
    }
    let together = (BATCH * STEPS) as f64 / start.elapsed().as_secs_f64();
    let weights = model.weights();
    Ok(format!(
        "| {name} | {} | {:.2} GB | {checked:.2} | {unchecked:.3} | {first:.2} | {prefill:.1} | {decode:.2} | {together:.2} | {} |",
        weights.parameters,
        weights.bytes as f64 / 1e9,
        peak_resident()
    ))
}

/// The most memory that was resident, pages of the mapped file included; grows from row to row.
fn peak_resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.map_or_else(|| "?".into(), |l| l.trim().to_owned())
}

/// A checkpoint folder with random weights.
fn write(folder: &Path, config: &str) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join("config.json");
    std::fs::write(&path, config)?;
    let tensors = Config::read(&path)?.tensors()?;
    let file: PathBuf = folder.join("model.safetensors");
    let views = tensors.into_iter().map(|(name, shape)| {
        let random = Random { name: name.clone(), shape };
        (name, random)
    });
    safetensors::serialize_to_file(views, None, &file)?;
    Ok(())
}

/// A weight that is made when it is written, in a range in which activations stay tame.
struct Random {
    name: String,
    shape: Vec<usize>,
}

impl View for Random {
    fn dtype(&self) -> Dtype {
        Dtype::BF16
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let seed = self.name.bytes().fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
        let mut rng = fastrand::Rng::with_seed(seed);
        let inputs = self.shape.last().copied().unwrap_or(1).max(1) as f32;
        let (low, high) = match self.name.rsplit('.').next() {
            Some("A_log") => (0.0, 2.5),
            Some("dt_bias") => (-6.0, -2.0),
            Some("D") => (0.9, 1.1),
            _ if self.name.contains("dt_proj.bias") => (-6.0, -2.0),
            _ if self.name.contains("norm") => (0.9, 1.1),
            _ => (-(3.0 / inputs).sqrt(), (3.0 / inputs).sqrt()),
        };
        let mut bytes = Vec::with_capacity(self.data_len());
        for _ in 0..self.data_len() / 2 {
            bytes.extend_from_slice(&bf16::from_f32(low + (high - low) * rng.f32()).to_le_bytes());
        }
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        2 * self.shape.iter().product::<usize>()
    }
}
