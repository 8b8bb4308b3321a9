//! What the kernels of a decode step know of its sequences, each of which has memory of its own.

use crate::arguments::optional;
use crate::launch::Pointer;
use crate::{Buffer, ChannelSums, Device, Error, Result};
use bytemuck::{Pod, Zeroable};

/// The most sequences that the kernels of a decode step take, one token each: as many rows as a matrix
/// product takes at a time when it goes through its weight once.
pub const STEP_SEQUENCES: usize = 8;

/// What a scan of one token reads and renews of a sequence.
#[derive(Debug)]
pub struct StepSequence<'a> {
    /// `[d_state, d_inner]` in Mamba-1, `[heads, d_state, head_dim]` in Mamba-2.
    pub state: &'a mut Buffer<f32>,
    /// LongMamba's thresholds, one a channel or head, as the scans have them. `None`: every token is kept.
    pub delta_min: Option<&'a Buffer<f32>>,
    /// Where wanted, Δ of the token is added to it.
    pub sums: Option<ChannelSums<'a>>,
}

/// `Sequence` of kernels/step/sequences.cuh.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Sequence {
    state: Pointer,
    delta_min: Pointer,
    sums: [Pointer; 3],
}

/// `Sequences` of kernels/step/sequences.cuh.
pub(crate) type Sequences = [Sequence; STEP_SEQUENCES];

/// What a kernel takes of each of `rows` sequences, which `all` must be.
pub(crate) fn collect<T, P: Copy>(
    kernel: &'static str,
    rows: usize,
    all: impl IntoIterator<Item = T>,
    none: P,
    mut pointer: impl FnMut(T) -> Result<P>,
) -> Result<[P; STEP_SEQUENCES]> {
    if rows > STEP_SEQUENCES {
        let (what, limit) = ("sequences of a step", STEP_SEQUENCES);
        return Err(Error::Unsupported { kernel, what, limit, actual: rows });
    }
    let (mut pointers, mut count) = ([none; STEP_SEQUENCES], 0);
    for item in all {
        if let Some(to) = pointers.get_mut(count) {
            *to = pointer(item)?;
        }
        count += 1;
    }
    if count != rows {
        let (tensor, expected, actual) = ("sequences", [rows].into(), [count].into());
        return Err(longmamba_core::Error::Shape { tensor, expected, actual }.into());
    }
    Ok(pointers)
}

/// The addresses of `rows` sequences. `state` checks a state and gives its address.
pub(crate) fn sequences<'a>(
    device: &Device,
    kernel: &'static str,
    rows: usize,
    all: impl IntoIterator<Item = StepSequence<'a>>,
    channels: usize,
    state: impl Fn(&Buffer<f32>) -> Result<Pointer>,
) -> Result<Sequences> {
    let none =
        Sequence { state: Pointer::NULL, delta_min: Pointer::NULL, sums: [Pointer::NULL; 3] };
    collect(kernel, rows, all, none, |sequence| {
        let StepSequence { state: buffer, delta_min, sums } = sequence;
        let sums = match sums {
            Some(mut sums) => sums.pointers(device, 1, channels)?,
            None => [Pointer::NULL; 3],
        };
        let delta_min = optional(device, "delta_min", delta_min, [channels])?;
        Ok(Sequence { state: state(buffer)?, delta_min, sums })
    })
}
