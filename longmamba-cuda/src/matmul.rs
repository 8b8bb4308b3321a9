//! The matrix product of every linear layer, `out = x · wᵀ + bias`.

mod cublas_lt;
mod kernel;
mod matrix;
mod normed;

pub use cublas_lt::CublasLt;
pub use matrix::Matrix;
pub use normed::{InputNorm, NewInputs};

use crate::arguments::optional;
use crate::launch::Pointer;
use crate::ptx::Module;
use crate::{Buffer, Device, Precision, Result, Rows, RowsMut};
use kernel::{Cores, Problem};
pub(crate) use matrix::Values;

/// `Matmul` of kernels/matmul/arguments.cuh.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Arguments {
    x: Pointer,
    x_stride: u64,
    weight: Pointer,
    weight_stride: u64,
    bias: Pointer,
    out: Pointer,
    out_stride: u64,
    rows: u32,
    inputs: u32,
    outputs: u32,
    accumulate: u32,
    halvings: u32,
    padding: u32,
}

impl Device {
    /// `out[r, o] = Σᵢ x[r, i] · weight[o, i] + bias[o]`, or `out[r, o] +=` that where `accumulate`.
    ///
    /// * `x`: `[rows, inputs]`.
    /// * `weight`: `[outputs, inputs]`.
    /// * `bias`: `[outputs]`.
    /// * `out`: `[rows, outputs]`.
    ///
    /// Sums are f32. With [`Precision::Tensor`], more than 8 rows and a weight of 16 bits, `x` is rounded
    /// to the weight's type; else everything is f32 (also a bf16 weight on a device of capability 7.5,
    /// whose tensor cores do not know bf16). The result is the same each time, and that of a row does not
    /// depend on the other rows, except that their number decides between kernels that take the sums in
    /// different orders: up to 8 rows (32 where everything is f32), and more.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a shape that does not fit or rows outside their
    /// buffer; [`Error::Unsupported`](crate::Error::Unsupported) for 2³¹ rows, inputs, outputs or tiles;
    /// [`Error::Driver`](crate::Error::Driver).
    #[expect(clippy::too_many_arguments, reason = "each is one operand or option of one equation")]
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
        let (inputs, outputs) = (weight.inputs(), weight.outputs());
        let cores = cores(self, precision, weight);
        let aligned = [x.first, x.stride, inputs].iter().all(|n| n.is_multiple_of(4));
        let multiprocessors = self.multiprocessors() as usize;
        let problem = Problem { rows, inputs, outputs, aligned, cores, multiprocessors };
        problem.check()?;
        let kernel = problem.kernel();
        let arguments = Arguments {
            x: x.pointer(self, "x", rows, inputs)?,
            x_stride: x.stride as u64,
            weight: address(self, weight)?,
            weight_stride: weight.stride() as u64,
            bias: optional(self, "bias", bias, [outputs])?,
            out: out.pointer(self, "out", rows, outputs)?,
            out_stride: out.stride as u64,
            rows: rows as u32,
            inputs: inputs as u32,
            outputs: outputs as u32,
            accumulate: accumulate.into(),
            halvings: kernel.halvings(),
            padding: 0,
        };
        let name = kernel.name(weight.values(), problem.aligned);
        self.launch(Module::Matmul, name, problem.grid(kernel)?, &arguments)
    }
}

/// The tensor cores for a product with `weight`.
fn cores(device: &Device, precision: Precision, weight: &Matrix) -> Cores {
    match (precision, weight.values()) {
        (Precision::Exact, _) | (_, Values::F32(_)) => Cores::None,
        (Precision::Tensor, _) if device.capability() >= (8, 0) => Cores::Ampere,
        (Precision::Tensor, Values::F16(_)) => Cores::Turing,
        (Precision::Tensor, Values::BF16(_)) => Cores::None,
    }
}

/// The address of the whole weight.
pub(crate) fn address(device: &Device, weight: &Matrix) -> Result<Pointer> {
    let len = weight.outputs() * weight.stride();
    match weight.values() {
        Values::F32(buffer) => buffer.pointer(device, 0, len),
        Values::F16(buffer) => buffer.pointer(device, 0, len),
        Values::BF16(buffer) => buffer.pointer(device, 0, len),
    }
}
