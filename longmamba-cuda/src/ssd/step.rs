//! One token of several sequences, gated.

use super::arguments::Arguments;
use super::shape::Shape;
use super::{RECURRENT_WIDTH, SsdInputs};
use crate::arguments::Strided;
use crate::ptx::Module;
use crate::step::{Sequences, StepSequence, sequences};
use crate::{Buffer, Device, Error, Result, Rows, RowsMut};

/// `SsdStep` of kernels/step/ssd.cuh.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct SsdStep {
    scan: Arguments,
    z: Strided,
    of: Sequences,
}

const KERNEL: &str = "ssd_step_gated";

impl Device {
    /// Scans one token of each of up to [`STEP_SEQUENCES`](crate::STEP_SEQUENCES) sequences, and gates it: what
    /// [`Device::ssd`] gives, times silu(z). Everything is in f32.
    ///
    /// * `inputs`: `batch` is the number of sequences, row `s` the token of sequence `s`; `lengths` is `None`.
    ///   `delta_min` is for sequences that have none of their own.
    /// * `z`, `y`: `[sequences, heads · head_dim]`.
    ///
    /// # Errors
    /// As [`Device::ssd`], and [`Error::Unsupported`] for more sequences, or for lengths.
    pub fn ssd_step<'s>(
        &self,
        inputs: SsdInputs<'_, f32>,
        z: Rows<'_, f32>,
        y: RowsMut<'_, f32>,
        all_sequences: impl IntoIterator<Item = StepSequence<'s>>,
    ) -> Result<()> {
        if let Some(lengths) = inputs.lengths {
            let (what, actual) = ("lengths", lengths.len());
            return Err(Error::Unsupported { kernel: KERNEL, what, limit: 0, actual });
        }
        let shape = Shape::new(1, &inputs)?;
        let state = |state: &Buffer<f32>| shape.state(self, 1, state);
        let rows = shape.batch;
        let of = sequences(self, KERNEL, rows, all_sequences, shape.heads, state)?;
        let scan = shape.arguments(self, &inputs, y)?;
        let z = Strided::new(self, "z", z, rows, shape.heads * shape.head_dim)?;
        let (name, states) = match shape.d_state <= 128 {
            true => ("ssd_step_gated_n128", 16),
            false => ("ssd_step_gated_n256", 32),
        };
        if shape.lines() == 0 {
            return Ok(());
        }
        let warps = shape.d_state.div_ceil(states).max(1);
        let grid = shape.grid(RECURRENT_WIDTH, 1, 32 * warps as u32);
        self.launch(Module::Step, name, grid, &SsdStep { scan, z, of })
    }
}
