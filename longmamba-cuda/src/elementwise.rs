//! Gate, residual, embedding, Δ and rounding: memory traffic with little arithmetic.

use crate::arguments::{Strided, optional};
use crate::buffer::DeviceElement;
use crate::launch::Pointer;
use crate::plane::Plane;
use crate::ptx::Module;
use crate::{Buffer, Device, Result, Rows, RowsMut};
use longmamba_core::DtLimits;

/// What a gate does to z.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activation {
    /// z · sigmoid(z).
    Silu,
    /// z · Φ(z), with the normal distribution's own Φ, not the approximation by a tanh.
    Gelu,
}

/// What a table of embeddings may hold: `f32`, `f16`, `bf16`.
pub trait TableElement: DeviceElement + sealed::Sealed {}

mod sealed {
    pub trait Sealed {
        /// The kernels that widen it.
        const GATHER: [&'static str; 2];
    }
}

macro_rules! table_elements {
    ($($element:ty: $wide:literal, $narrow:literal;)*) => {$(
        impl sealed::Sealed for $element {
            const GATHER: [&'static str; 2] = [$wide, $narrow];
        }
        impl TableElement for $element {}
    )*};
}
table_elements! {
    f32: "gather_rows_f32_4", "gather_rows_f32_1";
    half::f16: "gather_rows_f16_4", "gather_rows_f16_1";
    half::bf16: "gather_rows_bf16_4", "gather_rows_bf16_1";
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Copy {
    x: Strided,
    out: Strided,
    rows: u64,
    width: u64,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Gate {
    y: Strided,
    z: Strided,
    out: Strided,
    rows: u64,
    width: u64,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Delta {
    dt_raw: Strided,
    bias: Pointer,
    out: Strided,
    dt_min: f32,
    dt_max: f32,
    rows: u64,
    width: u64,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Gather {
    table: Strided,
    tokens: Pointer,
    out: Strided,
    entries: u64,
    rows: u64,
    width: u64,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Narrow {
    x: Strided,
    out: Strided,
    rows: u64,
    width: u64,
}

/// A type of 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Short {
    F16,
    BF16,
}

impl Device {
    /// `out` is `x` rounded to `to`, as bits; ties to even, and what is beyond the type becomes infinite.
    /// Both are `[rows, width]`.
    pub(crate) fn narrow(
        &self,
        rows: usize,
        x: Rows<'_, f32>,
        to: Short,
        mut out: RowsMut<'_, u16>,
    ) -> Result<()> {
        let width = out.width;
        let x = Strided::new(self, "x", x, rows, width)?;
        let out = Strided::new_mut(self, "out", &mut out, rows, width)?;
        let plane = Plane::new(rows, width, width, &[x]).and(out, size_of::<u16>());
        let kernels = match to {
            Short::F16 => ["narrow_rows_f16_4", "narrow_rows_f16_1"],
            Short::BF16 => ["narrow_rows_bf16_4", "narrow_rows_bf16_1"],
        };
        let arguments = Narrow { x, out, rows: rows as u64, width: width as u64 };
        self.launch(Module::Elementwise, plane.kernel(kernels), plane.grid(), &arguments)
    }

    /// `out = x`, or the residual, `out += x`, where `accumulate`. Both are `[rows, width]`.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument), [`Error::Driver`](crate::Error::Driver).
    pub fn copy(
        &self,
        rows: usize,
        x: Rows<'_, f32>,
        accumulate: bool,
        mut out: RowsMut<'_, f32>,
    ) -> Result<()> {
        let width = out.width;
        let x = Strided::new(self, "x", x, rows, width)?;
        let out = Strided::new_mut(self, "out", &mut out, rows, width)?;
        let plane = Plane::new(rows, width, width, &[x, out]);
        let kernels = match accumulate {
            true => ["add_rows_4", "add_rows_1"],
            false => ["copy_rows_4", "copy_rows_1"],
        };
        let arguments = Copy { x, out, rows: rows as u64, width: width as u64 };
        self.launch(Module::Elementwise, plane.kernel(kernels), plane.grid(), &arguments)
    }

    /// `out = y · activation(z)`. All are `[rows, width]`.
    ///
    /// # Errors
    /// As [`Device::copy`].
    pub fn gate(
        &self,
        rows: usize,
        y: Rows<'_, f32>,
        z: Rows<'_, f32>,
        activation: Activation,
        mut out: RowsMut<'_, f32>,
    ) -> Result<()> {
        let width = out.width;
        let y = Strided::new(self, "y", y, rows, width)?;
        let z = Strided::new(self, "z", z, rows, width)?;
        let out = Strided::new_mut(self, "out", &mut out, rows, width)?;
        let plane = Plane::new(rows, width, width, &[y, z, out]);
        let kernels = match activation {
            Activation::Silu => ["gate_silu_4", "gate_silu_1"],
            Activation::Gelu => ["gate_gelu_4", "gate_gelu_1"],
        };
        let arguments = Gate { y, z, out, rows: rows as u64, width: width as u64 };
        self.launch(Module::Elementwise, plane.kernel(kernels), plane.grid(), &arguments)
    }

    /// Δ before any mask: `clamp(softplus(dt_raw + dt_bias), limits)`. `dt_raw` and `out` are
    /// `[rows, channels]`, `dt_bias` is `[channels]`.
    ///
    /// # Errors
    /// As [`Device::copy`]; limits that are no range are one, too.
    pub fn delta(
        &self,
        rows: usize,
        dt_raw: Rows<'_, f32>,
        dt_bias: Option<&Buffer<f32>>,
        limits: DtLimits,
        mut out: RowsMut<'_, f32>,
    ) -> Result<()> {
        limits.check()?;
        let DtLimits { min: dt_min, max: dt_max } = limits;
        let width = out.width;
        let dt_raw = Strided::new(self, "dt_raw", dt_raw, rows, width)?;
        let out = Strided::new_mut(self, "out", &mut out, rows, width)?;
        let bias = Strided::shared(optional(self, "dt_bias", dt_bias, [width])?);
        let plane = Plane::new(rows, width, width, &[dt_raw, bias, out]);
        let kernel = plane.kernel(["delta_rows_4", "delta_rows_1"]);
        let (bias, rows, width) = (bias.data(), rows as u64, width as u64);
        let arguments = Delta { dt_raw, bias, out, dt_min, dt_max, rows, width };
        self.launch(Module::Elementwise, kernel, plane.grid(), &arguments)
    }

    /// The embedding: row `i` of `out` is row `tokens[i]` of `table`, widened; NaN for a token that the
    /// table does not have. `table` is `[table_rows, width]`, `out` `[count, width]`; of `tokens` the
    /// first `count` are read.
    ///
    /// # Errors
    /// As [`Device::copy`].
    pub fn gather_rows<T: TableElement>(
        &self,
        table: Rows<'_, T>,
        table_rows: usize,
        tokens: &Buffer<u32>,
        count: usize,
        mut out: RowsMut<'_, f32>,
    ) -> Result<()> {
        let width = out.width;
        let table = Strided::new(self, "table", table, table_rows, width)?;
        let out = Strided::new_mut(self, "out", &mut out, count, width)?;
        let tokens = tokens.pointer(self, 0, count)?;
        let plane = Plane::new(count, width, width, &[out]).and(table, size_of::<T>());
        let (entries, rows, width) = (table_rows as u64, count as u64, width as u64);
        let arguments = Gather { table, tokens, out, entries, rows, width };
        self.launch(Module::Elementwise, plane.kernel(T::GATHER), plane.grid(), &arguments)
    }
}
