//! A few rows through a norm, a product, and the convolution of some of its outputs.

use super::kernel::{Cores, Kernel, Problem};
use super::{Arguments, Values, address};
use crate::arguments::{Strided, all, optional, product, refuse};
use crate::launch::Pointer;
use crate::ptx::Module;
use crate::step::{STEP_SEQUENCES, collect};
use crate::{Buffer, Device, Error, Matrix, Result, Rows, RowsMut};
use longmamba_core::Error as ArgumentError;

/// The RMS norm in front of a product.
#[derive(Clone, Copy, Debug)]
pub struct InputNorm<'a> {
    /// `[inputs]`.
    pub weight: &'a Buffer<f32>,
    /// So many neighbouring inputs have a mean square of their own; it divides the inputs.
    pub group: usize,
    /// Added to the mean square.
    pub eps: f32,
}

/// The causal convolution of one new input of each channel. The equation is that of
/// [`CausalConv1dInputs`](crate::CausalConv1dInputs).
#[derive(Debug)]
pub struct NewInputs<'a> {
    /// The output of the product that is the first channel; the others follow.
    pub first: usize,
    /// The number of taps, at least 1.
    pub width: usize,
    /// `[width, channels]`.
    pub weight: &'a Buffer<f32>,
    /// `[channels]`. `None`: 0.
    pub bias: Option<&'a Buffer<f32>>,
    /// Whether SiLU follows.
    pub silu: bool,
    /// `[rows, channels]`: what the convolution gives.
    pub out: RowsMut<'a, f32>,
}

/// `NewInputs` of kernels/matmul/normed.cuh.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct ConvArguments {
    first: u32,
    channels: u32,
    width: u32,
    silu: u32,
    weight: Pointer,
    bias: Pointer,
    out: Strided,
    history: [Pointer; STEP_SEQUENCES],
}

impl ConvArguments {
    /// Of no channel.
    const NONE: ConvArguments = ConvArguments {
        first: 0,
        channels: 0,
        width: 1,
        silu: 0,
        weight: Pointer::NULL,
        bias: Pointer::NULL,
        out: Strided::NULL,
        history: [Pointer::NULL; STEP_SEQUENCES],
    };
}

/// `NormedMatmul` of kernels/matmul/normed.cuh.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct NormedArguments {
    matmul: Arguments,
    norm: Pointer,
    group: u32,
    groups: u32,
    eps: f32,
    padding: u32,
    conv: ConvArguments,
}

const KERNEL: &str = "normed_rows";

/// The most groups; `NORMED_GROUPS` of kernels/matmul/normed.cuh.
const GROUPS: usize = 8;

/// Elements of x that are read at once.
const UNIT: usize = 4;

impl InputNorm<'_> {
    /// Whether [`Device::normed_matmul`] can take `rows` rows of `x` through this norm: up to
    /// [`STEP_SEQUENCES`], in up to 8 groups, of which each begins at a multiple of 4 elements.
    pub fn takes(&self, rows: usize, x: Rows<'_, f32>) -> bool {
        self.check(rows, x).is_ok()
    }

    fn check(&self, rows: usize, x: Rows<'_, f32>) -> Result<()> {
        let (kernel, group) = (KERNEL, self.group);
        if rows > STEP_SEQUENCES {
            let (what, limit) = ("rows", STEP_SEQUENCES);
            return Err(Error::Unsupported { kernel, what, limit, actual: rows });
        }
        if group == 0 || !group.is_multiple_of(UNIT) || !x.width.is_multiple_of(group) {
            return refuse("group", group as f64, "a multiple of 4 that divides the inputs");
        }
        if x.width / group > GROUPS {
            let (what, limit, actual) = ("groups", GROUPS, x.width / group);
            return Err(Error::Unsupported { kernel, what, limit, actual });
        }
        if !x.first.is_multiple_of(UNIT) || rows > 1 && !x.stride.is_multiple_of(UNIT) {
            let (value, allowed) =
                (x.first.max(x.stride) as f64, "rows at multiples of 4 elements");
            return refuse("x", value, allowed);
        }
        if !(self.eps >= 0.0 && self.eps.is_finite()) {
            return refuse("eps", self.eps.into(), "a finite number ≥ 0");
        }
        Ok(())
    }
}

