//! Checked values out of a JSON object.

use super::{Checked, GateKind, MixerConfig};
use longmamba_core::DtLimits;
use serde_json::{Map, Value};

/// No dimension of a real model comes near this; it keeps products of a few of them inside a u64.
const MAX_DIM: usize = 1 << 20;

/// More layers than any model has.
const MAX_LAYERS: usize = 1 << 12;

/// A JSON object. All fields that nobody asks for are ignored, as the models' own loaders do. `null`
/// is a field that is not there.
pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub(super) fn of(json: &'a Value) -> Option<Self> {
        json.as_object().map(Fields)
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|v| !v.is_null())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// `read` makes a value of a field that is there, or says no.
    fn read<T>(
        &self,
        name: &str,
        what: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Checked<Option<T>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| format!("{name} is {value}, must be {what}"))
    }

    pub(super) fn text(&self, name: &str) -> Checked<Option<&'a str>> {
        self.read(name, "a text", Value::as_str)
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> Checked<bool> {
        Ok(self.read(name, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    pub(super) fn float(&self, name: &str, default: f64) -> Checked<f64> {
        Ok(self.read(name, "a number", Value::as_f64)?.unwrap_or(default))
    }

    /// A whole number.
    pub(super) fn number(&self, name: &str) -> Checked<Option<usize>> {
        self.read(name, "a whole number", |v| usize::try_from(v.as_u64()?).ok())
    }

    /// A dimension: at least 1, and not absurd.
    pub(super) fn dim(&self, name: &str) -> Checked<usize> {
        check_dim(name, self.number(name)?)
    }

    pub(super) fn dim_or(&self, name: &str, default: usize) -> Checked<usize> {
        check_dim(name, self.number(name)?.or(Some(default)))
    }

    /// The number of layers.
    pub(super) fn layers(&self, name: &str) -> Checked<usize> {
        match self.dim(name)? {
            n if n <= MAX_LAYERS => Ok(n),
            n => Err(format!("{name} is {n}, must be at most {MAX_LAYERS}")),
        }
    }

    /// A list of whole numbers.
    pub(super) fn numbers(&self, name: &str) -> Checked<Vec<usize>> {
        let list = |v: &Value| {
            let all = v.as_array()?.iter().map(|v| usize::try_from(v.as_u64()?).ok());
            all.collect::<Option<Vec<_>>>()
        };
        Ok(self.read(name, "a list of whole numbers", list)?.unwrap_or_default())
    }

    /// Mamba-1's rank of Δ: a number, or "auto".
    pub(super) fn dt_rank(&self, name: &str, d_model: usize) -> Checked<usize> {
        match self.get(name) {
            Some(Value::String(auto)) if auto == "auto" => Ok(d_model.div_ceil(16)),
            _ => self.dim_or(name, d_model.div_ceil(16)),
        }
    }

    /// `expand · d_model`, a fraction cut off.
    pub(super) fn expanded(&self, name: &str, d_model: usize) -> Checked<usize> {
        check_dim(name, Some((self.float(name, 2.0)? * d_model as f64) as usize))
    }

    /// Two numbers, or nothing: no limits. Infinity is written in several ways: `Infinity`, quoted or
    /// as an object.
    pub(super) fn dt_limits(&self, name: &str) -> Checked<DtLimits> {
        let number = |v: &Value| match v {
            Value::Object(o) => {
                o.get("__float__").and_then(Value::as_str).and_then(|s| s.parse().ok())
            }
            Value::String(s) => s.parse::<f32>().ok(),
            v => v.as_f64().map(|v| v as f32),
        };
        let limits = |v: &Value| {
            let all = v.as_array()?.iter().map(number).collect::<Option<Vec<f32>>>()?;
            match all[..] {
                [min, max] if min >= 0.0 && min.is_finite() && max >= min => {
                    Some(DtLimits { min, max })
                }
                _ => None,
            }
        };
        Ok(self.read(name, "two numbers, 0 ≤ lower ≤ upper", limits)?.unwrap_or_default())
    }

    /// One token or several; what is none is ignored.
    pub(super) fn eos_tokens(&self) -> Vec<u32> {
        let all: Vec<u64> = match self.get("eos_token_id") {
            Some(Value::Number(n)) => n.as_u64().into_iter().collect(),
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_u64).collect(),
            _ => Vec::new(),
        };
        all.into_iter().filter_map(|e| u32::try_from(e).ok()).collect()
    }

    /// That an option which changes the model has the only value that is supported.
    pub(super) fn only(&self, name: &str, supported: &[&str]) -> Checked<()> {
        match self.text(name)? {
            Some(other) if !supported.contains(&other) => {
                Err(format!("{name} is {other:?}, only {:?} is supported", supported[0]))
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn check_dim(name: &str, value: Option<usize>) -> Checked<usize> {
    match value {
        None => Err(format!("field {name} is missing")),
        Some(v) if (1..=MAX_DIM).contains(&v) => Ok(v),
        Some(v) => Err(format!("{name} is {v}, must be between 1 and {MAX_DIM}")),
    }
}

/// The dimensions of a Mamba-2 mixer that hang together. `scan_width` is what the config gives
/// heads · head_dim.
pub(super) fn check_mamba2(mixer: MixerConfig, scan_width: usize) -> Checked<MixerConfig> {
    if let MixerConfig::Mamba2 { heads, head_dim, groups, .. } = mixer {
        if heads * head_dim != scan_width {
            return Err(format!(
                "num_heads · head_dim is {}, but the mixer is {scan_width} wide",
                heads * head_dim
            ));
        }
        if !heads.is_multiple_of(groups) {
            return Err(format!("n_groups is {groups}, which does not divide the {heads} heads"));
        }
    }
    Ok(mixer)
}

/// Which gate two flags of a config ask for.
pub(super) fn gate(has_norm: bool, norm_first: bool) -> GateKind {
    match (has_norm, norm_first) {
        (false, _) => GateKind::Plain,
        (true, false) => GateKind::Norm,
        (true, true) => GateKind::NormFirst,
    }
}
