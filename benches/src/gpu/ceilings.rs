//! What the device can do, measured beside the kernels, and how long that makes a kernel take at least.

use super::cases::{Copy, Product};
use super::timing::{Effort, launched};
use super::{Arithmetic, Case, Options, Result};
use crate::Work;
use longmamba_core::DType;
use longmamba_cuda::{Device, Precision};

/// A rate, and where it is from.
#[derive(Clone, Debug)]
pub(super) struct Ceiling {
    /// What it is the rate of.
    pub(super) name: &'static str,
    /// A second.
    pub(super) rate: f64,
    /// Measured on what, or who states it.
    pub(super) from: String,
}

/// The rates that floors are counted with.
#[derive(Clone, Debug)]
pub(super) struct Ceilings {
    /// Bytes read plus bytes written.
    pub(super) copy: Ceiling,
    /// Operations in f32.
    pub(super) single: Ceiling,
    /// Operations of the tensor cores on bf16.
    pub(super) tensor: Ceiling,
}

impl Ceilings {
    /// Copies as much as no cache holds, and takes the largest products of this library; a stated peak in
    /// `options` stands in for a product.
    pub(super) fn measure(device: &Device, options: &Options, effort: Effort) -> Result<Self> {
        let elements = if options.quick { 1 << 16 } else { 1 << 28 };
        let mut copy: Box<dyn Case> = Box::new(Copy::new(device, elements)?);
        copy.check()?;
        let bytes = copy.work().bytes;
        let rate = bytes / best(device, copy, effort)?;
        let from = format!("the driver's copy of {:.0} MB", 4e-6 * elements as f64);
        let copy = Ceiling { name: "copy, bytes read and written", rate, from };
        let single = ("multiply-add f32", options.single_peak, DType::F32, Precision::Exact);
        let tensor = ("multiply-add bf16", options.tensor_peak, DType::BF16, Precision::Tensor);
        let [single, tensor] = [single, tensor].map(|(name, stated, dtype, precision)| {
            product(device, name, stated, dtype, precision, options, effort)
        });
        Ok(Ceilings { copy, single: single?, tensor: tensor? })
    }

    /// The least seconds that `work` takes: the larger of bytes over copy bandwidth and operations over
    /// their rate.
    pub(super) fn floor(&self, work: Work, arithmetic: Arithmetic) -> f64 {
        let operations = match arithmetic {
            Arithmetic::None => 0.0,
            Arithmetic::Single => work.flops / self.single.rate,
            Arithmetic::Tensor => work.flops / self.tensor.rate,
        };
        operations.max(work.bytes / self.copy.rate)
    }
}

/// The rate of the largest product that is measured, or the stated one.
fn product(
    device: &Device,
    name: &'static str,
    stated: Option<f64>,
    dtype: DType,
    precision: Precision,
    options: &Options,
    effort: Effort,
) -> Result<Ceiling> {
    if let Some(rate) = stated {
        return Ok(Ceiling { name, rate, from: "stated, not measured".into() });
    }
    let size = if options.quick { 64 } else { 8192 };
    let mut case: Box<dyn Case> =
        Box::new(Product::new(device, options, dtype, precision, [size; 3])?);
    case.check()?;
    let flops = case.work().flops;
    let rate = flops / best(device, case, effort)?;
    let from = format!("this library's product of {size} × {size} → {size}, no peak of the device");
    Ok(Ceiling { name, rate, from })
}

/// A ceiling is what the device can do, so the fastest repeat.
fn best(device: &Device, case: Box<dyn Case>, effort: Effort) -> Result<f64> {
    Ok(launched(device, &mut [case], effort)?[0].best())
}
