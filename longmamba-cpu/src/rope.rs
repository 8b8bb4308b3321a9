//! Rotary position embedding.

use crate::check;
use crate::dispatch::{Block, Cpu};
use crate::isa::Isa;
use crate::rows::{RowKernel, for_each_row};
use longmamba_core::{Error, Result, ViewMut};

/// Elements that are worth a thread.
const LEAST: usize = 1 << 14;

/// Angles whose sine and cosine are kept at a time.
const ANGLES: usize = 64;

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
    /// The position of the first row.
    pub position: usize,
}

impl Cpu {
    /// Rotates every head of every row of `x`, `[rows, heads · head_dim]` with contiguous rows, in
    /// place: a pair `(u, v)` with angle `a` becomes `(u·cos a − v·sin a, v·cos a + u·sin a)`.
    ///
    /// Frequencies and angles are rounded to `f32`, as the models were trained; the sine and cosine of
    /// an angle are exact to `f32`.
    ///
    /// # Errors
    /// [`Error::NotContiguous`], or [`Error::Value`] for a width that is odd or above `head_dim`, or a
    /// `head_dim` that does not divide the row.
    pub fn rope(&self, x: ViewMut<'_, f32, 2>, rotation: Rotation) -> Result<()> {
        let [rows, width] = x.shape();
        check::rows("x", &x.as_view(), [rows, width])?;
        let Rotation { head_dim, width: rotated, .. } = rotation;
        let value = |tensor, value: usize, allowed| {
            Err(Error::Value { tensor, index: 0, value: value as f64, allowed })
        };
        if head_dim == 0 || !width.is_multiple_of(head_dim) {
            return value("head_dim", head_dim, "a divisor of the row");
        }
        if rotated > head_dim || !rotated.is_multiple_of(2) {
            return value("rotated width", rotated, "even, and at most head_dim");
        }
        for_each_row(*self, rotation, Block::new(x), LEAST);
        Ok(())
    }
}

impl RowKernel for Rotation {
    #[inline(always)]
    fn row<I: Isa>(&self, _isa: I, row: usize, out: &mut [f32]) {
        let half = self.width / 2;
        let position = (self.position + row) as f32;
        let mut first = 0;
        while first < half {
            let count = ANGLES.min(half - first);
            let (mut sin, mut cos) = ([0.0f32; ANGLES], [0.0f32; ANGLES]);
            for i in 0..count {
                // Rounded step by step as the models' own code rounds: far out a unit in the last place
                // of a frequency is an angle that can be felt.
                let exponent = (2 * (first + i)) as f32 / self.width as f32;
                let angle = position * (1.0 / self.base.powf(exponent));
                let (s, c) = f64::from(angle).sin_cos();
                (sin[i], cos[i]) = (s as f32, c as f32);
            }
            for head in out.chunks_exact_mut(self.head_dim) {
                // The distance between the two of a pair, and between pairs.
                let (apart, step) = if self.interleaved { (1, 2) } else { (half, 1) };
                for i in 0..count {
                    let at = (first + i) * step;
                    let (u, v) = (head[at], head[at + apart]);
                    (head[at], head[at + apart]) =
                        (u * cos[i] - v * sin[i], v * cos[i] + u * sin[i]);
                }
            }
            first += count;
        }
    }
}
