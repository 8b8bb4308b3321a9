//! Weights that lie in memory as register tiles read them.

use super::compact::{Compact, CompactPanels};
use super::operand::Operand;
use super::weights::{Dense, Panels, Part, Weights};
use crate::check;
use crate::dispatch::{Cpu, Kernel};
use crate::isa::tile::{Coming, Factor, tile_columns};
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
/// The weights keep their type, `f32` or `bf16`. [`Cpu::pack`] makes one, and [`Cpu::pack_compact`] one that takes less
/// memory; [`Cpu::matmul_packed`] and [`Cpu::matmul_packed_bf16`] multiply with either.
#[derive(Clone, Debug)]
pub struct Packed {
    shape: [usize; 2],
    data: Data,
}

#[derive(Clone, Debug)]
enum Data {
    /// As they are.
    Whole {
        /// Outputs of a panel.
        columns: usize,
        /// Factors that a panel has of each output.
        depth: usize,
        /// `[panels, depth, columns]`, where an input, or in `bf16` a pair of neighbouring inputs, is one step in
        /// depth; zeros up to whole panels and vectors of 16.
        panels: Tensor,
    },
    /// `bf16` in twelve bits.
    Compact(Compact),
}

/// The panels of a product.
pub(super) enum AnyPanels<'a> {
    /// Of `f32`.
    Floats(PackedPanels<'a, f32>),
    /// Of `bf16`, in pairs.
    Pairs(PackedPanels<'a, Pair>),
    /// The same in twelve bits.
    Compact(CompactPanels<'a>),
}

impl Packed {
    /// `[outputs, inputs]`
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The weights' type.
    pub fn dtype(&self) -> DType {
        match &self.data {
            Data::Whole { panels, .. } => panels.dtype(),
            Data::Compact(_) => DType::BF16,
        }
    }

    /// Whether it is [compact](Cpu::pack_compact).
    pub fn is_compact(&self) -> bool {
        matches!(self.data, Data::Compact(_))
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        match &self.data {
            Data::Whole { panels, .. } => panels.bytes().len(),
            Data::Compact(compact) => compact.bytes(),
        }
    }

    /// Weights `[outputs, inputs]` in twelve bits.
    pub(super) fn compact(shape: [usize; 2], compact: Compact) -> Packed {
        Packed { shape, data: Data::Compact(compact) }
    }

    /// The panels.
    pub(super) fn panels(&self) -> Result<AnyPanels<'_>> {
        let shape = self.shape;
        Ok(match &self.data {
            Data::Compact(compact) => AnyPanels::Compact(compact.panels(shape)),
            &Data::Whole { columns, depth, ref panels } if panels.dtype() == DType::F32 => {
                AnyPanels::Floats(PackedPanels::new(panels.as_slice()?, shape, columns, depth))
            }
            &Data::Whole { columns, depth, ref panels } => {
                let pairs = panels.as_slice()?.as_chunks().0;
                AnyPanels::Pairs(PackedPanels::new(pairs, shape, columns, depth))
            }
        })
    }
}

impl Cpu {
    /// The bytes that [`pack`](Cpu::pack) needs for weights `[outputs, inputs]` of this type.
    ///
    /// # Errors
    /// [`Error::DType`] for `f16`; [`Error::OutOfBounds`] for more than there can be.
    pub fn packed_bytes(&self, dtype: DType, [outputs, inputs]: [usize; 2]) -> Result<usize> {
        let depth = match dtype {
            DType::F32 => depth_of(inputs, 1),
            DType::BF16 => depth_of(inputs, 2),
            DType::F16 => return Err(Error::DType { expected: DType::BF16, actual: DType::F16 }),
        };
        let outputs = outputs.checked_next_multiple_of(self.call(Columns));
        let factors = outputs.zip(depth).and_then(|(outputs, depth)| outputs.checked_mul(depth));
        let bytes = factors.and_then(|n| n.checked_mul(size_of::<f32>()));
        bytes.ok_or(too_large())
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

/// The error for more than there can be.
pub(super) fn too_large() -> Error {
    Error::OutOfBounds { needed: None, available: usize::MAX }
}

/// Factors of so many inputs that a panel has of each output; `None` for more than there can be.
fn depth_of(inputs: usize, per_factor: usize) -> Option<usize> {
    inputs.div_ceil(per_factor).checked_next_multiple_of(MOST_LANES)
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
    let panels = outputs.div_ceil(columns);
    let too_small = Error::OutOfBounds { needed: Some(bytes), available: room.len() };
    let depth = depth_of(inputs, F::INPUTS).ok_or(too_large())?;
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
    let panels = Tensor::from_shared(Arc::new(Bytes(room)), 0..bytes, T::DTYPE, &shape)?;
    Ok(Packed { shape: [outputs, inputs], data: Data::Whole { columns, depth, panels } })
}

/// Memory that is lent as bytes.
pub(super) struct Bytes<M>(pub(super) M);

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
        Dense(w).panel(isa, panel, Part { output, count: rows, first: 0, len: depth });
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

impl<'a, F> PackedPanels<'a, F> {
    fn new(data: &'a [F], [outputs, inputs]: [usize; 2], columns: usize, depth: usize) -> Self {
        PackedPanels { data, outputs, inputs, columns, depth }
    }

    /// A part of them.
    #[inline(always)]
    fn part(&self, Part { output, first, len, .. }: Part) -> &'a [F] {
        let start = (output / self.columns * self.depth + first) * self.columns;
        &self.data[start..][..len * self.columns]
    }
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
    fn panel<'p, I: Isa>(&'p self, _: I, _: &'p mut [F], part: Part) -> &'p [F] {
        self.part(part)
    }

    fn coming(&self, part: Part) -> Coming {
        Coming::after(self.part(part))
    }
}

/// For many rows of floats: each stretch is widened once, and then meets all of them.
impl Panels<f32> for PackedPanels<'_, Pair> {
    fn columns<I: Isa>(&self) -> usize {
        self.columns
    }

    #[inline(always)]
    fn panel<'p, I: Isa>(&'p self, isa: I, room: &'p mut [f32], part: Part) -> &'p [f32] {
        let (columns, panel) = (self.columns, self.part(part.pairs()));
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

    fn coming(&self, part: Part) -> Coming {
        Coming::after(self.part(part.pairs()))
    }
}
