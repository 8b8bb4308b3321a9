//! The selective scan of Mamba-1.
//!
//! Vectors run across channels, so that nothing is ever summed across lanes. A cache line of channels
//! (16) goes through the tokens in tiles that stay in the first-level cache:
//!
//! 1. Δ of every token, masked; Δ·x; D·x; the sums of Δ.
//! 2. The recurrence, for a group of states at a time: the decays of the whole tile, then the states,
//!    which stay in registers. y of the tile collects their shares.
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

/// States that stay in registers over a tile.
const STATES: usize = 8;

impl Cpu {
    /// Runs the scan of [`SelectiveScanInputs`](longmamba_core::SelectiveScanInputs): y of every
    /// token, the state after the last one, and, where asked for, the sums of Δ.
    ///
    /// A sequence may be cut anywhere: with the state carried over, the parts give the same as the
    /// whole, within rounding.
    ///
    /// # Errors
    /// Where `out` does not fit `args`; see [`SelectiveScan::check_out`].
    pub fn selective_scan(
        &self,
        args: &SelectiveScan<'_>,
        out: SelectiveScanOut<'_>,
    ) -> Result<()> {
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

/// [`Cpu::selective_scan`] on the best instruction set of this processor.
///
/// # Errors
/// As there.
pub fn selective_scan(args: &SelectiveScan<'_>, out: SelectiveScanOut<'_>) -> Result<()> {
    Cpu::new().selective_scan(args, out)
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
    /// `exp(Δ·A)` of the group of states and the vector of channels at hand.
    decay: [[f32; STATES * LINE]; TILE],
}

impl Kernel for Scan<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let [batch, len, channels] = self.y.shape();
        let zeros = [[0.0; LINE]; TILE];
        let decay = [[0.0; STATES * LINE]; TILE];
        let mut tile = Tile { delta: zeros, update: zeros, y: zeros, decay };
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
        let Tile { delta, update, y, .. } = tile;
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
    fn recur<I: Isa>(
        &mut self,
        isa: I,
        tile: &mut Tile,
        [b, first, c]: [usize; 3],
        n: usize,
        count: usize,
    ) {
        let [_, d_state, _] = self.state.shape();
        let a = self.a;
        for v in (0..count).step_by(I::LANES) {
            let (lane, width) = (c + v, I::LANES.min(count - v));
            for state in (0..d_state).step_by(STATES) {
                let states = STATES.min(d_state - state);
                let mut rate = [isa.zero(); STATES];
                let mut h = [isa.zero(); STATES];
                lanes::view(isa, &a, [state, self.channel + lane], width, &mut rate[..states]);
                for rate in &mut rate {
                    *rate = isa.mul(*rate, isa.splat(LOG2_E));
                }
                lanes::load(isa, &mut self.state, [b, state, lane], 1, width, &mut h[..states]);
                decays(isa, &rate, tile, v, n);
                h = recurrence(isa, self.args, [self.sequence + b, first, state], tile, v, n, h);
                lanes::store(isa, &h[..states], &mut self.state, [b, state, lane], 1, width);
            }
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

/// `exp(Δ·A)` of a group of states of one vector of channels, `at` lanes into the line. On its own
/// because it needs all registers for the constants of the exponential.
#[inline(always)]
fn decays<I: Isa>(isa: I, rate: &[I::V; STATES], tile: &mut Tile, at: usize, n: usize) {
    for (delta, decays) in tile.delta.iter().zip(&mut tile.decay).take(n) {
        let delta = isa.load(&delta[at..]);
        for (rate, decays) in rate.chunks_exact(4).zip(decays.chunks_exact_mut(4 * I::LANES)) {
            let mut u = [isa.zero(); 4];
            for (u, &rate) in u.iter_mut().zip(rate) {
                *u = isa.mul(delta, rate);
            }
            let u = exp2_nonpositive(isa, u);
            for (&decay, decays) in u.iter().zip(decays.chunks_exact_mut(I::LANES)) {
                isa.store(decay, decays);
            }
        }
    }
}

/// The recurrence of such a group over `n` tokens.
#[inline(always)]
fn recurrence<I: Isa>(
    isa: I,
    args: &SelectiveScan<'_>,
    [sequence, first, state]: [usize; 3],
    tile: &mut Tile,
    at: usize,
    n: usize,
    mut h: [I::V; STATES],
) -> [I::V; STATES] {
    let Tile { decay, update, y, .. } = tile;
    let b = Rows::new(&args.b, [sequence, first, state]);
    let c = Rows::new(&args.c, [sequence, first, state]);
    for (t, ((decay, update), y)) in decay.iter().zip(update).zip(y).take(n).enumerate() {
        let (mut b_part, mut c_part) = ([0.0; STATES], [0.0; STATES]);
        let (b, c) = (b.group(t, &mut b_part), c.group(t, &mut c_part));
        let update = isa.load(&update[at..]);
        // Four partial sums: one would be a chain longer than all the rest.
        let mut sums = [isa.load(&y[at..]), isa.zero(), isa.zero(), isa.zero()];
        let mut s = 0;
        while s < STATES {
            let decay = isa.load(&decay[s * I::LANES..]);
            h[s] = isa.fma(decay, h[s], isa.mul(update, isa.splat(b[s])));
            sums[s % 4] = isa.fma(isa.splat(c[s]), h[s], sums[s % 4]);
            s += 1;
        }
        let sum = isa.add(isa.add(sums[0], sums[1]), isa.add(sums[2], sums[3]));
        isa.store(sum, &mut y[at..]);
    }
    h
}

/// A group of states of B or C, token by token.
struct Rows<'a> {
    /// From the group's first element of the first token on.
    data: &'a [f32],
    stride: usize,
    /// How many of the group there are.
    states: usize,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn new(view: &View<'a, f32, 3>, index: [usize; 3]) -> Self {
        let strides = view.layout().strides();
        let start = index[0] * strides[0] + index[1] * strides[1] + index[2];
        let states = STATES.min(view.shape()[2] - index[2]);
        Rows { data: &view.data()[start..], stride: strides[1], states }
    }

    /// The group of token `t`; where it is not whole, zeros follow, which leave those states 0.
    #[inline(always)]
    fn group<'b>(&self, t: usize, part: &'b mut [f32; STATES]) -> &'b [f32; STATES]
    where
        'a: 'b,
    {
        let data = &self.data[t * self.stride..];
        if self.states == STATES
            && let Some(group) = data.first_chunk()
        {
            return group;
        }
        part[..self.states].copy_from_slice(&data[..self.states]);
        part
    }
}
