//! The depthwise causal convolution in front of both scans, with its SiLU.

use crate::check;
use crate::dispatch::{Block, Cpu, Cut, Divide, Kernel, block_cut, block_units, parallel};
use crate::isa::Isa;
use crate::lanes;
use crate::math::silu;
use longmamba_core::{Error, Result, View, ViewMut};

/// Vectors of neighbouring channels that go through the tokens together: whole cache lines on every
/// instruction set, and few enough for registers.
const VECTORS: usize = 4;

/// Taps whose weights are laid out on the stack at a time. A wider filter takes several passes, with
/// the sums kept in the output.
const TAPS: usize = 8;

/// The taps of every Mamba: so few that the last inputs stay in registers.
const FEW: usize = 4;

/// Tokens that such a filter does side by side, because one would mostly wait.
const STEP: usize = 4;

/// Tokens of a tile.
const TILE: usize = 32;

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
            // All channels of a few tokens, then the next tokens: the rows stay in reach.
            let tile = if width == FEW { TILE } else { tokens.max(1) };
            for first in (0..tokens).step_by(tile) {
                let n = tile.min(tokens - first);
                for c in (0..channels).step_by(VECTORS * I::LANES) {
                    let count = (VECTORS * I::LANES).min(channels - c);
                    if width != FEW {
                        self.channels(isa, b, tokens, c, count);
                        continue;
                    }
                    self.ask_for(isa, [b, first, c + VECTORS * I::LANES], tokens);
                    for v in (0..count).step_by(I::LANES) {
                        self.few_taps(isa, [b, first, c + v], n, I::LANES.min(count - v));
                    }
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
    /// Has the next channels of the tokens of a tile brought near, which the processor does not foresee.
    #[inline(always)]
    fn ask_for<I: Isa>(&self, isa: I, [b, first, c]: [usize; 3], tokens: usize) {
        let [_, _, channels] = self.x.shape();
        let width = (VECTORS * I::LANES).min(channels.saturating_sub(c));
        for t in first..tokens.min(first + TILE) {
            if width > 0 {
                isa.prefetch_row(&self.x.row([b, t, c])[..width]);
                isa.prefetch_row(self.out.row([b, t, c], width));
            }
        }
    }

    /// `n` tokens of a vector of channels, `count` of which exist, from `[sequence, token, channel]` on, with
    /// the last inputs in registers.
    #[inline(always)]
    fn few_taps<I: Isa>(&mut self, isa: I, [b, first, c]: [usize; 3], n: usize, count: usize) {
        let mut weights = [isa.zero(); FEW];
        lanes::view(isa, &self.weight, [0, c], count, &mut weights);
        let bias = self.bias.map_or(isa.zero(), |bias| isa.load_part(&bias[c..c + count]));
        let mut last = [isa.zero(); FEW - 1];
        for (i, input) in last.iter_mut().enumerate() {
            let row = match (first + i).checked_sub(FEW - 1) {
                Some(token) => &self.x.row([b, token, c])[..count],
                None => self.history.row([b, first + i, c], count),
            };
            *input = isa.load_part(row);
        }
        let mut t = 0;
        while n - t >= STEP {
            self.tokens::<I, STEP>(isa, &weights, bias, &mut last, [b, first + t, c], count);
            t += STEP;
        }
        while t < n {
            self.tokens::<I, 1>(isa, &weights, bias, &mut last, [b, first + t, c], count);
            t += 1;
        }
    }

    /// `N` tokens of it, after the inputs `last`.
    #[inline(always)]
    fn tokens<I: Isa, const N: usize>(
        &mut self,
        isa: I,
        weights: &[I::V; FEW],
        bias: I::V,
        last: &mut [I::V; FEW - 1],
        [b, t, c]: [usize; 3],
        count: usize,
    ) {
        let mut sums = [bias; N];
        let mut i = 0;
        while i < N {
            let new = isa.load_at(&self.x.row([b, t + i, c])[..count], 0);
            let [oldest, older, old] = *last;
            sums[i] = isa.fma(weights[0], oldest, sums[i]);
            sums[i] = isa.fma(weights[1], older, sums[i]);
            sums[i] = isa.fma(weights[2], old, sums[i]);
            sums[i] = isa.fma(weights[3], new, sums[i]);
            *last = [older, old, new];
            i += 1;
        }
        if self.silu {
            sums = silu(isa, sums);
        }
        let mut i = 0;
        while i < N {
            isa.store_at(sums[i], self.out.row_mut([b, t + i, c], count), 0);
            i += 1;
        }
    }

    /// All tokens of one sequence, for `count` channels from `c` on.
    #[inline(always)]
    fn channels<I: Isa>(&mut self, isa: I, b: usize, tokens: usize, c: usize, count: usize) {
        let [width, _] = self.weight.shape();
        let [sequence_stride, stride, _] = self.x.layout().strides();
        // Where there is no token there is no storage either.
        let x = self.x.data().get(b * sequence_stride + c..).unwrap_or(&[]);
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
                    // The index into history and x, one after the other.
                    let at = t + first + k;
                    let row = match at.checked_sub(width - 1) {
                        Some(token) => &x[token * stride..][..count],
                        None => self.history.row([b, at, c], count),
                    };
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
            let from = match (tokens + i).checked_sub(kept) {
                Some(token) => &self.x.row([b, token, c])[..count],
                None => self.history.row([b, tokens + i, c], count),
            };
            row[..count].copy_from_slice(from);
            self.history.row_mut([b, i, c], count).copy_from_slice(&row[..count]);
        }
    }
}
