//! Large weights on the CPU.

use crate::large::LargeBytes;
use crate::{Error, Result};
use longmamba_core::{AnyView, DType, Tensor};
use longmamba_cpu::{Cpu, Packed, Quantized};
use rayon::prelude::*;
use std::sync::Arc;

/// A large weight, `[rows, columns]`.
#[derive(Clone, Debug)]
pub enum CpuMatrix {
    /// In the file's own type, and where the file is mapped into memory, in place.
    InPlace(Tensor),
    /// In memory of its own, in the order in which products read it.
    Packed(Packed),
    /// In fewer bits.
    Quantized(Arc<Quantized>),
}

/// `tensor` as products read it; with `compact`, `bf16` in twelve bits where that pays. `None` where there is no memory.
pub(super) fn packed(cpu: Cpu, tensor: &Tensor, compact: bool) -> Result<Option<CpuMatrix>> {
    let view = tensor.any_view()?;
    if let (true, AnyView::BF16(w)) = (compact, view) {
        let Some(room) = LargeBytes::try_zeros(cpu.compact_bytes(w.shape())?) else {
            return Ok(None);
        };
        if let Some(packed) = cpu.pack_compact(w, room)? {
            return Ok(Some(CpuMatrix::Packed(packed)));
        }
    }
    let Some(room) = LargeBytes::try_zeros(cpu.packed_bytes(tensor.dtype(), view.shape())?) else {
        return Ok(None);
    };
    Ok(Some(CpuMatrix::Packed(cpu.pack(view, room)?)))
}

/// A copy of `tensor`; `None` where there is no memory.
pub(super) fn copied(tensor: &Tensor) -> Result<Option<CpuMatrix>> {
    let bytes = tensor.bytes();
    let Some(mut room) = LargeBytes::try_zeros(bytes.len()) else { return Ok(None) };
    // In parts, because it takes a thread as long to touch new pages as to fill them.
    const PART: usize = 1 << 20;
    let parts = room.par_chunks_mut(PART).zip(bytes.par_chunks(PART));
    parts.for_each(|(to, from)| to.copy_from_slice(from));
    let (dtype, shape) = (tensor.dtype(), tensor.shape());
    let copy = Tensor::from_shared(Arc::new(room), 0..bytes.len(), dtype, shape)?;
    Ok(Some(CpuMatrix::InPlace(copy)))
}

impl CpuMatrix {
    /// As the file has it.
    ///
    /// # Errors
    /// [`Error::Argument`] where the weight is quantised.
    pub(super) fn in_place(&self) -> Result<AnyView<'_, 2>> {
        match self {
            CpuMatrix::InPlace(tensor) => Ok(tensor.any_view()?),
            CpuMatrix::Packed(_) | CpuMatrix::Quantized(_) => {
                Err(Error::argument("the embedding table is neither packed nor quantised"))
            }
        }
    }

    /// What it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            CpuMatrix::InPlace(tensor) => tensor.bytes().len(),
            CpuMatrix::Packed(packed) => packed.bytes(),
            CpuMatrix::Quantized(quantized) => quantized.bytes(),
        }
    }

    /// Whether activations may be rounded to `bf16` where they meet it: its weights have no more precision.
    pub(super) fn is_rounded(&self) -> bool {
        match self {
            CpuMatrix::InPlace(tensor) => tensor.dtype() == DType::BF16,
            CpuMatrix::Packed(packed) => packed.dtype() == DType::BF16,
            CpuMatrix::Quantized(_) => true,
        }
    }
}
