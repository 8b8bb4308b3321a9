//! From `dt_raw` to Δ: the first step of both scans, with LongMamba's mask and the sums that are
//! reported of Δ.

use crate::dispatch::Block;
use crate::isa::{Isa, LINE_BYTES};
use crate::math::delta;
use longmamba_core::{ChannelStats, DtLimits, Result, View, ViewMut};

/// Channels (heads in Mamba-2) that work is cut between: a cache line of floats, and a whole number of vectors.
pub(crate) const LINE: usize = LINE_BYTES / size_of::<f32>();

/// The most tokens at a time: few enough for their Δ to be summed in `f32`, which also counts them
/// exactly.
pub(crate) const TILE: usize = 64;

/// What selects the tokens of at most `W` neighbouring channels.
#[repr(align(64))]
pub(crate) struct Selection<const W: usize> {
    bias: [f32; W],
    /// A token is dropped where Δ ≤ this.
    threshold: [f32; W],
    limits: DtLimits,
    /// Channels, and the same in whole lines.
    count: usize,
    width: usize,
}

impl<const W: usize> Selection<W> {
    /// `count` channels from `channel` on. In the lanes after them every token is dropped.
    #[inline(always)]
    pub(crate) fn new(
        dt_bias: Option<&[f32]>,
        delta_min: Option<&[f32]>,
        limits: DtLimits,
        channel: usize,
        count: usize,
    ) -> Self {
        let width = count.next_multiple_of(LINE);
        let (bias, threshold) = ([0.0; W], [f32::INFINITY; W]);
        let mut all = Selection { bias, threshold, limits, count, width };
        if let Some(bias) = dt_bias {
            all.bias[..count].copy_from_slice(&bias[channel..channel + count]);
        }
        for (i, threshold) in all.threshold[..count].iter_mut().enumerate() {
            let delta_min = delta_min.map_or(0.0, |v| v[channel + i]);
            // Without a threshold not even Δ = 0 is dropped.
            *threshold = if delta_min > 0.0 { delta_min } else { f32::NEG_INFINITY };
        }
        all
    }

    /// Writes Δ, masked, of the tokens `[sequence, token..]` of `dt_raw` to the rows of `deltas`, one
    /// a token, each of the channels in whole lines, and adds up the sums. The channels begin at `channel` of
    /// `dt_raw`; where Δ is NaN it is kept, so that the fault shows.
    #[inline(always)]
    pub(crate) fn run<I: Isa>(
        &self,
        isa: I,
        dt_raw: &View<'_, f32, 3>,
        [sequence, token, channel]: [usize; 3],
        deltas: &mut [f32],
    ) -> Sums<W> {
        let Selection { count, width, limits, .. } = *self;
        debug_assert!(deltas.len() <= TILE * width && width <= W);
        let n = deltas.len() / width;
        let raw = |t| &dt_raw.row([sequence, token + t, channel])[..count];
        let mut sums = Sums { all: [0.0; W], kept: [0.0; W], count: [0.0; W] };
        for v in (0..width).step_by(I::LANES) {
            let bias = isa.load(&self.bias[v..]);
            let mut column = Column {
                threshold: isa.load(&self.threshold[v..]),
                all: isa.zero(),
                kept: isa.zero(),
                count: isa.zero(),
            };
            // Four tokens at a time, because one would mostly wait.
            let mut t = 0;
            while n - t >= 4 {
                let mut four = [bias; 4];
                for (i, value) in four.iter_mut().enumerate() {
                    *value = isa.add(isa.load_at(raw(t + i), v), *value);
                }
                for (i, delta) in delta(isa, four, limits).into_iter().enumerate() {
                    isa.store(column.mask(isa, delta), &mut deltas[(t + i) * width + v..]);
                }
                t += 4;
            }
            while t < n {
                let [delta] = delta(isa, [isa.add(isa.load_at(raw(t), v), bias)], limits);
                isa.store(column.mask(isa, delta), &mut deltas[t * width + v..]);
                t += 1;
            }
            isa.store(column.all, &mut sums.all[v..]);
            isa.store(column.kept, &mut sums.kept[v..]);
            isa.store(column.count, &mut sums.count[v..]);
        }
        sums
    }
}

/// A vector of channels on its way through the tokens.
struct Column<I: Isa> {
    threshold: I::V,
    all: I::V,
    kept: I::V,
    count: I::V,
}

impl<I: Isa> Column<I> {
    /// Δ of a token, or 0 where it is dropped, counted.
    #[inline(always)]
    fn mask(&mut self, isa: I, delta: I::V) -> I::V {
        let zero = isa.zero();
        let kept = isa.select_le(delta, self.threshold, zero, delta);
        self.all = isa.add(self.all, delta);
        self.kept = isa.add(self.kept, kept);
        let one = isa.select_le(delta, self.threshold, zero, isa.splat(1.0));
        self.count = isa.add(self.count, one);
        kept
    }
}

/// The sums of a tile, by channel.
pub(crate) struct Sums<const W: usize> {
    all: [f32; W],
    kept: [f32; W],
    count: [f32; W],
}

/// [`ChannelStats`] of some channels of some sequences.
pub(crate) struct Stats<'a> {
    delta_sum: Block<'a, f64, 2>,
    kept_sum: Block<'a, f64, 2>,
    kept: Block<'a, u64, 2>,
}

impl<'a> Stats<'a> {
    pub(crate) fn new(stats: ChannelStats<'a>, batch: usize, channels: usize) -> Result<Self> {
        let shape = [batch, channels];
        Ok(Stats {
            delta_sum: Block::new(ViewMut::new(stats.delta_sum, shape)?),
            kept_sum: Block::new(ViewMut::new(stats.kept_sum, shape)?),
            kept: Block::new(ViewMut::new(stats.kept, shape)?),
        })
    }

    /// Cuts between sequences (`dim` 0) or channels (`dim` 1).
    pub(crate) fn split_at(self, dim: usize, at: usize) -> (Self, Self) {
        let (delta_sum, delta_sum_) = self.delta_sum.split_at(dim, at);
        let (kept_sum, kept_sum_) = self.kept_sum.split_at(dim, at);
        let (kept, kept_) = self.kept.split_at(dim, at);
        (
            Stats { delta_sum, kept_sum, kept },
            Stats { delta_sum: delta_sum_, kept_sum: kept_sum_, kept: kept_ },
        )
    }

    /// Adds the sums of `count` channels from `[sequence, channel]` on.
    #[inline(always)]
    pub(crate) fn add<const W: usize>(&mut self, sums: &Sums<W>, at: [usize; 2], count: usize) {
        for (sum, &value) in self.delta_sum.row_mut(at, count).iter_mut().zip(&sums.all) {
            *sum += f64::from(value);
        }
        for (sum, &value) in self.kept_sum.row_mut(at, count).iter_mut().zip(&sums.kept) {
            *sum += f64::from(value);
        }
        for (sum, &value) in self.kept.row_mut(at, count).iter_mut().zip(&sums.count) {
            *sum += value as u64;
        }
    }
}
