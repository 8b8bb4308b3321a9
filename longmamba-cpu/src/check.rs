//! Checks of the kernels whose arguments are plain views, and cutting such views.

use longmamba_core::{Error, Result, View};

/// `actual` must be `expected`.
pub(crate) fn shape<const R: usize>(
    tensor: &'static str,
    actual: [usize; R],
    expected: [usize; R],
) -> Result<()> {
    if actual != expected {
        return Err(Error::Shape { tensor, expected: expected.into(), actual: actual.into() });
    }
    Ok(())
}

/// The shape, and rows without gaps.
pub(crate) fn rows<T: Copy, const R: usize>(
    tensor: &'static str,
    view: &View<'_, T, R>,
    expected: [usize; R],
) -> Result<()> {
    shape(tensor, view.shape(), expected)?;
    if !view.layout().rows_contiguous() {
        return Err(Error::NotContiguous { tensor });
    }
    Ok(())
}

/// One length for each sequence, none above `len`.
pub(crate) fn lengths(lengths: Option<&[usize]>, batch: usize, len: usize) -> Result<()> {
    let Some(lengths) = lengths else { return Ok(()) };
    shape("lengths", [lengths.len()], [batch])?;
    match lengths.iter().position(|&n| n > len) {
        Some(index) => {
            let (value, allowed) = (lengths[index] as f64, "at most len");
            Err(Error::Value { tensor: "lengths", index, value, allowed })
        }
        None => Ok(()),
    }
}

/// The indexes before and from `at` of dimension `dim`.
pub(crate) fn cut<T: Copy, const R: usize>(
    view: View<'_, T, R>,
    dim: usize,
    at: usize,
) -> (View<'_, T, R>, View<'_, T, R>) {
    let part = |range| view.slice(dim, range).expect("cut inside the view");
    (part(0..at), part(at..view.shape()[dim]))
}
