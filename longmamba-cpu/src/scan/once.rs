//! The recurrence of a single token. It has little to compute with what it reads: A and the state pass by row after
//! row, each of the states of neighbouring channels.

use super::{Place, Scan, Tile};
use crate::isa::{Isa, LINE_BYTES};
use crate::math::exp2_nonpositive;
use std::f32::consts::LOG2_E;

impl Scan<'_> {
    /// Step 2 of one token, where neighbouring channels lie side by side in A and the state.
    #[inline(always)]
    pub(super) fn recur_once<I: Isa, const T: usize, const W: usize>(
        &mut self,
        isa: I,
        tile: &mut Tile<T, W>,
        place: Place,
    ) {
        let Place { at: [b, token, c], count, .. } = place;
        let (sequence, channel) = (self.sequence + b, self.channel + c);
        let [_, d_state, _] = self.state.shape();
        let (rate_stride, stride) = (self.a.layout().strides()[0], self.state.strides()[1]);
        let inputs = self.args.b.row([sequence, token, 0]);
        let outputs = self.args.c.row([sequence, token, 0]);
        let Tile { delta, update, y } = tile;
        let (delta, update, y) = (&delta[0], &update[0], &mut y[0]);
        for s in 0..d_state {
            let rates = &self.a.row([s, channel])[..count];
            let states = self.state.row_mut([b, s, c], count);
            let (input, output) = (isa.splat(inputs[s]), isa.splat(outputs[s]));
            // Rows lie too far apart for the processor to foresee the next one.
            let to_next = |stride: usize| match s + 1 < d_state {
                true => stride,
                false => W.wrapping_sub(s * stride),
            };
            let (next_rates, next_states) = (to_next(rate_stride), to_next(stride));
            for v in (0..count).step_by(I::LANES) {
                if (v * size_of::<f32>()).is_multiple_of(LINE_BYTES) {
                    isa.prefetch(rates.as_ptr().wrapping_add(v.wrapping_add(next_rates)));
                    isa.prefetch(states.as_ptr().wrapping_add(v.wrapping_add(next_states)));
                }
                let rate = isa.mul(isa.load_at(rates, v), isa.splat(LOG2_E));
                let [decay] = exp2_nonpositive(isa, [isa.mul(isa.load(&delta[v..]), rate)]);
                let update = isa.mul(isa.load(&update[v..]), input);
                let h = isa.fma(decay, isa.load_at(states, v), update);
                isa.store_at(h, states, v);
                isa.store(isa.fma(output, h, isa.load(&y[v..])), &mut y[v..]);
            }
        }
    }
}
