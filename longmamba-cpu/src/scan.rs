//! The selective scan of Mamba-1.
//!
//! Vectors run across channels, so that nothing is ever summed across lanes. A few cache lines of channels
//! go through the tokens in tiles that stay in the first-level cache:
//!
//! 1. Δ of every token, masked; Δ·x; D·x; the sums of Δ.
//! 2. The recurrence, for a group of states at a time, which stay in registers, and with it their decays.
//!    y of the tile collects their shares.
//! 3. The gate, and y goes out.
//!
//! A token is dropped by Δ = 0, and so are the lanes past the last channel: their threshold is ∞.
//! `exp(0·A) = 1` and `0·B·x = 0` hold exactly, so the state keeps its bits.

mod once;

use crate::dispatch::{Block, Cpu, Cut, Divide, Kernel, block_cut, block_units, parallel};
use crate::isa::Isa;
use crate::lanes;
use crate::math::{exp2_nonpositive, silu};
use crate::select::{LINE, Selection, Stats};
use longmamba_core::{Result, SelectiveScan, SelectiveScanOut, View};
use std::f32::consts::LOG2_E;

/// Tokens of a tile.
const TILE: usize = 32;

/// Channels of a tile, at most: a row of tokens is thousands of bytes long, and every one that is visited has
/// its price, so that several lines are taken at once.
const WIDTH: usize = 4 * LINE;

/// Channels of a tile of one token. It waits for A and the state, whose rows are gone through in long pieces.
const STEP_WIDTH: usize = 32 * LINE;

/// States that stay in registers over a tile.
const STATES: usize = 8;

/// States whose decays are computed side by side.
const BLOCK: usize = 4;

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
        // A thread is worth some 5 µs.
        parallel(job, (1 << 13) / (len * (d_state + 4) * LINE).max(1));
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

/// What passes between the three steps: rows of at most `T` tokens, as wide as the channels at hand in whole lines,
/// `W` at most.
#[repr(align(64))]
struct Tile<const T: usize, const W: usize> {
    /// Δ, masked.
    delta: [[f32; W]; T],
    /// Δ·x
    update: [[f32; W]; T],
    /// D·x, and then y.
    y: [[f32; W]; T],
}

/// The tokens and channels of a tile.
#[derive(Clone, Copy)]
struct Place {
    /// In the blocks: sequence, first token and first channel.
    at: [usize; 3],
    /// Tokens.
    n: usize,
    /// Channels, and the same in whole lines.
    count: usize,
    width: usize,
}

impl Kernel for Scan<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let [batch, len, channels] = self.y.shape();
        for b in 0..batch {
            // By its own tokens alone: how long others are must not be seen in its result.
            let tokens = self.args.length(self.sequence + b);
            match tokens {
                1 if self.rows_of_channels() => self.scan::<I, 1, STEP_WIDTH>(isa, b, tokens),
                _ => self.scan::<I, TILE, WIDTH>(isa, b, tokens),
            }
            for t in tokens..len {
                self.y.row_mut([b, t, 0], channels).fill(0.0);
            }
        }
    }
}

