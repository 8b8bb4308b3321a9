//! Comparison of what came back from the device with what the CPU says.

use super::Result;
use longmamba_core::Element;
use longmamba_cuda::{Buffer, DeviceElement};
use std::ops::Range;

/// The largest difference, relative to the largest value that is expected.
///
/// # Errors
/// Where it is above `tolerance`, which NaN always is, or where nothing was compared.
pub(super) fn close(what: &str, found: &[f32], expected: &[f32], tolerance: f64) -> Result<f64> {
    if found.is_empty() || found.len() != expected.len() {
        let (found, expected) = (found.len(), expected.len());
        return Err(format!("{what}: {found} values, expected {expected}").into());
    }
    let largest = expected.iter().fold(1e-30f32, |m, v| m.max(v.abs()));
    let mut worst = 0.0f64;
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let error = f64::from((found - expected).abs() / largest);
        // NaN is in no range.
        if !(0.0..=tolerance).contains(&error) {
            return Err(format!(
                "WRONG: {what}: value {index} of those compared is {found:e}, the CPU says {expected:e}"
            )
            .into());
        }
        worst = worst.max(error);
    }
    Ok(worst)
}

/// Columns `columns` of rows `rows` of a buffer with rows of `width`, widened.
pub(super) fn read<T>(
    buffer: &Buffer<T>,
    rows: Range<usize>,
    width: usize,
    columns: Range<usize>,
) -> Result<Vec<f32>>
where
    T: Element + DeviceElement,
{
    let mut all = vec![T::from_f32(0.0); rows.len() * width];
    buffer.read(rows.start * width, &mut all)?;
    let part = |row: &[T]| row[columns.clone()].iter().map(|v| v.to_f32()).collect::<Vec<_>>();
    Ok(all.chunks_exact(width).flat_map(part).collect())
}

/// What rounding the answer to `T` costs at most, on top of `computed`.
pub(super) fn tolerance<T: Element>(computed: f64) -> f64 {
    use longmamba_core::DType;
    computed
        + match T::DTYPE {
            DType::F32 => 0.0,
            DType::F16 => 1.0 / 2048.0,
            DType::BF16 => 1.0 / 256.0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_answers_and_nan_are_refused() {
        assert_eq!(close("y", &[1.0, -2.0], &[1.0, -2.0], 0.0).unwrap(), 0.0);
        assert_eq!(close("y", &[1.0, -1.0], &[1.0, -2.0], 0.5).unwrap(), 0.5);
        assert!(close("y", &[1.0, -1.0], &[1.0, -2.0], 0.4).is_err());
        assert!(close("y", &[f32::NAN], &[1.0], 1.0).is_err());
        assert!(close("y", &[1.0], &[f32::NAN], 1.0).is_err());
        assert!(close("y", &[], &[], 1.0).is_err());
    }
}
