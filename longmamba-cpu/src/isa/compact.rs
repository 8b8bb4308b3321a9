//! Weights of type `bf16` in twelve bits each, without loss.
//!
//! Of the 16 bits of a `bf16` eight are its exponent, and weights that belong together are of similar size: 16 exponents
//! are enough for all but about one in ten thousand of a normal distribution. So a *panel*, which is [`COLUMNS`]
//! neighbouring outputs, has a table of 16 exponents. A value is its sign and significand, eight bits, and the place of
//! its exponent in the table, four. Values with another exponent are kept beside, as [`Patch`]es.
//!
//! A [`Step`] is what a panel has of two neighbouring inputs: a pair for each output, 64 values in 96 bytes.
//!
//! * For i below 32, bytes `2·i` and `2·i + 1` are a word with the sign and the significand of value i where a `bf16` has
//!   them, and those of value `i + 32` where they are once the bytes are swapped.
//! * For i below 16, bytes `64 + 2·i` and `65 + 2·i` are the places of values i and `i + 16` in their lower four bits, and
//!   of values `i + 32` and `i + 48` in their upper.
//!
//! In this order vectors of 16 pairs come from vectors of bytes without a way across them, and so do vectors of eight.

use super::{Isa, Pair};
use half::bf16;
use std::ops::Range;

/// The outputs of a panel.
pub(crate) const COLUMNS: usize = 32;

/// Its values for a pair of inputs.
pub(crate) type Step = [u8; 3 * COLUMNS];

/// What a step says.
pub(crate) type Pairs = [Pair; COLUMNS];

/// The sign and the significand.
const EXACT: u16 = 0x807f;

/// The bits of a significand.
const SIGNIFICAND: u32 = 7;

/// Where a step has the places of value i, below 32, and of value `i + 32`.
const fn place(i: usize) -> usize {
    2 * COLUMNS + 2 * (i % 16) + i / 16
}

/// The values of a step.
pub(super) fn pairs(step: &Step, exponents: &[u8; 16]) -> Pairs {
    let mut pairs = [[bf16::ZERO; 2]; COLUMNS];
    let value = |exact: u16, place: u8| {
        let exponent = u16::from(exponents[usize::from(place)]) << SIGNIFICAND;
        bf16::from_bits(exact & EXACT | exponent)
    };
    let (first, second) = pairs.as_flattened_mut().split_at_mut(COLUMNS);
    for (i, (first, second)) in first.iter_mut().zip(second).enumerate() {
        let (exact, places) = (u16::from_le_bytes([step[2 * i], step[2 * i + 1]]), step[place(i)]);
        *first = value(exact, places & 15);
        *second = value(exact.swap_bytes(), places >> 4);
    }
    pairs
}

/// A value whose exponent is not in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Patch {
    /// The step of the panel.
    pub(crate) step: u32,
    /// Which of its values.
    pub(crate) value: u16,
    /// The value.
    pub(crate) bits: u16,
}

impl Patch {
    /// Puts it into its place.
    #[inline(always)]
    pub(super) fn apply(self, pairs: &mut [Pair]) {
        pairs.as_flattened_mut()[usize::from(self.value)] = bf16::from_bits(self.bits);
    }
}

/// Some steps of a panel.
#[derive(Clone, Copy)]
pub(crate) struct Steps<'a> {
    /// They themselves.
    pub(crate) steps: &'a [Step],
    /// The table of the panel.
    pub(crate) exponents: [u8; 16],
    /// Those of these steps, in order.
    pub(crate) patches: &'a [Patch],
    /// The place in the panel of the first of these steps.
    pub(crate) first: usize,
}

impl<'a> Steps<'a> {
    /// `len` of them from `first` on.
    ///
    /// # Panics
    /// Where there are fewer.
    #[inline(always)]
    pub(crate) fn stretch(self, first: usize, len: usize) -> Self {
        let steps = &self.steps[first..][..len];
        let first = self.first + first;
        let from = self.patches.partition_point(|patch| (patch.step as usize) < first);
        let to = self.patches.partition_point(|patch| (patch.step as usize) < first + len);
        Steps { steps, patches: &self.patches[from..to], first, ..self }
    }

