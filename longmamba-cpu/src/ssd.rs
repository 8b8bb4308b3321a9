//! The scan of Mamba-2, state-space duality (SSD).
//!
//! A head has one decay for all its states, so a run of tokens can be done as three matrix products
//! instead of token by token (`chunk`). Very short runs, above all the single token of decoding, go
//! token by token through the state in place (`recurrent`). Which of the two is chosen depends on
//! the length of the sequence alone.

mod chunk;
mod decay;
mod factor;
mod output;
mod recurrent;

use crate::dispatch::{
    Block, Cpu, Cut, Divide, Kernel, Scratch, Slots, block_cut, block_units, parallel, pieces,
};
use crate::isa::{Isa, Pair};
use crate::select::{LINE, Selection, Stats};
use chunk::Workspace;
use factor::ChunkFactor;
use longmamba_core::{Result, Ssd, SsdOut};

/// Sequences shorter than this go through [`Cpu::ssd`] token by token, and nothing of them is rounded.
pub const SSD_CHUNKED_FROM: usize = 5;

/// The tokens that [`Cpu::ssd_bf16`] takes together.
pub const SSD_BF16_CHUNK: usize = 64;

impl Cpu {
    /// Runs the scan of [`SsdInputs`](longmamba_core::SsdInputs): y of every token, the state after
    /// the last one, and, where asked for, the sums of Δ.
    ///
    /// A sequence may be cut anywhere: with the state carried over, the parts give the same as the
    /// whole, within rounding. From [`SSD_CHUNKED_FROM`] tokens on, what has decayed to less than 2⁻⁶⁴ of itself
    /// counts as 0.
    ///
    /// # Errors
    /// Where `out` does not fit `args`; see [`Ssd::check_out`].
    pub fn ssd(&self, args: &Ssd<'_>, out: SsdOut<'_>, scratch: &mut Scratch) -> Result<()> {
        run::<f32>(*self, args, out, scratch)
    }

    /// As [`ssd`](Cpu::ssd), with what is multiplied inside a chunk rounded to `bf16` first: B, C, C·Bᵀ with its
    /// decay, Δ·x with and without its decay, and the state where it is read. Sums, Δ and the state itself stay
    /// `f32`. A sequence of less than 5 tokens is not rounded.
    ///
    /// # Errors
    /// As there.
    pub fn ssd_bf16(&self, args: &Ssd<'_>, out: SsdOut<'_>, scratch: &mut Scratch) -> Result<()> {
        run::<Pair>(*self, args, out, scratch)
    }
}

fn run<F: ChunkFactor>(
    cpu: Cpu,
    args: &Ssd<'_>,
    out: SsdOut<'_>,
    scratch: &mut Scratch,
) -> Result<()> {
    args.check_out(&out)?;
    let [batch, len, heads, head_dim, _, d_state] = args.dims();
    let state = Block::new(out.state.permute([0, 1, 3, 2])?);
    let stats = out.stats.map(|s| Stats::new(s, batch, heads)).transpose()?;
    let y = Block::new(out.y);
    // A thread is worth some 5 µs.
    let least = (1 << 15) / (len * d_state * head_dim).max(1);
    let [floats, factors] = match len {
        0..SSD_CHUNKED_FROM => [0, 0],
        _ => {
            let copied = if chunk::in_place::<F>(&state, len) { 0 } else { heads.min(LINE) };
            Workspace::<F>::len(copied, head_dim, d_state)
        }
    };
    let count = pieces(batch * heads, least);
    let (slots, factors) = scratch.slots_of_two::<F>(count, [floats, factors]);
    let job = Scan { cpu, args, sequence: 0, head: 0, y, state, stats, slots, factors };
    parallel(job, least);
    Ok(())
}

/// [`Cpu::ssd`] on the best instruction set of this processor.
///
/// # Errors
/// As there.
pub fn ssd(args: &Ssd<'_>, out: SsdOut<'_>, scratch: &mut Scratch) -> Result<()> {
    Cpu::new().ssd(args, out, scratch)
}

/// The work of one thread: some of the heads of some of the sequences.
struct Scan<'a, F> {
    cpu: Cpu,
    args: &'a Ssd<'a>,
    /// The indexes in `args` of the blocks' first sequence and head.
    sequence: usize,
    head: usize,
    /// `[batch, len, heads, head_dim]`
    y: Block<'a, f32, 4>,
    /// `[batch, heads, d_state, head_dim]`
    state: Block<'a, f32, 4>,
    stats: Option<Stats<'a>>,
    /// Working memory, as much for each piece that this work may still be cut into.
    slots: Slots<'a, f32>,
    factors: Slots<'a, F>,
}

