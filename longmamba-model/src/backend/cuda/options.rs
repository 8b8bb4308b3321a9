//! A GPU as a device, and how it is used.

use crate::Result;
use crate::backend::{Columns, ColumnsMut, Linear};
use longmamba_core::DType;
use longmamba_cuda::{Buffer, CublasLt, Device, Precision};
use std::sync::{Arc, Mutex};

/// An NVIDIA GPU. Activations, state and small weights are `f32`; large weights keep the type that they
/// have in the file, and where that has 16 bits, long prompts go through the tensor cores.
///
/// Sequences of one backend, and of its clones, are read one after the other.
#[derive(Clone, Debug)]
pub struct CudaBackend {
    pub(super) device: Device,
    precision: Precision,
    /// What takes products of many rows, in place of our own kernels.
    cublas_lt: Option<CublasLt>,
    /// Held while a chunk is given to the device.
    pub(super) turn: Arc<Mutex<()>>,
}

impl CudaBackend {
    /// Device `number`, counted from 0.
    ///
    /// # Errors
    /// [`Error::Cuda`](crate::Error::Cuda) where there is no driver, no such device, or one that is too old.
    pub fn new(number: usize) -> Result<Self> {
        Self::with_precision(number, Precision::Tensor)
    }

    /// As [`CudaBackend::new`]; with [`Precision::Exact`] all is computed in `f32`, whatever the type of
    /// the weights.
    ///
    /// # Errors
    /// As [`CudaBackend::new`].
    pub fn with_precision(number: usize, precision: Precision) -> Result<Self> {
        let (device, turn) = (Device::new(number)?, Arc::default());
        Ok(CudaBackend { device, precision, cublas_lt: None, turn })
    }

    /// The same, but long prompts go through NVIDIA's cuBLASLt where it can take their products; see
    /// [`CublasLt::matmul`]. It must be installed, version 12 or 13.
    ///
    /// # Errors
    /// [`Error::Cuda`](crate::Error::Cuda) where it cannot be loaded.
    pub fn with_cublas_lt(self) -> Result<Self> {
        Ok(CudaBackend { cublas_lt: Some(CublasLt::load(&self.device)?), ..self })
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// As [`Backend::project`].
    pub(super) fn product(
        &self,
        rows: usize,
        x: Columns<'_, Buffer<f32>>,
        linear: &Linear<Self>,
        accumulate: bool,
        out: ColumnsMut<'_, Buffer<f32>>,
    ) -> Result<()> {
        let precision = self.precision(linear.dtype);
        let (weight, bias) = (&linear.weight, linear.bias.as_deref());
        let (x, out) = (x.rows(), out.rows());
        Ok(match &self.cublas_lt {
            None => self.device.matmul(rows, x, weight, bias, accumulate, precision, out),
            Some(library) => library.matmul(rows, x, weight, bias, accumulate, precision, out),
        }?)
    }

    pub(super) fn precision(&self, weights: DType) -> Precision {
        match weights {
            DType::F32 => Precision::Exact,
            DType::F16 | DType::BF16 => self.precision,
        }
    }
}