    /// Some of them, without their patches.
    ///
    /// # Panics
    /// Where there are fewer.
    #[inline(always)]
    pub(crate) fn plain(self, range: Range<usize>) -> Self {
        Steps { first: self.first + range.start, steps: &self.steps[range], patches: &[], ..self }
    }

    /// Which have patches, counted from the first of these, and their patches.
    #[inline(always)]
    pub(crate) fn patched(&self) -> impl Iterator<Item = (usize, &'a [Patch])> + use<'a> {
        let first = self.first;
        let same = |a: &Patch, b: &Patch| a.step == b.step;
        self.patches.chunk_by(same).map(move |patches| (patches[0].step as usize - first, patches))
    }

    /// Writes all pairs, step after step.
    ///
    /// # Panics
    /// Where `pairs` is shorter.
    #[inline(always)]
    pub(crate) fn expand<I: Isa>(self, isa: I, pairs: &mut [Pair]) {
        let (pairs, _) = pairs.as_chunks_mut::<COLUMNS>();
        let pairs = &mut pairs[..self.steps.len()];
        for (step, pairs) in self.steps.iter().zip(&mut *pairs) {
            for part in 0..COLUMNS / 2 / I::LANES {
                put_part(isa, isa.load_compact(step, &self.exponents, part), part, pairs);
            }
        }
        for (step, patches) in self.patched() {
            patches.iter().for_each(|patch| patch.apply(&mut pairs[step]));
        }
    }

    /// Writes all values, the first of all pairs of a step before the second of all.
    ///
    /// # Panics
    /// Where `floats` is shorter.
    #[inline(always)]
    pub(crate) fn widen<I: Isa>(self, isa: I, floats: &mut [f32]) {
        let (floats, _) = floats.as_chunks_mut::<{ 2 * COLUMNS }>();
        let floats = &mut floats[..self.steps.len()];
        for (step, floats) in self.steps.iter().zip(&mut *floats) {
            for part in 0..COLUMNS / 2 / I::LANES {
                let at = [part * I::LANES, COLUMNS / 2 + part * I::LANES];
                let vectors = isa.load_compact(step, &self.exponents, part);
                for (at, vector) in at.into_iter().zip(vectors) {
                    let [first, second] = isa.widen(vector);
                    isa.store(first, &mut floats[at..]);
                    isa.store(second, &mut floats[COLUMNS + at..]);
                }
            }
        }
        for &Patch { step, value, bits } in self.patches {
            let at = usize::from(value / 2) + usize::from(value % 2) * COLUMNS;
            floats[step as usize - self.first][at] = bf16::from_bits(bits).to_f32();
        }
    }
}

/// Writes what [`Isa::load_compact`] gives for one part of a step.
#[inline(always)]
pub(crate) fn put_part<I: Isa>(isa: I, vectors: [I::P; 2], part: usize, pairs: &mut Pairs) {
    for (at, vector) in [0, COLUMNS / 2].into_iter().zip(vectors) {
        isa.store_pairs(vector, &mut pairs[at + part * I::LANES..]);
    }
}

/// A table for some rows of weights: their 16 most common exponents.
pub(crate) fn exponents<'a>(rows: impl Iterator<Item = &'a [bf16]>) -> [u8; 16] {
    let mut counts = [0u32; 256];
    for row in rows {
        row.iter().for_each(|&value| counts[usize::from(exponent(value))] += 1);
    }
    let mut common: [u8; 256] = std::array::from_fn(|e| e as u8);
    common.sort_by_key(|&e| std::cmp::Reverse(counts[usize::from(e)]));
    std::array::from_fn(|i| common[i])
}

/// For each exponent, its place in a table, or [`NOWHERE`].
pub(crate) fn places(exponents: &[u8; 16]) -> [u8; 256] {
    let mut places = [NOWHERE; 256];
    for (place, &exponent) in exponents.iter().enumerate() {
        places[usize::from(exponent)] = place as u8;
    }
    places
}

