//! Mamba Modulation (arXiv 2509.19633): A ← s·A, one factor s a layer, which scales the spectrum of the
//! state transition and leaves what a token adds to the state as it is.
//!
//! The factors are found by [`tune`](super::tune), as MambaExtend's are. Works with a prompt in any
//! chunks, at no cost.

use super::{Entry, Method, Own, Scaled, Scales};
use crate::Result;
use crate::config::Config;
use longmamba_core::policy::Fingerprint;
use std::sync::Arc;

/// Mamba Modulation with tuned factors.
#[derive(Clone, Debug)]
pub struct Modulation {
    scales: Scales,
}

/// In [`ALL`](super::ALL).
pub const ENTRY: Entry = Entry {
    name: "modulation",
    about: "A times a factor for each layer; needs factors from `longmamba tune`",
    build: |_, context| Ok(Some(Arc::new(Modulation { scales: context.scales(Scaled::Rates)? }))),
};

impl Modulation {
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where the factors are those of another method.
    pub fn new(scales: Scales) -> Result<Self> {
        scales.expect(Scaled::Rates)?;
        Ok(Modulation { scales })
    }
}

impl Method for Modulation {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn check(&self, _: &Config, model: &Fingerprint) -> Result<()> {
        self.scales.check(model)
    }

    fn rates(&self, layer: usize, own: Own<'_>) -> Result<Option<Vec<f32>>> {
        let factor = self.scales.factor(layer);
        if factor == 1.0 {
            return Ok(None);
        }
        Ok(Some(own()?.into_iter().map(|rate| rate * factor).collect()))
    }
}
