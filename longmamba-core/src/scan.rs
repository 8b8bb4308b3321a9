//! The contract between models and kernels: checked arguments of the two scans.

mod selective;
mod ssd;

pub use selective::{SelectiveScan, SelectiveScanInputs, SelectiveScanOut};
pub use ssd::{Ssd, SsdInputs, SsdOut};

use crate::{Error, Result, View, ViewMut};

/// The range that Δ is clamped to after softplus. The default, 0 to ∞, changes nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DtLimits {
    /// Smallest Δ, ≥ 0.
    pub min: f32,
    /// Largest Δ, ≥ `min`; may be infinite.
    pub max: f32,
}

impl Default for DtLimits {
    fn default() -> Self {
        DtLimits { min: 0.0, max: f32::INFINITY }
    }
}

impl DtLimits {
    /// That they are a range.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn check(&self) -> Result<()> {
        let Self { min, max } = *self;
        if !(min >= 0.0 && min.is_finite()) {
            let allowed = "a finite number ≥ 0";
            return Err(Error::Value { tensor: "dt limits", index: 0, value: min.into(), allowed });
        }
        if max.is_nan() || max < min {
            let allowed = "at least the lower limit";
            return Err(Error::Value { tensor: "dt limits", index: 1, value: max.into(), allowed });
        }
        Ok(())
    }
}

/// What a scan reports of Δ, per sequence and channel: `[batch, channels]` each. A kernel **adds**
/// to what is there, so the sums of a prompt that is read in chunks need no further code.
#[derive(Debug)]
pub struct ChannelStats<'a> {
    /// Σ Δ over all tokens, before the mask.
    pub delta_sum: &'a mut [f64],
    /// Σ Δ over the tokens that the mask kept.
    pub kept_sum: &'a mut [f64],
    /// The number of tokens that the mask kept.
    pub kept: &'a mut [u64],
}

impl ChannelStats<'_> {
    fn check(&self, batch: usize, channels: usize) -> Result<()> {
        let expected = batch * channels;
        expect("delta_sum", [self.delta_sum.len()], [expected])?;
        expect("kept_sum", [self.kept_sum.len()], [expected])?;
        expect("kept", [self.kept.len()], [expected])
    }
}

fn expect<const R: usize>(
    tensor: &'static str,
    actual: [usize; R],
    expected: [usize; R],
) -> Result<()> {
    if actual != expected {
        return Err(Error::Shape { tensor, expected: expected.into(), actual: actual.into() });
    }
    Ok(())
}

fn expect_len(tensor: &'static str, values: Option<&[f32]>, expected: usize) -> Result<()> {
    values.map_or(Ok(()), |v| expect(tensor, [v.len()], [expected]))
}

/// Shape and contiguous rows.
fn expect_rows<const R: usize>(
    tensor: &'static str,
    view: &View<'_, f32, R>,
    expected: [usize; R],
) -> Result<()> {
    expect(tensor, view.shape(), expected)?;
    if !view.layout().rows_contiguous() {
        return Err(Error::NotContiguous { tensor });
    }
    Ok(())
}

fn expect_rows_mut<const R: usize>(
    tensor: &'static str,
    view: &ViewMut<'_, f32, R>,
    expected: [usize; R],
) -> Result<()> {
    expect_rows(tensor, &view.as_view(), expected)
}

/// Whether a decay rate is finite and ≤ 0.
fn is_rate(value: f32) -> bool {
    (f32::MIN..=0.0).contains(&value)
}

/// Whether all elements of `a` are decay rates, told by its storage where that holds nothing else.
fn all_rates<const R: usize>(a: &View<'_, f32, R>) -> bool {
    let (count, span) = (a.shape().iter().product::<usize>(), a.layout().span());
    // No early end: the loop is done in vectors.
    count == span && a.data()[..span].iter().fold(true, |all, &value| all & is_rate(value))
}

/// The thresholds are never NaN, the lengths never above `len`, the decay rates finite and ≤ 0.
fn expect_values(
    a: impl Iterator<Item = f32>,
    delta_min: Option<&[f32]>,
    lengths: Option<&[usize]>,
    batch: usize,
    len: usize,
) -> Result<()> {
    for (index, value) in a.enumerate() {
        if !is_rate(value) {
            let allowed = "a finite number ≤ 0";
            return Err(Error::Value { tensor: "A", index, value: value.into(), allowed });
        }
    }
    if let Some(index) = delta_min.and_then(|d| d.iter().position(|v| v.is_nan())) {
        let allowed = "a number";
        return Err(Error::Value { tensor: "delta_min", index, value: f64::NAN, allowed });
    }
    if let Some(lengths) = lengths {
        expect("lengths", [lengths.len()], [batch])?;
        if let Some(index) = lengths.iter().position(|&n| n > len) {
            let (value, allowed) = (lengths[index] as f64, "at most len");
            return Err(Error::Value { tensor: "lengths", index, value, allowed });
        }
    }
    Ok(())
}