/// Not a place.
const NOWHERE: u8 = 16;

/// A step that says `pairs`, but for values whose exponents have no place: `outside` gets those.
pub(crate) fn step(
    pairs: &Pairs,
    places: &[u8; 256],
    mut outside: impl FnMut(usize, bf16),
) -> Step {
    let mut step = [0; 3 * COLUMNS];
    let values = pairs.as_flattened();
    let place_of = |value: bf16| places[usize::from(exponent(value))];
    let mut all = 0;
    for (i, (&first, &second)) in values.iter().zip(&values[COLUMNS..]).enumerate() {
        let [low, high] = [first, second].map(|value| value.to_bits() & EXACT);
        step[2 * i..][..2].copy_from_slice(&(low | high.swap_bytes()).to_le_bytes());
        let [low, high] = [first, second].map(place_of);
        step[place(i)] = low & 15 | high << 4;
        all |= low | high;
    }
    if all & NOWHERE != 0 {
        let values = values.iter().enumerate();
        values.filter(|&(_, &v)| place_of(v) == NOWHERE).for_each(|(i, &v)| outside(i, v));
    }
    step
}

/// The eight bits of it.
fn exponent(value: bf16) -> u8 {
    (value.to_bits() >> SIGNIFICAND) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `bf16` there is, in steps whose tables have its exponent or have not.
    #[test]
    fn nothing_is_lost() {
        for start in (0..=u16::MAX).step_by(2 * COLUMNS) {
            let values = |i: usize| bf16::from_bits(start.wrapping_add((i * 257) as u16));
            let pairs: Pairs = std::array::from_fn(|i| [values(2 * i), values(2 * i + 1)]);
            let exponents = exponents([pairs.as_flattened()].into_iter());
            let mut patches = Vec::new();
            let step = step(&pairs, &places(&exponents), |value, bits| {
                patches.push(Patch { step: 0, value: value as u16, bits: bits.to_bits() });
            });
            let mut found = super::pairs(&step, &exponents);
            let inside = |v: &bf16| exponents.contains(&exponent(*v));
            let outside = pairs.as_flattened().iter().filter(|v| !inside(v)).count();
            assert_eq!(patches.len(), outside);
            patches.iter().for_each(|patch| patch.apply(&mut found));
            let bits = |pairs: &Pairs| pairs.map(|pair| pair.map(bf16::to_bits));
            assert_eq!(bits(&found), bits(&pairs));
        }
    }

    #[test]
    fn the_table_has_what_is_most_common() {
        let value = |exponent: u16| bf16::from_bits(exponent << SIGNIFICAND | 5);
        let common: Vec<bf16> = (100..116).flat_map(|e| [value(e), value(e), value(e)]).collect();
        let rare: Vec<bf16> = (0..100).map(value).collect();
        let mut found = exponents([&rare[..], &common[..]].into_iter());
        found.sort();
        assert_eq!(found.to_vec(), (100..116).collect::<Vec<u8>>());
    }

    #[test]
    fn a_stretch_has_its_own_patches() {
        let patch = |step| Patch { step, value: 1, bits: 2 };
        let patches = [0, 3, 3, 7, 9].map(patch);
        let steps = [[0; 3 * COLUMNS]; 10];
        let all = Steps { steps: &steps, exponents: [0; 16], patches: &patches, first: 0 };
        let found = |first, len| {
            let stretch = all.stretch(first, len);
            stretch.patched().map(|(step, patches)| (step, patches.len())).collect::<Vec<_>>()
        };
        assert_eq!(found(0, 10), [(0, 1), (3, 2), (7, 1), (9, 1)]);
        assert_eq!(found(1, 6), [(2, 2)]);
        assert_eq!(found(3, 1), [(0, 2)]);
        assert_eq!(found(4, 3), []);
        let inner = all.stretch(2, 8).stretch(5, 3);
        assert_eq!(inner.patched().map(|(step, _)| step).collect::<Vec<_>>(), [0, 2]);
    }
}
