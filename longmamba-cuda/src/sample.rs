//! The next token from the logits, without copying those to the host.

use crate::arguments::{Strided, refuse};
use crate::launch::{Grid, Pointer};
use crate::plane::lines;
use crate::ptx::Module;
use crate::{Buffer, Device, Error, Result, Rows, RowsMut};

/// In place of a token: a logit is NaN or, where tokens are drawn, +∞.
pub const NOT_A_NUMBER: u32 = u32::MAX;

/// In place of a token: none can be drawn, all logits are −∞.
pub const NO_TOKEN: u32 = u32::MAX - 1;

/// The most threads to a row; `BLOCK` in `sample/best.cuh`.
const THREADS: usize = 1024;

/// Logits that a thread loads at a time.
const AT_A_TIME: usize = 4;

/// How tokens are drawn. The steps are taken in this order: logits are divided by the temperature, then
/// top-k, top-p and min-p each keep a part of what is left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it. 0 takes the most likely token.
    pub temperature: f32,
    /// Keep the k most likely tokens.
    pub top_k: Option<usize>,
    /// Keep the fewest most likely tokens that together have at least this share, in (0, 1]. 1 keeps
    /// all.
    pub top_p: f32,
    /// Keep the tokens with at least this share of the probability of the most likely one, in [0, 1].
    /// 0 keeps all.
    pub min_p: f32,
}

impl Default for Sampling {
    /// Greedy.
    fn default() -> Self {
        Sampling { temperature: 0.0, top_k: None, top_p: 1.0, min_p: 0.0 }
    }
}

impl Sampling {
    fn check(&self) -> Result<()> {
        let Sampling { temperature, top_k, top_p, min_p } = *self;
        if !(temperature >= 0.0 && temperature.is_finite()) {
            return refuse("temperature", temperature.into(), "finite and ≥ 0");
        }
        if top_k == Some(0) {
            return refuse("top_k", 0.0, "at least 1");
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return refuse("top_p", top_p.into(), "above 0 and at most 1");
        }
        if !(0.0..=1.0).contains(&min_p) {
            return refuse("min_p", min_p.into(), "between 0 and 1");
        }
        Ok(())
    }

