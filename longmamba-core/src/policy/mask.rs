use crate::{Error, Result, Shape};

/// Whether a token with step `delta` is kept under the threshold `delta_min`.
///
/// Kept strictly above the threshold. A threshold of 0 or less is no threshold: it keeps every token,
/// those with Δ = 0 included. A NaN never passes a threshold.
///
/// ```
/// use longmamba_core::policy::kept;
/// assert!(kept(0.3, 0.2) && !kept(0.2, 0.2));
/// assert!(kept(0.0, 0.0));
/// ```
#[inline(always)]
pub fn kept(delta: f32, delta_min: f32) -> bool {
    delta_min <= 0.0 || delta > delta_min
}

/// Sets Δ to 0 wherever it is not [`kept`]: such a token neither decays nor updates the state.
///
/// `delta` is `[tokens, channels]`, row-major, after softplus; `delta_min` is `[channels]`. Masking
/// again changes nothing.
///
/// # Errors
/// [`Error::Shape`] where `delta` is not a whole number of rows of `delta_min`'s length.
pub fn mask(delta: &mut [f32], delta_min: &[f32]) -> Result<()> {
    let channels = delta_min.len();
    if channels == 0 && delta.is_empty() {
        return Ok(());
    }
    if channels == 0 || !delta.len().is_multiple_of(channels) {
        let tokens = delta.len().checked_div(channels).unwrap_or(0);
        let expected = Shape::from([tokens, channels]);
        return Err(Error::Shape { tensor: "delta", expected, actual: [delta.len()].into() });
    }
    for row in delta.chunks_exact_mut(channels) {
        for (value, &min) in row.iter_mut().zip(delta_min) {
            if !kept(*value, min) {
                *value = 0.0;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn strictly_above_or_no_threshold() {
        assert!(kept(f32::MIN_POSITIVE, 0.0) && kept(0.0, 0.0) && kept(0.0, -1.0));
        assert!(!kept(0.5, 0.5) && kept(0.5f32.next_up(), 0.5) && !kept(0.5f32.next_down(), 0.5));
        assert!(!kept(f32::NAN, 0.5) && !kept(1e30, f32::INFINITY));
    }

    #[test]
    fn each_channel_has_its_own_threshold() {
        let mut delta = [0.1, 0.1, 0.1, 0.3, 0.3, 0.3];
        mask(&mut delta, &[0.0, 0.1, 0.2]).unwrap();
        assert_eq!(delta, [0.1, 0.0, 0.0, 0.3, 0.3, 0.3]);
    }

    #[test]
    fn ragged_rows_are_an_error() {
        assert!(matches!(
            mask(&mut [0.0; 5], &[0.0; 2]),
            Err(Error::Shape { tensor: "delta", .. })
        ));
        assert!(mask(&mut [0.0; 5], &[]).is_err());
        assert!(mask(&mut [], &[]).is_ok() && mask(&mut [], &[0.0]).is_ok());
    }

    proptest! {
        #[test]
        fn masking_twice_is_masking_once(
            delta_min in prop::collection::vec(-0.5f32..2.0, 1..6),
            values in prop::collection::vec(prop_oneof![Just(0.0f32), Just(1.0), 0.0f32..3.0], 0..60),
        ) {
            let mut once = values;
            once.truncate(once.len() / delta_min.len() * delta_min.len());
            mask(&mut once, &delta_min).unwrap();
            let mut twice = once.clone();
            mask(&mut twice, &delta_min).unwrap();
            prop_assert_eq!(once, twice);
        }
    }
}
