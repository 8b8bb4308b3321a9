//! Linear maps, alone and with the norm in front of them.

use super::{Buffer, CpuBackend, CpuMatrix, profile};
use crate::Result;
use crate::backend::{Columns, ColumnsMut, Linear, Norm};
use longmamba_core::{AnyView, View};
use longmamba_cpu::{Accumulate, Normed, Packed, Scratch};

/// The rows that a norm makes of those of `x`.
pub(super) fn normed<'a>(x: View<'a, f32, 2>, norm: &'a Norm<CpuBackend>) -> Result<Normed<'a>> {
    Ok(match &norm.bias {
        None => Normed::rms(x, &norm.weight, norm.eps)?,
        Some(bias) => Normed::layer(x, &norm.weight, bias, norm.eps)?,
    })
}

impl CpuBackend {
    /// The weights of a map that takes activations rounded to `bf16`, in whatever way those come.
    fn rounded_pairs<'a>(&self, linear: &'a Linear<Self>) -> Option<&'a Packed> {
        match &linear.weight {
            CpuMatrix::Packed(w) if self.rounds && linear.weight.is_rounded() => Some(w),
            _ => None,
        }
    }

    /// [`Backend::project`](crate::Backend::project)
    pub(super) fn product(
        &self,
        scratch: &mut Scratch,
        rows: usize,
        x: Columns<'_, Buffer>,
        linear: &Linear<Self>,
        accumulate: bool,
        mut out: ColumnsMut<'_, Buffer>,
    ) -> Result<()> {
        self.timed(
            rows,
            "project",
            [linear.inputs, linear.outputs, 0],
            profile::linear(rows, linear, self.rounds),
            || {
                let mut out = out.rows(rows)?;
                let mut accumulate = accumulate;
                if let Some(bias) = &linear.bias {
                    for r in 0..rows {
                        let row = out.row_mut([r, 0]);
                        if accumulate {
                            row.iter_mut().zip(&***bias).for_each(|(o, b)| *o += b);
                        } else {
                            row.copy_from_slice(bias);
                        }
                    }
                    accumulate = true;
                }
                let accumulate = if accumulate { Accumulate::Yes } else { Accumulate::No };
                let (cpu, rounds, x) = (self.cpu, self.rounds, x.rows(rows)?);
                Ok(match &linear.weight {
                    CpuMatrix::Quantized(w) if rounds => {
                        cpu.matmul_quantized_bf16(x, w, out, accumulate, scratch)
                    }
                    CpuMatrix::Quantized(w) => cpu.matmul_quantized(x, w, out, accumulate, scratch),
                    CpuMatrix::Packed(w) if self.rounded_pairs(linear).is_some() => {
                        cpu.matmul_packed_bf16(x, w, out, accumulate, scratch)
                    }
                    CpuMatrix::Packed(w) => cpu.matmul_packed(x, w, out, accumulate, scratch),
                    CpuMatrix::InPlace(tensor) => match tensor.any_view()? {
                        AnyView::BF16(w) if rounds => {
                            cpu.matmul_bf16(x, w, out, accumulate, scratch)
                        }
                        w => cpu.matmul(x, w, out, accumulate, scratch),
                    },
                }?)
            },
        )
    }

    /// [`Backend::norm_project`](crate::Backend::norm_project)
    pub(super) fn normed_product(
        &self,
        scratch: &mut Scratch,
        rows: usize,
        x: Columns<'_, Buffer>,
        norm: &Norm<Self>,
        linear: &Linear<Self>,
        mut out: ColumnsMut<'_, Buffer>,
    ) -> Result<bool> {
        let (Some(w), None) = (self.rounded_pairs(linear), &linear.bias) else { return Ok(false) };
        let sizes = [linear.inputs, linear.outputs, 0];
        let work = profile::norm(rows, x.width) + profile::linear(rows, linear, self.rounds);
        self.timed(rows, "norm_project", sizes, work, || {
            let (normed, out) = (normed(x.rows(rows)?, norm)?, out.rows(rows)?);
            Ok(self.cpu.matmul_normed_bf16(normed, w, out, Accumulate::No, scratch)?)
        })?;
        Ok(true)
    }

    /// [`Backend::gated_norm_project`](crate::Backend::gated_norm_project)
    #[allow(clippy::too_many_arguments, reason = "those of the trait's method")]
    pub(super) fn gated_product(
        &self,
        scratch: &mut Scratch,
        rows: usize,
        y: Columns<'_, Buffer>,
        z: Columns<'_, Buffer>,
        norm: &Norm<Self>,
        group: usize,
        linear: &Linear<Self>,
        mut out: ColumnsMut<'_, Buffer>,
    ) -> Result<bool> {
        let (Some(w), None) = (self.rounded_pairs(linear), &linear.bias) else { return Ok(false) };
        let work = profile::gated_norm(rows, y.width) + profile::linear(rows, linear, self.rounds);
        let sizes = [linear.inputs, linear.outputs, group];
        self.timed(rows, "gated_norm_project", sizes, work, || {
            let (y, z, out) = (y.rows(rows)?, z.rows(rows)?, out.rows(rows)?);
            let normed = Normed::gated_rms(y, z, &norm.weight, group, norm.eps)?;
            Ok(self.cpu.matmul_normed_bf16(normed, w, out, Accumulate::Yes, scratch)?)
        })?;
        Ok(true)
    }
}
