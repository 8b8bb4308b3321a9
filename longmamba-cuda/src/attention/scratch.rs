use crate::launch::Pointer;
use crate::{Buffer, Device, Result};

/// Room for [`Device::attention`]. It grows to what the largest call needs, and then stays; for one device.
#[derive(Debug, Default)]
pub struct AttentionScratch {
    sums: Option<Buffer<f32>>,
    stats: Option<Buffer<f32>>,
}

impl AttentionScratch {
    /// Empty; memory is taken when it is needed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Room for so many sums and so many statistics.
    pub(super) fn partial(
        &mut self,
        device: &Device,
        sums: usize,
        stats: usize,
    ) -> Result<[Pointer; 2]> {
        Ok([room(&mut self.sums, device, sums)?, room(&mut self.stats, device, stats)?])
    }
}

fn room(buffer: &mut Option<Buffer<f32>>, device: &Device, len: usize) -> Result<Pointer> {
    match buffer {
        Some(buffer) if buffer.len() >= len => buffer.pointer(device, 0, len),
        _ => buffer.insert(device.zeros(len)?).pointer(device, 0, len),
    }
}