impl Scan<'_> {
    /// The tokens of sequence `b`, in tiles of `T` tokens and `W` channels; with one token to a tile, where
    /// neighbouring channels lie side by side in A and the state.
    #[inline(always)]
    fn scan<I: Isa, const T: usize, const W: usize>(&mut self, isa: I, b: usize, tokens: usize) {
        let [_, _, channels] = self.y.shape();
        let zeros = [[0.0; W]; T];
        let mut tile = Tile { delta: zeros, update: zeros, y: zeros };
        let Scan { args, channel, .. } = *self;
        // All channels of a few tokens, then the next tokens: the rows stay in reach.
        for first in (0..tokens).step_by(T) {
            let n = T.min(tokens - first);
            for c in (0..channels).step_by(W) {
                let count = W.min(channels - c);
                let width = count.next_multiple_of(LINE);
                let place = Place { at: [b, first, c], n, count, width };
                let (bias, delta_min) = (args.dt_bias, args.delta_min);
                let selection = Selection::new(bias, delta_min, args.dt_limits, channel + c, count);
                self.select(isa, &selection, &mut tile, place);
                if T == 1 {
                    self.recur_once(isa, &mut tile, place);
                } else {
                    // The processor does not foresee that the next channels of these tokens are wanted next, or
                    // the first of the next tokens.
                    let next = c + W;
                    match next < channels {
                        true => self.ask_for::<I, T, W>(isa, [b, first, next], tokens),
                        false => self.ask_for::<I, T, W>(isa, [b, first + T, 0], tokens),
                    }
                    self.recur(isa, &mut tile, place);
                }
                self.gate(isa, &tile, place);
            }
        }
    }

    /// Whether neighbouring channels lie side by side in A and the state.
    #[inline(always)]
    fn rows_of_channels(&self) -> bool {
        self.state.strides()[2] == 1 && self.a.layout().strides()[1] == 1
    }

    /// Has what a tile reads and writes brought near.
    #[inline(always)]
    fn ask_for<I: Isa, const T: usize, const W: usize>(
        &self,
        isa: I,
        [b, first, c]: [usize; 3],
        tokens: usize,
    ) {
        let (sequence, channel) = (self.sequence + b, self.channel + c);
        let [_, d_state, channels] = self.state.shape();
        let width = W.min(channels - c);
        for t in first..tokens.min(first + T) {
            let at = [sequence, t, channel];
            isa.prefetch_row(&self.args.x.row(at)[..width]);
            isa.prefetch_row(&self.args.dt_raw.row(at)[..width]);
            isa.prefetch_row(self.y.row([b, t, c], width));
            if let Some(z) = &self.args.z {
                isa.prefetch_row(&z.row(at)[..width]);
            }
        }
        if self.rows_of_channels() {
            for s in 0..d_state {
                isa.prefetch_row(&self.a.row([s, channel])[..width]);
                isa.prefetch_row(self.state.row([b, s, c], width));
            }
        }
    }

    /// Step 1.
    #[inline(always)]
    fn select<I: Isa, const T: usize, const W: usize>(
        &mut self,
        isa: I,
        selection: &Selection<W>,
        tile: &mut Tile<T, W>,
        place: Place,
    ) {
        let Place { at: [b, first, c], n, count, width } = place;
        let (sequence, channel) = (self.sequence + b, self.channel + c);
        let Tile { delta, update, y } = tile;
        let (delta, update) = (delta.as_flattened_mut(), update.as_flattened_mut());
        let y = y.as_flattened_mut();
        let from = [sequence, first, channel];
        let sums = selection.run(isa, &self.args.dt_raw, from, &mut delta[..n * width]);
        if let Some(stats) = &mut self.stats {
            stats.add(&sums, [b, c], count);
        }
        let mut d = [0.0; W];
        if let Some(values) = self.args.d {
            d[..count].copy_from_slice(&values[channel..channel + count]);
        }
        let rows = delta.chunks_exact(width).zip(update.chunks_exact_mut(width));
        for (t, ((delta, update), y)) in rows.zip(y.chunks_exact_mut(width)).take(n).enumerate() {
            let x = &self.args.x.row([sequence, first + t, channel])[..count];
            for v in (0..width).step_by(I::LANES) {
                let x = isa.load_at(x, v);
                isa.store(isa.mul(isa.load(&delta[v..]), x), &mut update[v..]);
                isa.store(isa.mul(isa.load(&d[v..]), x), &mut y[v..]);
            }
        }
    }

    /// Step 2: a group of states at a time, and of these vector by vector of channels.
    #[inline(always)]
    fn recur<I: Isa, const T: usize, const W: usize>(
        &mut self,
        isa: I,
        tile: &mut Tile<T, W>,
        place: Place,
    ) {
        let Place { at: [b, first, c], n, count, width } = place;
        let [_, d_state, _] = self.state.shape();
        let a = self.a;
        for state in (0..d_state).step_by(STATES) {
            let states = STATES.min(d_state - state);
            let from = [self.sequence + b, first, state];
            let inputs = group(&self.args.b, from, n);
            let outputs = group(&self.args.c, from, n);
            for v in (0..count).step_by(I::LANES) {
                let (lane, lanes) = (c + v, I::LANES.min(count - v));
                let mut rate = [isa.zero(); STATES];
                let mut h = [isa.zero(); STATES];
                lanes::view(isa, &a, [state, self.channel + lane], lanes, &mut rate[..states]);
                for rate in &mut rate {
                    *rate = isa.mul(*rate, isa.splat(LOG2_E));
                }
                lanes::load(isa, &mut self.state, [b, state, lane], 1, lanes, &mut h[..states]);
                h = recurrence(isa, &rate, &inputs[..n], &outputs[..n], tile, [v, width], h);
                lanes::store(isa, &h[..states], &mut self.state, [b, state, lane], 1, lanes);
            }
        }
    }

    /// Step 3.
    #[inline(always)]
    fn gate<I: Isa, const T: usize, const W: usize>(
        &mut self,
        isa: I,
        tile: &Tile<T, W>,
        place: Place,
    ) {
        for v in (0..place.width).step_by(I::LANES) {
            let mut t = 0;
            // Four tokens at a time, because one would mostly wait.
            while place.n - t >= 4 {
                self.gate_tokens::<I, T, W, 4>(isa, tile, place, t, v);
                t += 4;
            }
            while t < place.n {
                self.gate_tokens::<I, T, W, 1>(isa, tile, place, t, v);
                t += 1;
            }
        }
    }

    /// `N` tokens of a vector of channels, from `t` and lane `v` of the tile on.
    #[inline(always)]
    fn gate_tokens<I: Isa, const T: usize, const W: usize, const N: usize>(
        &mut self,
        isa: I,
        tile: &Tile<T, W>,
        place: Place,
        t: usize,
        v: usize,
    ) {
        let Place { at: [b, first, c], count, width, .. } = place;
        let (sequence, channel) = (self.sequence + b, self.channel + c);
        let mut y = [isa.zero(); N];
        for (i, y) in y.iter_mut().enumerate() {
            *y = isa.load(&tile.y.as_flattened()[(t + i) * width + v..]);
        }
        if let Some(z) = &self.args.z {
            let mut gates = [isa.zero(); N];
            for (i, gate) in gates.iter_mut().enumerate() {
                *gate = isa.load_at(&z.row([sequence, first + t + i, channel])[..count], v);
            }
            let gates = silu(isa, gates);
            for (y, &gate) in y.iter_mut().zip(&gates) {
                *y = isa.mul(gate, *y);
            }
        }
        for (i, &y) in y.iter().enumerate() {
            isa.store_at(y, self.y.row_mut([b, first + t + i, c], count), v);
        }
    }
}

