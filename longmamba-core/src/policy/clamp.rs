/// The number of values that the top `percent` of `len` values are, at least one.
pub(super) fn top_count(len: usize, percent: f64) -> usize {
    // A saturating cast: NaN and negative percentages give 0 and thus one value.
    ((len as f64 * percent / 100.0) as usize).clamp(1, len.max(1))
}

/// Δ ← min(Δ, q), where q is the smallest of the top `percent` of the values, that is, the
/// `max(1, floor(len · percent / 100))`-th largest. Returns q, or 0 for no values.
///
/// The smaller the percentage the less is clamped: where it names one value, nothing is; at 100 all
/// values become the smallest.
///
/// ```
/// # use longmamba_core::policy::clamp_top_percent;
/// let mut delta = [1.0, 4.0, 2.0, 3.0];
/// assert_eq!(clamp_top_percent(&mut delta, 50.0), 3.0);
/// assert_eq!(delta, [1.0, 3.0, 2.0, 3.0]);
/// ```
pub fn clamp_top_percent(delta: &mut [f32], percent: f64) -> f32 {
    if delta.is_empty() {
        return 0.0;
    }
    let mut order = delta.to_vec();
    let at = top_count(order.len(), percent) - 1;
    let (_, &mut level, _) = order.select_nth_unstable_by(at, |a, b| b.total_cmp(a));
    delta.iter_mut().for_each(|v| *v = v.min(level));
    level
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Profile;
    use proptest::prelude::*;

    #[test]
    fn the_share_is_rounded_down_to_at_least_one() {
        for (len, percent, count) in
            [(2000, 5.0, 100), (256, 5.0, 12), (4, 5.0, 1), (1, 100.0, 1), (7, 100.0, 7)]
        {
            assert_eq!(top_count(len, percent), count);
        }
    }

    proptest! {
        #[test]
        fn clamping_leaves_at_least_the_count_at_the_level(
            values in prop::collection::vec(0.0f32..4.0, 1..80),
            percent in 0.01f64..100.0,
        ) {
            let mut clamped = values.clone();
            let level = clamp_top_percent(&mut clamped, percent);
            let count = top_count(values.len(), percent);
            prop_assert!(clamped.iter().filter(|&&v| v == level).count() >= count);
            prop_assert!(values.iter().filter(|&&v| v > level).count() < count);
            prop_assert!(clamped.iter().zip(&values).all(|(&c, &v)| c == v.min(level)));
            prop_assert_eq!(Profile::new(&values, percent).clamp(), level);
        }
    }
}
