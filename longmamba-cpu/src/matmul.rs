//! The matrix product of every linear layer, `out = x · wᵀ`.
//!
//! Two methods, by the number of rows. A few rows (decode) wait for the weights to arrive from memory:
//! [`decode`] reads each weight once, in order, as the dot products need it. Many rows (prefill) wait
//! for the multipliers: [`prefill`] rearranges the weights into panels for the register tiles of
//! [`tile`](crate::isa::tile), which pays once enough rows use a panel. Weights that were rearranged for good
//! ([`packed`]) take that method with any number of rows.
//!
//! Either takes its factors as `f32`, or, with `bf16` weights, in pairs of `bf16` (see [`operand`]), which
//! some processors multiply at twice the rate.

mod codes;
mod compact;
mod decode;
mod operand;
mod packed;
mod prefill;
mod round;
mod weights;

use crate::check;
use crate::dispatch::{Block, Cpu, Scratch, Slots, parallel, pieces};
use crate::isa::tile::{Floats, MOST_ROWS};
use crate::isa::{IsaKind, Pair};
use crate::norm::Normed;
use crate::quantized::Quantized;
use crate::widen::Weight;
use codes::{Codes, Nibbles};
use decode::Decode;
use half::bf16;
use longmamba_core::{AnyView, DType, Error, Layout, Result, View, ViewMut};
use operand::Operand;
use packed::AnyPanels;
pub use packed::Packed;
use prefill::Prefill;
use round::{Round, Rows};
use weights::{Dense, Dots, Panels};

/// From this many rows on, rearranging the weights pays.
const PREFILL_ROWS: usize = 12;

/// Elements whose rounding is worth a thread: some 20 µs.
const ROUNDED: usize = 1 << 16;

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
        check::rows("w", &w, [w.shape()[0], x.shape()[1]])?;
        let Some((out, accumulate)) = checked(x_shape(&x)?, w.shape(), out, accumulate)? else {
            return Ok(());
        };
        let (x, panels) = rounded(*self, x, x.shape(), ROUNDED, pair_panel(x), scratch)?;
        match x.shape()[0] < PREFILL_ROWS {
            true => Decode::run(*self, x, Dense(w), out, accumulate),
            false => Prefill::run(*self, x, Dense(w), out, accumulate, panels),
        }
        Ok(())
    }

    /// As [`matmul`](Cpu::matmul), with quantised weights: the product of x with what [`Quantized::row`] gives.
    ///
    /// # Errors
    /// As [`matmul`](Cpu::matmul).
    pub fn matmul_quantized(
        &self,
        x: View<'_, f32, 2>,
        w: &Quantized,
        out: ViewMut<'_, f32, 2>,
        accumulate: Accumulate,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Some((out, accumulate)) = checked(x_shape(&x)?, w.shape(), out, accumulate)? else {
            return Ok(());
        };
        product(*self, x, Codes::new(w), out, accumulate, scratch)
    }

    /// As [`matmul_quantized`](Cpu::matmul_quantized), with x rounded to `bf16` first, as in
    /// [`matmul_bf16`](Cpu::matmul_bf16), and from 12 rows on the weights, too. Below 12 rows weights in 8 bits
    /// take x as it is: that is no slower.
    ///
    /// # Errors
    /// As [`matmul`](Cpu::matmul).
    pub fn matmul_quantized_bf16(
        &self,
        x: View<'_, f32, 2>,
        w: &Quantized,
        out: ViewMut<'_, f32, 2>,
        accumulate: Accumulate,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let decodes = x.shape()[0] < PREFILL_ROWS;
        let nibbles = Nibbles::new(Codes::new(w));
        if decodes && nibbles.is_none() {
            return self.matmul_quantized(x, w, out, accumulate, scratch);
        }
        let Some((out, accumulate)) = checked(x_shape(&x)?, w.shape(), out, accumulate)? else {
            return Ok(());
        };
        let (x, panels) = rounded(*self, x, x.shape(), ROUNDED, pair_panel(x), scratch)?;
        match nibbles {
            Some(nibbles) if decodes => Decode::run(*self, x, nibbles, out, accumulate),
            _ => Prefill::run(*self, x, Codes::new(w), out, accumulate, panels),
        }
        Ok(())
    }

    /// As [`matmul`](Cpu::matmul), with rearranged weights; those in `bf16` are widened on the way. Here a row's
    /// result never depends on the number of rows.
    ///
    /// # Errors
    /// As [`matmul`](Cpu::matmul).
    pub fn matmul_packed(
        &self,
        x: View<'_, f32, 2>,
        w: &Packed,
        out: ViewMut<'_, f32, 2>,
        accumulate: Accumulate,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Some((out, accumulate)) = checked(x_shape(&x)?, w.shape(), out, accumulate)? else {
            return Ok(());
        };
        match w.panels()? {
            AnyPanels::Floats(w) => {
                let (x, room) = spread(*self, x, 0, scratch)?;
                Prefill::run(*self, x, w, out, accumulate, room);
            }
            AnyPanels::Pairs(w) if x.shape()[0] < PREFILL_ROWS => {
                let (x, room) = neighbours(*self, x, 0, scratch)?;
                Prefill::<_, _, Pair>::run(*self, x, w, out, accumulate, room);
            }
            AnyPanels::Compact(w) if x.shape()[0] <= few_rows(*self) => {
                let panel_len = prefill::panel_len(x.shape()[1].div_ceil(2));
                let (x, room) = neighbours(*self, x, panel_len, scratch)?;
                Prefill::<_, _, Pair>::run(*self, x, w, out, accumulate, room);
            }
            AnyPanels::Pairs(w) => widened(*self, x, w, out, accumulate, scratch)?,
            AnyPanels::Compact(w) => widened(*self, x, w, out, accumulate, scratch)?,
        }
        Ok(())
    }

    /// As [`matmul_bf16`](Cpu::matmul_bf16), with rearranged weights of type `bf16`. Here a row's result never
    /// depends on the number of rows.
    ///
    /// # Errors
    /// As [`matmul`](Cpu::matmul); [`Error::DType`](longmamba_core::Error::DType) for other weights.
    pub fn matmul_packed_bf16(
        &self,
        x: View<'_, f32, 2>,
        w: &Packed,
        out: ViewMut<'_, f32, 2>,
        accumulate: Accumulate,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let shape = x_shape(&x)?;
        packed_pairs(*self, x, shape, ROUNDED, w, out, accumulate, scratch)
    }

    /// As [`matmul_packed_bf16`](Cpu::matmul_packed_bf16) of what a norm makes of its rows, which is rounded as it
    /// comes.
    ///
    /// # Errors
    /// As there.
    pub fn matmul_normed_bf16(
        &self,
        x: Normed<'_>,
        w: &Packed,
        out: ViewMut<'_, f32, 2>,
        accumulate: Accumulate,
        scratch: &mut Scratch,
    ) -> Result<()> {
        packed_pairs(*self, x, x.shape(), x.least(), w, out, accumulate, scratch)
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
    check::rows("w", &w, [w.shape()[0], x.shape()[1]])?;
    if let Some((out, accumulate)) = checked(x_shape(&x)?, w.shape(), out, accumulate)? {
        product(cpu, x, Dense(w), out, accumulate, scratch)?;
    }
    Ok(())
}

