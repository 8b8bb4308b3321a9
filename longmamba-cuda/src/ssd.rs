//! The scan of Mamba-2, state-space duality (SSD): token by token, or in chunks on tensor cores.

mod arguments;
mod element;
mod scratch;
mod shape;
mod step;

pub use element::SsdElement;
pub use scratch::SsdScratch;

use crate::launch::{Grid, Pointer};
use crate::ptx::Module;
use crate::{Buffer, ChannelSums, Device, Precision, Result, Rows, RowsMut};
use arguments::{AddSumsArguments, Arguments};
use longmamba_core::DtLimits;
use shape::{Chunked, Shape};

/// Elements of `head_dim` that a block has: of the recurrent kernel, and of the chunked ones.
const RECURRENT_WIDTH: usize = 32;
const CHUNK_WIDTH: usize = 64;

/// Threads of a block of the chunked kernels.
const CHUNK_THREADS: u32 = 128;

/// The arguments of a Mamba-2 scan. Sequence `s` owns rows `s·len..(s+1)·len` of x, dt_raw, B and C.
///
/// For head `k` of `heads`, its group `g = k / (heads / groups)`, element `p` of `head_dim`, state
/// `n` of `d_state`, token `t`:
///
/// ```text
/// Δ[t,k]     = clamp(softplus(dt_raw[t,k] + dt_bias[k]), dt_limits), 0 where Δ ≤ delta_min[k]
/// h[t,k,n,p] = exp(Δ[t,k]·A[k])·h[t-1,k,n,p] + Δ[t,k]·B[t,g,n]·x[t,k,p]
/// y[t,k,p]   = Σ_n C[t,g,n]·h[t,k,n,p] + D[k]·x[t,k,p], or D[k,p]
/// ```
#[derive(Debug)]
pub struct SsdInputs<'a, T> {
    /// The number of sequences.
    pub batch: usize,
    /// The number of heads.
    pub heads: usize,
    /// The number of groups of heads that share B and C; it divides `heads`.
    pub groups: usize,
    /// `[batch · len, heads · head_dim]`, after convolution and SiLU.
    pub x: Rows<'a, T>,
    /// `[batch · len, heads]`, Δ before bias and softplus.
    pub dt_raw: Rows<'a, T>,
    /// `[batch · len, groups · d_state]`, with `d_state` up to 256.
    pub b: Rows<'a, T>,
    /// `[batch · len, groups · d_state]`.
    pub c: Rows<'a, T>,
    /// `[heads]`, finite and ≤ 0; the values are not checked.
    pub a: &'a Buffer<f32>,
    /// The skip, `[heads]`, or `[heads · head_dim]`: a value for each element. `None`: 0.
    pub d: Option<&'a Buffer<f32>>,
    /// `[heads]`. `None`: 0.
    pub dt_bias: Option<&'a Buffer<f32>>,
    /// LongMamba's thresholds, `[heads]`: a token is kept where Δ > delta_min, and everywhere where
    /// delta_min is 0 or less. `None`: every token is kept.
    pub delta_min: Option<&'a Buffer<f32>>,
    /// Limits of Δ after softplus.
    pub dt_limits: DtLimits,
    /// The number of tokens of each sequence, `[batch]`, taken as `len` where larger. A token past it
    /// leaves the state as it is, is not counted, and its y is 0. `None`: len each.
    pub lengths: Option<&'a Buffer<u32>>,
    /// [`Precision::Exact`]: token by token in f32. [`Precision::Tensor`]: from 17 tokens and up to 128
    /// states on, on devices of compute capability 8.0 and later, products of x, B, C, the state and the
    /// decayed C·Bᵀ rounded to f16 where T is that and to bf16 otherwise; the state itself stays in f32.
    pub precision: Precision,
}

impl<T> Clone for SsdInputs<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SsdInputs<'_, T> {}

