//! The depthwise causal convolution in front of both scans, with its SiLU.

use crate::check;
use crate::dispatch::{Block, Cpu, Cut, Divide, Kernel, block_cut, block_units, parallel};
use crate::isa::Isa;
use crate::math::silu;
use longmamba_core::{Error, Result, View, ViewMut};
use std::ops::Range;

/// Vectors of neighbouring channels that go through the tokens together: whole cache lines on every
/// instruction set, and few enough for registers.
const VECTORS: usize = 4;

/// Taps whose weights are laid out on the stack at a time. A wider filter takes several passes, with
/// the sums kept in the output.
const TAPS: usize = 8;

/// The taps of every Mamba.
const FEW: usize = 4;

/// Channels that go through the tokens together where there are so few taps: their weights and last inputs stay in
/// the nearest cache, and memory is read and written in long runs. A multiple of every instruction set's vectors.
const RUN: usize = 448;

/// Channels of a cut between threads, a multiple of every instruction set's block.
const BLOCK: usize = 64;

impl Cpu {
    /// For every sequence and channel `c`, with `history` in front of `x`:
    ///
    /// ```text
    /// out[t,c] = silu(bias[c] + Σ_k weight[c,k] · x[t - (width - 1) + k, c])
    /// ```
    ///
    /// * `x`, `out`: `[batch, len, channels]`, rows contiguous.
    /// * `weight`: `[channels, width]`, `width` ≥ 1, any strides; the last tap meets the newest token.
    ///   Best where neighbouring channels are contiguous.
    /// * `bias`: `[channels]`. `None`: 0.
    /// * `history`: `[batch, width - 1, channels]`, rows contiguous: the inputs before `x`, oldest
    ///   first, zeros for a fresh sequence. On return, the last inputs of `history` and `x` together,
    ///   so that the next part of the sequence can follow.
    /// * `lengths`: `[batch]`, tokens of each sequence, each ≤ len. Past it `out` is 0 and `x` is not
    ///   read. `None`: len each.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotContiguous`] or [`Error::Value`], naming the argument.
    pub fn causal_conv1d(
        &self,
        x: View<'_, f32, 3>,
        weight: View<'_, f32, 2>,
        bias: Option<&[f32]>,
        history: ViewMut<'_, f32, 3>,
        out: ViewMut<'_, f32, 3>,
        lengths: Option<&[usize]>,
    ) -> Result<()> {
        self.convolve(x, weight, bias, true, history, out, lengths)
    }

    /// [`causal_conv1d`](Cpu::causal_conv1d) without the SiLU.
    ///
    /// # Errors
    /// As there.
    pub fn causal_conv1d_linear(
        &self,
        x: View<'_, f32, 3>,
        weight: View<'_, f32, 2>,
        bias: Option<&[f32]>,
        history: ViewMut<'_, f32, 3>,
        out: ViewMut<'_, f32, 3>,
        lengths: Option<&[usize]>,
    ) -> Result<()> {
        self.convolve(x, weight, bias, false, history, out, lengths)
    }

    #[expect(clippy::too_many_arguments, reason = "those of the two methods above")]
    fn convolve(
        &self,
        x: View<'_, f32, 3>,
        weight: View<'_, f32, 2>,
        bias: Option<&[f32]>,
        silu: bool,
        history: ViewMut<'_, f32, 3>,
        out: ViewMut<'_, f32, 3>,
        lengths: Option<&[usize]>,
    ) -> Result<()> {
        let [batch, len, channels] = x.shape();
        let [_, width] = weight.shape();
        if width == 0 {
            let allowed = "at least 1";
            return Err(Error::Value { tensor: "weight's width", index: 0, value: 0.0, allowed });
        }
        check::rows("x", &x, [batch, len, channels])?;
        check::shape("weight", weight.shape(), [channels, width])?;
        check::rows("history", &history.as_view(), [batch, width - 1, channels])?;
        check::rows("out", &out.as_view(), [batch, len, channels])?;
        bias.map_or(Ok(()), |b| check::shape("bias", [b.len()], [channels]))?;
        check::lengths(lengths, batch, len)?;
        let (history, out) = (Block::new(history), Block::new(out));
        let weight = weight.permute([1, 0])?;
        let job = Convolution { cpu: *self, x, weight, bias, silu, lengths, history, out };
        // A quarter of a million taps take some 30 µs.
        parallel(job, (1 << 18) / (len * BLOCK * width).max(1));
        Ok(())
    }
}

/// [`Cpu::causal_conv1d`] on the best instruction set of this processor.
///
/// # Errors
/// As there.
pub fn causal_conv1d(
    x: View<'_, f32, 3>,
    weight: View<'_, f32, 2>,
    bias: Option<&[f32]>,
    history: ViewMut<'_, f32, 3>,
    out: ViewMut<'_, f32, 3>,
    lengths: Option<&[usize]>,
) -> Result<()> {
    Cpu::new().causal_conv1d(x, weight, bias, history, out, lengths)
}

