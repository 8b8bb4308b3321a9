//! One factor a layer, for MambaExtend and Mamba Modulation, and the file that they are kept in.
//!
//! A safetensors file with `factors` f32 `[layers]`; the path of the search: `path.factors` f32
//! `[points, layers]` and `path.nll` f64 `[points]`, from the model as it is to the last step; and metadata
//! under `longmamba.factors`, a JSON object with everything else.

use crate::checkpoint::{Checkpoint, LoadOptions};
use crate::{Error, Result};
use longmamba_core::SharedBytes;
use longmamba_core::policy::Fingerprint;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// The newest version of the file that this library reads, and the one that it writes.
pub const SCALES_VERSION: u32 = 1;

const FORMAT: &str = "longmamba factors";
const KEY: &str = "longmamba.factors";
/// Beyond it, either way, no model says anything sensible.
const LARGEST: f32 = 1e3;

/// What the factors multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scaled {
    /// Δ: MambaExtend.
    Delta,
    /// A: Mamba Modulation.
    Rates,
}

impl Scaled {
    /// The method that has such factors.
    pub fn method(self) -> &'static str {
        match self {
            Scaled::Delta => super::mamba_extend::ENTRY.name,
            Scaled::Rates => super::modulation::ENTRY.name,
        }
    }
}

/// A point of the search.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// `[layers]`.
    pub factors: Vec<f32>,
    /// Mean negative log-likelihood of a label there, in nats.
    pub nll: f64,
}

/// On what the factors were tuned.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// Tokens of a window.
    pub length: usize,
    /// Windows.
    pub windows: usize,
    /// Labels at the end of each.
    pub labels: usize,
    /// Of the random directions.
    pub seed: u64,
}

/// Tuned factors of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Scales {
    scaled: Scaled,
    model: Fingerprint,
    factors: Vec<f32>,
    tuning: Tuning,
    path: Vec<Point>,
}

/// The JSON.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    version: u32,
    scaled: Scaled,
    family: String,
    layers: usize,
    channels: usize,
    digest: String,
    tuning: Tuning,
}

/// Enough of the JSON to see whether the rest can be understood.
#[derive(Deserialize)]
struct Preamble {
    format: String,
    version: u32,
}

impl Scales {
    /// # Errors
    /// [`Error::Argument`] where there is not one factor a layer, or one is not above 0 and at most 1000.
    pub fn new(
        scaled: Scaled,
        model: Fingerprint,
        factors: Vec<f32>,
        tuning: Tuning,
        path: Vec<Point>,
    ) -> Result<Self> {
        let all = path.iter().map(|point| &point.factors).chain([&factors]);
        for factors in all {
            if factors.len() != model.layers {
                let (factors, layers) = (factors.len(), model.layers);
                return Err(Error::argument(format!("{factors} factors for {layers} layers")));
            }
            if let Some(at) = factors.iter().position(|&f| !(f > 0.0 && f <= LARGEST)) {
                let value = factors[at];
                return Err(Error::argument(format!(
                    "the factor of layer {at} is {value}, must be above 0 and at most {LARGEST}"
                )));
            }
        }
        Ok(Scales { scaled, model, factors, tuning, path })
    }

    /// What they multiply.
    pub fn scaled(&self) -> Scaled {
        self.scaled
    }

    /// `[layers]`.
    pub fn factors(&self) -> &[f32] {
        &self.factors
    }

    /// On what they were tuned.
    pub fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// The search, from the model as it is to its last step.
    pub fn path(&self) -> &[Point] {
        &self.path
    }

    /// 1 for a layer that does not exist.
    pub(super) fn factor(&self, layer: usize) -> f32 {
        self.factors.get(layer).copied().unwrap_or(1.0)
    }

    pub(super) fn expect(&self, scaled: Scaled) -> Result<()> {
        if self.scaled == scaled {
            return Ok(());
        }
        let (given, wanted) = (self.scaled.method(), scaled.method());
        Err(Error::argument(format!("these are factors of method {given}, not of {wanted}")))
    }

