use super::classify::{CLIFF_DECADES, Class, classify};
use std::f64::consts::LN_10;

/// A range between two neighbouring scores: every θ in it makes the same channels global, so the
/// choice of a θ is one among the gaps.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Gap {
    /// Natural logarithm of the largest score that is local.
    pub low: f64,
    /// Natural logarithm of the smallest score that is global.
    pub high: f64,
    /// How many channels are global.
    pub global: usize,
}

/// θ is not looked for below it: an `f64` can hardly tell smaller scores apart.
const SMALLEST_THETA: f64 = 1e-300;

impl Gap {
    /// The gaps of these log scores, by ascending numbers of global channels: from a θ above all scores
    /// to one below all. Beyond the outermost scores a gap ends a decade away. Left out is what has a θ
    /// below 1e-300, and what is so narrow that no `f64` lies in it.
    ///
    /// ```
    /// use longmamba_core::policy::Gap;
    /// let gaps = Gap::all([0.5f64.ln(), 0.02f64.ln(), 0.5f64.ln()]);
    /// assert_eq!(gaps.iter().map(|g| g.global).collect::<Vec<_>>(), [0, 2, 3]);
    /// assert!((gaps[1].theta() - 0.1).abs() < 1e-12);
    /// ```
    pub fn all(log_scores: impl IntoIterator<Item = f64>) -> Vec<Gap> {
        let mut scores: Vec<f64> = log_scores.into_iter().filter(|s| !s.is_nan()).collect();
        scores.sort_unstable_by(|a, b| b.total_cmp(a));
        let smallest = SMALLEST_THETA.ln();
        let end = |score: Option<&f64>, by: f64| score.map_or(f64::NAN, |s| s + by);
        let between = |global: usize| {
            let high = global.checked_sub(1).map(|above| scores[above]);
            let low = scores.get(global).copied();
            let high = high.unwrap_or_else(|| end(scores.first(), LN_10));
            let low = low.unwrap_or_else(|| end(scores.last(), -LN_10));
            Gap { low: low.max(smallest), high, global }
        };
        let exists = |gap: &Gap| {
            let class = |log_score| classify(log_score, gap.theta());
            gap.low < gap.high && class(gap.low) == Class::Local && class(gap.high) == Class::Global
        };
        (0..=scores.len()).map(between).filter(exists).collect()
    }

    /// The θ as far from both ends as can be: their middle, on a logarithmic scale.
    pub fn theta(&self) -> f64 {
        f64::midpoint(self.low, self.high).exp()
    }

    /// How wide the gap is, in powers of ten.
    pub fn decades(&self) -> f64 {
        (self.high - self.low) / LN_10
    }

    /// |log10(score / θ)| of the nearest score, for the gap's θ; outside the scores half a decade.
    pub fn decades_to_nearest(&self) -> f64 {
        self.decades() / 2.0
    }

    /// Whether even the gap's θ is near a cliff, as [`ThetaReport::near_cliff`] says it.
    ///
    /// [`ThetaReport::near_cliff`]: super::ThetaReport::near_cliff
    pub fn near_cliff(&self) -> bool {
        self.decades_to_nearest() < CLIFF_DECADES
    }
}

#[cfg(test)]
mod tests {
    use super::super::ThetaReport;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn gaps_by_hand() {
        let gaps = Gap::all([0.9, 0.89, 1e-3, 1e-3, 0.0].map(f64::ln));
        let globals: Vec<usize> = gaps.iter().map(|g| g.global).collect();
        assert_eq!(globals, [0, 1, 2, 4]);
        assert!((gaps[0].theta() - 0.9 * 10f64.sqrt()).abs() < 1e-12);
        assert_eq!(
            gaps.iter().map(Gap::near_cliff).collect::<Vec<_>>(),
            [false, true, false, false]
        );
        // Below 1e-3 is a score of 0: the gap ends where θ does.
        assert!((gaps[3].decades() - 297.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_has_no_gap_and_tiny_scores_are_together() {
        assert!(Gap::all([]).is_empty());
        assert!(Gap::all([f64::NAN]).is_empty());
        assert!(Gap::all([f64::NEG_INFINITY, -20_000.0, -5000.0]).is_empty());
        let gaps = Gap::all([-20_000.0, -5000.0, -1.0]);
        assert_eq!(gaps.iter().map(|g| g.global).collect::<Vec<_>>(), [0, 1]);
    }

    proptest! {
        #[test]
        fn gaps_are_the_classifications(
            scores in prop::collection::vec(-60.0f64..=0.0, 1..40),
            theta in 1e-30f64..1.5,
        ) {
            let gaps = Gap::all(scores.iter().copied());
            prop_assert!(gaps.is_sorted_by(|a, b| a.global < b.global));
            for gap in &gaps {
                let report = ThetaReport::new([&scores[..]], gap.theta());
                prop_assert_eq!(report.global(), gap.global);
                let off = report.decades_to_nearest - gap.decades_to_nearest();
                prop_assert!(off.abs() < 1e-9);
                if (gap.decades_to_nearest() - CLIFF_DECADES).abs() > 1e-9 {
                    prop_assert_eq!(report.near_cliff, gap.near_cliff());
                }
            }
            // Every classification has its gap, unless scores are one rounding apart.
            let global = ThetaReport::new([&scores[..]], theta).global();
            let apart = scores.iter().all(|a| scores.iter().filter(|b| (*b - a).abs() < 1e-9).count() == 1);
            prop_assert!(!apart || gaps.iter().any(|g| g.global == global));
        }
    }
}
