//! The norms: one in front of every block, one inside every Mamba-2 mixer.

use crate::arguments::{Strided, all, refuse};
use crate::launch::{Grid, Pointer};
use crate::plane::{Plane, lines};
use crate::ptx::Module;
use crate::{Buffer, Device, Result, Rows, RowsMut};

/// The most threads that a group of columns gets.
const THREADS: usize = 512;

/// What a thread keeps in registers between sum and scaling, in units of the columns that it moves at a
/// time; `KEPT` in `norm.cu`.
const KEPT: usize = 4;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Norm {
    x: Strided,
    z: Strided,
    weight: Pointer,
    bias: Pointer,
    out: Strided,
    rows: u64,
    groups: u64,
    group: u64,
    eps: f32,
    unused: u32,
}

/// What the three norms differ in.
struct Parts<'a> {
    kernels: [&'static str; 2],
    x: (&'static str, Rows<'a, f32>),
    z: Option<Rows<'a, f32>>,
    weight: &'a Buffer<f32>,
    bias: Option<&'a Buffer<f32>>,
    group: usize,
    eps: f32,
}

impl Device {
    /// `out = x / sqrt(mean(x²) + eps) · weight`, over each row. `x` and `out` are `[rows, width]`,
    /// `weight` is `[width]`.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument), also for an `eps` that is negative or not finite;
    /// [`Error::Driver`](crate::Error::Driver).
    pub fn rms_norm(
        &self,
        rows: usize,
        x: Rows<'_, f32>,
        weight: &Buffer<f32>,
        eps: f32,
        out: RowsMut<'_, f32>,
    ) -> Result<()> {
        let (kernels, group) = (["rms_norm_4", "rms_norm_1"], out.width);
        self.norm(
            rows,
            Parts { kernels, x: ("x", x), z: None, weight, bias: None, group, eps },
            out,
        )
    }

    /// Layer norm: `out = (x − mean(x)) / sqrt(var(x) + eps) · weight + bias`, over each row. `x` and
    /// `out` are `[rows, width]`, `weight` and `bias` are `[width]`.
    ///
    /// # Errors
    /// As [`Device::rms_norm`].
    pub fn layer_norm(
        &self,
        rows: usize,
        x: Rows<'_, f32>,
        weight: &Buffer<f32>,
        bias: &Buffer<f32>,
        eps: f32,
        out: RowsMut<'_, f32>,
    ) -> Result<()> {
        let (kernels, bias) = (["layer_norm_4", "layer_norm_1"], Some(bias));
        let group = out.width;
        self.norm(rows, Parts { kernels, x: ("x", x), z: None, weight, bias, group, eps }, out)
    }

    /// Mamba-2's norm: [`Device::rms_norm`] of `y · silu(z)` within each group of `group` neighbouring
    /// columns. `y`, `z` and `out` are `[rows, width]`, `weight` is `[width]`; `group` divides `width`.
    ///
    /// # Errors
    /// As [`Device::rms_norm`], also for a `group` that is 0 or does not divide `width`.
    #[allow(clippy::too_many_arguments, reason = "those of the processor's kernel")]
    pub fn gated_rms_norm(
        &self,
        rows: usize,
        y: Rows<'_, f32>,
        z: Rows<'_, f32>,
        weight: &Buffer<f32>,
        group: usize,
        eps: f32,
        out: RowsMut<'_, f32>,
    ) -> Result<()> {
        let kernels = ["gated_rms_norm_4", "gated_rms_norm_1"];
        if group == 0 || !out.width.is_multiple_of(group) {
            return refuse("group", group as f64, "a divisor of the width");
        }
        let parts = Parts { kernels, x: ("y", y), z: Some(z), weight, bias: None, group, eps };
        self.norm(rows, parts, out)
    }

    fn norm(&self, rows: usize, parts: Parts<'_>, mut out: RowsMut<'_, f32>) -> Result<()> {
        let Parts { kernels, x: (name, x), z, weight, bias, group, eps } = parts;
        if !(eps >= 0.0 && eps.is_finite()) {
            return refuse("eps", eps.into(), "a finite number ≥ 0");
        }
        let width = out.width;
        let x = Strided::new(self, name, x, rows, width)?;
        // A kernel that has no use for an operand does not look at it.
        let z = z.map_or(Ok(x), |z| Strided::new(self, "z", z, rows, width))?;
        let weight = Strided::shared(all(self, "weight", weight, [width])?);
        let bias = match bias {
            Some(bias) => Strided::shared(all(self, "bias", bias, [width])?),
            None => weight,
        };
        let out = Strided::new_mut(self, "out", &mut out, rows, width)?;
        if width == 0 {
            return Ok(());
        }
        let plane = Plane::new(rows, width, group, &[x, z, weight, bias, out]);
        let (groups, units) = (width / group, rows * (width / group));
        let packs = group.div_ceil(plane.columns());
        // With few groups the device is empty, and what counts is how long one takes.
        let few = units < 2 * self.multiprocessors() as usize;
        let threads = packs.div_ceil(if few { 1 } else { KEPT }).next_multiple_of(32).min(THREADS);
        let arguments = Norm {
            x,
            z,
            weight: weight.data(),
            bias: bias.data(),
            out,
            rows: rows as u64,
            groups: groups as u64,
            group: group as u64,
            eps,
            unused: 0,
        };
        let grid = Grid::line(lines(units), threads as u32);
        self.launch(Module::Norm, plane.kernel(kernels), grid, &arguments)
    }
}
