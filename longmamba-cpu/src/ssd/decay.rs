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
    /// `2^u[t]`
    pub(super) since_start: [f32; MOST],
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
        let mut decay =
            Decay { high: zeros, low: zeros, since_start: zeros, to_end: zeros, whole: 1.0 };
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
        decay.whole = decay.since_start[last];
        decay
    }
}

/// `later - earlier`, or 0 where that is positive, which it is only where it is not used.
#[inline(always)]
pub(super) fn between<I: Isa>(isa: I, later: (I::V, I::V), earlier: (I::V, I::V)) -> I::V {
    let high = isa.sub(later.0, earlier.0);
    isa.min(isa.zero(), isa.add(high, isa.sub(later.1, earlier.1)))
}