    /// 1 / temperature, and what `f32` leaves of it; 0 for greedy.
    fn scale(&self) -> (f32, f32) {
        if self.temperature == 0.0 {
            return (0.0, 0.0);
        }
        let exact = 1.0 / f64::from(self.temperature);
        let scale = (exact as f32).min(f32::MAX);
        (scale, ((exact - f64::from(scale)) as f32).min(f32::MAX))
    }
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Argmax {
    logits: Strided,
    tokens: Pointer,
    rows: u64,
    count: u32,
    unused: u32,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Sample {
    logits: Strided,
    uniform: Pointer,
    tokens: Pointer,
    rows: u64,
    count: u32,
    top_k: u32,
    scale: f32,
    scale_rest: f32,
    top_p: f32,
    min_p: f32,
    bits: u32,
    unused: u32,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Ban {
    logits: Strided,
    banned: Pointer,
    rows: u64,
    banned_count: u64,
    count: u32,
    unused: u32,
}

impl Device {
    /// The token with the largest logit of each row, the lower id of equals; [`NOT_A_NUMBER`] for a row
    /// with a NaN. `logits` is `[rows, width]`, of which the first `count` columns are tokens; the first
    /// `rows` elements of `tokens` are written.
    ///
    /// # Errors
    /// [`Error::Argument`], also where there are no logits; [`Error::Unsupported`] for 2³² − 2 tokens or
    /// more; [`Error::Driver`].
    pub fn argmax(
        &self,
        rows: usize,
        logits: Rows<'_, f32>,
        count: usize,
        tokens: &mut Buffer<u32>,
    ) -> Result<()> {
        let (logits, count) = tokens_of(self, "argmax", rows, logits, count)?;
        let tokens = tokens.pointer(self, 0, rows)?;
        let arguments = Argmax { logits, tokens, rows: rows as u64, count, unused: 0 };
        self.launch(Module::Sample, "argmax", grid(rows, count), &arguments)
    }

    /// −∞ for the logits of the tokens that are `banned`, in each row; those that there are not, and
    /// logits that are NaN or +∞, are left alone. `logits` is `[rows, tokens]`.
    ///
    /// # Errors
    /// [`Error::Argument`], [`Error::Unsupported`] as [`Device::argmax`], [`Error::Driver`].
    pub fn ban(
        &self,
        rows: usize,
        mut logits: RowsMut<'_, f32>,
        banned: &Buffer<u32>,
    ) -> Result<()> {
        let width = logits.width;
        let logits = Strided::new_mut(self, "logits", &mut logits, rows, width)?;
        let count = token_count("ban", width)?;
        let (banned, banned_count) = (banned.pointer(self, 0, banned.len())?, banned.len() as u64);
        let blocks = rows.saturating_mul(banned_count as usize).div_ceil(256).min(1 << 16);
        let arguments = Ban { logits, banned, rows: rows as u64, banned_count, count, unused: 0 };
        self.launch(Module::Sample, "ban", Grid::line(blocks, 256), &arguments)
    }

    /// Draws a token for each row. `logits` is `[rows, width]`, of which the first `count` columns are
    /// tokens. Row `r` takes the number `uniform[first + r]`, in [0, 1), and writes `tokens[r]`, which is
    /// [`NOT_A_NUMBER`] where a logit is NaN or +∞ and [`NO_TOKEN`] where all are −∞.
    ///
    /// The kept tokens lie side by side, each as wide as its probability, in order of their ids or, with
    /// top-k or top-p, the most likely first and the lower id of equals; the token is the one at that
    /// share of the whole. Probabilities are within 4e-7 of themselves; those below 2⁻⁴⁰ of the largest
    /// may be 0 (2⁻⁶² times the number of tokens).
    ///
    /// # Errors
    /// As [`Device::argmax`]; options out of their range are one, too.
    #[allow(
        clippy::too_many_arguments,
        reason = "where to read and write, and one struct of options"
    )]
    pub fn sample(
        &self,
        rows: usize,
        logits: Rows<'_, f32>,
        count: usize,
        sampling: Sampling,
        uniform: &Buffer<f64>,
        first: usize,
        tokens: &mut Buffer<u32>,
    ) -> Result<()> {
        sampling.check()?;
        let (logits, count) = tokens_of(self, "sample", rows, logits, count)?;
        let uniform = uniform.pointer(self, first, rows)?;
        let tokens = tokens.pointer(self, 0, rows)?;
        let (scale, scale_rest) = sampling.scale();
        let all = count as usize;
        let arguments = Sample {
            logits,
            uniform,
            tokens,
            rows: rows as u64,
            count,
            top_k: sampling.top_k.unwrap_or(all).min(all) as u32,
            scale,
            scale_rest,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            // Weights of at most 1 each, together at most 2^62.
            bits: 62 - all.next_power_of_two().trailing_zeros(),
            unused: 0,
        };
        self.launch(Module::Sample, "sample", grid(rows, count), &arguments)
    }
}

/// The first `count` columns, which are at least one.
fn tokens_of(
    device: &Device,
    kernel: &'static str,
    rows: usize,
    logits: Rows<'_, f32>,
    count: usize,
) -> Result<(Strided, u32)> {
    if count == 0 || count > logits.width {
        return refuse("count", count as f64, "at least 1 and at most the columns of the logits");
    }
    let operand = Strided::new(device, "logits", logits.part(0, count), rows, count)?;
    Ok((operand, token_count(kernel, count)?))
}

/// A block to each row.
fn grid(rows: usize, count: u32) -> Grid {
    let threads = (count as usize).div_ceil(AT_A_TIME).next_multiple_of(32).min(THREADS);
    Grid::line(lines(rows), threads as u32)
}

/// Tokens have 32 bits, and two of those are marks.
fn token_count(kernel: &'static str, actual: usize) -> Result<u32> {
    let limit = NO_TOKEN as usize;
    match u32::try_from(actual) {
        Ok(count) if actual <= limit => Ok(count),
        _ => Err(Error::Unsupported { kernel, what: "tokens", limit, actual }),
    }
}
