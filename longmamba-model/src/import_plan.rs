//! The calibration tables that LongMamba's authors publish, as a plan.
//!
//! Their tool writes a folder of small files with `torch.save`, one of each kind for a layer:
//!
//! | file | what it holds |
//! |---|---|
//! | `delta_t-thre/delta_t-thre_layer_<i>.pt` | a dictionary: "3k" → g(3000), `[channels]`, and so on |
//! | `tA_prod/tA_prod_layer_<i>.pt` | one tensor: exp(A·ΣΔ), the scores, `[channels]` |
//!
//! `alpha/`, `decay/` and `A/` lie beside them and are not needed. Layers count from 0. "1k" and "2k" are
//! zeros in f32; the others have the type that the model ran in, bf16 for Zamba2.

use crate::checkpoint::StoredTensor;
use crate::torch;
use crate::{Error, Result};
use half::{bf16, f16};
use longmamba_core::policy::{
    Aggregate, CalibrationSettings, Fingerprint, LayerTable, Plan, PlanParts,
};
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How imported tables were made, which they do not say, and how they are used.
///
/// The default is what the paper and the code have for Mamba2-1.3B.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportSettings {
    /// L, in tokens: the length of a calibration window. 2000; 4000 for Zamba2.
    pub train_len: usize,
    /// The share of the largest Δ that was clamped, in percent: 5. It is recorded, nothing more, and so
    /// are the next two.
    pub clamp_percent: f64,
    /// How the windows were combined: the maximum, `max` at the end of the folder's name.
    pub aggregate: Aggregate,
    /// The number of windows: 5.
    pub windows: usize,
    /// θ: a channel is global where its score exceeds it. 5e-2; 1e-5 for Zamba2-1.2B.
    pub theta: f64,
    /// The shortest text that is filtered, in tokens: 3000, as in the published code.
    pub min_total_len: usize,
}

impl Default for ImportSettings {
    fn default() -> Self {
        ImportSettings {
            train_len: 2000,
            clamp_percent: 5.0,
            aggregate: Aggregate::Max,
            windows: 5,
            theta: 5e-2,
            min_total_len: 3000,
        }
    }
}

/// Bytes of a file of tables; the largest model's have about half a megabyte.
const MAX_FILE: u64 = 16 << 20;
/// Lengths of a table; the published ones have 25.
const MAX_LENGTHS: usize = 1000;

/// Reads the tables in `folder` for the model with this fingerprint.
///
/// The published scores are plain numbers in f32: a decay below about 1e-45 is 0 there, and −∞ in the
/// plan, so that with θ = 0 such a channel is local, as in the published code. Thresholds for lengths up
/// to [`ImportSettings::train_len`] become 0, which is what a [`Plan`] has there.
///
/// # Errors
/// [`Error::Io`] where a layer's file is missing, [`Error::Malformed`] and [`Error::Pickle`] where it
/// cannot be read, has another number of channels than the model or other lengths than the layers before, or
/// a value that is no threshold or no score, [`Error::NonFinite`] and [`Error::TensorDType`]; each
/// names the file and the key. [`Error::Core`] where a setting is out of its range.
pub fn import_plan(
    folder: &Path,
    fingerprint: Fingerprint,
    settings: &ImportSettings,
) -> Result<Plan> {
    let (layers, channels) = (fingerprint.layers, fingerprint.channels);
    let mut lengths = Vec::new();
    let mut tables = Vec::new();
    for layer in 0..layers {
        let path = file(folder, "delta_t-thre", layer);
        let rows = thresholds(&path, channels)?;
        let found: Vec<usize> = rows.keys().copied().collect();
        if layer == 0 {
            lengths = found;
        } else if lengths != found {
            return Err(other_lengths(&path, &lengths, &found));
        }
        let filtered = |(length, row): (usize, Vec<f32>)| {
            row.into_iter().map(move |g| if length <= settings.train_len { 0.0 } else { g })
        };
        tables.push(LayerTable {
            log_scores: log_scores(&file(folder, "tA_prod", layer), channels)?,
            thresholds: rows.into_iter().flat_map(filtered).collect(),
        });
    }
    for part in ["delta_t-thre", "tA_prod"] {
        let beyond = file(folder, part, layers);
        if beyond.exists() {
            let reason = format!("a table of layer {layers}; the model has {layers} layers");
            return Err(Error::malformed(&beyond, reason));
        }
    }
    let &ImportSettings { train_len, clamp_percent, aggregate, windows, theta, min_total_len } =
        settings;
    let settings = CalibrationSettings::new(train_len, clamp_percent, aggregate, lengths)?;
    let parts = PlanParts { fingerprint, settings, windows, theta, min_total_len, layers: tables };
    Ok(Plan::new(parts)?)
}

