//! What a session keeps on the device beside its activations, and how those are handed to kernels.

use super::draw::DrawScratch;
use crate::backend::{Activations, Columns, ColumnsMut, Position};
use crate::{Error, Result};
use longmamba_cuda::{
    AttentionScratch, Buffer, ChannelSums, Device, Graph, Positions, Rows, RowsMut, SsdScratch,
};

/// Room for what kernels need beside their inputs.
#[derive(Debug, Default)]
pub struct CudaScratch {
    pub(super) tokens: Option<Buffer<u32>>,
    /// What a draw left at the start of those.
    pub(super) drawn: Option<u32>,
    pub(super) draw: Option<DrawScratch>,
    pub(super) positions: Option<Positions>,
    pub(super) ssd: Option<SsdScratch>,
    pub(super) attention: Option<AttentionScratch>,
}

/// Where the device finds a position that it was told of.
pub(super) fn stored(
    positions: &Option<Positions>,
    at: Position,
) -> Result<longmamba_cuda::Position<'_>> {
    match positions {
        Some(all) if all.get(at.segment) == Some(at.position) => {
            Ok(longmamba_cuda::Position::Stored(all, at.segment))
        }
        _ => Err(Error::argument(format!("the device was not told of {at:?} before this chunk"))),
    }
}

/// Room for `count` tokens: what is in `place`, where that is enough.
pub(super) fn room<'a>(
    place: &'a mut Option<Buffer<u32>>,
    device: &Device,
    count: usize,
) -> Result<&'a mut Buffer<u32>> {
    let buffer = match place.take() {
        Some(buffer) if buffer.len() >= count => buffer,
        _ => device.zeros(count.next_power_of_two())?,
    };
    Ok(place.insert(buffer))
}

/// The stages of a step, as one launch.
#[derive(Debug, Default)]
pub struct CudaRecording {
    /// Of the step that was done last.
    pub(super) key: Vec<u64>,
    pub(super) graph: Option<Graph>,
}

/// What a layer has seen of Δ, on the device: `[channels]` each.
#[derive(Debug)]
pub struct CudaSums {
    pub(super) delta_sum: Buffer<f64>,
    pub(super) kept_sum: Buffer<f64>,
    pub(super) kept: Buffer<u64>,
}

impl CudaSums {
    pub(super) fn all(&mut self) -> Option<ChannelSums<'_>> {
        let CudaSums { delta_sum, kept_sum, kept } = self;
        Some(ChannelSums { delta_sum, kept_sum, kept })
    }
}

impl<'a> Columns<'a, Buffer<f32>> {
    pub(super) fn rows(&self) -> Rows<'a, f32> {
        let Columns { buffer, first, width, stride } = *self;
        Rows { buffer, first, width, stride }
    }
}

impl<'a> ColumnsMut<'a, Buffer<f32>> {
    pub(super) fn rows(self) -> RowsMut<'a, f32> {
        let ColumnsMut { buffer, first, width, stride } = self;
        RowsMut { buffer, first, width, stride }
    }
}

/// Rows one after the other.
impl Activations for Buffer<f32> {}
