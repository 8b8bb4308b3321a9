//! The depthwise causal convolution in front of both scans.

use crate::arguments::{Strided, all, optional, product, size};
use crate::launch::{Grid, Pointer};
use crate::ptx::Module;
use crate::{Buffer, Device, Error, Result, Rows, RowsMut, ScanElement};
use longmamba_core::Error as ArgumentError;

/// What a causal convolution reads. Row `s · len + t` of `x` is token `t` of sequence `s`.
///
/// For every sequence and channel `c`, with the history in front of `x`:
///
/// ```text
/// out[t,c] = silu(bias[c] + Σ_k weight[k,c] · x[t - (width - 1) + k, c])
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CausalConv1dInputs<'a, T> {
    /// The number of sequences.
    pub batch: usize,
    /// `[batch · len, channels]`.
    pub x: Rows<'a, T>,
    /// The number of taps, 1 to 8.
    pub width: usize,
    /// `[width, channels]`: one tap of all channels side by side; the last tap meets the newest token.
    pub weight: &'a Buffer<f32>,
    /// `[channels]`. `None`: 0.
    pub bias: Option<&'a Buffer<f32>>,
    /// Whether SiLU follows.
    pub silu: bool,
    /// The number of tokens of each sequence, `[batch]`; more than len count as len. Past it `out` is 0
    /// and `x` is not read. `None`: len each.
    pub lengths: Option<&'a Buffer<u32>>,
}

/// `Conv1dArguments` of kernels/conv1d.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Conv1dArguments {
    x: Strided,
    out: Strided,
    weight: Pointer,
    bias: Pointer,
    history: Pointer,
    lengths: Pointer,
    len: u64,
    channels: u32,
    width: u32,
    silu: u32,
    x_paired: u32,
    out_paired: u32,
    padding: u32,
}

const KERNEL: &str = "causal_conv1d";

/// The widest filter.
const TAPS: usize = 8;

/// Channels and tokens of a block.
const CHANNELS: usize = 64;
const TOKENS: usize = 128;

impl Device {
    /// Convolves `len` tokens of each of `inputs.batch` sequences; the equation is that of
    /// [`CausalConv1dInputs`].
    ///
    /// * `history`: `[batch, width - 1, channels]`, the first elements of the buffer: the inputs before
    ///   `x`, oldest first, zeros for a fresh sequence. On return, the last inputs of `history` and `x`
    ///   together, so that the next part of the sequence can follow.
    /// * `out`: `[batch · len, channels]`.
    ///
    /// # Errors
    /// [`Error::Argument`], naming the tensor; [`Error::Unsupported`] for more than 8 taps;
    /// [`Error::Driver`].
    pub fn causal_conv1d<T: ScanElement>(
        &self,
        len: usize,
        inputs: CausalConv1dInputs<'_, T>,
        history: &mut Buffer<f32>,
        mut out: RowsMut<'_, T>,
    ) -> Result<()> {
        let CausalConv1dInputs { batch, x, width, weight, bias, silu, lengths } = inputs;
        let channels = x.width;
        if width == 0 {
            let (tensor, allowed) = ("weight's width", "at least 1");
            return Err(ArgumentError::Value { tensor, index: 0, value: 0.0, allowed }.into());
        }
        if width > TAPS {
            let (kernel, what) = (KERNEL, "taps");
            return Err(Error::Unsupported { kernel, what, limit: TAPS, actual: width });
        }
        let rows = product([batch, len])?;
        // Addresses of buffers are multiples of far more than a pair.
        let paired = |first: usize, stride: usize| u32::from((first | stride).is_multiple_of(2));
        let arguments = Conv1dArguments {
            x_paired: paired(x.first, x.stride),
            out_paired: paired(out.first, out.stride),
            x: Strided::new(self, "x", x, rows, channels)?,
            out: Strided::new_mut(self, "out", &mut out, rows, channels)?,
            weight: all(self, "weight", weight, [width, channels])?,
            bias: optional(self, "bias", bias, [channels])?,
            history: history.pointer(self, 0, product([batch, width - 1, channels])?)?,
            lengths: optional(self, "lengths", lengths, [batch])?,
            len: len as u64,
            channels: size(KERNEL, "channels", u32::MAX - CHANNELS as u32, channels)?,
            width: width as u32,
            silu: silu.into(),
            padding: 0,
        };
        let blocks = product([batch, len.div_ceil(TOKENS), channels.div_ceil(CHANNELS)])?;
        let blocks = size(KERNEL, "blocks", i32::MAX as u32, blocks)?;
        let name = if width <= 4 { T::CONV1D_4 } else { T::CONV1D_8 };
        self.launch(Module::Conv1d, name, Grid::line(blocks as usize, 128), &arguments)
    }
}
