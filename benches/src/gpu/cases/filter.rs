//! LongMamba's filter as both scans are timed with it: every other channel is global and drops seven
//! tokens of ten, and Δ is counted, which a calibrated model does in any case.

use crate::gpu::Result;
use crate::gpu::inputs::Numbers;
use longmamba_cuda::{Buffer, ChannelSums, Device};
use std::ops::Range;

/// Of a global channel's tokens.
const DROPPED: f64 = 0.7;

fn global(channel: usize) -> bool {
    channel.is_multiple_of(2)
}

/// `delta_min` of channels with these biases: what Δ is where `dt_raw` is at its quantile. No token is so
/// near to it that rounding could decide.
pub(super) fn thresholds(dt_raw: &Numbers, dt_bias: &[f32]) -> Vec<f32> {
    let of = |(channel, bias): (usize, &f32)| match global(channel) {
        true => softplus(dt_raw.quantile(DROPPED) + bias),
        false => 0.0,
    };
    dt_bias.iter().enumerate().map(of).collect()
}

fn softplus(x: f32) -> f32 {
    f64::from(x).exp().ln_1p() as f32
}

/// What the scan reports of Δ.
pub(super) struct Sums {
    delta_sum: Buffer<f64>,
    kept_sum: Buffer<f64>,
    kept: Buffer<u64>,
}

impl Sums {
    /// Of all sequences and channels.
    pub(super) fn new(device: &Device, lines: usize) -> Result<Self> {
        let (delta_sum, kept_sum) = (device.zeros(lines)?, device.zeros(lines)?);
        Ok(Sums { delta_sum, kept_sum, kept: device.zeros(lines)? })
    }

    pub(super) fn all(&mut self) -> ChannelSums<'_> {
        let Sums { delta_sum, kept_sum, kept } = self;
        ChannelSums { delta_sum, kept_sum, kept }
    }

    /// After one launch: the channels `lines`, of which the first is channel 0, have kept as many tokens
    /// as they should have of `given`, `[tokens, channels]`.
    ///
    /// # Errors
    /// Where one has not.
    pub(super) fn check(&self, dt_raw: &Numbers, given: &[f32], lines: Range<usize>) -> Result<()> {
        let channels = lines.len();
        let mut found = vec![0; channels];
        self.kept.read(lines.start, &mut found)?;
        let quantile = dt_raw.quantile(DROPPED);
        for (channel, &found) in found.iter().enumerate() {
            let tokens = given.iter().skip(channel).step_by(channels);
            let expected = tokens.filter(|&&v| !global(channel) || v > quantile).count();
            if found != expected as u64 {
                return Err(format!(
                    "WRONG: channel {channel} kept {found} tokens, it should keep {expected}"
                )
                .into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_channels_drop_by_their_own_threshold() {
        let thresholds = thresholds(&Numbers::wide(1), &[-3.0, -3.0, -4.0]);
        assert!(thresholds[0] > thresholds[2] && thresholds[2] > 0.0);
        assert_eq!(thresholds[1], 0.0);
    }
}
