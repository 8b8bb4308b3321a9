//! Numbers that need no memory on the host: any part of a tensor of gigabytes can be made again, for the
//! CPU's kernel to check a corner of the GPU's answer.

use super::Result;
use longmamba_core::Element;
use longmamba_cuda::{Buffer, Device, DeviceElement};
use rayon::prelude::*;
use std::ops::Range;

/// Seeded numbers on a grid of 256 steps.
///
/// Where `low` and `step` are powers of two the numbers have 8 significant bits, so that f32, f16 and bf16
/// hold the same inputs, and rounding of inputs is no part of any difference.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    seed: u64,
    low: f32,
    step: f32,
}

impl Numbers {
    /// −1 to 1: activations.
    pub(super) const fn unit(seed: u64) -> Self {
        Numbers { seed, low: -1.0, step: 1.0 / 128.0 }
    }

    /// −2 to 2: gates, and Δ before its softplus.
    pub(super) const fn wide(seed: u64) -> Self {
        Numbers { seed, low: -2.0, step: 1.0 / 64.0 }
    }

    /// From `low` to below `high`: parameters, which are f32 everywhere.
    pub(super) fn between(seed: u64, low: f32, high: f32) -> Self {
        Numbers { seed, low, step: (high - low) / 256.0 }
    }

    /// The value below which `share` of the numbers lie; between two of them, so that none is equal to it.
    pub(super) fn quantile(&self, share: f64) -> f32 {
        self.low + self.step * ((256.0 * share).floor() as f32 - 0.5)
    }

    /// Number `index`.
    pub(super) fn at(&self, index: usize) -> f32 {
        // One word of eight numbers, well mixed (the finaliser of splitmix64).
        let word = (index as u64 / 8).wrapping_add(self.seed << 40);
        let word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let byte = (word ^ (word >> 31)).to_le_bytes()[index % 8];
        self.low + self.step * f32::from(byte)
    }

    /// Some of them.
    pub(super) fn range<T: Element>(&self, range: Range<usize>) -> Vec<T> {
        range.map(|index| T::from_f32(self.at(index))).collect()
    }

    /// The first `len`, in f32.
    pub(super) fn first(&self, len: usize) -> Vec<f32> {
        self.range(0..len)
    }

    /// Columns `columns` of rows `rows`, of a tensor with rows of `width`.
    pub(super) fn block(
        &self,
        rows: Range<usize>,
        width: usize,
        columns: Range<usize>,
    ) -> Vec<f32> {
        let row = |r: usize| columns.clone().map(move |column| self.at(r * width + column));
        rows.flat_map(row).collect()
    }

    /// The first `len`, on the device.
    pub(super) fn upload<T>(&self, device: &Device, len: usize) -> Result<Buffer<T>>
    where
        T: Element + DeviceElement,
    {
        let mut buffer = device.zeros(len)?;
        let mut piece: Vec<T> = Vec::new();
        for first in (0..len).step_by(PIECE) {
            let end = len.min(first + PIECE);
            let numbers = (first..end).into_par_iter().map(|index| T::from_f32(self.at(index)));
            numbers.collect_into_vec(&mut piece);
            buffer.write(&piece, first)?;
        }
        Ok(buffer)
    }
}

/// Elements that are made and uploaded at a time.
const PIECE: usize = 1 << 22;

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn all_types_hold_the_same_numbers() {
        for numbers in [Numbers::unit(1), Numbers::wide(2)] {
            let exact: Vec<f32> = numbers.first(4096);
            assert!(exact.iter().all(|&v| bf16::from_f32(v).to_f32() == v));
            assert!(exact.iter().all(|&v| f16::from_f32(v).to_f32() == v));
            let mean = exact.iter().sum::<f32>() / 4096.0;
            assert!(mean.abs() < 0.1 && exact.iter().any(|&v| v < 0.95 * numbers.low));
        }
    }

    #[test]
    fn a_quantile_parts_them() {
        let numbers = Numbers::wide(3);
        let below = numbers.quantile(0.7);
        let values = numbers.first(1 << 16);
        let share = values.iter().filter(|&&v| v < below).count() as f64 / values.len() as f64;
        assert!((share - 0.7).abs() < 0.01, "{share}");
        assert!(values.iter().all(|v| (v - below).abs() > 1e-3));
    }

    #[test]
    fn a_block_is_a_part_of_the_whole() {
        let numbers = Numbers::unit(4);
        let all = numbers.first(60);
        assert_eq!(numbers.block(2..4, 10, 3..5), [all[23], all[24], all[33], all[34]]);
    }
}
