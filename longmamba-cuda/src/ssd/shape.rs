//! The sizes of a scan, and how it is shared out to blocks.

use super::arguments::Arguments;
use super::{CHUNK_WIDTH, SsdElement, SsdInputs};
use crate::arguments::{Strided, all, optional};
use crate::launch::{Grid, Pointer};
use crate::{Buffer, Device, Error, Precision, Result, RowsMut};
use longmamba_core::Error as ArgumentError;

/// Tokens of a chunk.
const CHUNK: usize = 64;

/// As many tokens go token by token in any case: that costs no more than a chunk.
const RECURRENT_TOKENS: usize = 16;

/// States of a head: the most of the recurrent kernels, and of the chunked ones.
const MOST_STATES: usize = 256;
const MOST_CHUNKED_STATES: usize = 128;

/// What a grid has along z.
const MOST_SEQUENCES: usize = 65535;

/// A sequence of fewer chunks is not cut into segments, and a segment has at least two.
const CUT_FROM: usize = 8;
const LEAST_CHUNKS: usize = 2;

/// The sizes of a scan, checked.
pub(super) struct Shape {
    pub(super) batch: usize,
    pub(super) len: usize,
    pub(super) heads: usize,
    pub(super) groups: usize,
    pub(super) head_dim: usize,
    pub(super) d_state: usize,
}

impl Shape {
    pub(super) fn new<T: SsdElement>(len: usize, inputs: &SsdInputs<'_, T>) -> Result<Self> {
        let SsdInputs { batch, heads, groups, .. } = *inputs;
        if groups == 0 || !heads.is_multiple_of(groups) {
            let (value, allowed) = (groups as f64, "a divisor of the number of heads");
            let error = ArgumentError::Value { tensor: "groups", index: 0, value, allowed };
            return Err(error.into());
        }
        let head_dim = inputs.x.width.checked_div(heads).unwrap_or(0);
        let d_state = inputs.b.width / groups;
        for (what, actual, limit) in [
            ("states of a head", d_state, MOST_STATES),
            ("sequences", batch, MOST_SEQUENCES),
            ("heads", heads, u32::MAX as usize),
            ("elements of a head", head_dim, u32::MAX as usize),
        ] {
            if actual > limit {
                return Err(Error::Unsupported { kernel: "ssd", what, limit, actual });
            }
        }
        Ok(Shape { batch, len, heads, groups, head_dim, d_state })
    }

    /// Sequences times heads.
    pub(super) fn lines(&self) -> usize {
        self.batch * self.heads
    }

    /// How many pieces of `width` elements a head has.
    fn parts(&self, width: usize) -> usize {
        self.head_dim.div_ceil(width).max(1)
    }

    /// A block for each such piece, segment and sequence.
    pub(super) fn grid(&self, width: usize, segments: usize, threads: u32) -> Grid {
        let plane = Grid::plane(self.heads * self.parts(width), segments, threads);
        // Sequences were checked to be fewer.
        let [x, y, _] = plane.blocks;
        Grid { blocks: [x, y, self.batch as u32], ..plane }
    }

    /// The address of the states of `sequences` sequences.
    pub(super) fn state(
        &self,
        device: &Device,
        sequences: usize,
        state: &Buffer<f32>,
    ) -> Result<Pointer> {
        all(device, "state", state, [sequences, self.heads, self.d_state, self.head_dim])
    }

    /// The arguments of a scan in one piece, without state and sums. All other ranges are checked here.
    pub(super) fn arguments<T: SsdElement>(
        &self,
        device: &Device,
        inputs: &SsdInputs<'_, T>,
        mut y: RowsMut<'_, T>,
    ) -> Result<Arguments> {
        let Shape { batch, len, heads, groups, head_dim, d_state } = *self;
        let too_many =
            ArgumentError::OutOfBounds { needed: None, available: inputs.x.buffer.len() };
        let rows = batch.checked_mul(len).ok_or(too_many)?;
        let width = heads * head_dim;
        let states = groups * d_state;
        let per_element = inputs.d.is_some_and(|d| d.len() == width && d.len() != heads);
        let d = if per_element { width } else { heads };
        inputs.dt_limits.check()?;
        Ok(Arguments {
            x: Strided::new(device, "x", inputs.x, rows, width)?,
            dt_raw: Strided::new(device, "dt_raw", inputs.dt_raw, rows, heads)?,
            b: Strided::new(device, "B", inputs.b, rows, states)?,
            c: Strided::new(device, "C", inputs.c, rows, states)?,
            y: Strided::new_mut(device, "y", &mut y, rows, width)?,
            state: Pointer::NULL,
            a: all(device, "A", inputs.a, [heads])?,
            d: optional(device, "D", inputs.d, [d])?,
            dt_bias: optional(device, "dt_bias", inputs.dt_bias, [heads])?,
            delta_min: optional(device, "delta_min", inputs.delta_min, [heads])?,
            lengths: optional(device, "lengths", inputs.lengths, [batch])?,
            sums: [Pointer::NULL; 3],
            carries: Pointer::NULL,
            decays: Pointer::NULL,
            len: len as u64,
            segment: len as u64,
            dt_min: inputs.dt_limits.min,
            dt_max: inputs.dt_limits.max,
            batch: batch as u32,
            heads: heads as u32,
            heads_per_group: (heads / groups) as u32,
            head_dim: head_dim as u32,
            d_state: d_state as u32,
            d_per_element: per_element.into(),
            segments: 1,
            padding: 0,
        })
    }

    /// Whether the chunked kernels do it.
    pub(super) fn chunked(&self, device: &Device, precision: Precision) -> bool {
        precision == Precision::Tensor
            && device.capability() >= (8, 0)
            && self.len > RECURRENT_TOKENS
            && (1..=MOST_CHUNKED_STATES).contains(&self.d_state)
            && self.head_dim > 0
    }
}

/// How the chunked kernels share out a scan.
pub(super) struct Chunked {
    /// Which of the two kernels: for up to 64 states, or 128.
    pub(super) wide: usize,
    /// Bytes of shared memory of a block of the scan.
    pub(super) shared: usize,
    /// Tokens of a segment: whole chunks.
    pub(super) segment: usize,
    pub(super) segments: usize,
}

impl Chunked {
    pub(super) fn new(device: &Device, shape: &Shape) -> Self {
        let wide = usize::from(shape.d_state > 64);
        let states = [64, 128][wide];
        // B, C; x, the scores; five numbers a token and one of the chunk, to the next 16 bytes.
        let row = 2 * (states + 8) + 2 * (CHUNK + 8);
        let shared = CHUNK * row * 2 + CHUNK * 5 * 4 + 16;
        let blocks = shape.lines() * shape.parts(CHUNK_WIDTH);
        let chunks = shape.len.div_ceil(CHUNK);
        // As many as the device holds at once.
        let wanted = device.multiprocessors() as usize * [4, 3][wide] / blocks;
        let most = if chunks < CUT_FROM { 1 } else { wanted.clamp(1, chunks / LEAST_CHUNKS) };
        let per_segment = chunks.div_ceil(most);
        let segments = chunks.div_ceil(per_segment);
        Chunked { wide, shared, segment: per_segment * CHUNK, segments }
    }
}
