//! Plans as files: bytes in, bytes out.
//!
//! A plan file is a safetensors file with two tensors, `log_scores` `[layers, channels]` in F64 and
//! `thresholds` `[layers, lengths, channels]` in F32, and one entry of metadata, `longmamba.plan`, a
//! JSON object with everything else ([`Document`]). There is nothing else in it: what this version
//! does not know is an error, and a change of format is a change of version.

use super::calibrate::{Aggregate, CalibrationSettings, LayerTable};
use super::plan::{Fingerprint, Plan, PlanParts};
use crate::{PlanError, Result};
use safetensors::tensor::{Dtype, Metadata, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt::Display;

/// The newest format version that this library reads, and the one that it writes.
pub const PLAN_VERSION: u64 = 1;

/// What the JSON says that it is.
const FORMAT: &str = "longmamba plan";
/// The metadata entry that holds the JSON: only one, because safetensors does not order entries, and
/// equal plans must be equal bytes.
const KEY: &str = "longmamba.plan";
const LOG_SCORES: &str = "log_scores";
const THRESHOLDS: &str = "thresholds";
/// Bytes. Ours have about a thousand, and 100 000 lengths would fit; a header takes many times its size
/// to parse.
const MAX_HEADER: usize = 1 << 20;

/// Enough of the JSON to see whether the rest can be understood.
#[derive(Deserialize)]
struct Preamble {
    format: String,
    version: u64,
}

/// The JSON.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    version: u64,
    family: String,
    layers: usize,
    channels: usize,
    digest: String,
    train_len: usize,
    min_total_len: usize,
    windows: usize,
    /// Decimal, as a string: parsers of JSON numbers may be off by an ULP.
    theta: String,
    /// As theta.
    clamp_percent: String,
    /// "max" or "average".
    aggregate: String,
    lengths: Vec<usize>,
}

impl Plan {
    /// The plan as a file. Equal plans give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Fingerprint { family, layers, channels, digest } = self.fingerprint().clone();
        let document = Document {
            format: FORMAT.into(),
            version: PLAN_VERSION,
            family,
            layers,
            channels,
            digest,
            train_len: self.train_len(),
            min_total_len: self.min_total_len(),
            windows: self.windows(),
            theta: self.theta().to_string(),
            clamp_percent: self.clamp_percent().to_string(),
            aggregate: self.aggregate().to_string(),
            lengths: self.lengths().to_vec(),
        };
        let tables = self.layers();
        let log_scores: Vec<u8> =
            tables.iter().flat_map(|l| &l.log_scores).flat_map(|v| v.to_le_bytes()).collect();
        let thresholds: Vec<u8> =
            tables.iter().flat_map(|l| &l.thresholds).flat_map(|v| v.to_le_bytes()).collect();
        let [log_scores_shape, thresholds_shape] = document.shapes();
        let tensor = |dtype, shape, bytes| {
            TensorView::new(dtype, shape, bytes).expect("Plan::new checked the sizes of the tables")
        };
        let tensors = [
            (LOG_SCORES, tensor(Dtype::F64, log_scores_shape, &log_scores)),
            (THRESHOLDS, tensor(Dtype::F32, thresholds_shape, &thresholds)),
        ];
        let json = serde_json::to_string(&document).expect("strings and integers are JSON");
        safetensors::serialize(tensors, Some(HashMap::from([(KEY.into(), json)])))
            .expect("two tensors whose sizes fit their shapes are a safetensors file")
    }

    /// The plan in a file.
    ///
    /// Memory stays within a small multiple of the file's size, whatever the file claims.
    ///
    /// # Errors
    /// [`PlanError::Malformed`] where the bytes are not a plan file, [`PlanError::Version`] where they
    /// are one of a later version, and the errors of [`CalibrationSettings::new`] and [`Plan::new`]
    /// where its values make no plan.
    pub fn from_bytes(bytes: &[u8]) -> Result<Plan> {
        let (metadata, data) = open(bytes)?;
        let document = Document::find(&metadata)?;
        let [log_scores_shape, thresholds_shape] = document.shapes();
        let log_scores = tensor(&metadata, data, LOG_SCORES, Dtype::F64, log_scores_shape)?;
        let thresholds = tensor(&metadata, data, THRESHOLDS, Dtype::F32, thresholds_shape)?;
        if let Some(name) = metadata
            .tensors()
            .keys()
            .filter(|name| ![LOG_SCORES, THRESHOLDS].contains(&&name[..]))
            .min()
        {
            return Err(malformed(format_args!("tensor {name:?} does not belong into one")));
        }
        let aggregate = match &document.aggregate[..] {
            "max" => Aggregate::Max,
            "average" => Aggregate::Average,
            other => return Err(malformed(format_args!("aggregate {other:?} is unknown"))),
        };
        let theta = number("theta", &document.theta)?;
        let clamp_percent = number("clamp_percent", &document.clamp_percent)?;
        let Document {
            family, layers, channels, digest, train_len, min_total_len, windows, ..
        } = document;
        let settings =
            CalibrationSettings::new(train_len, clamp_percent, aggregate, document.lengths)?;
        // A tensor without elements could claim any number of layers.
        if log_scores.is_empty() {
            return Err(malformed(format_args!("it has {layers} layers of {channels} channels")));
        }
        // Now both sizes are at most the file's.
        let row = channels * size_of::<f64>();
        let table = channels * settings.lengths().len() * size_of::<f32>();
        let layers_read = log_scores.chunks_exact(row).zip(thresholds.chunks_exact(table));
        let layer = |(log_scores, thresholds)| LayerTable {
            log_scores: words(log_scores).map(f64::from_le_bytes).collect(),
            thresholds: words(thresholds).map(f32::from_le_bytes).collect(),
        };
        Plan::new(PlanParts {
            fingerprint: Fingerprint { family, layers, channels, digest },
            settings,
            windows,
            theta,
            min_total_len,
            layers: layers_read.map(layer).collect(),
        })
    }
}

