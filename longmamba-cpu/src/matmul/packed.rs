//! Weights that lie in memory as register tiles read them.

use super::operand::Operand;
use super::weights::{Dense, Panels, Weights};
use crate::check;
use crate::dispatch::{Cpu, Kernel};
use crate::isa::tile::{Factor, tile_columns};
use crate::isa::{Isa, MOST_LANES, Pair};
use crate::widen::Weight;
use bytemuck::Pod;
use half::bf16;
use longmamba_core::{AnyView, DType, Error, Result, Tensor, View};
use rayon::prelude::*;
use std::ops::DerefMut;
use std::sync::Arc;

/// A matrix of weights, `[outputs, inputs]`, rearranged once for many products: panel after panel of neighbouring
/// outputs, and in a panel input after input. A prompt need not rearrange it every time, and a single token reads
/// it from one end to the other.
///
/// The weights keep their type, `f32` or `bf16`. [`Cpu::pack`] makes one; [`Cpu::matmul_packed`] and
/// [`Cpu::matmul_packed_bf16`] multiply with it.
#[derive(Clone, Debug)]
pub struct Packed {
    shape: [usize; 2],
    /// Outputs of a panel.
    columns: usize,
    /// Factors that a panel has of each output.
    depth: usize,
    /// `[panels, depth, columns]`, where an input, or in `bf16` a pair of neighbouring inputs, is one step in
    /// depth; zeros up to whole panels and vectors of 16.
    data: Tensor,
}

impl Packed {
    /// `[outputs, inputs]`
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The weights' type.
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        self.data.bytes().len()
    }

    /// The panels of `f32`.
    pub(super) fn floats(&self) -> Result<PackedPanels<'_, f32>> {
        Ok(self.panels(self.data.as_slice()?))
    }

    /// The panels of `bf16`, in pairs.
    pub(super) fn pairs(&self) -> Result<PackedPanels<'_, Pair>> {
        Ok(self.panels(self.data.as_slice()?.as_chunks().0))
    }

    fn panels<'a, F>(&self, data: &'a [F]) -> PackedPanels<'a, F> {
        let Packed { shape: [outputs, inputs], columns, depth, .. } = *self;
        PackedPanels { data, outputs, inputs, columns, depth }
    }
}

impl Cpu {
    /// The bytes that [`pack`](Cpu::pack) needs for weights `[outputs, inputs]` of this type.
    ///
    /// # Errors
    /// [`Error::DType`] for `f16`; [`Error::OutOfBounds`] for more than there can be.
    pub fn packed_bytes(&self, dtype: DType, [outputs, inputs]: [usize; 2]) -> Result<usize> {
        let per_factor = match dtype {
            DType::F32 => 1,
            DType::BF16 => 2,
            DType::F16 => return Err(Error::DType { expected: DType::BF16, actual: DType::F16 }),
        };
        let outputs = outputs.checked_next_multiple_of(self.call(Columns));
        let depth = inputs.div_ceil(per_factor).checked_next_multiple_of(MOST_LANES);
        let factors = outputs.zip(depth).and_then(|(outputs, depth)| outputs.checked_mul(depth));
        let bytes = factors.and_then(|n| n.checked_mul(size_of::<f32>()));
        bytes.ok_or(Error::OutOfBounds { needed: None, available: usize::MAX })
    }

