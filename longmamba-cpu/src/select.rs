//! From `dt_raw` to Δ: the first step of both scans, with LongMamba's mask and the sums that are
//! reported of Δ.

use crate::dispatch::Block;
use crate::isa::Isa;
use crate::math::{Delta, map};
use longmamba_core::{ChannelStats, DtLimits, Result, View, ViewMut};

/// Channels (heads in Mamba-2) that go through the tokens together: a cache line of floats.
pub(crate) const LINE: usize = 16;

/// The most tokens at a time: few enough for their Δ to be summed in `f32`, which also counts them
/// exactly.
pub(crate) const TILE: usize = 64;

/// What selects the tokens of a line of channels.
#[repr(align(64))]
pub(crate) struct Selection {
    bias: [f32; LINE],
    /// A token is dropped where Δ ≤ this.
    threshold: [f32; LINE],
    limits: DtLimits,
}

impl Selection {
    /// `count` channels from `channel` on. In the lanes after them every token is dropped.
    pub(crate) fn new(
        dt_bias: Option<&[f32]>,
        delta_min: Option<&[f32]>,
        limits: DtLimits,
        channel: usize,
        count: usize,
    ) -> Self {
        let mut line = Selection { bias: [0.0; LINE], threshold: [f32::INFINITY; LINE], limits };
        if let Some(bias) = dt_bias {
            line.bias[..count].copy_from_slice(&bias[channel..channel + count]);
        }
        for (i, threshold) in line.threshold[..count].iter_mut().enumerate() {
            let delta_min = delta_min.map_or(0.0, |v| v[channel + i]);
            // Without a threshold not even Δ = 0 is dropped.
            *threshold = if delta_min > 0.0 { delta_min } else { f32::NEG_INFINITY };
        }
        line
    }

    /// Writes Δ, masked, of the tokens `[sequence, token..]` of `dt_raw` to the rows of `deltas`, one
    /// a token, and adds up the sums. The line begins at channel `channel` of `dt_raw` and has `count`
    /// channels; where Δ is NaN it is kept, so that the fault shows.
    #[inline(always)]
    pub(crate) fn run<I: Isa>(
        &self,
        isa: I,
        dt_raw: &View<'_, f32, 3>,
        [sequence, token, channel]: [usize; 3],
        count: usize,
        deltas: &mut [[f32; LINE]],
    ) -> Sums {
        debug_assert!(deltas.len() <= TILE);
        for (t, row) in deltas.iter_mut().enumerate() {
            let raw = &dt_raw.row([sequence, token + t, channel])[..count];
            for v in (0..LINE).step_by(I::LANES) {
                let sum = isa.add(isa.load_at(raw, v), isa.load(&self.bias[v..]));
                isa.store(sum, &mut row[v..]);
            }
        }
        map(isa, Delta(self.limits), deltas.as_flattened_mut());
        let mut sums = Sums { all: [0.0; LINE], kept: [0.0; LINE], count: [0.0; LINE] };
        let (zero, one) = (isa.zero(), isa.splat(1.0));
        for v in (0..LINE).step_by(I::LANES) {
            let threshold = isa.load(&self.threshold[v..]);
            let (mut all, mut kept, mut counts) = (zero, zero, zero);
            for row in deltas.iter_mut() {
                let before = isa.load(&row[v..]);
                let after = isa.select_le(before, threshold, zero, before);
                all = isa.add(all, before);
                kept = isa.add(kept, after);
                counts = isa.add(counts, isa.select_le(before, threshold, zero, one));
                isa.store(after, &mut row[v..]);
            }
            isa.store(all, &mut sums.all[v..]);
            isa.store(kept, &mut sums.kept[v..]);
            isa.store(counts, &mut sums.count[v..]);
        }
        sums
    }
}

/// The sums of a tile, by channel of the line.
pub(crate) struct Sums {
    all: [f32; LINE],
    kept: [f32; LINE],
    count: [f32; LINE],
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
    pub(crate) fn add(&mut self, sums: &Sums, at: [usize; 2], count: usize) {
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
