//! The selective scan of Mamba-1.
//!
//! Vectors run across channels, so that nothing is ever summed across lanes. A cache line of channels
//! (16) goes through the tokens in tiles that stay in the first-level cache:
//!
//! 1. Δ of every token, masked; Δ·x; D·x; the sums of Δ.
//! 2. The recurrence, for as many states at a time as the registers hold. The states of a group stay
//!    in registers over the whole tile; y of the tile collects their shares.
//! 3. The gate, and y goes out.
//!
//! A token is dropped by Δ = 0, and so are the lanes past the last channel: their threshold is ∞.
//! `exp(0·A) = 1` and `0·B·x = 0` hold exactly, so the state keeps its bits.

use crate::dispatch::{Block, Cpu, Cut, Divide, Kernel, block_cut, block_units, parallel};
use crate::isa::Isa;
use crate::lanes;
use crate::math::{Silu, exp2_nonpositive, map};
use crate::select::{LINE, Selection, Stats};
use longmamba_core::{Result, SelectiveScan, SelectiveScanOut, View};
use std::f32::consts::LOG2_E;

/// Tokens of a tile.
const TILE: usize = 64;

impl Cpu {
    /// Runs the scan of [`SelectiveScanInputs`](longmamba_core::SelectiveScanInputs): y of every
    /// token, the state after the last one, and, where asked for, the sums of Δ.
    ///
    /// A sequence may be cut anywhere: with the state carried over, the parts give the same as the
    /// whole, within rounding.
    ///
    /// # Errors
    /// Where `out` does not fit `args`; see [`SelectiveScan::check_out`].
    pub fn selective_scan(&self, args: &SelectiveScan<'_>, out: SelectiveScanOut<'_>) -> Result<()> {
        args.check_out(&out)?;
        let [batch, len, d_inner, d_state] = args.dims();
        let state = Block::new(out.state.permute([0, 2, 1])?);
        let stats = out.stats.map(|s| Stats::new(s, batch, d_inner)).transpose()?;
        let y = Block::new(out.y);
        let a = args.a.permute([1, 0])?;
        let job = Scan { cpu: *self, args, a, sequence: 0, channel: 0, y, state, stats };
        // A thread is worth waking for some 30 µs.
        parallel(job, (1 << 17) / (len * (d_state + 4) * LINE).max(1));
        Ok(())
    }
}

/// The work of one thread: some of the channels of some of the sequences.
struct Scan<'a> {
    cpu: Cpu,
    args: &'a SelectiveScan<'a>,
    /// A, `[d_state, d_inner]`
    a: View<'a, f32, 2>,
    /// The indexes in `args` of the blocks' first sequence and channel.
    sequence: usize,
    channel: usize,
    /// `[batch, len, channels]`
    y: Block<'a, f32, 3>,
    /// `[batch, d_state, channels]`
    state: Block<'a, f32, 3>,
    stats: Option<Stats<'a>>,
}

impl Divide for Scan<'_> {
    fn units(&self) -> usize {
        let [batch, _, channels] = self.y.shape();
        block_units(batch, channels, LINE)
    }

    fn divide(self, at: usize) -> (Self, Self) {
        let [batch, _, channels] = self.y.shape();
        let (dims, sequence, channel, at) = match block_cut(batch, channels, LINE, at) {
            Cut::Channel(c) => ((2, 1), self.sequence, self.channel + c, c),
            Cut::Sequence(b) => ((0, 0), self.sequence + b, self.channel, b),
        };
        let (y, y_) = self.y.split_at(dims.0, at);
        let (state, state_) = self.state.split_at(dims.0, at);
        let (stats, stats_) = self.stats.map(|s| s.split_at(dims.1, at)).unzip();
        (
            Scan { y, state, stats, ..self },
            Scan { y: y_, state: state_, stats: stats_, sequence, channel, ..self },
        )
    }

    fn run(self) {
        self.cpu.call(self)
    }
}

