//! Panels of `bf16` weights in twelve bits a weight ([`isa::compact`](crate::isa::compact)).

use super::packed::{Bytes, Packed, too_large};
use super::weights::{Panels, Part, Weights};
use crate::check;
use crate::dispatch::{Block, Cpu};
use crate::isa::compact::{COLUMNS, Pairs, Patch, Step, Steps, exponents, places, step};
use crate::isa::tile::{Add, Coming, Left, Meets, multiply_first};
use crate::isa::{Isa, IsaKind, Pair};
use half::bf16;
use longmamba_core::{Error, Result, View};
use rayon::prelude::*;
use std::fmt;
use std::ops::DerefMut;
use std::sync::Arc;

/// The most patches, one in so many steps on average: more would cost more than they save.
const STEPS_PER_PATCH: usize = 32;

/// Steps of all panels.
#[derive(Clone)]
pub(super) struct Compact(Arc<Parts>);

struct Parts {
    /// `[panels, depth]`, and maybe more.
    steps: Box<dyn AsRef<[u8]> + Send + Sync>,
    /// `[panels]`
    exponents: Vec<[u8; 16]>,
    patches: Vec<Patch>,
    /// `[panels + 1]`: where in `patches` a panel's begin.
    starts: Vec<usize>,
}

impl fmt::Debug for Compact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { steps, patches, .. } = &*self.0;
        let (bytes, patches) = ((**steps).as_ref().len(), patches.len());
        f.debug_struct("Compact").field("bytes", &bytes).field("patches", &patches).finish()
    }
}

impl Compact {
    /// What it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        let Parts { steps, exponents, patches, starts } = &*self.0;
        let beside = size_of_val(&exponents[..]) + size_of_val(&patches[..]);
        (**steps).as_ref().len() + beside + size_of_val(&starts[..])
    }

    /// The panels of weights `[outputs, inputs]`.
    pub(super) fn panels(&self, [outputs, inputs]: [usize; 2]) -> CompactPanels<'_> {
        let Parts { steps, exponents, patches, starts } = &*self.0;
        let steps = (**steps).as_ref().as_chunks().0;
        CompactPanels { steps, exponents, patches, starts, outputs, inputs }
    }
}

impl Cpu {
    /// The bytes that [`pack_compact`](Cpu::pack_compact) needs for weights `[outputs, inputs]`.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] for more than there can be.
    pub fn compact_bytes(&self, [outputs, inputs]: [usize; 2]) -> Result<usize> {
        let steps = outputs.div_ceil(COLUMNS).checked_mul(inputs.div_ceil(2));
        steps.and_then(|steps| steps.checked_mul(size_of::<Step>())).ok_or(too_large())
    }

    /// As [`pack`](Cpu::pack) weights of type `bf16`, but in twelve bits a weight, and without loss: products with
    /// them are the same to the last bit. Weights of a panel are of similar size, so that a table of 16 exponents has
    /// those of all but a few, which are kept beside. `None` where they are not, and it would not be worth it.
    ///
    /// A single row, which waits for weights to come from memory, is then up to a third faster, and so are up to eight
    /// with AVX-512; of many rows the first ones unpack panels for all of them. Where
    /// [`has_fast_compact`](Cpu::has_fast_compact) says no, all are slower.
    ///
    /// # Errors
    /// As [`pack`](Cpu::pack), where room for [`compact_bytes`](Cpu::compact_bytes) is needed.
    pub fn pack_compact<M>(&self, w: View<'_, bf16, 2>, mut room: M) -> Result<Option<Packed>>
    where
        M: DerefMut<Target = [u8]> + Send + Sync + 'static,
    {
        let shape = w.shape();
        check::rows("w", &w, shape)?;
        let bytes = self.compact_bytes(shape)?;
        let too_small = Error::OutOfBounds { needed: Some(bytes), available: room.len() };
        let steps =
            room.get_mut(..bytes).ok_or(too_small)?.as_chunks_mut::<{ size_of::<Step>() }>().0;
        let depth = shape[1].div_ceil(2);
        if steps.is_empty() || u32::try_from(depth).is_err() {
            return Ok(None);
        }
        let panels = steps.par_chunks_exact_mut(depth).enumerate();
        let made = panels.map(|(index, steps)| fill(w, index * COLUMNS, steps));
        let Some(made) = made.collect::<Option<Vec<_>>>() else { return Ok(None) };
        let mut patches = Vec::new();
        let mut starts = vec![0];
        for (_, panel) in &made {
            patches.extend_from_slice(panel);
            starts.push(patches.len());
        }
        if patches.len() > made.len() * depth / STEPS_PER_PATCH {
            return Ok(None);
        }
        let exponents = made.into_iter().map(|(exponents, _)| exponents).collect();
        let compact = Parts { steps: Box::new(Bytes(room)), exponents, patches, starts };
        Ok(Some(Packed::compact(shape, Compact(Arc::new(compact)))))
    }

    /// Whether weights are [compact](Cpu::pack_compact) to good purpose here: with AVX2 and AVX-512, where that was
    /// measured (`benches/record/`, `2026-11-30-cpu-zen3.md` and `2026-11-30-cpu-zen4.md`). AMX takes panels from
    /// memory, where they would have to be written first, for a single row too: five to eleven rows that met such panels
    /// with AVX-512 took longer than with weights as they are. On AMX itself that was not measured.
    pub fn has_fast_compact(&self) -> bool {
        match self.isa() {
            IsaKind::Avx2 | IsaKind::Avx512 | IsaKind::Avx512Bf16 => true,
            IsaKind::Scalar | IsaKind::Neon | IsaKind::Amx => false,
        }
    }
}

/// Makes the panel that begins with `output`; `None` where it needs more than a patch a step.
fn fill(w: View<'_, bf16, 2>, output: usize, steps: &mut [Step]) -> Option<([u8; 16], Vec<Patch>)> {
    let [outputs, inputs] = w.shape();
    let mut rows: [&[bf16]; COLUMNS] = [&[]; COLUMNS];
    for (row, output) in rows.iter_mut().zip(output..outputs) {
        *row = &w.row([output, 0])[..inputs];
    }
    let exponents = exponents(rows.iter().copied());
    let places = places(&exponents);
    let (mut patches, most) = (Vec::new(), steps.len());
    // What stands for outputs that do not exist is never looked at, but must not need a patch; a missing input is zero.
    let any = bf16::from_bits(u16::from(exponents[0]) << 7);
    for (k, to) in steps.iter_mut().enumerate() {
        let mut pairs: Pairs = [[any; 2]; COLUMNS];
        for (pair, row) in pairs.iter_mut().zip(&rows) {
            match row.get(2 * k..) {
                Some(&[first, second, ..]) => *pair = [first, second],
                Some(&[last]) => *pair = [last, bf16::ZERO],
                _ => {}
            }
        }
        *to = step(&pairs, &places, |value, bits| {
            let (step, value) = (k as u32, value as u16);
            patches.push(Patch { step, value, bits: bits.to_bits() });
        });
        if patches.len() > most {
            return None;
        }
    }
    Some((exponents, patches))
}

/// The panels of [`Compact`] weights, or some of them.
#[derive(Clone, Copy)]
pub(super) struct CompactPanels<'a> {
    steps: &'a [Step],
    exponents: &'a [[u8; 16]],
    patches: &'a [Patch],
    starts: &'a [usize],
    outputs: usize,
    inputs: usize,
}

