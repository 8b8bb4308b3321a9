//! The matrix product of every linear layer, `out = x · wᵀ`.
//!
//! Two methods, by the number of rows. A few rows (decode) wait for the weights to arrive from memory:
//! [`decode`] reads each weight once, in order, as the dot products need it. Many rows (prefill) wait
//! for the multipliers: [`prefill`] rearranges the weights into panels for the register tiles of
//! [`tile`](crate::isa::tile), which pays once enough rows use a panel.
//!
//! Either takes its factors as `f32`, or, with `bf16` weights, in pairs of `bf16` (see [`operand`]), which
//! some processors multiply at twice the rate.

mod decode;
mod operand;
mod prefill;
mod round;
mod weights;

use crate::check;
use crate::dispatch::{Block, Cpu, Scratch, parallel};
use crate::isa::{IsaKind, Pair};
use crate::widen::Weight;
use decode::Decode;
use half::bf16;
use longmamba_core::{AnyView, Layout, Result, View, ViewMut};
use operand::Operand;
use prefill::Prefill;
use round::Round;
use weights::Dense;

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
        scratch: &mut Scratch,
    ) -> Result<()> {
        match w {
            AnyView::F32(w) => matmul(*self, x, w, out, accumulate, scratch),
            AnyView::F16(w) => matmul(*self, x, w, out, accumulate, scratch),
            AnyView::BF16(w) => matmul(*self, x, w, out, accumulate, scratch),
        }
    }

    /// As [`matmul`](Cpu::matmul), with x rounded to `bf16` first (to nearest, ties to even; a value below
    /// 2⁻¹²⁶ may become 0). The products are exact and accumulated in `f32`.
    ///
    /// An element of the result differs from that of `matmul` by at most about `2⁻⁹ · Σ |x·w|`, and where
    /// signs and sizes are mixed as in a language model by far less.
    ///
    /// # Errors
    /// As [`matmul`](Cpu::matmul).
    pub fn matmul_bf16(
        &self,
        x: View<'_, f32, 2>,
        w: View<'_, bf16, 2>,
        out: ViewMut<'_, f32, 2>,
        accumulate: Accumulate,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Some((out, accumulate)) = checked(x, w, out, accumulate)? else { return Ok(()) };
        let [rows, inputs] = x.shape();
        let pairs = inputs.div_ceil(2);
        let panel_len = if rows < PREFILL_ROWS { 0 } else { prefill::panel_len(pairs) };
        let panels = rayon::current_num_threads();
        let (rounded, panels) = scratch.pairs_and_slots(rows * pairs, panels, panel_len);
        let round = Round { cpu: *self, x, out: rounded, pairs };
        let least = round.least_units();
        parallel(round, least);
        let x: View<'_, Pair, 2> = View::with_layout(rounded, Layout::contiguous([rows, pairs])?)?;
        match rows < PREFILL_ROWS {
            true => Decode::run(*self, x, Dense(w), out, accumulate),
            false => Prefill::run(*self, x, Dense(w), out, accumulate, panels),
        }
        Ok(())
    }

    /// Whether [`matmul_bf16`](Cpu::matmul_bf16) is faster than [`matmul`](Cpu::matmul) here.
    pub fn has_fast_bf16(&self) -> bool {
        self.isa() == IsaKind::Avx512Bf16
    }
}

fn matmul<T: Weight>(
    cpu: Cpu,
    x: View<'_, f32, 2>,
    w: View<'_, T, 2>,
    out: ViewMut<'_, f32, 2>,
    accumulate: Accumulate,
    scratch: &mut Scratch,
) -> Result<()>
where
    f32: Operand<T>,
{
    let Some((out, accumulate)) = checked(x, w, out, accumulate)? else { return Ok(()) };
    if x.shape()[0] < PREFILL_ROWS {
        Decode::run(cpu, x, Dense(w), out, accumulate);
    } else {
        let panels = rayon::current_num_threads();
        let panels = scratch.slots(panels, prefill::panel_len(x.shape()[1]));
        Prefill::run(cpu, x, Dense(w), out, accumulate, panels);
    }
    Ok(())
}

/// The output, and whether to add to it; `None` where that is all there was to do.
fn checked<'a, T: Weight>(
    x: View<'_, f32, 2>,
    w: View<'_, T, 2>,
    mut out: ViewMut<'a, f32, 2>,
    accumulate: Accumulate,
) -> Result<Option<(Block<'a, f32, 2>, bool)>> {
    let [rows, inputs] = x.shape();
    let [outputs, _] = w.shape();
    check::rows("x", &x, [rows, inputs])?;
    check::rows("w", &w, [outputs, inputs])?;
    check::rows("out", &out.as_view(), [rows, outputs])?;
    let accumulate = accumulate == Accumulate::Yes;
    if rows == 0 || outputs == 0 {
        return Ok(None);
    }
    if inputs == 0 {
        // The empty sum.
        if !accumulate {
            (0..rows).for_each(|r| out.row_mut([r, 0]).fill(0.0));
        }
        return Ok(None);
    }
    Ok(Some((Block::new(out), accumulate)))
}
