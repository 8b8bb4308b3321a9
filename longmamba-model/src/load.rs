//! From named tensors to the parts of a model.

use crate::backend::{Backend, Conv, Linear, Norm, Purpose};
use crate::checkpoint::{Checkpoint, Placement};
use crate::config::{Config, NormKind};
use crate::{Error, Result};
use longmamba_core::{AlignedVec, DType};
use std::io::ErrorKind;

/// What every part is loaded from.
pub(crate) struct Loader<'a, B: Backend> {
    pub config: &'a Config,
    pub weights: &'a mut Checkpoint,
    pub backend: &'a B,
    pub placement: Placement,
}

impl<B: Backend> Loader<'_, B> {
    pub(crate) fn values(&mut self, name: &str, shape: &[usize]) -> Result<AlignedVec<f32>> {
        self.weights.take_f32(name, shape)
    }

    pub(crate) fn vector(&mut self, name: &str, shape: &[usize]) -> Result<B::Vector> {
        let values = self.values(name, shape)?;
        self.backend.vector(values)
    }

    /// A large weight where the checkpoint has it, and its type there.
    pub(crate) fn matrix(&mut self, tensor: &str, shape: &[usize]) -> Result<(B::Matrix, DType)> {
        let weight = self.weights.take(tensor, shape)?;
        let dtype = weight.dtype();
        Ok((self.backend.matrix(weight)?, dtype))
    }

    /// The weight where it is to lie.
    pub(crate) fn place(&self, weight: B::Matrix, purpose: Purpose) -> Result<B::Matrix> {
        if self.placement == Placement::Map {
            return Ok(weight);
        }
        match self.backend.own(&weight, purpose)? {
            Some(own) => {
                // So that no more than a weight is there twice.
                self.weights.release();
                Ok(own)
            }
            None if self.placement == Placement::Fit => Ok(weight),
            None => Err(Error::io(self.weights.path())(ErrorKind::OutOfMemory.into())),
        }
    }

    /// `name.weight` `[outputs, inputs]`, and `name.bias` where `bias`.
    pub(crate) fn linear(
        &mut self,
        name: &str,
        outputs: usize,
        inputs: usize,
        bias: bool,
    ) -> Result<Linear<B>> {
        let tensor = format!("{name}.weight");
        let (weight, dtype) = self.matrix(&tensor, &[outputs, inputs])?;
        let weight = for_products(self.backend, weight, self.weights, &tensor)?;
        let weight = self.place(weight, Purpose::Products)?;
        let bias = bias.then(|| self.vector(&format!("{name}.bias"), &[outputs])).transpose()?;
        Ok(Linear { weight, bias, inputs, outputs, dtype })
    }

    /// `name.weight` `[outputs, inputs]`, never quantised.
    pub(crate) fn plain_linear(
        &mut self,
        name: &str,
        outputs: usize,
        inputs: usize,
    ) -> Result<Linear<B>> {
        let (weight, dtype) = self.matrix(&format!("{name}.weight"), &[outputs, inputs])?;
        let weight = self.place(weight, Purpose::Products)?;
        Ok(Linear { weight, bias: None, inputs, outputs, dtype })
    }

    /// `name.weight`, and `name.bias` for a layer norm.
    pub(crate) fn norm(&mut self, name: &str, width: usize) -> Result<Norm<B>> {
        let weight = self.vector(&format!("{name}.weight"), &[width])?;
        let bias = match self.config.norm {
            NormKind::Rms => None,
            NormKind::Layer => Some(self.vector(&format!("{name}.bias"), &[width])?),
        };
        Ok(Norm { weight, bias, width, eps: self.config.norm_eps })
    }

    /// An RMS norm without a weight.
    pub(crate) fn plain_norm(&mut self, width: usize, eps: f32) -> Result<Norm<B>> {
        let weight = self.backend.vector(AlignedVec::from_slice(&vec![1.0; width]))?;
        Ok(Norm { weight, bias: None, width, eps })
    }

    /// `name.weight` `[channels, 1, width]`, and `name.bias` where `bias`.
    pub(crate) fn conv(
        &mut self,
        name: &str,
        channels: usize,
        width: usize,
        bias: bool,
        silu: bool,
    ) -> Result<Conv<B>> {
        let weight = self.values(&format!("{name}.weight"), &[channels, 1, width])?;
        let bias = bias.then(|| self.vector(&format!("{name}.bias"), &[channels])).transpose()?;
        let weight = self.backend.vector(transposed(&weight, channels, width))?;
        Ok(Conv { weight, bias, channels, width, silu })
    }

    /// A_log as A = −exp(A_log).
    pub(crate) fn decay_rates(&mut self, mixer: &str, shape: &[usize]) -> Result<AlignedVec<f32>> {
        let name = format!("{mixer}.A_log");
        let path = self.weights.path_of_tensor(&name);
        let mut a = self.values(&name, shape)?;
        for (index, value) in a.iter_mut().enumerate() {
            *value = -value.exp();
            if !value.is_finite() {
                return Err(Error::NonFinite { path, tensor: name, index });
            }
        }
        Ok(a)
    }
}

/// The weight of a linear map as the device wants it; `tensor` of `weights` is named where it is not finite.
pub(crate) fn for_products<B: Backend>(
    backend: &B,
    weight: B::Matrix,
    weights: &Checkpoint,
    tensor: &str,
) -> Result<B::Matrix> {
    backend.for_products(weight).map_err(|error| match error {
        Error::Core(longmamba_core::Error::Value { index, value, .. }) if !value.is_finite() => {
            Error::NonFinite { path: weights.path_of_tensor(tensor), tensor: tensor.into(), index }
        }
        other => other,
    })
}

/// `[rows, columns]` to `[columns, rows]`.
pub(crate) fn transposed(values: &[f32], rows: usize, columns: usize) -> AlignedVec<f32> {
    let mut out = AlignedVec::zeros(values.len());
    for (r, row) in values.chunks_exact(columns).enumerate() {
        for (c, &value) in row.iter().enumerate() {
            out[c * rows + r] = value;
        }
    }
    out
}