fn file(folder: &Path, part: &str, layer: usize) -> PathBuf {
    folder.join(part).join(format!("{part}_layer_{layer}.pt"))
}

/// Length in tokens → `[channels]`.
fn thresholds(path: &Path, channels: usize) -> Result<BTreeMap<usize, Vec<f32>>> {
    let bytes = read(path)?;
    let mut rows = BTreeMap::new();
    let tensors = torch::tensors(&bytes, path)?;
    if tensors.len() > MAX_LENGTHS {
        let reason = format!("it has {} tables, more than {MAX_LENGTHS}", tensors.len());
        return Err(Error::malformed(path, reason));
    }
    for (key, tensor) in tensors {
        let Some(length) = length(&key) else {
            let reason = format!("key {key:.40?} is no length; expected \"3k\" and the like");
            return Err(Error::malformed(path, reason));
        };
        let row = numbers(&bytes, &tensor, path, &key, channels)?;
        let allowed = 0.0..=f64::from(f32::MAX);
        check(&row, path, &key, "a threshold", |value| allowed.contains(value))?;
        rows.insert(length, row.into_iter().map(|value| value as f32).collect());
    }
    if rows.is_empty() {
        return Err(Error::malformed(path, "it has no table of thresholds"));
    }
    Ok(rows)
}

/// `[channels]`
fn log_scores(path: &Path, channels: usize) -> Result<Vec<f64>> {
    const KEY: &str = "tA_prod";
    // Rounding of a sum of f32.
    const LARGEST: f64 = 1.0 + 1e-6;
    let bytes = read(path)?;
    let scores = numbers(&bytes, &torch::tensor(&bytes, path)?, path, KEY, channels)?;
    check(&scores, path, KEY, "a score between 0 and 1", |value| (0.0..=LARGEST).contains(value))?;
    Ok(scores.into_iter().map(|score| score.min(1.0).ln()).collect())
}

/// "12k" is 12 000; each length has one spelling.
fn length(key: &str) -> Option<usize> {
    let digits = key.strip_suffix('k')?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    // Six digits do not overflow.
    let digits = Some(digits).filter(|digits| plain && digits.len() <= 6)?;
    Some(digits.parse::<usize>().ok()? * 1000)
}

/// The tensor's values, which must be one for each channel.
fn numbers(
    bytes: &[u8],
    tensor: &StoredTensor,
    path: &Path,
    key: &str,
    channels: usize,
) -> Result<Vec<f64>> {
    if tensor.shape != [channels] {
        let shape = &tensor.shape;
        let reason = format!("{key} has shape {shape:?}, the model has {channels} channels");
        return Err(Error::malformed(path, reason));
    }
    let data = &bytes[tensor.range.clone()];
    let words2 = || data.as_chunks::<2>().0.iter();
    let numbers: Vec<f64> = match tensor.dtype {
        Dtype::F16 => words2().map(|b| f16::from_le_bytes(*b).into()).collect(),
        Dtype::BF16 => words2().map(|b| bf16::from_le_bytes(*b).into()).collect(),
        Dtype::F32 => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect(),
        Dtype::F64 => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        other => {
            return Err(Error::TensorDType {
                path: path.to_owned(),
                tensor: key.into(),
                expected: "f32, f16, bf16 or f64",
                actual: format!("{other:?}"),
            });
        }
    };
    match numbers.iter().position(|value| !value.is_finite()) {
        None => Ok(numbers),
        Some(index) => Err(Error::NonFinite { path: path.to_owned(), tensor: key.into(), index }),
    }
}

fn check(
    values: &[f64],
    path: &Path,
    key: &str,
    what: &str,
    allowed: impl Fn(&f64) -> bool,
) -> Result<()> {
    match values.iter().position(|value| !allowed(value)) {
        None => Ok(()),
        Some(channel) => {
            let value = values[channel];
            let reason = format!("{key} has {value} for channel {channel}, which is not {what}");
            Err(Error::malformed(path, reason))
        }
    }
}

fn other_lengths(path: &Path, expected: &[usize], found: &[usize]) -> Error {
    let only =
        |one: &[usize], two: &[usize]| one.iter().find(|n| two.binary_search(n).is_err()).copied();
    let reason = match (only(expected, found), only(found, expected)) {
        (Some(missing), _) => format!("it lacks the key \"{}k\" of layer 0", missing / 1000),
        (None, surplus) => {
            let surplus = surplus.unwrap_or_default() / 1000;
            format!("it has the key \"{surplus}k\", which layer 0 lacks")
        }
    };
    Error::malformed(path, reason)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let size = std::fs::metadata(path).map_err(Error::io(path))?.len();
    if size > MAX_FILE {
        return Err(Error::malformed(path, format!("{size} bytes are no table of thresholds")));
    }
    std::fs::read(path).map_err(Error::io(path))
}

#[cfg(test)]
mod tests;
