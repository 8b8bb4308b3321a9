//! Two small byte models that were really trained, and their calibrated plans, inside the program.

use crate::backend::{Backend, CpuBackend};
use crate::model::Model;
use crate::{Error, Result};
use longmamba_core::policy::Plan;
use std::path::PathBuf;
use std::sync::Arc;

/// A model inside the program: 4 layers, about 0.3 M parameters, a token is a byte, trained on windows
/// of 256 bytes of English novels and on recalling `<K=v>` facts.
#[derive(Debug)]
pub struct Builtin {
    /// Its name: `builtin:` and this.
    pub name: &'static str,
    config: &'static [u8],
    weights: &'static [u8],
    plan: &'static [u8],
}

/// Weights are used in place, so they must lie as a file would: on a boundary of 64 bytes.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

macro_rules! builtin {
    ($name:literal) => {
        Builtin {
            name: $name,
            config: include_bytes!(concat!("../builtin/", $name, "/config.json")),
            weights: {
                static WEIGHTS: &Aligned<[u8]> =
                    &Aligned(*include_bytes!(concat!("../builtin/", $name, "/model.safetensors")));
                &WEIGHTS.0
            },
            plan: include_bytes!(concat!("../builtin/", $name, "/plan.safetensors")),
        }
    };
}

static ALL: [Builtin; 2] = [builtin!("mamba1-tiny"), builtin!("mamba2-tiny")];

/// All built-in models.
pub fn all() -> &'static [Builtin] {
    &ALL
}

/// The built-in model of this name (without `builtin:`).
pub fn find(name: &str) -> Option<&'static Builtin> {
    ALL.iter().find(|b| b.name == name)
}

impl Builtin {
    /// Loads the model on the processor.
    ///
    /// # Errors
    /// None that a released build should have: the bytes are part of the program.
    pub fn model(&self, backend: CpuBackend) -> Result<Arc<Model>> {
        self.model_on(backend)
    }

    /// Loads the model on any device.
    ///
    /// # Errors
    /// Those of the device.
    pub fn model_on<B: Backend>(&self, backend: B) -> Result<Arc<Model<B>>> {
        let name = format!("builtin:{}", self.name);
        Model::from_bytes(self.config, Arc::new(self.weights), &name, backend)
    }

    /// Its LongMamba plan, made by this library's own calibration.
    ///
    /// # Errors
    /// As [`Builtin::model`].
    pub fn plan(&self) -> Result<Plan> {
        let path = PathBuf::from(format!("builtin:{}/plan.safetensors", self.name));
        Plan::from_bytes(self.plan).map_err(|source| Error::Plan { path, source })
    }
}
