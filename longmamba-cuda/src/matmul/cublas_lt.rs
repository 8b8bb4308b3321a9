//! Products by NVIDIA's cuBLASLt, where it is there and asked for.

use super::kernel::{FEW_ROWS, check_sizes};
use super::{Cores, Matrix, address, cores};
use crate::arguments::optional;
use crate::elementwise::Short;
use crate::launch::{Blas, Operands, Plan, Shape, Type, lock};
use crate::{Buffer, Device, Error, Precision, Result, Rows, RowsMut};
use longmamba_core::DType;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// NVIDIA's library of matrix products, for a [`Device`]. It is no part of the driver, has some hundred MB,
/// and is loaded only by [`CublasLt::load`]. Clones share it.
///
/// What it does here was tested against a stand-in that checks every argument, never against the library.
#[derive(Clone)]
pub struct CublasLt {
    device: Device,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    plans: HashMap<Shape, Plan>,
    workspace: Buffer<u8>,
    /// Activations, rounded to the type of a weight.
    narrowed: Option<Buffer<u16>>,
    blas: Blas,
}

impl std::fmt::Debug for CublasLt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CublasLt").field("device", &self.device).finish_non_exhaustive()
    }
}

/// What NVIDIA advises for its newest devices.
const WORKSPACE: usize = 32 << 20;
/// Elements of 16 bytes: rows of rounded activations begin at multiples of them.
const NARROWED_ROW: usize = 8;
/// Plans are forgotten at so many: prompts may have any number of rows.
const PLANS: usize = 256;

impl CublasLt {
    /// Loads version 12 or 13 from where the system's loader finds it, and takes 32 MiB of the device's
    /// memory for it.
    ///
    /// # Errors
    /// [`Error::NoCublasLt`], [`Error::CublasLt`], [`Error::OutOfMemory`], [`Error::Driver`].
    pub fn load(device: &Device) -> Result<Self> {
        Self::new(device, Blas::load(device)?)
    }

    pub(crate) fn new(device: &Device, blas: Blas) -> Result<Self> {
        let workspace = device.zeros(WORKSPACE)?;
        let inner = Inner { plans: HashMap::new(), workspace, narrowed: None, blas };
        Ok(CublasLt { device: device.clone(), inner: Arc::new(Mutex::new(inner)) })
    }

    /// As [`Device::matmul`], by cuBLASLt for more than 8 rows where both operands can have one type: a
    /// weight of 16 bits with [`Precision::Tensor`], a bf16 one from capability 8.0 on, or an f32 one,
    /// without TF32. All else is left to [`Device::matmul`]. Sums are f32, in the library's order, which may
    /// change with the number of rows.
    ///
    /// # Errors
    /// As [`Device::matmul`]; [`Error::CublasLt`]; [`Error::NotRecordable`] in a capture, unless the product
    /// is left to [`Device::matmul`].
    #[expect(clippy::too_many_arguments, reason = "those of Device::matmul")]
    pub fn matmul(
        &self,
        rows: usize,
        x: Rows<'_, f32>,
        weight: &Matrix,
        bias: Option<&Buffer<f32>>,
        accumulate: bool,
        precision: Precision,
        mut out: RowsMut<'_, f32>,
    ) -> Result<()> {
        let device = &self.device;
        let (inputs, outputs) = (weight.inputs(), weight.outputs());
        let short = match (weight.dtype(), cores(device, precision, weight)) {
            (DType::F32, _) => None,
            (DType::F16, Cores::Turing | Cores::Ampere) => Some(Short::F16),
            (DType::BF16, Cores::Turing | Cores::Ampere) => Some(Short::BF16),
            (DType::F16 | DType::BF16, Cores::None) => {
                return device.matmul(rows, x, weight, bias, accumulate, precision, out);
            }
        };
        // Rows that share elements have no name there.
        let overlap = short.is_none() && x.stride < inputs;
        if rows <= FEW_ROWS || inputs == 0 || outputs == 0 || overlap {
            return device.matmul(rows, x, weight, bias, accumulate, precision, out);
        }
        check_sizes(rows, inputs, outputs)?;
        if device.is_capturing() {
            return Err(Error::NotRecordable { what: "a product of cuBLASLt" });
        }
        let wide = x.pointer(device, "x", rows, inputs)?;
        let mut inner = lock(&self.inner);
        let Inner { plans, workspace, narrowed, blas } = &mut *inner;
        let (x, x_stride, operands) = match short {
            None => (wide, x.stride, Type::F32),
            Some(short) => {
                let stride = inputs.next_multiple_of(NARROWED_ROW);
                let needed = rows.saturating_mul(stride);
                let buffer = match narrowed.take() {
                    Some(buffer) if buffer.len() >= needed => buffer,
                    _ => device.zeros(needed)?,
                };
                let buffer = narrowed.insert(buffer);
                let rounded = RowsMut { buffer, first: 0, width: inputs, stride };
                device.narrow(rows, x, short, rounded)?;
                let operands = match short {
                    Short::F16 => Type::F16,
                    Short::BF16 => Type::BF16,
                };
                (buffer.pointer(device, 0, needed)?, stride, operands)
            }
        };
        let operands_at = Operands {
            x,
            weight: address(device, weight)?,
            bias: optional(device, "bias", bias, [outputs])?,
            out: out.pointer(device, "out", rows, outputs)?,
            accumulate,
            workspace: workspace.pointer(device, 0, WORKSPACE)?,
        };
        let shape = Shape {
            rows,
            inputs,
            outputs,
            operands,
            x_stride,
            weight_stride: weight.stride(),
            out_stride: out.stride,
            bias: bias.is_some(),
            alignments: operands_at.alignments(),
        };
        if plans.len() >= PLANS && !plans.contains_key(&shape) {
            plans.clear();
        }
        let plan = match plans.entry(shape) {
            std::collections::hash_map::Entry::Occupied(plan) => plan.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(Plan::new(blas, &shape, operands_at.bias, WORKSPACE)?)
            }
        };
        plan.run(blas, device, operands_at)
    }
}
