//! MambaExtend (ICLR 2025): Δ ← s·Δ after softplus, one factor s a layer.
//!
//! The factors are found by [`tune`](super::tune), with the model as it is. They belong to the model as
//! much as its weights do, so tokens after the prompt are scaled too. Works with a prompt in any chunks.

use super::{Entry, Method, Reading, Scaled, Scales, Scan};
use crate::Result;
use crate::config::Config;
use longmamba_core::policy::Fingerprint;
use std::sync::Arc;

/// MambaExtend with tuned factors.
#[derive(Clone, Debug)]
pub struct MambaExtend {
    scales: Scales,
}

/// In [`ALL`](super::ALL).
pub const ENTRY: Entry = Entry {
    name: "mambaextend",
    about: "Δ times a factor for each layer; needs factors from `longmamba tune`",
    build: |_, context| Ok(Some(Arc::new(MambaExtend { scales: context.scales(Scaled::Delta)? }))),
};

impl MambaExtend {
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where the factors are those of another method.
    pub fn new(scales: Scales) -> Result<Self> {
        scales.expect(Scaled::Delta)?;
        Ok(MambaExtend { scales })
    }
}

impl Method for MambaExtend {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn check(&self, _: &Config, model: &Fingerprint) -> Result<()> {
        self.scales.check(model)
    }

    fn rewrites(&self, layer: usize, _: Reading) -> bool {
        self.scales.factor(layer) != 1.0
    }

    fn rewrite(&self, layer: usize, _: &Scan<'_>, delta: &mut [f32]) -> Result<()> {
        let factor = self.scales.factor(layer);
        delta.iter_mut().for_each(|value| *value *= factor);
        Ok(())
    }
}
