//! LongMamba (ICLR 2025, arXiv 2504.16053): in global channels, tokens whose Δ is not above a threshold
//! are dropped from the state. The threshold depends on the prompt's length and is calibrated so that
//! the kept tokens decay the state no more than a text of the training length does.
//!
//! Works with a prompt in chunks, once its length is known. [`longmamba_core::policy`] has the equations.

use super::{Entry, Method};
use crate::config::Config;
use crate::{Error, Result};
use longmamba_core::policy::{Fingerprint, Lookup, Plan};
use std::fmt;
use std::sync::Arc;

/// LongMamba with a calibrated plan. Also what [`SessionOptions::plan`](crate::SessionOptions::plan)
/// stands for.
#[derive(Clone, PartialEq)]
pub struct LongMamba {
    plan: Arc<Plan>,
    lookup: Lookup,
    threshold_scale: f32,
}

/// In [`ALL`](super::ALL).
pub const ENTRY: Entry = Entry {
    name: "longmamba",
    about: "Global channels forget tokens with a small Δ; needs a plan",
    build: |settings, context| {
        let threshold_scale = settings.take("scale", context.threshold_scale)?;
        let plan = context.plan("longmamba")?;
        Ok(Some(Arc::new(LongMamba::new(plan, context.lookup, threshold_scale)?)))
    },
};

impl LongMamba {
    /// `threshold_scale` is b: the thresholds are multiplied by it.
    ///
    /// # Errors
    /// [`Error::Argument`] where b is not finite and ≥ 0.
    pub fn new(plan: Arc<Plan>, lookup: Lookup, threshold_scale: f32) -> Result<Self> {
        check_scale(threshold_scale)?;
        Ok(LongMamba { plan, lookup, threshold_scale })
    }
}

pub(crate) fn check_scale(threshold_scale: f32) -> Result<()> {
    match threshold_scale >= 0.0 && threshold_scale.is_finite() {
        true => Ok(()),
        false => {
            let why = format!("threshold_scale is {threshold_scale}, must be finite and ≥ 0");
            Err(Error::argument(why))
        }
    }
}

impl Method for LongMamba {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn identity(&self) -> String {
        format!("{self:?} {}", crate::snapshot::digest(&self.plan.to_bytes()))
    }

    fn check(&self, _: &Config, model: &Fingerprint) -> Result<()> {
        Ok(self.plan.check(model)?)
    }

    fn needs_length(&self) -> bool {
        true
    }

    fn thresholds(&self, layer: usize, total: usize, out: &mut [f32]) -> Result<()> {
        Ok(self.plan.delta_min(layer, total, self.lookup, self.threshold_scale, out)?)
    }
}

/// Without the plan's tables, which are long.
impl fmt::Debug for LongMamba {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LongMamba")
            .field("theta", &self.plan.theta())
            .field("lookup", &self.lookup)
            .field("threshold_scale", &self.threshold_scale)
            .finish_non_exhaustive()
    }
}