    /// Rearranges `w` `[outputs, inputs]`, `f32` or `bf16`, rows contiguous, in `room`: at least
    /// [`packed_bytes`](Cpu::packed_bytes), best on large pages. The panels are those that this instruction set
    /// is fastest with; others can use them, too.
    ///
    /// # Errors
    /// [`Error::NotContiguous`]; [`Error::DType`] for `f16`; [`Error::OutOfBounds`] where `room` is too small, or
    /// not aligned to 4 bytes.
    pub fn pack<M>(&self, w: AnyView<'_, 2>, room: M) -> Result<Packed>
    where
        M: DerefMut<Target = [u8]> + Send + Sync + 'static,
    {
        let bytes = self.packed_bytes(w.dtype(), w.shape())?;
        match w {
            AnyView::F32(w) => pack::<f32, f32, M>(*self, w, bytes, room),
            AnyView::BF16(w) => pack::<bf16, Pair, M>(*self, w, bytes, room),
            AnyView::F16(_) => Err(Error::DType { expected: DType::BF16, actual: DType::F16 }),
        }
    }
}

fn pack<T: Weight, F: Operand<T> + Pod, M>(
    cpu: Cpu,
    w: View<'_, T, 2>,
    bytes: usize,
    mut room: M,
) -> Result<Packed>
where
    M: DerefMut<Target = [u8]> + Send + Sync + 'static,
{
    let [outputs, inputs] = w.shape();
    check::rows("w", &w, [outputs, inputs])?;
    let columns = cpu.call(Columns);
    let (panels, depth) =
        (outputs.div_ceil(columns), inputs.div_ceil(F::INPUTS).next_multiple_of(MOST_LANES));
    let too_small = Error::OutOfBounds { needed: Some(bytes), available: room.len() };
    let memory = room.get_mut(..bytes).and_then(|b| bytemuck::try_cast_slice_mut::<u8, F>(b).ok());
    let memory = memory.ok_or(too_small)?;
    if bytes > 0 {
        memory.par_chunks_exact_mut(depth * columns).enumerate().for_each(|(index, panel)| {
            let output = index * columns;
            let rows = columns.min(outputs - output);
            cpu.call(Fill::<T, F> { w, output, rows, columns, panel });
        });
    }
    let shape = [panels, depth * F::INPUTS, columns];
    let data = Tensor::from_shared(Arc::new(Bytes(room)), 0..bytes, T::DTYPE, &shape)?;
    Ok(Packed { shape: [outputs, inputs], columns, depth, data })
}

/// Memory that is lent as bytes.
struct Bytes<M>(M);

impl<M: DerefMut<Target = [u8]>> AsRef<[u8]> for Bytes<M> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The outputs of a panel that an instruction set is fastest with.
struct Columns;

impl Kernel for Columns {
    type Out = usize;
    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> usize {
        const { tile_columns::<I>() }
    }
}

/// One panel.
struct Fill<'a, T, F> {
    w: View<'a, T, 2>,
    output: usize,
    rows: usize,
    columns: usize,
    panel: &'a mut [F],
}

impl<T: Weight, F: Operand<T>> Kernel for Fill<'_, T, F> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Fill { w, output, rows, columns, panel } = self;
        panel.fill(F::ZERO);
        let depth = panel.len() / columns;
        Dense(w).panel(isa, panel, output, rows, 0, depth);
    }
}

/// The panels of [`Packed`] weights, or some of them.
#[derive(Clone, Copy)]
pub(super) struct PackedPanels<'a, F> {
    /// `[panels, depth, columns]`
    data: &'a [F],
    outputs: usize,
    inputs: usize,
    columns: usize,
    depth: usize,
}

impl<F: Factor> Weights for PackedPanels<'_, F> {
    fn outputs(&self) -> usize {
        self.outputs
    }
    fn inputs(&self) -> usize {
        self.inputs
    }
    fn row_bytes(&self) -> usize {
        self.depth * size_of::<F>()
    }
    fn cut(self, at: usize) -> (Self, Self) {
        let (data, data_) = self.data.split_at(at / self.columns * self.depth * self.columns);
        (
            PackedPanels { data, outputs: at, ..self },
            PackedPanels { data: data_, outputs: self.outputs - at, ..self },
        )
    }
}

impl<F: Factor> Panels<F> for PackedPanels<'_, F> {
    const READY: bool = true;

    fn columns<I: Isa>(&self) -> usize {
        self.columns
    }

    #[inline(always)]
    fn panel<'p, I: Isa>(
        &'p self,
        _: I,
        _: &'p mut [F],
        output: usize,
        _: usize,
        first: usize,
        len: usize,
    ) -> &'p [F] {
        let start = (output / self.columns * self.depth + first) * self.columns;
        &self.data[start..][..len * self.columns]
    }
}

/// For many rows of floats: each stretch is widened once, and then meets all of them.
impl Panels<f32> for PackedPanels<'_, Pair> {
    fn columns<I: Isa>(&self) -> usize {
        self.columns
    }

    #[inline(always)]
    fn panel<'p, I: Isa>(
        &'p self,
        isa: I,
        room: &'p mut [f32],
        output: usize,
        count: usize,
        first: usize,
        len: usize,
    ) -> &'p [f32] {
        let (columns, pairs) = (self.columns, len.div_ceil(2));
        // A stretch begins with a vector's lanes, whose number is even.
        let panel = Panels::<Pair>::panel(self, isa, &mut [], output, count, first / 2, pairs);
        for (pairs, rows) in panel.chunks_exact(columns).zip(room.chunks_exact_mut(2 * columns)) {
            let (first, second) = rows.split_at_mut(columns);
            for j in (0..columns).step_by(I::LANES) {
                // Panels of another instruction set may be narrower than a vector.
                let vector = match pairs.get(j..j + I::LANES) {
                    Some(whole) => Pair::load(isa, whole),
                    None => Pair::load_part(isa, &pairs[j..]),
                };
                let [a, b] = isa.widen(vector);
                isa.store_at(a, first, j);
                isa.store_at(b, second, j);
            }
        }
        room
    }
}