impl Device {
    /// The scan of [`SsdInputs`]: `y` `[batch · len, heads · head_dim]`, the state after the last token,
    /// and, where asked for, the sums of Δ of each sequence and head.
    ///
    /// `state` is `[batch, heads, d_state, head_dim]`: the initial state on entry (zeros for a fresh
    /// sequence), the final state after. A sequence may be cut anywhere: with the state carried over,
    /// the parts give the same as the whole, within rounding. The sums are the same in every run.
    ///
    /// In a chunk a NaN or an infinity in x also reaches the tokens up to 15 before it.
    ///
    /// # Errors
    /// [`Argument`](crate::Error::Argument) for shapes that do not agree, [`Unsupported`](crate::Error::Unsupported)
    /// for more than 256 states or 65535 sequences; [`OutOfMemory`](crate::Error::OutOfMemory) where `scratch`
    /// cannot grow; [`Driver`](crate::Error::Driver).
    pub fn ssd<T: SsdElement>(
        &self,
        len: usize,
        inputs: SsdInputs<'_, T>,
        y: RowsMut<'_, T>,
        state: &mut Buffer<f32>,
        sums: Option<ChannelSums<'_>>,
        scratch: &mut SsdScratch,
    ) -> Result<()> {
        let shape = Shape::new(len, &inputs)?;
        let counted = sums.is_some();
        let sums = match sums {
            Some(mut sums) => sums.pointers(self, shape.batch, shape.heads)?,
            None => [Pointer::NULL; 3],
        };
        let arguments = shape.arguments(self, &inputs, y)?;
        let state = shape.state(self, shape.batch, state)?;
        let arguments = Arguments { sums, state, ..arguments };
        if shape.lines() == 0 || len == 0 || shape.head_dim == 0 && !counted {
            return Ok(());
        }
        match shape.chunked(self, inputs.precision) {
            true => self.ssd_chunked::<T>(&shape, arguments, scratch),
            false => self.ssd_recurrent::<T>(&shape, &arguments),
        }
    }

    fn ssd_recurrent<T: SsdElement>(&self, shape: &Shape, arguments: &Arguments) -> Result<()> {
        let (name, rows) = match shape.d_state <= 128 {
            true => (T::RECURRENT[0], 16),
            false => (T::RECURRENT[1], 32),
        };
        let warps = shape.d_state.div_ceil(rows).max(1);
        let grid = shape.grid(RECURRENT_WIDTH, 1, 32 * warps as u32);
        self.launch(Module::Ssd, name, grid, arguments)
    }

    fn ssd_chunked<T: SsdElement>(
        &self,
        shape: &Shape,
        mut arguments: Arguments,
        scratch: &mut SsdScratch,
    ) -> Result<()> {
        let Chunked { wide, shared, segment, segments } = Chunked::new(self, shape);
        let (lines, sums) = (shape.lines(), arguments.sums);
        (arguments.segment, arguments.segments) = (segment as u64, segments as u32);
        let scan = shape.grid(CHUNK_WIDTH, segments, CHUNK_THREADS).shared(shared);
        if segments == 1 {
            return self.launch(Module::Ssd, T::SCAN[wide], scan, &arguments);
        }
        let elements = lines * shape.d_state * shape.head_dim;
        let (states, decays) = (segments * elements, segments * lines);
        let (carries, decay) = scratch.carries(self, states, decays)?;
        arguments.carries = carries.pointer(self, 0, states)?;
        arguments.decays = decay.pointer(self, 0, decays)?;
        let counted = sums != [Pointer::NULL; 3];
        if counted {
            arguments.sums = scratch.sums(self, decays)?;
        }
        let ends = shape.grid(CHUNK_WIDTH, segments - 1, CHUNK_THREADS);
        self.launch(Module::Ssd, T::SEGMENT[wide], ends, &arguments)?;
        let carry = Grid::line(elements.div_ceil(256), 256);
        self.launch(Module::Ssd, "ssd_carry", carry, &arguments)?;
        self.launch(Module::Ssd, T::SCAN[wide], scan, &arguments)?;
        if !counted {
            return Ok(());
        }
        let (parts, lines, segments) = (arguments.sums, lines as u64, segments as u32);
        let add = AddSumsArguments { parts, sums, lines, segments, padding: 0 };
        let grid = Grid::line((lines as usize).div_ceil(256), 256);
        self.launch(Module::Ssd, "ssd_add_sums", grid, &add)
    }
}