/// The product of factors in `f32`.
fn product<W: Dots<f32> + Panels<f32>>(
    cpu: Cpu,
    x: View<'_, f32, 2>,
    w: W,
    out: Block<'_, f32, 2>,
    accumulate: bool,
    scratch: &mut Scratch,
) -> Result<()> {
    let [rows, inputs] = x.shape();
    if rows < PREFILL_ROWS {
        Decode::run(cpu, x, w, out, accumulate);
        return Ok(());
    }
    let (x, panels) = spread(cpu, x, prefill::panel_len(inputs), scratch)?;
    Prefill::run(cpu, x, w, out, accumulate, panels);
    Ok(())
}

/// The product of rows `[rows, inputs]`, rounded, and of packed pairs; `least` as in [`rounded`].
#[allow(clippy::too_many_arguments, reason = "those of a product, and how its rows are rounded")]
fn packed_pairs<R: Rows>(
    cpu: Cpu,
    x: R,
    shape: [usize; 2],
    least: usize,
    w: &Packed,
    out: ViewMut<'_, f32, 2>,
    accumulate: Accumulate,
    scratch: &mut Scratch,
) -> Result<()> {
    match w.panels()? {
        AnyPanels::Floats(_) => Err(Error::DType { expected: DType::BF16, actual: DType::F32 }),
        AnyPanels::Pairs(w) => pairs(cpu, x, shape, least, w, 0, out, accumulate, scratch),
        AnyPanels::Compact(w) => {
            let panel_len = prefill::panel_len(shape[1].div_ceil(2));
            pairs(cpu, x, shape, least, w, panel_len, out, accumulate, scratch)
        }
    }
}

/// The product of rows, rounded, and of pairs in panels, with room for panels of so many.
#[allow(clippy::too_many_arguments, reason = "those of a product, and how its rows are rounded")]
fn pairs<R: Rows>(
    cpu: Cpu,
    x: R,
    shape: [usize; 2],
    least: usize,
    w: impl Panels<Pair>,
    panel_len: usize,
    out: ViewMut<'_, f32, 2>,
    accumulate: Accumulate,
    scratch: &mut Scratch,
) -> Result<()> {
    if let Some((out, accumulate)) = checked(shape, [w.outputs(), w.inputs()], out, accumulate)? {
        let (x, room) = rounded(cpu, x, shape, least, panel_len, scratch)?;
        Prefill::run(cpu, x, w, out, accumulate, room);
    }
    Ok(())
}

