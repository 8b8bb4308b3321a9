//! The matrix product of every linear layer, `out = x · wᵀ`.
//!
//! Two methods, by the number of rows. A few rows (decode) wait for the weights to arrive from memory:
//! [`decode`] reads each weight once, in order, as the dot products need it. Many rows (prefill) wait
//! for the multipliers: [`prefill`] rearranges the weights into panels for the register tiles of
//! [`tile`](crate::isa::tile), which pays once enough rows use a panel.

mod decode;
mod prefill;

use crate::check;
use crate::dispatch::{Block, Cpu, parallel};
use crate::widen::Weight;
use decode::Decode;
use longmamba_core::{AnyView, Result, View, ViewMut};
use prefill::Prefill;

/// From this many rows on, rearranging the weights pays.
const PREFILL_ROWS: usize = 12;

/// What a matrix product does with the values that its output holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accumulate {
    /// Overwrites them, unread.
    No,
    /// Adds to them.
    Yes,
}

impl Cpu {
    /// `out = x · wᵀ`, or `out += x · wᵀ`.
    ///
    /// * `x`: `[rows, inputs]`, rows contiguous.
    /// * `w`: `[outputs, inputs]`, as PyTorch's `Linear` stores it, rows contiguous. Half precision is
    ///   widened on the way and never copied as a whole.
    /// * `out`: `[rows, outputs]`, rows contiguous.
    ///
    /// Products are accumulated in `f32`. A row's result does not depend on the other rows, except
    /// that below 12 rows the sums are taken in another order than from 12 rows on.
    ///
    /// # Errors
    /// [`Error::Shape`](longmamba_core::Error::Shape) or
    /// [`Error::NotContiguous`](longmamba_core::Error::NotContiguous), naming the argument.
    pub fn matmul(
        &self,
        x: View<'_, f32, 2>,
        w: AnyView<'_, 2>,
        out: ViewMut<'_, f32, 2>,
        accumulate: Accumulate,
    ) -> Result<()> {
        match w {
            AnyView::F32(w) => matmul(*self, x, w, out, accumulate),
            AnyView::F16(w) => matmul(*self, x, w, out, accumulate),
            AnyView::BF16(w) => matmul(*self, x, w, out, accumulate),
        }
    }
}

fn matmul<T: Weight>(
    cpu: Cpu,
    x: View<'_, f32, 2>,
    w: View<'_, T, 2>,
    mut out: ViewMut<'_, f32, 2>,
    accumulate: Accumulate,
) -> Result<()> {
    let [rows, inputs] = x.shape();
    let [outputs, _] = w.shape();
    check::rows("x", &x, [rows, inputs])?;
    check::rows("w", &w, [outputs, inputs])?;
    check::rows("out", &out.as_view(), [rows, outputs])?;
    let accumulate = accumulate == Accumulate::Yes;
    if rows == 0 || outputs == 0 {
        return Ok(());
    }
    if inputs == 0 {
        // The empty sum.
        if !accumulate {
            (0..rows).for_each(|r| out.row_mut([r, 0]).fill(0.0));
        }
        return Ok(());
    }
    let out = Block::new(out);
    if rows < PREFILL_ROWS {
        let decode = Decode { cpu, x, w, out, accumulate };
        parallel(decode, decode::least_units(inputs));
    } else {
        let prefill = Prefill::new(cpu, x, w, out, accumulate);
        let least = prefill.least_units();
        parallel(prefill, least);
    }
    Ok(())
}