/// A group of states of B or C, token by token; where it is not whole, zeros follow, which leave those states 0.
#[inline(always)]
fn group(
    view: &View<'_, f32, 3>,
    [sequence, first, state]: [usize; 3],
    n: usize,
) -> [[f32; STATES]; TILE] {
    let mut tile = [[0.0; STATES]; TILE];
    let states = STATES.min(view.shape()[2] - state);
    for (t, group) in tile[..n].iter_mut().enumerate() {
        let row = view.row([sequence, first + t, state]);
        for (value, &from) in group[..states].iter_mut().zip(row) {
            *value = from;
        }
    }
    tile
}

/// The recurrence of a group of states of one vector of channels, `at` lanes into rows of `width`. `rate` is
/// A·log₂e; `inputs` and `outputs` are B and C.
#[inline(always)]
fn recurrence<I: Isa, const T: usize, const W: usize>(
    isa: I,
    rate: &[I::V; STATES],
    inputs: &[[f32; STATES]],
    outputs: &[[f32; STATES]],
    tile: &mut Tile<T, W>,
    [at, width]: [usize; 2],
    mut h: [I::V; STATES],
) -> [I::V; STATES] {
    let Tile { delta, update, y } = tile;
    let rows = delta.as_flattened().chunks_exact(width);
    let rows = rows.zip(update.as_flattened().chunks_exact(width));
    let rows = rows.zip(y.as_flattened_mut().chunks_exact_mut(width));
    for (((delta, update), y), (b, c)) in rows.zip(inputs.iter().zip(outputs)) {
        let (delta, update) = (isa.load(&delta[at..]), isa.load(&update[at..]));
        // Partial sums: one would be a chain longer than all the rest.
        let mut sums = [isa.zero(); BLOCK];
        let mut s = 0;
        while s < STATES {
            let mut decay = [isa.zero(); BLOCK];
            let mut i = 0;
            while i < BLOCK {
                decay[i] = isa.mul(delta, rate[s + i]);
                i += 1;
            }
            let decay = exp2_nonpositive(isa, decay);
            let mut i = 0;
            while i < BLOCK {
                h[s + i] = isa.fma(decay[i], h[s + i], isa.mul(update, isa.splat(b[s + i])));
                sums[i] = isa.fma(isa.splat(c[s + i]), h[s + i], sums[i]);
                i += 1;
            }
            s += BLOCK;
        }
        let sum = isa.add(isa.add(sums[0], sums[1]), isa.add(sums[2], sums[3]));
        isa.store(isa.add(sum, isa.load(&y[at..])), &mut y[at..]);
    }
    h
}