    /// That they were tuned for the model with this fingerprint.
    pub(super) fn check(&self, model: &Fingerprint) -> Result<()> {
        let differ = self.model.differences(model);
        if differ.is_empty() {
            return Ok(());
        }
        let (method, tuned) = (self.scaled.method(), self.model.to_string());
        Err(Error::OtherModel { method, tuned, model: model.to_string(), differ })
    }

    /// The factors as a file.
    ///
    /// # Errors
    /// [`Error::Argument`] where safetensors refuses to write them, as it never should.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let Fingerprint { family, layers, channels, digest } = self.model.clone();
        let document = Document {
            format: FORMAT.into(),
            version: SCALES_VERSION,
            scaled: self.scaled,
            family,
            layers,
            channels,
            digest,
            tuning: self.tuning.clone(),
        };
        let wrong = |e: &dyn std::fmt::Display| Error::argument(format!("factors: {e}"));
        let json = serde_json::to_string(&document).map_err(|e| wrong(&e))?;
        let bytes = |values: &mut dyn Iterator<Item = &f32>| -> Vec<u8> {
            values.flat_map(|v| v.to_le_bytes()).collect()
        };
        let points = self.path.len();
        let nll: Vec<u8> = self.path.iter().flat_map(|p| p.nll.to_le_bytes()).collect();
        let path = bytes(&mut self.path.iter().flat_map(|p| &p.factors));
        let factors = bytes(&mut self.factors.iter());
        let view = |dtype, shape: Vec<usize>, bytes| {
            TensorView::new(dtype, shape, bytes).map_err(|e| wrong(&e))
        };
        let tensors = [
            ("factors", view(Dtype::F32, vec![layers], &factors)?),
            ("path.factors", view(Dtype::F32, vec![points, layers], &path)?),
            ("path.nll", view(Dtype::F64, vec![points], &nll)?),
        ];
        safetensors::serialize(tensors, Some(HashMap::from([(KEY.into(), json)])))
            .map_err(|e| wrong(&e))
    }

    /// The factors in a file; `path` is for messages only.
    ///
    /// # Errors
    /// [`Error::Malformed`] and the tensor errors for what is no such file, is damaged, or was written by a
    /// later version.
    pub fn from_bytes(bytes: SharedBytes, path: &Path) -> Result<Self> {
        let options = LoadOptions::default();
        let mut file = Checkpoint::from_bytes(bytes, path, options)?;
        let refuse = |why: String| Error::malformed(path, format!("no usable factors: {why}"));
        let json = file
            .metadata(KEY)
            .ok_or_else(|| refuse(format!("there is no metadata entry {KEY:?}")))?;
        let wrong = |e| refuse(format!("metadata entry {KEY:?}: {e}"));
        let Preamble { format, version } = serde_json::from_str(json).map_err(wrong)?;
        if format != FORMAT {
            return Err(refuse(format!("the format is {format:?}, expected {FORMAT:?}")));
        }
        if version == 0 || version > SCALES_VERSION {
            return Err(refuse(format!(
                "format version {version}, this library reads up to {SCALES_VERSION}"
            )));
        }
        let Document { scaled, family, layers, channels, digest, tuning, .. } =
            serde_json::from_str(json).map_err(wrong)?;
        let factors = file.take_f32("factors", &[layers])?.to_vec();
        let nll = file.take_f64("path.nll")?;
        let all = file.take_f32("path.factors", &[nll.len(), layers])?;
        file.finish()?;
        if let Some(at) = nll.iter().position(|nll| !nll.is_finite()) {
            return Err(refuse(format!("path.nll[{at}] is {}", nll[at])));
        }
        if layers == 0 {
            return Err(refuse("they are of no layer".into()));
        }
        let points = all.chunks_exact(layers).zip(&nll);
        let points = points.map(|(factors, &nll)| Point { factors: factors.to_vec(), nll });
        let model = Fingerprint { family, layers, channels, digest };
        Scales::new(scaled, model, factors, tuning, points.collect())
            .map_err(|e| refuse(e.to_string()))
    }

    /// Reads a file of factors.
    ///
    /// # Errors
    /// [`Error::Io`]; as [`from_bytes`](Self::from_bytes).
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        Self::from_bytes(Arc::new(bytes), path)
    }

    /// Writes a file of factors, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        crate::write_whole(path, &self.to_bytes()?)
    }
}
