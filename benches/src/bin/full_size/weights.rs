//! Checkpoints of published shapes with random weights.

use half::bf16;
use longmamba_model::Config;
use safetensors::Dtype;
use safetensors::tensor::View;
use std::borrow::Cow;
use std::error::Error;
use std::path::{Path, PathBuf};

macro_rules! shapes {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../../longmamba-model/tests/shapes/", $name, ".json")))),*]
    };
}

/// Names and configs of published models.
const SHAPES: [(&str, &str); 6] =
    shapes!["mamba-130m", "mamba2-130m", "mamba-1.4b", "mamba-2.8b", "mamba2-1.3b", "zamba2-1.2b"];

/// No published model: to see that everything runs, where it is asked for by its name.
pub const TINY: (&str, &str) = (
    "tiny",
    r#"{"d_model": 64, "n_layer": 2, "vocab_size": 256, "ssm_cfg": {"layer": "Mamba2"}, "rms_norm": true}"#,
);

/// Published shapes, and the tiny one.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    SHAPES.into_iter().chain([TINY])
}

/// A checkpoint folder with random weights.
pub fn write(folder: &Path, config: &str) -> Result<(), Box<dyn Error>> {
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
