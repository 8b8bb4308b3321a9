//! How a head's state decays inside a chunk (see [`chunk`](super::chunk)).

use super::chunk::MOST;
use crate::isa::{Isa, MOST_LANES};
use crate::math::{Exp2OrZero, map};
use crate::select::LINE;
use std::f64::consts::LOG2_E;

/// The decay of one head over a chunk.
#[repr(align(64))]
pub(super) struct Decay {
    /// `u`, its leading and its trailing part.
    pub(super) high: [f32; MOST],
    pub(super) low: [f32; MOST],
    /// Δ, and `2^(u[end] - u[t]) · Δ`
    pub(super) delta: [f32; MOST],
    pub(super) late_delta: [f32; MOST],
    /// `2^u[end]`
    pub(super) whole: f32,
    /// Whether that is not so little that `2^(u[t] - u[s])` cannot be the quotient of `2^(u[end] - u[s])` and
    /// `2^(u[end] - u[t])`.
    pub(super) by_end: bool,
    /// What y is multiplied by before the chunk's own tokens are added, and what after that; together `2^u[t]`.
    pub(super) before: [f32; MOST],
    pub(super) after: [f32; MOST],
}

impl Decay {
    /// Of the head that is `head` in the line, whose A is `a`. `most` is the most powers of two that is not too much.
    #[inline(always)]
    pub(super) fn new<I: Isa>(
        isa: I,
        deltas: &[[f32; LINE]],
        head: usize,
        a: f32,
        most: f32,
    ) -> Self {
        let (zeros, ones) = ([0.0; MOST], [1.0; MOST]);
        let mut decay = Decay {
            high: zeros,
            low: zeros,
            delta: zeros,
            late_delta: zeros,
            whole: 1.0,
            by_end: false,
            before: ones,
            after: ones,
        };
        let rate = f64::from(a) * LOG2_E;
        let mut sum = 0.0f64;
        for (t, deltas) in deltas.iter().enumerate() {
            decay.delta[t] = deltas[head];
            sum += f64::from(deltas[head]);
            let u = sum * rate;
            decay.high[t] = u as f32;
            decay.low[t] = (u - f64::from(u as f32)) as f32;
        }
        let last = deltas.len() - 1;
        let end = (isa.splat(decay.high[last]), isa.splat(decay.low[last]));
        let n = deltas.len().next_multiple_of(MOST_LANES);
        let mut to_end = zeros;
        for t in (0..n).step_by(I::LANES) {
            let u = (isa.load(&decay.high[t..]), isa.load(&decay.low[t..]));
            isa.store(between(isa, end, u), &mut to_end[t..]);
        }
        map(isa, Exp2OrZero, &mut to_end[..n]);
        for t in (0..n).step_by(I::LANES) {
            let late = isa.mul(isa.load(&to_end[t..]), isa.load(&decay.delta[t..]));
            isa.store(late, &mut decay.late_delta[t..]);
        }
        decay.by_end = decay.high[last] >= -most;
        if decay.by_end {
            decay.before[..I::LANES].fill(decay.high[last]);
            map(isa, Exp2OrZero, &mut decay.before[..I::LANES]);
            decay.whole = decay.before[0];
            decay.before = [decay.whole; MOST];
            for t in (0..n).step_by(I::LANES) {
                let after = isa.div(isa.splat(1.0), isa.load(&to_end[t..]));
                isa.store(after, &mut decay.after[t..]);
            }
        } else {
            decay.before = decay.high;
            map(isa, Exp2OrZero, &mut decay.before[..n]);
            decay.whole = decay.before[last];
        }
        decay
    }
}

/// `later - earlier`, or 0 where that is positive, which it is only where it is not used.
#[inline(always)]
pub(super) fn between<I: Isa>(isa: I, later: (I::V, I::V), earlier: (I::V, I::V)) -> I::V {
    let high = isa.sub(later.0, earlier.0);
    isa.min(isa.zero(), isa.add(high, isa.sub(later.1, earlier.1)))
}