/// The arguments of one thread: some of the channels of some of the sequences.
struct Convolution<'a> {
    cpu: Cpu,
    x: View<'a, f32, 3>,
    /// `[width, channels]`
    weight: View<'a, f32, 2>,
    bias: Option<&'a [f32]>,
    silu: bool,
    lengths: Option<&'a [usize]>,
    history: Block<'a, f32, 3>,
    out: Block<'a, f32, 3>,
}

impl Divide for Convolution<'_> {
    fn units(&self) -> usize {
        let [batch, _, channels] = self.x.shape();
        block_units(batch, channels, BLOCK)
    }

    fn divide(self, at: usize) -> (Self, Self) {
        let [batch, _, channels] = self.x.shape();
        let (cpu, x, weight, silu) = (self.cpu, self.x, self.weight, self.silu);
        match block_cut(batch, channels, BLOCK, at) {
            Cut::Channel(c) => {
                let (history, history_) = self.history.split_at(2, c);
                let (out, out_) = self.out.split_at(2, c);
                let (x, x_) = check::cut(x, 2, c);
                let (weight, weight_) = check::cut(weight, 1, c);
                let (bias, bias_) = self.bias.map(|b| b.split_at(c)).unzip();
                let lengths = self.lengths;
                (
                    Convolution { cpu, x, weight, bias, silu, lengths, history, out },
                    Convolution {
                        cpu,
                        x: x_,
                        weight: weight_,
                        bias: bias_,
                        silu,
                        lengths,
                        history: history_,
                        out: out_,
                    },
                )
            }
            Cut::Sequence(b) => {
                let (history, history_) = self.history.split_at(0, b);
                let (out, out_) = self.out.split_at(0, b);
                let (x, x_) = check::cut(x, 0, b);
                let (lengths, lengths_) = self.lengths.map(|l| l.split_at(b)).unzip();
                let bias = self.bias;
                (
                    Convolution { cpu, x, weight, bias, silu, lengths, history, out },
                    Convolution {
                        cpu,
                        x: x_,
                        weight,
                        bias,
                        silu,
                        lengths: lengths_,
                        history: history_,
                        out: out_,
                    },
                )
            }
        }
    }

    fn run(self) {
        self.cpu.call(self)
    }
}

impl Kernel for Convolution<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let [batch, len, channels] = self.x.shape();
        let [width, _] = self.weight.shape();
        for b in 0..batch {
            let tokens = self.lengths.map_or(len, |lengths| lengths[b]);
            if width == FEW && self.weight.layout().strides()[1] == 1 {
                for c in (0..channels).step_by(RUN) {
                    self.few_taps(isa, b, tokens, c..channels.min(c + RUN));
                }
            } else {
                for c in (0..channels).step_by(VECTORS * I::LANES) {
                    let count = (VECTORS * I::LANES).min(channels - c);
                    self.channels(isa, b, tokens, c, count);
                }
            }
            for c in (0..channels).step_by(VECTORS * I::LANES) {
                let count = (VECTORS * I::LANES).min(channels - c);
                self.keep_history(b, tokens, c, count);
            }
            for t in tokens..len {
                self.out.row_mut([b, t, 0], channels).fill(0.0);
            }
        }
    }
}