/// What passes between the three steps, `[TILE, LINE]` each.
#[repr(align(64))]
struct Tile {
    /// Δ, masked.
    delta: [[f32; LINE]; TILE],
    /// Δ·x
    update: [[f32; LINE]; TILE],
    /// D·x, and then y.
    y: [[f32; LINE]; TILE],
}

impl Kernel for Scan<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let [batch, len, channels] = self.y.shape();
        let zeros = [[0.0; LINE]; TILE];
        let mut tile = Tile { delta: zeros, update: zeros, y: zeros };
        let Scan { args, channel, .. } = self;
        for b in 0..batch {
            let tokens = args.length(self.sequence + b);
            // All channels of a few tokens, then the next tokens: the rows stay in reach.
            for first in (0..tokens).step_by(TILE) {
                let n = TILE.min(tokens - first);
                for c in (0..channels).step_by(LINE) {
                    let count = LINE.min(channels - c);
                    let (bias, delta_min) = (args.dt_bias, args.delta_min);
                    let selection =
                        Selection::new(bias, delta_min, args.dt_limits, channel + c, count);
                    self.select(isa, &selection, &mut tile, [b, first, c], n, count);
                    self.recur(isa, &mut tile, [b, first, c], n, count);
                    self.gate(isa, &mut tile, [b, first, c], n, count);
                }
            }
            for t in tokens..len {
                self.y.row_mut([b, t, 0], channels).fill(0.0);
            }
        }
    }
}

impl Scan<'_> {
    /// Step 1, for `n` tokens of `count` channels from `[sequence, token, channel]` on.
    #[inline(always)]
    fn select<I: Isa>(
        &mut self,
        isa: I,
        selection: &Selection,
        tile: &mut Tile,
        [b, first, c]: [usize; 3],
        n: usize,
        count: usize,
    ) {
        let (sequence, channel) = (self.sequence + b, self.channel + c);
        let Tile { delta, update, y } = tile;
        let place = [sequence, first, channel];
        let sums = selection.run(isa, &self.args.dt_raw, place, count, &mut delta[..n]);
        if let Some(stats) = &mut self.stats {
            stats.add(&sums, [b, c], count);
        }
        let mut d = [0.0; LINE];
        if let Some(values) = self.args.d {
            d[..count].copy_from_slice(&values[channel..channel + count]);
        }
        for (t, ((delta, update), y)) in delta.iter().zip(update).zip(y).take(n).enumerate() {
            let x = &self.args.x.row([sequence, first + t, channel])[..count];
            let mut v = 0;
            while v < LINE {
                let x = isa.load_at(x, v);
                isa.store(isa.mul(isa.load(&delta[v..]), x), &mut update[v..]);
                isa.store(isa.mul(isa.load(&d[v..]), x), &mut y[v..]);
                v += I::LANES;
            }
        }
    }

    /// Step 2: all states, in groups.
    #[inline(always)]
    fn recur<I: Isa>(&mut self, isa: I, tile: &mut Tile, at: [usize; 3], n: usize, count: usize) {
        if I::REGISTERS >= 32 {
            self.groups::<I, 16>(isa, tile, at, n, count);
        } else {
            self.groups::<I, 8>(isa, tile, at, n, count);
        }
    }

    #[inline(always)]
    fn groups<I: Isa, const S: usize>(
        &mut self,
        isa: I,
        tile: &mut Tile,
        [b, first, c]: [usize; 3],
        n: usize,
        count: usize,
    ) {
        let [_, d_state, _] = self.state.shape();
        let a = self.a;
        let mut v = 0;
        while v * I::LANES < count {
            let lane = c + v * I::LANES;
            let width = I::LANES.min(count - v * I::LANES);
            let mut state = 0;
            while state < d_state {
                let states = S.min(d_state - state);
                let mut rate = [isa.zero(); S];
                let mut h = [isa.zero(); S];
                for s in 0..states {
                    let a = lanes::view(isa, &a, [state + s, self.channel + lane], width);
                    rate[s] = isa.mul(a, isa.splat(LOG2_E));
                    h[s] = lanes::load(isa, &self.state, [b, state + s, lane], width);
                }
                let place = [self.sequence + b, first, state];
                h = recurrence(isa, self.args, place, tile, v * I::LANES, n, &rate, h);
                for s in 0..states {
                    lanes::store(isa, h[s], &mut self.state, [b, state + s, lane], width);
                }
                state += states;
            }
            v += 1;
        }
    }

    /// Step 3.
    #[inline(always)]
    fn gate<I: Isa>(
        &mut self,
        isa: I,
        tile: &mut Tile,
        [b, first, c]: [usize; 3],
        n: usize,
        count: usize,
    ) {
        let (sequence, channel) = (self.sequence + b, self.channel + c);
        if let Some(z) = self.args.z {
            // Δ has done its service and makes room for z.
            let Tile { delta: gates, y, .. } = tile;
            for (t, gates) in gates[..n].iter_mut().enumerate() {
                let z = &z.row([sequence, first + t, channel])[..count];
                for v in (0..LINE).step_by(I::LANES) {
                    isa.store(isa.load_at(z, v), &mut gates[v..]);
                }
            }
            map(isa, Silu, gates[..n].as_flattened_mut());
            let (gates, y) = (gates[..n].as_flattened(), y[..n].as_flattened_mut());
            for (gate, y) in gates.chunks_exact(I::LANES).zip(y.chunks_exact_mut(I::LANES)) {
                isa.store(isa.mul(isa.load(gate), isa.load(y)), y);
            }
        }
        for (t, y) in tile.y[..n].iter().enumerate() {
            let out = self.y.row_mut([b, first + t, c], count);
            for v in (0..LINE).step_by(I::LANES) {
                isa.store_at(isa.load(&y[v..]), out, v);
            }
        }
    }
}

