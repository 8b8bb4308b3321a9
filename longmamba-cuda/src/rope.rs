//! Rotary position embedding.

use crate::arguments::{Strided, refuse};
use crate::launch::Grid;
use crate::plane::lines;
use crate::position::{Placed, Position};
use crate::ptx::Module;
use crate::{Device, Error, Result, RowsMut};

/// Pairs of a head that one launch rotates.
const PAIRS: usize = 64;

/// Threads of a block.
const THREADS: usize = 256;

/// From here on a sine is not exact to `f32`.
const ANGLES: f32 = (1u64 << 40) as f32;

/// How heads are rotated (arXiv 2104.09864).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotation {
    /// The width of a head.
    pub head_dim: usize,
    /// How many elements of each head are rotated, from the first on; even.
    pub width: usize,
    /// θ: pair `i` turns by `position · base^(−2i/width)`.
    pub base: f32,
    /// Whether pair `i` is elements `2i` and `2i + 1`; else `i` and `i + width/2`.
    pub interleaved: bool,
}

impl Rotation {
    /// Rounded step by step as the models' own code rounds: far out a unit in the last place of a
    /// frequency is an angle that can be felt.
    fn frequency(&self, pair: usize) -> f32 {
        let exponent = (2 * pair) as f32 / self.width as f32;
        1.0 / self.base.powf(exponent)
    }
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Rope {
    x: Strided,
    rows: u64,
    heads: u64,
    head_dim: u64,
    position: Placed,
    frequency: [f32; PAIRS],
    count: u32,
    first: u32,
    apart: u32,
    step: u32,
}

impl Device {
    /// Rotates every head of every row of `x`, `[rows, heads · head_dim]`, in place: a pair `(u, v)` with
    /// angle `a` becomes `(u·cos a − v·sin a, v·cos a + u·sin a)`. `position` is that of the first row.
    ///
    /// Frequencies and angles are rounded to `f32`, as the models were trained; the sine and cosine of
    /// an angle are within 1 ulp.
    ///
    /// # Errors
    /// [`Error::Argument`], also for a width that is odd or above `head_dim`, or a `head_dim` that does
    /// not divide the row; [`Error::Unsupported`] for angles from 2⁴⁰ on, which in a replay make NaN;
    /// [`Error::Driver`].
    pub fn rope(
        &self,
        rows: usize,
        mut x: RowsMut<'_, f32>,
        rotation: Rotation,
        position: Position<'_>,
    ) -> Result<()> {
        let Rotation { head_dim, width, interleaved, .. } = rotation;
        let row = x.width;
        if head_dim == 0 || !row.is_multiple_of(head_dim) {
            return refuse("head_dim", head_dim as f64, "a divisor of the row");
        }
        if width > head_dim || !width.is_multiple_of(2) {
            return refuse("rotated width", width as f64, "even, and at most head_dim");
        }
        let (x, heads, half) =
            (Strided::new_mut(self, "x", &mut x, rows, row)?, row / head_dim, width / 2);
        if rows == 0 || heads == 0 {
            return Ok(());
        }
        let (now, position) = (position.now()?, position.placed(self)?);
        // Frequencies rise or fall: one of these is the highest.
        for pair in [0, half.saturating_sub(1)] {
            let farthest = now.saturating_add(rows) as f32 * rotation.frequency(pair);
            if half > 0 && (farthest.is_nan() || farthest >= ANGLES) {
                let (kernel, what, actual) = ("rope", "angles", farthest as usize);
                return Err(Error::Unsupported { kernel, what, limit: ANGLES as usize, actual });
            }
        }
        let (apart, step) = if interleaved { (1, 2) } else { (half as u32, 1) };
        for first in (0..half).step_by(PAIRS) {
            let count = PAIRS.min(half - first);
            let mut frequency = [0.0; PAIRS];
            for (i, frequency) in frequency[..count].iter_mut().enumerate() {
                *frequency = rotation.frequency(first + i);
            }
            let arguments = Rope {
                x,
                rows: rows as u64,
                heads: heads as u64,
                head_dim: head_dim as u64,
                position,
                frequency,
                count: count as u32,
                first: first as u32,
                apart,
                step,
            };
            let across = count.next_power_of_two();
            let down = (THREADS / across).min(heads.next_power_of_two());
            // With many rows each has one block, which computes its angles once for all heads.
            let busy = 4 * self.multiprocessors() as usize;
            let shares = busy.div_ceil(rows).min(heads.div_ceil(down));
            let grid = Grid::plane(lines(rows), shares.min(65535), 1);
            let grid = Grid { threads: [across as u32, down as u32, 1], ..grid };
            self.launch(Module::Rope, "rope", grid, &arguments)?;
        }
        Ok(())
    }
}