impl Convolution<'_> {
    /// All tokens of one sequence, for a run of channels; weights of neighbouring channels lie side by side.
    #[inline(always)]
    fn few_taps<I: Isa>(&mut self, isa: I, b: usize, tokens: usize, run: Range<usize>) {
        let Convolution { x, weight, bias, silu, history, out, .. } = self;
        let (first, count) = (run.start, run.len());
        let bias = bias.map(|bias| &bias[run]);
        let mut weights: [&[f32]; FEW] = [&[]; FEW];
        for (k, weights) in weights.iter_mut().enumerate() {
            *weights = &weight.row([k, first])[..count];
        }
        for t in 0..tokens {
            let mut rows: [&[f32]; FEW] = [&[]; FEW];
            for (k, row) in rows.iter_mut().enumerate() {
                *row = input(x, history, [b, t + k, first], count);
            }
            let taps = Taps { weights, rows, bias, silu: *silu };
            let out = out.row_mut([b, t, first], count);
            let mut at = 0;
            while count - at >= VECTORS * I::LANES {
                taps.sums::<I, VECTORS>(isa, at, out);
                at += VECTORS * I::LANES;
            }
            while at < count {
                taps.sums::<I, 1>(isa, at, out);
                at += I::LANES;
            }
        }
    }

    /// All tokens of one sequence, for `count` channels from `c` on.
    #[inline(always)]
    fn channels<I: Isa>(&mut self, isa: I, b: usize, tokens: usize, c: usize, count: usize) {
        let [width, _] = self.weight.shape();
        let mut bias = [0.0; VECTORS * 16];
        if let Some(values) = self.bias {
            bias[..count].copy_from_slice(&values[c..c + count]);
        }
        let mut first = 0;
        while first < width {
            let taps = TAPS.min(width - first);
            let weights = self.taps(first, taps, c, count);
            for t in 0..tokens {
                let before =
                    if first == 0 { &bias[..count] } else { self.out.row([b, t, c], count) };
                let mut sums = [isa.zero(); VECTORS];
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = isa.load_at(before, v * I::LANES);
                }
                for (k, weight) in weights[..taps].iter().enumerate() {
                    let row = input(&self.x, &self.history, [b, t + first + k, c], count);
                    for (v, sum) in sums.iter_mut().enumerate() {
                        let weight = isa.load(&weight[v * I::LANES..]);
                        *sum = isa.fma(weight, isa.load_at(row, v * I::LANES), *sum);
                    }
                }
                if first + taps == width && self.silu {
                    sums = silu(isa, sums);
                }
                let out = self.out.row_mut([b, t, c], count);
                for (v, &sum) in sums.iter().enumerate() {
                    isa.store_at(sum, out, v * I::LANES);
                }
            }
            first += taps;
        }
    }

    /// The weights of `taps` taps from `first` on, tap by tap.
    #[inline(always)]
    fn taps(
        &self,
        first: usize,
        taps: usize,
        c: usize,
        count: usize,
    ) -> [[f32; VECTORS * 16]; TAPS] {
        let mut weights = [[0.0; VECTORS * 16]; TAPS];
        let [tap_stride, channel_stride] = self.weight.layout().strides();
        let data = &self.weight.data()[c * channel_stride..];
        for (k, row) in weights[..taps].iter_mut().enumerate() {
            if channel_stride == 1 {
                row[..count].copy_from_slice(&data[(first + k) * tap_stride..][..count]);
                continue;
            }
            for (i, weight) in row[..count].iter_mut().enumerate() {
                *weight = data[i * channel_stride + (first + k) * tap_stride];
            }
        }
        weights
    }

    /// Moves the last `width - 1` inputs, old history included, into the history.
    #[inline(always)]
    fn keep_history(&mut self, b: usize, tokens: usize, c: usize, count: usize) {
        let [_, kept, _] = self.history.shape();
        for i in 0..kept {
            // Ascending, so that a row is read before it is overwritten.
            let mut row = [0.0; VECTORS * 16];
            let from = input(&self.x, &self.history, [b, tokens + i, c], count);
            row[..count].copy_from_slice(from);
            self.history.row_mut([b, i, c], count).copy_from_slice(&row[..count]);
        }
    }
}

/// `count` channels from `c` on of input `at` of history and x, one after the other.
#[inline(always)]
fn input<'b>(
    x: &'b View<'_, f32, 3>,
    history: &'b Block<'_, f32, 3>,
    [b, at, c]: [usize; 3],
    count: usize,
) -> &'b [f32] {
    let [_, kept, _] = history.shape();
    match at.checked_sub(kept) {
        Some(token) => &x.row([b, token, c])[..count],
        None => history.row([b, at, c], count),
    }
}

/// What one token of a run of channels is made of, all of the same length.
struct Taps<'a> {
    weights: [&'a [f32]; FEW],
    /// The inputs that they meet, oldest first.
    rows: [&'a [f32]; FEW],
    bias: Option<&'a [f32]>,
    silu: bool,
}

impl Taps<'_> {
    /// `N` vectors from channel `at` on; a single one may be cut short by the end of the run.
    #[inline(always)]
    fn sums<I: Isa, const N: usize>(&self, isa: I, at: usize, out: &mut [f32]) {
        let mut sums = [isa.zero(); N];
        let mut v = 0;
        while v < N {
            let at = at + v * I::LANES;
            if let Some(bias) = self.bias {
                sums[v] = load::<I, N>(isa, bias, at);
            }
            let mut k = 0;
            while k < FEW {
                let weight = load::<I, N>(isa, self.weights[k], at);
                sums[v] = isa.fma(weight, load::<I, N>(isa, self.rows[k], at), sums[v]);
                k += 1;
            }
            v += 1;
        }
        if self.silu {
            sums = silu(isa, sums);
        }
        let mut v = 0;
        while v < N {
            match N {
                1 => isa.store_at(sums[v], out, at),
                _ => isa.store(sums[v], &mut out[at + v * I::LANES..]),
            }
            v += 1;
        }
    }
}

/// A vector of a row, from `at` on: all of it where there are several.
#[inline(always)]
fn load<I: Isa, const N: usize>(isa: I, row: &[f32], at: usize) -> I::V {
    match N {
        1 => isa.load_at(row, at),
        _ => isa.load(&row[at..]),
    }
}
