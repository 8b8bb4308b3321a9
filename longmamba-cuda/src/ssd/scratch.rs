//! Device memory that the segments of a scan leave their results in.

use crate::buffer::{Buffer, DeviceElement};
use crate::launch::Pointer;
use crate::{Device, Result};

/// Memory that [`Device::ssd`] works in. It grows to what the largest call needs, which depends on the
/// device and the model but not on the number of tokens: at most a few states for each multiprocessor.
/// A call as large as an earlier one allocates nothing.
#[derive(Debug, Default)]
pub struct SsdScratch {
    carries: Option<Buffer<f32>>,
    decays: Option<Buffer<f32>>,
    sums: Option<Sums>,
}

#[derive(Debug)]
struct Sums {
    delta_sum: Buffer<f64>,
    kept_sum: Buffer<f64>,
    kept: Buffer<u64>,
}

impl SsdScratch {
    /// No memory yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> usize {
        let floats = [&self.carries, &self.decays].into_iter().flatten();
        let sums = self.sums.as_ref().map_or(0, |sums| sums.kept.len());
        floats.map(|buffer| buffer.len() * size_of::<f32>()).sum::<usize>() + 24 * sums
    }

    /// States before each segment, and the decay over each.
    pub(super) fn carries(
        &mut self,
        device: &Device,
        states: usize,
        decays: usize,
    ) -> Result<(&mut Buffer<f32>, &mut Buffer<f32>)> {
        Ok((grow(&mut self.carries, device, states)?, grow(&mut self.decays, device, decays)?))
    }

    /// Sums of each segment: `len` each of delta_sum, kept_sum and kept.
    pub(super) fn sums(&mut self, device: &Device, len: usize) -> Result<[Pointer; 3]> {
        let sums = match self.sums.take() {
            Some(sums) if sums.kept.len() >= len => sums,
            _ => Sums {
                delta_sum: device.zeros(len)?,
                kept_sum: device.zeros(len)?,
                kept: device.zeros(len)?,
            },
        };
        let Sums { delta_sum, kept_sum, kept } = self.sums.insert(sums);
        Ok([
            delta_sum.pointer(device, 0, len)?,
            kept_sum.pointer(device, 0, len)?,
            kept.pointer(device, 0, len)?,
        ])
    }
}

fn grow<'a, T: DeviceElement>(
    buffer: &'a mut Option<Buffer<T>>,
    device: &Device,
    len: usize,
) -> Result<&'a mut Buffer<T>> {
    let grown = match buffer.take() {
        Some(buffer) if buffer.len() >= len => buffer,
        _ => device.zeros(len)?,
    };
    Ok(buffer.insert(grown))
}