impl<'a> CompactPanels<'a> {
    /// `len` steps of the panel that begins with `output`, from `first` on.
    #[inline(always)]
    fn stretch(&self, output: usize, first: usize, len: usize) -> Steps<'a> {
        let (panel, depth) = (output / COLUMNS, self.inputs.div_ceil(2));
        let steps = &self.steps[panel * depth..][..depth];
        let patches = &self.patches[self.starts[panel]..self.starts[panel + 1]];
        let exponents = self.exponents[panel];
        Steps { steps, exponents, patches, first: 0 }.stretch(first, len)
    }
}

impl Weights for CompactPanels<'_> {
    fn outputs(&self) -> usize {
        self.outputs
    }
    fn inputs(&self) -> usize {
        self.inputs
    }
    fn row_bytes(&self) -> usize {
        self.inputs.div_ceil(2) * (size_of::<Step>() / COLUMNS)
    }
    fn cut(self, at: usize) -> (Self, Self) {
        let panels = at / COLUMNS;
        let steps = &self.steps[panels * self.inputs.div_ceil(2)..];
        let (exponents, starts) = (&self.exponents[panels..], &self.starts[panels..]);
        let outputs = self.outputs - at;
        (
            CompactPanels { outputs: at, ..self },
            CompactPanels { steps, exponents, starts, outputs, ..self },
        )
    }
}

/// Each stretch is unpacked once: by the first rows that meet it, or before all of them.
impl Panels<Pair> for CompactPanels<'_> {
    fn columns<I: Isa>(&self) -> usize {
        COLUMNS
    }

    #[inline(always)]
    fn panel<'p, I: Isa>(
        &'p self,
        isa: I,
        room: &'p mut [Pair],
        Part { output, first, len, .. }: Part,
    ) -> &'p [Pair] {
        self.stretch(output, first, len).expand(isa, room);
        &room[..len * COLUMNS]
    }

    #[inline(always)]
    fn begin<'p, I: Isa, L: Meets<Pair>>(
        &'p self,
        isa: I,
        room: &'p mut [Pair],
        left: Left<'_, L>,
        part: Part,
        out: &mut Block<'_, f32, 2>,
        ending: Add,
    ) -> (usize, &'p [Pair]) {
        // AMX adds up in an order of its own.
        if isa.amx().is_some() {
            return (0, self.panel(isa, room, part));
        }
        let steps = self.stretch(part.output, part.first, part.len);
        (multiply_first(isa, left, steps, room, out, ending), room)
    }
}

/// For many rows of floats: each stretch is widened once, and then meets all of them.
impl Panels<f32> for CompactPanels<'_> {
    fn columns<I: Isa>(&self) -> usize {
        COLUMNS
    }

    #[inline(always)]
    fn panel<'p, I: Isa>(&'p self, isa: I, room: &'p mut [f32], part: Part) -> &'p [f32] {
        let Part { output, first, len, .. } = part.pairs();
        self.stretch(output, first, len).widen(isa, room);
        &room[..part.len * COLUMNS]
    }

    fn coming(&self, part: Part) -> Coming {
        let Part { output, first, len, .. } = part.pairs();
        let start = output / COLUMNS * self.inputs.div_ceil(2) + first;
        Coming::after(&self.steps[start..][..len])
    }
}
