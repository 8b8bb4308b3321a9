//! A few tokens, one by one, on the state in place.

use super::factor::ChunkFactor;
use super::{Place, SSD_CHUNKED_FROM, Scan};
use crate::isa::Isa;
use crate::lanes;
use crate::math::exp2_nonpositive;
use crate::select::{LINE, Selection};
use std::f32::consts::LOG2_E;

/// Vectors of a row of the state (of `head_dim`) whose y and Δ·x stay at hand.
const VECTORS: usize = 4;

impl<F: ChunkFactor> Scan<'_, F> {
    /// The recurrence of a line of heads. For each token a head's state is read and written once.
    #[inline(always)]
    pub(super) fn token_by_token<I: Isa>(
        &mut self,
        isa: I,
        selection: &Selection<LINE>,
        place: Place,
    ) {
        let Place { b, k, count, n, .. } = place;
        let [_, _, _, head_dim] = self.y.shape();
        let mut deltas = [[0.0; LINE]; SSD_CHUNKED_FROM];
        self.deltas(isa, selection, place, &mut deltas);
        for i in 0..count {
            let rate = isa.splat(self.args.a[self.head + k + i] * LOG2_E);
            for (t, deltas) in deltas[..n].iter().enumerate() {
                let delta = isa.splat(deltas[i]);
                let [decay] = exp2_nonpositive(isa, [isa.mul(delta, rate)]);
                let mut p = 0;
                while p < head_dim {
                    let width = (VECTORS * I::LANES).min(head_dim - p);
                    self.token(isa, [b, t, k + i, p], width, delta, decay);
                    p += width;
                }
            }
        }
    }

    /// One token, head and part of `head_dim`, from `[sequence, token, head, element]` on.
    #[inline(always)]
    fn token<I: Isa>(
        &mut self,
        isa: I,
        [b, t, k, p]: [usize; 4],
        width: usize,
        delta: I::V,
        decay: I::V,
    ) {
        let (sequence, head) = (self.sequence + b, self.head + k);
        let group = self.group(head);
        let x = &self.args.x.row([sequence, t, head, p])[..width];
        let d = self.skip(head);
        let mut update = [isa.zero(); VECTORS];
        let mut y = [isa.zero(); VECTORS];
        for v in 0..VECTORS {
            let x = isa.load_at(x, v * I::LANES);
            update[v] = isa.mul(delta, x);
            y[v] = isa.mul(d.at(isa, p + v * I::LANES), x);
        }
        let inputs = self.args.b.row([sequence, t, group, 0]);
        let outputs = self.args.c.row([sequence, t, group, 0]);
        let pairs = inputs.iter().zip(outputs);
        if self.state.strides()[3] == 1 {
            let rows = self.state.rows_mut([b, k, 0, p], 2, inputs.len(), width);
            for (row, (&input, &output)) in rows.zip(pairs) {
                let (input, output) = (isa.splat(input), isa.splat(output));
                let mut v = 0;
                while v < VECTORS && v * I::LANES < width {
                    let at = v * I::LANES;
                    let h = isa.fma(decay, isa.load_at(row, at), isa.mul(input, update[v]));
                    isa.store_at(h, row, at);
                    y[v] = isa.fma(output, h, y[v]);
                    v += 1;
                }
            }
        } else {
            for (s, (&input, &output)) in pairs.enumerate() {
                let (input, output) = (isa.splat(input), isa.splat(output));
                for (v, at) in (0..width).step_by(I::LANES).enumerate() {
                    let (from, lanes) = ([b, k, s, p + at], I::LANES.min(width - at));
                    let mut h = [isa.zero()];
                    lanes::load(isa, &mut self.state, from, 2, lanes, &mut h);
                    h[0] = isa.fma(decay, h[0], isa.mul(input, update[v]));
                    lanes::store(isa, &h, &mut self.state, from, 2, lanes);
                    y[v] = isa.fma(output, h[0], y[v]);
                }
            }
        }
        let out = self.y.row_mut([b, t, k, p], width);
        for (v, &y) in y.iter().enumerate() {
            isa.store_at(y, out, v * I::LANES);
        }
    }
}
