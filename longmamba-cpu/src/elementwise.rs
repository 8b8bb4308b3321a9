//! Gate, residual and embedding: memory traffic with little arithmetic.

use crate::check;
use crate::dispatch::{Block, Cpu};
use crate::isa::Isa;
use crate::math::{gelu, silu};
use crate::rows::{RowKernel, for_each_row};
use crate::widen::Weight;
use longmamba_core::{AnyView, Error, Result, View, ViewMut};

/// Elements that are worth a thread: some 20 µs.
const LEAST: usize = 1 << 16;

/// The same where each needs an exponential and a division.
const LEAST_GATED: usize = 1 << 14;

/// What a gate does to z.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activation {
    /// z · sigmoid(z).
    Silu,
    /// z · Φ(z), with the normal distribution's own Φ, not the approximation by a tanh.
    Gelu,
}

impl Cpu {
    /// `out = y · activation(z)`. All are `[rows, width]` with contiguous rows.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::NotContiguous`].
    pub fn gate(
        &self,
        y: View<'_, f32, 2>,
        z: View<'_, f32, 2>,
        activation: Activation,
        out: ViewMut<'_, f32, 2>,
    ) -> Result<()> {
        check::rows("y", &y, y.shape())?;
        check::rows("z", &z, y.shape())?;
        check::rows("out", &out.as_view(), y.shape())?;
        match activation {
            Activation::Silu => for_each_row(*self, Gate { y, z }, Block::new(out), LEAST_GATED),
            Activation::Gelu => {
                for_each_row(*self, GeluGate { y, z }, Block::new(out), LEAST_GATED)
            }
        }
        Ok(())
    }

    /// `out = x`. Both are `[rows, width]` with contiguous rows.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::NotContiguous`].
    pub fn copy(&self, x: View<'_, f32, 2>, out: ViewMut<'_, f32, 2>) -> Result<()> {
        check::rows("x", &x, x.shape())?;
        check::rows("out", &out.as_view(), x.shape())?;
        for_each_row(*self, Copied { x }, Block::new(out), LEAST);
        Ok(())
    }

    /// The residual, `out += x`. Both are `[rows, width]` with contiguous rows.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::NotContiguous`].
    pub fn add(&self, x: View<'_, f32, 2>, out: ViewMut<'_, f32, 2>) -> Result<()> {
        check::rows("x", &x, x.shape())?;
        check::rows("out", &out.as_view(), x.shape())?;
        for_each_row(*self, Add { x }, Block::new(out), LEAST);
        Ok(())
    }

    /// The embedding: row `i` of `out` is row `indexes[i]` of `table`, widened.
    ///
    /// `table` is `[entries, width]` and `out` `[indexes.len(), width]`, rows contiguous.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotContiguous`], or [`Error::Value`] for an index that the table
    /// does not have; then nothing is written.
    pub fn gather_rows(
        &self,
        table: AnyView<'_, 2>,
        indexes: &[u32],
        out: ViewMut<'_, f32, 2>,
    ) -> Result<()> {
        match table {
            AnyView::F32(table) => gather(*self, table, indexes, out),
            AnyView::F16(table) => gather(*self, table, indexes, out),
            AnyView::BF16(table) => gather(*self, table, indexes, out),
        }
    }
}

fn gather<T: Weight>(
    cpu: Cpu,
    table: View<'_, T, 2>,
    indexes: &[u32],
    out: ViewMut<'_, f32, 2>,
) -> Result<()> {
    let [entries, width] = table.shape();
    check::rows("table", &table, [entries, width])?;
    check::rows("out", &out.as_view(), [indexes.len(), width])?;
    if let Some(index) = indexes.iter().position(|&i| i as usize >= entries) {
        let (value, allowed) = (indexes[index].into(), "less than the number of the table's rows");
        return Err(Error::Value { tensor: "indexes", index, value, allowed });
    }
    for_each_row(cpu, Gather { table, indexes }, Block::new(out), LEAST);
    Ok(())
}

#[derive(Clone, Copy)]
struct Gate<'a> {
    y: View<'a, f32, 2>,
    z: View<'a, f32, 2>,
}

impl RowKernel for Gate<'_> {
    #[inline(always)]
    fn row<I: Isa>(&self, isa: I, row: usize, out: &mut [f32]) {
        gate(isa, self.y.row([row, 0]), self.z.row([row, 0]), out);
    }
}

#[derive(Clone, Copy)]
struct GeluGate<'a> {
    y: View<'a, f32, 2>,
    z: View<'a, f32, 2>,
}

impl RowKernel for GeluGate<'_> {
    #[inline(always)]
    fn row<I: Isa>(&self, isa: I, row: usize, out: &mut [f32]) {
        let (y, z) = (self.y.row([row, 0]), self.z.row([row, 0]));
        let mut at = 0;
        while at < out.len() {
            let [gate] = gelu(isa, [isa.load_at(z, at)]);
            isa.store_at(isa.mul(isa.load_at(y, at), gate), out, at);
            at += I::LANES;
        }
    }
}

#[derive(Clone, Copy)]
struct Copied<'a> {
    x: View<'a, f32, 2>,
}

impl RowKernel for Copied<'_> {
    #[inline(always)]
    fn row<I: Isa>(&self, _isa: I, row: usize, out: &mut [f32]) {
        out.copy_from_slice(self.x.row([row, 0]));
    }
}

/// `out = y · silu(z)`, all of one length.
#[inline(always)]
pub(crate) fn gate<I: Isa>(isa: I, y: &[f32], z: &[f32], out: &mut [f32]) {
    let mut at = 0;
    while at < out.len() {
        let [gate] = silu(isa, [isa.load_at(z, at)]);
        let gated = isa.mul(isa.load_at(y, at), gate);
        isa.store_at(gated, out, at);
        at += I::LANES;
    }
}

#[derive(Clone, Copy)]
struct Add<'a> {
    x: View<'a, f32, 2>,
}

impl RowKernel for Add<'_> {
    #[inline(always)]
    fn row<I: Isa>(&self, isa: I, row: usize, out: &mut [f32]) {
        let x = &self.x.row([row, 0])[..out.len()];
        let mut at = 0;
        while out.len() - at >= I::LANES {
            let sum = isa.add(isa.load(&out[at..]), isa.load(&x[at..]));
            isa.store(sum, &mut out[at..]);
            at += I::LANES;
        }
        if at < out.len() {
            let sum = isa.add(isa.load_part(&out[at..]), isa.load_part(&x[at..]));
            isa.store_part(sum, &mut out[at..]);
        }
    }
}

#[derive(Clone, Copy)]
struct Gather<'a, T> {
    /// `[entries, width]`
    table: View<'a, T, 2>,
    /// Each below `entries`.
    indexes: &'a [u32],
}

impl<T: Weight> RowKernel for Gather<'_, T> {
    #[inline(always)]
    fn row<I: Isa>(&self, isa: I, row: usize, out: &mut [f32]) {
        let entry = self.table.row([self.indexes[row] as usize, 0]);
        let mut at = 0;
        while out.len() - at >= I::LANES {
            isa.store(T::load(isa, &entry[at..]), &mut out[at..]);
            at += I::LANES;
        }
        if at < out.len() {
            isa.store_part(T::load_part(isa, &entry[at..]), &mut out[at..]);
        }
    }
}