impl Device {
    /// [`Device::matmul`] of the [norm](Device::gated_rms_norm) (without a gate) of each row, in f32 throughout.
    ///
    /// * `x`: `[rows, inputs]`; [`InputNorm::takes`] it.
    /// * `weight`: `[outputs, inputs]`.
    /// * `bias`: `[outputs]`.
    /// * `out`: `[rows, outputs]`.
    ///
    /// # Errors
    /// [`Error::Argument`] and [`Error::Unsupported`] for what does not fit; [`Error::Driver`].
    #[expect(clippy::too_many_arguments, reason = "those of the product, and the norm")]
    pub fn normed_matmul(
        &self,
        rows: usize,
        x: Rows<'_, f32>,
        norm: InputNorm<'_>,
        weight: &Matrix,
        bias: Option<&Buffer<f32>>,
        accumulate: bool,
        out: RowsMut<'_, f32>,
    ) -> Result<()> {
        let matmul = Operands { rows, x, weight, bias, accumulate, out };
        self.normed(matmul, norm, ConvArguments::NONE)
    }

    /// [`Device::normed_matmul`], of which some outputs go on through a causal convolution; these are not written
    /// to `out`. Row `r` is the next token of a sequence with the `r`-th of `histories`, `[width - 1, channels]`
    /// each, which is read and renewed.
    ///
    /// # Errors
    /// As [`Device::normed_matmul`], also for another number of histories.
    #[expect(
        clippy::too_many_arguments,
        reason = "those of the product, the norm and the convolution"
    )]
    pub fn normed_matmul_conv1d<'h>(
        &self,
        rows: usize,
        x: Rows<'_, f32>,
        norm: InputNorm<'_>,
        weight: &Matrix,
        bias: Option<&Buffer<f32>>,
        out: RowsMut<'_, f32>,
        conv: NewInputs<'_>,
        histories: impl IntoIterator<Item = &'h mut Buffer<f32>>,
    ) -> Result<()> {
        let NewInputs { first, width, weight: taps, bias: conv_bias, silu, out: mut conv_out } =
            conv;
        let (channels, outputs) = (conv_out.width, weight.outputs());
        if width == 0 {
            return refuse("weight's width", 0.0, "at least 1");
        }
        let end = first.checked_add(channels).filter(|&end| end <= outputs);
        if end.is_none() {
            let (needed, available) = (first.checked_add(channels), outputs);
            return Err(ArgumentError::OutOfBounds { needed, available }.into());
        }
        let len = product([width - 1, channels])?;
        let history = collect(KERNEL, rows, histories, Pointer::NULL, |history| {
            history.pointer(self, 0, len)
        })?;
        let conv = ConvArguments {
            first: first as u32,
            channels: channels as u32,
            width: width as u32,
            silu: silu.into(),
            weight: all(self, "the taps", taps, [width, channels])?,
            bias: optional(self, "the convolution's bias", conv_bias, [channels])?,
            out: Strided::new_mut(self, "the convolution's out", &mut conv_out, rows, channels)?,
            history,
        };
        self.normed(Operands { rows, x, weight, bias, accumulate: false, out }, norm, conv)
    }

    fn normed(&self, of: Operands<'_>, norm: InputNorm<'_>, conv: ConvArguments) -> Result<()> {
        let Operands { rows, x, weight, bias, accumulate, mut out } = of;
        let (inputs, outputs) = (weight.inputs(), weight.outputs());
        norm.check(rows, x)?;
        let multiprocessors = self.multiprocessors() as usize;
        let (aligned, cores) = (true, Cores::None);
        let problem = Problem { rows, inputs, outputs, aligned, cores, multiprocessors };
        problem.check()?;
        let halvings = problem.halvings();
        let matmul = Arguments {
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
            halvings,
            padding: 0,
        };
        let arguments = NormedArguments {
            matmul,
            norm: all(self, "the norm's weight", norm.weight, [inputs])?,
            group: norm.group as u32,
            groups: (inputs / norm.group) as u32,
            eps: norm.eps,
            padding: 0,
            conv,
        };
        let names = match weight.values() {
            Values::F32(_) => NAMES[0],
            Values::F16(_) => NAMES[1],
            Values::BF16(_) => NAMES[2],
        };
        let at_once = rows.next_power_of_two();
        let grid = problem.grid(Kernel::Few { rows: at_once, halvings })?;
        self.launch(Module::Normed, names[at_once.ilog2() as usize], grid, &arguments)
    }
}

/// What a product has beside the norm.
struct Operands<'a> {
    rows: usize,
    x: Rows<'a, f32>,
    weight: &'a Matrix,
    bias: Option<&'a Buffer<f32>>,
    accumulate: bool,
    out: RowsMut<'a, f32>,
}

/// For f32, f16 and bf16; 1, 2, 4 and 8 rows.
const NAMES: [[&str; 4]; 3] = [
    ["normed_rows_f32_1", "normed_rows_f32_2", "normed_rows_f32_4", "normed_rows_f32_8"],
    ["normed_rows_f16_1", "normed_rows_f16_2", "normed_rows_f16_4", "normed_rows_f16_8"],
    ["normed_rows_bf16_1", "normed_rows_bf16_2", "normed_rows_bf16_4", "normed_rows_bf16_8"],
];
