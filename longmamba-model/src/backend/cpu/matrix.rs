//! Large weights on the CPU.

use crate::{Error, Result};
use longmamba_core::{AnyView, DType, Tensor};
use longmamba_cpu::Quantized;
use std::sync::Arc;

/// A large weight, `[rows, columns]`.
#[derive(Clone, Debug)]
pub enum CpuMatrix {
    /// In the file's own type, and where the file is mapped into memory, in place.
    InPlace(Tensor),
    /// In fewer bits.
    Quantized(Arc<Quantized>),
}

impl CpuMatrix {
    /// As the file has it.
    ///
    /// # Errors
    /// [`Error::Argument`] where the weight is quantised.
    pub(super) fn in_place(&self) -> Result<AnyView<'_, 2>> {
        match self {
            CpuMatrix::InPlace(tensor) => Ok(tensor.any_view()?),
            CpuMatrix::Quantized(_) => Err(Error::argument("the embedding table is not quantised")),
        }
    }

    /// What it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            CpuMatrix::InPlace(tensor) => tensor.bytes().len(),
            CpuMatrix::Quantized(quantized) => quantized.bytes(),
        }
    }

    /// Whether activations may be rounded to `bf16` where they meet it: its weights have no more precision.
    pub(super) fn is_rounded(&self) -> bool {
        match self {
            CpuMatrix::InPlace(tensor) => tensor.dtype() == DType::BF16,
            CpuMatrix::Quantized(_) => true,
        }
    }
}