/// The product of rows as they are and of packed pairs, which are widened first.
fn widened(
    cpu: Cpu,
    x: View<'_, f32, 2>,
    w: impl Panels<f32>,
    out: Block<'_, f32, 2>,
    accumulate: bool,
    scratch: &mut Scratch,
) -> Result<()> {
    let (x, room) = spread(cpu, x, prefill::panel_len(x.shape()[1]), scratch)?;
    Prefill::run(cpu, x, w, out, accumulate, room);
    Ok(())
}

/// Pairs of a panel of the weights that meet x, where it takes panels.
fn pair_panel(x: View<'_, f32, 2>) -> usize {
    let [rows, inputs] = x.shape();
    if rows < PREFILL_ROWS { 0 } else { prefill::panel_len(inputs.div_ceil(2)) }
}

/// The most rows that meet weights in twelve bits as they are unpacked, where those are not widened first.
fn few_rows(cpu: Cpu) -> usize {
    match cpu.isa() {
        IsaKind::Avx512 | IsaKind::Avx512Bf16 | IsaKind::Amx => PREFILL_ROWS - 1,
        IsaKind::Scalar | IsaKind::Avx2 | IsaKind::Neon => MOST_ROWS,
    }
}

/// x with rows that are not in each other's way, and room for panels of so many factors.
fn spread<'a>(
    cpu: Cpu,
    x: View<'a, f32, 2>,
    panel_len: usize,
    scratch: &'a mut Scratch,
) -> Result<(View<'a, f32, 2>, Slots<'a, f32>)> {
    let [rows, inputs] = x.shape();
    let threads = rayon::current_num_threads();
    if rows < PREFILL_ROWS || !prefill::collides(x.layout().strides()[0]) {
        return Ok((x, scratch.slots(threads, panel_len)));
    }
    let stride = prefill::stride(inputs);
    let layout = Layout::strided([rows, inputs], [stride, 1])?;
    let (copy, panels) = scratch.room_and_slots(rows * stride, threads, panel_len);
    cpu.copy(x, ViewMut::with_layout(copy, layout)?)?;
    Ok((View::with_layout(copy, layout)?, panels))
}

/// x with neighbours side by side, a zero beside the last where their number is odd, and room for panels of so many
/// pairs.
fn neighbours<'a>(
    cpu: Cpu,
    x: View<'a, f32, 2>,
    panel_len: usize,
    scratch: &'a mut Scratch,
) -> Result<(View<'a, Floats, 2>, Slots<'a, Pair>)> {
    let ([rows, inputs], [stride, _]) = (x.shape(), x.layout().strides());
    let pairs = inputs.div_ceil(2);
    let threads = rayon::current_num_threads();
    if inputs.is_multiple_of(2) && stride.is_multiple_of(2) {
        let layout = Layout::strided([rows, pairs], [stride / 2, 1])?;
        let x = View::with_layout(x.data().as_chunks().0, layout)?;
        return Ok((x, scratch.slots(threads, panel_len)));
    }
    let stride = 2 * pairs;
    let len = rows * stride;
    let (_, copy, panels) = scratch.pairs_and_slots(0, [1, len], [threads, panel_len]);
    let copy = &mut copy.into_all()[..len];
    cpu.copy(x, ViewMut::with_layout(&mut *copy, Layout::strided([rows, inputs], [stride, 1])?)?)?;
    copy.chunks_exact_mut(stride).for_each(|row| row[inputs..].fill(0.0));
    let layout = Layout::strided([rows, pairs], [stride / 2, 1])?;
    Ok((View::with_layout(copy.as_chunks().0, layout)?, panels))
}

/// x `[rows, inputs]` in pairs, and room for panels of so many. A thread is worth rows of `least`
/// elements.
fn rounded<'a, R: Rows>(
    cpu: Cpu,
    x: R,
    [rows, inputs]: [usize; 2],
    least: usize,
    panel_len: usize,
    scratch: &'a mut Scratch,
) -> Result<(View<'a, Pair, 2>, Slots<'a, Pair>)> {
    let pairs = inputs.div_ceil(2);
    let stride = prefill::stride(pairs);
    let threads = rayon::current_num_threads();
    let least = least.div_ceil(inputs.max(1));
    let count = pieces(rows, least);
    let (rounded, room, panels) =
        scratch.pairs_and_slots(rows * stride, [count, x.room(inputs)], [threads, panel_len]);
    let round = Round { cpu, x, first: 0, rows, inputs, out: &mut *rounded, stride, room };
    parallel(round, least);
    Ok((View::with_layout(rounded, Layout::strided([rows, pairs], [stride, 1])?)?, panels))
}

/// The shape of x, whose rows must be contiguous.
fn x_shape(x: &View<'_, f32, 2>) -> Result<[usize; 2]> {
    check::rows("x", x, x.shape())?;
    Ok(x.shape())
}

/// The output, and whether to add to it; `None` where that is all there was to do.
fn checked<'a>(
    [rows, inputs]: [usize; 2],
    [outputs, depth]: [usize; 2],
    mut out: ViewMut<'a, f32, 2>,
    accumulate: Accumulate,
) -> Result<Option<(Block<'a, f32, 2>, bool)>> {
    check::shape("w", [outputs, depth], [outputs, inputs])?;
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
