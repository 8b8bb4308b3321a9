//! What the scans report of delta.

use crate::arguments::all;
use crate::launch::Pointer;
use crate::{Buffer, Device, Result};

/// What a scan reports of Δ, per sequence and channel (head in Mamba-2): `[batch, channels]` each. A scan
/// **adds** to what is there, so the sums of a prompt that is read in chunks need no further code.
#[derive(Debug)]
pub struct ChannelSums<'a> {
    /// Σ Δ over all tokens, before the mask.
    pub delta_sum: &'a mut Buffer<f64>,
    /// Σ Δ over the tokens that the mask kept.
    pub kept_sum: &'a mut Buffer<f64>,
    /// The number of tokens that the mask kept.
    pub kept: &'a mut Buffer<u64>,
}

impl ChannelSums<'_> {
    /// The addresses of `delta_sum`, `kept_sum` and `kept`.
    pub(crate) fn pointers(
        &mut self,
        device: &Device,
        batch: usize,
        channels: usize,
    ) -> Result<[Pointer; 3]> {
        let shape = [batch, channels];
        Ok([
            all(device, "delta_sum", self.delta_sum, shape)?,
            all(device, "kept_sum", self.kept_sum, shape)?,
            all(device, "kept", self.kept, shape)?,
        ])
    }
}