impl Document {
    /// Of `log_scores` and of `thresholds`.
    fn shapes(&self) -> [Vec<usize>; 2] {
        let Document { layers, channels, lengths, .. } = self;
        [vec![*layers, *channels], vec![*layers, lengths.len(), *channels]]
    }

    fn find(metadata: &Metadata) -> Result<Document> {
        let entries = metadata.metadata().as_ref();
        let json = entries.and_then(|entries| entries.get(KEY));
        let Some(json) = json else {
            return Err(malformed(format_args!("it has no metadata entry {KEY:?}")));
        };
        if let Some(name) = entries.into_iter().flat_map(HashMap::keys).filter(|k| *k != KEY).min()
        {
            return Err(malformed(format_args!(
                "metadata entry {name:?} does not belong into one"
            )));
        }
        let wrong = |error| malformed(format_args!("metadata entry {KEY:?}: {error}"));
        let Preamble { format, version } = serde_json::from_str(json).map_err(wrong)?;
        if format != FORMAT {
            return Err(malformed(format_args!("its format is {format:?}, expected {FORMAT:?}")));
        }
        if version > PLAN_VERSION {
            return Err(PlanError::Version { found: version, supported: PLAN_VERSION }.into());
        }
        if version == 0 {
            return Err(malformed(format_args!("there is no format version 0")));
        }
        serde_json::from_str(json).map_err(wrong)
    }
}

/// Header and data of a safetensors file; each tensor lies within the data.
///
/// The header is taken off here because `SafeTensors::deserialize` adds the sizes that it claims
/// without a check for overflow.
fn open(bytes: &[u8]) -> Result<(Metadata, &[u8])> {
    let Some((len, rest)) = bytes.split_first_chunk() else {
        return Err(malformed(format_args!("{} bytes are too short for a header", bytes.len())));
    };
    let len = u64::from_le_bytes(*len);
    let Some((header, data)) = usize::try_from(len).ok().and_then(|len| rest.split_at_checked(len))
    else {
        let (claim, actual) = (len, rest.len());
        return Err(malformed(format_args!(
            "it claims a header of {claim} bytes and has {actual}"
        )));
    };
    if header.len() > MAX_HEADER {
        return Err(malformed(format_args!("its header of {len} bytes is too long")));
    }
    let metadata: Metadata =
        serde_json::from_slice(header).map_err(|e| malformed(format_args!("its header: {e}")))?;
    let (claim, actual) = (metadata.data_len(), data.len());
    if claim != actual {
        return Err(malformed(format_args!("it claims {claim} bytes of data and has {actual}")));
    }
    Ok((metadata, data))
}

/// The bytes of a tensor of exactly this type and shape.
fn tensor<'a>(
    metadata: &Metadata,
    data: &'a [u8],
    name: &str,
    dtype: Dtype,
    shape: Vec<usize>,
) -> Result<&'a [u8]> {
    let Some(info) = metadata.info(name) else {
        return Err(malformed(format_args!("it has no tensor {name:?}")));
    };
    if (info.dtype, &info.shape) != (dtype, &shape) {
        let (found, found_shape) = (info.dtype, &info.shape);
        return Err(malformed(format_args!(
            "tensor {name:?} is {found} {found_shape:?}, expected {dtype} {shape:?}"
        )));
    }
    let (start, end) = info.data_offsets;
    data.get(start..end)
        .ok_or_else(|| malformed(format_args!("tensor {name:?} is outside the file")))
}

/// The whole words of `N` bytes.
fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes.as_chunks().0.iter().copied()
}

fn number(field: &str, text: &str) -> Result<f64> {
    text.parse().map_err(|_| malformed(format_args!("{field} is {text:?}, not a number")))
}

/// Names from the file are printed, so the text is cut to a sane length.
fn malformed(why: impl Display) -> crate::Error {
    PlanError::Malformed(format!("{why:.400}").chars().take(400).collect()).into()
}