/// The recurrence of `S` states of one vector of channels over `n` tokens.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the innermost loop, called once")]
fn recurrence<I: Isa, const S: usize>(
    isa: I,
    args: &SelectiveScan<'_>,
    [sequence, first, state]: [usize; 3],
    tile: &mut Tile,
    at: usize,
    n: usize,
    rate: &[I::V; S],
    mut h: [I::V; S],
) -> [I::V; S] {
    let Tile { delta, update, y } = tile;
    for (t, ((delta, update), y)) in delta.iter().zip(update).zip(y).take(n).enumerate() {
        let (mut b_part, mut c_part) = ([0.0; S], [0.0; S]);
        let b = group(args.b.row([sequence, first + t, state]), &mut b_part);
        let c = group(args.c.row([sequence, first + t, state]), &mut c_part);
        let delta = isa.load(&delta[at..]);
        let update = isa.load(&update[at..]);
        // Four partial sums: one would be a chain as long as all the rest.
        let mut sums = [isa.load(&y[at..]), isa.zero(), isa.zero(), isa.zero()];
        let mut s = 0;
        while s < S {
            let mut decay = [isa.zero(); 4];
            for (i, decay) in decay.iter_mut().enumerate() {
                *decay = isa.mul(delta, rate[s + i]);
            }
            let decay = exp2_nonpositive(isa, decay);
            for (i, &decay) in decay.iter().enumerate() {
                let input = isa.mul(update, isa.splat(b[s + i]));
                h[s + i] = isa.fma(decay, h[s + i], input);
                sums[i] = isa.fma(isa.splat(c[s + i]), h[s + i], sums[i]);
            }
            s += 4;
        }
        let sum = isa.add(isa.add(sums[0], sums[1]), isa.add(sums[2], sums[3]));
        isa.store(sum, &mut y[at..]);
    }
    h
}

/// The first `S` elements of `row`; where it has fewer, zeros follow, which leave those states 0.
#[inline(always)]
fn group<'a, const S: usize>(row: &'a [f32], part: &'a mut [f32; S]) -> &'a [f32; S] {
    match row.first_chunk() {
        Some(group) => group,
        None => {
            part[..row.len()].copy_from_slice(row);
            part
        }
    }
}