impl<F: ChunkFactor> Divide for Scan<'_, F> {
    fn units(&self) -> usize {
        let [batch, heads, _, _] = self.state.shape();
        block_units(batch, heads, 1)
    }

    fn divide(self, at: usize) -> (Self, Self) {
        let [batch, heads, _, _] = self.state.shape();
        let (dims, sequence, head, at) = match block_cut(batch, heads, 1, at) {
            Cut::Channel(k) => ((2, 1), self.sequence, self.head + k, k),
            Cut::Sequence(b) => ((0, 0), self.sequence + b, self.head, b),
        };
        let (y, y_) = self.y.split_at(dims.0, at);
        let (state, state_) = self.state.split_at(dims.1, at);
        let (stats, stats_) = self.stats.map(|s| s.split_at(dims.1, at)).unzip();
        let (slots, slots_) = self.slots.halve();
        let (factors, factors_) = self.factors.halve();
        (
            Scan { y, state, stats, slots, factors, ..self },
            Scan {
                y: y_,
                state: state_,
                stats: stats_,
                slots: slots_,
                factors: factors_,
                sequence,
                head,
                ..self
            },
        )
    }

    fn run(self) {
        self.cpu.call(self)
    }
}

/// Where a scan is in its arguments and in its blocks.
#[derive(Clone, Copy)]
struct Place {
    /// In the blocks.
    b: usize,
    /// In the blocks: the first head of the line, and how many it has.
    k: usize,
    count: usize,
    /// The first token, and the number of tokens.
    token: usize,
    n: usize,
}

impl<F: ChunkFactor> Kernel for Scan<'_, F> {
    type Out = ();
    const PAIRS: bool = F::PAIRS;

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let [batch, len, heads, head_dim] = self.y.shape();
        for b in 0..batch {
            let n = self.args.length(self.sequence + b);
            for k in (0..heads).step_by(LINE) {
                let count = LINE.min(heads - k);
                let Scan { args, head, .. } = self;
                let (bias, delta_min) = (args.dt_bias, args.delta_min);
                let selection = Selection::new(bias, delta_min, args.dt_limits, head + k, count);
                let place = Place { b, k, count, token: 0, n };
                if n < SSD_CHUNKED_FROM {
                    self.token_by_token(isa, &selection, place);
                } else {
                    self.by_chunks(isa, &selection, place);
                }
            }
            for t in n..len {
                for k in 0..heads {
                    self.y.row_mut([b, t, k, 0], head_dim).fill(0.0);
                }
            }
        }
    }
}

impl<'a, F: ChunkFactor> Scan<'a, F> {
    /// Δ of the tokens and heads of `place`, masked and counted: `[token][head]`.
    #[inline(always)]
    fn deltas<I: Isa>(
        &mut self,
        isa: I,
        selection: &Selection<LINE>,
        place: Place,
        deltas: &mut [[f32; LINE]],
    ) {
        let Place { b, k, count, token, n } = place;
        let from = [self.sequence + b, token, self.head + k];
        let sums = selection.run(isa, &self.args.dt_raw, from, deltas[..n].as_flattened_mut());
        if let Some(stats) = &mut self.stats {
            stats.add(&sums, [b, k], count);
        }
    }

    /// D of a head of the arguments.
    #[inline(always)]
    fn skip(&self, head: usize) -> Skip<'a> {
        let [_, _, heads, head_dim, _, _] = self.args.dims();
        match self.args.d {
            Some(d) if d.len() != heads => Skip::Elements(&d[head * head_dim..][..head_dim]),
            Some(d) => Skip::Head(d[head]),
            None => Skip::Head(0.0),
        }
    }

    /// The group of a head of the arguments.
    #[inline(always)]
    fn group(&self, head: usize) -> usize {
        let [_, _, heads, _, groups, _] = self.args.dims();
        head / (heads / groups)
    }
}

/// D of one head: one value, or one for each element.
#[derive(Clone, Copy)]
enum Skip<'a> {
    Head(f32),
    Elements(&'a [f32]),
}

impl Skip<'_> {
    /// For the elements from `p` on.
    #[inline(always)]
    fn at<I: Isa>(&self, isa: I, p: usize) -> I::V {
        match self {
            Skip::Head(d) => isa.splat(*d),
            Skip::Elements(d) => isa.load_at(d, p),
        }
    }
}
