//! How a head's state decays inside a chunk (see [`chunk`](super::chunk)), in powers of two, `u`.
//!
//! Differences of `u` would cancel badly in `f32` where it has grown large, so it is summed in `f64` and kept in two floats:
//! the difference of the leading parts is exact where the two are close, and small against the result's own rounding where
//! they are not. Until `u` has fallen to [`QUOTIENTS`], no difference is raised at all: `2^(u[t]-u[s])` is the product of
//! `2^u[t]` and `2^-u[s]`, neither of which leaves the range of `f32`, and of each there is one for a token, not one for
//! two tokens.

use super::chunk::MOST;
use super::factor::ChunkFactor;
use crate::isa::{Isa, MOST_LANES};
use crate::math::{Exp2OrZero, LEAST_DECAY, exp2_or_zero, map};
use crate::select::LINE;
use std::f32::consts::LN_2;
use std::f64::consts::LOG2_E;

/// Where a chunk has decayed to this power of two, the decay between two tokens is no longer a quotient of theirs.
const QUOTIENTS: f32 = -60.0;

/// The decay of one head over a chunk.
#[repr(align(64))]
pub(super) struct Decay {
    /// `u`, its leading and its trailing part.
    high: [f32; MOST],
    low: [f32; MOST],
    /// `2^u[t]`
    pub(super) since_start: [f32; MOST],
    /// `2^-u[t]`; used above [`QUOTIENTS`].
    growth: [f32; MOST],
    /// `2^(u[end] - u[t])`
    pub(super) to_end: [f32; MOST],
    /// `2^u[end]`
    pub(super) whole: f32,
}

impl Decay {
    /// Of the head that is `head` in the line, whose A is `a`.
    #[inline(always)]
    pub(super) fn new<I: Isa>(isa: I, deltas: &[[f32; LINE]], head: usize, a: f32) -> Self {
        let zeros = [0.0; MOST];
        let mut decay = Decay {
            high: zeros,
            low: zeros,
            since_start: zeros,
            growth: zeros,
            to_end: zeros,
            whole: 1.0,
        };
        let rate = f64::from(a) * LOG2_E;
        let mut sum = 0.0f64;
        for (t, deltas) in deltas.iter().enumerate() {
            sum += f64::from(deltas[head]);
            let u = sum * rate;
            decay.high[t] = u as f32;
            decay.low[t] = (u - f64::from(u as f32)) as f32;
        }
        let last = deltas.len() - 1;
        let end = (isa.splat(decay.high[last]), isa.splat(decay.low[last]));
        let whole = deltas.len().next_multiple_of(MOST_LANES);
        for t in (0..whole).step_by(I::LANES) {
            let u = (isa.load(&decay.high[t..]), isa.load(&decay.low[t..]));
            isa.store(between(isa, end, u), &mut decay.to_end[t..]);
        }
        decay.since_start = decay.high;
        map(isa, Exp2OrZero, &mut decay.since_start[..whole]);
        map(isa, Exp2OrZero, &mut decay.to_end[..whole]);
        for t in (0..whole).step_by(I::LANES) {
            // Where u is large, its trailing part is more than what the power is rounded by. (Where it is not in the range of
            // `f32`, so is the trailing part not, and the power is 0.)
            let power = isa.load(&decay.since_start[t..]);
            let low = isa.mul(isa.load(&decay.low[t..]), isa.splat(LN_2));
            let power = isa.select_gt(power, isa.zero(), isa.fma(power, low, power), power);
            isa.store(power, &mut decay.since_start[t..]);
            isa.store(isa.div(isa.splat(1.0), power), &mut decay.growth[t..]);
        }
        decay.whole = decay.since_start[last];
        decay
    }

    /// `scores[s] · 2^(u[t]-u[s])`, and 0 where s is later than t: a row of a left factor.
    #[inline(always)]
    pub(super) fn scores<I: Isa, F: ChunkFactor>(
        &self,
        isa: I,
        t: usize,
        scores: &[f32],
        row: &mut [F],
    ) {
        // The choice must not depend on a later token, or y's last bits would.
        if self.high[t] > QUOTIENTS {
            let since_start = isa.splat(self.since_start[t]);
            for s in (0..scores.len()).step_by(I::LANES) {
                let decay = isa.mul(since_start, isa.load(&self.growth[s..]));
                put(isa, t, s, decay, scores, row);
            }
        } else {
            let later = (isa.splat(self.high[t]), isa.splat(self.low[t]));
            // No vector waits for another: the processor finds the next ones by itself.
            for s in (0..scores.len()).step_by(I::LANES) {
                if t < s || self.is_forgotten(s + I::LANES - 1, t) {
                    F::put_left(isa, isa.zero(), row, s);
                    continue;
                }
                let earlier = (isa.load(&self.high[s..]), isa.load(&self.low[s..]));
                let [decay] = exp2_or_zero(isa, [between(isa, later, earlier)]);
                put(isa, t, s, decay, scores, row);
            }
        }
    }

    /// Whether nothing of token s, and so of none before it, is left at token t: where heads forget fast, of most. Not where
    /// s is later.
    #[inline(always)]
    fn is_forgotten(&self, s: usize, t: usize) -> bool {
        (self.high[t] - self.high[s]) + (self.low[t] - self.low[s]) < LEAST_DECAY && s < t
    }
}

/// `later - earlier`, or 0 where that is positive, which it is only where it is not used.
#[inline(always)]
fn between<I: Isa>(isa: I, later: (I::V, I::V), earlier: (I::V, I::V)) -> I::V {
    let high = isa.sub(later.0, earlier.0);
    isa.min(isa.zero(), isa.add(high, isa.sub(later.1, earlier.1)))
}

/// Writes the scores of token t with a vector of tokens from s on, times their decay; 0 where these are later.
#[inline(always)]
fn put<I: Isa, F: ChunkFactor>(
    isa: I,
    t: usize,
    s: usize,
    decay: I::V,
    scores: &[f32],
    row: &mut [F],
) {
    const INDEX: [f32; MOST] = {
        let mut index = [0.0; MOST];
        let mut s = 0;
        while s < MOST {
            index[s] = s as f32;
            s += 1;
        }
        index
    };
    let score = isa.mul(isa.load(&scores[s..]), decay);
    let score = isa.zero_where_gt(isa.load(&INDEX[s..]), isa.splat(t as f32), score);
    F::put_left(isa, score, row, s);
}
