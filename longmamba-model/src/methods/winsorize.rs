//! Winsorization of A: each layer's decay rates are clipped to a range of their own percentiles, so that
//! no state decays much faster or slower than most. No data, no tuning.
//!
//! After "Data-Free Transition-Spectrum Winsorization for Mamba Long-Context Generalization", whose
//! abstract gives the idea and 17.5 % of changed channels. Inferred: that the percentiles are those of A
//! itself (those of exp(A) pick the same values but for interpolation) over all states of a layer, linear
//! between neighbours, and the default range, which changes about that share. Works with a prompt in any
//! chunks, at no cost.

use super::{Entry, Method, Own};
use crate::config::Config;
use crate::{Error, Result};
use longmamba_core::policy::Fingerprint;
use std::sync::Arc;

/// Winsorization to percentiles `low` to `high`.
#[derive(Clone, Debug, PartialEq)]
pub struct Winsorize {
    low: f64,
    high: f64,
}

/// In [`ALL`](super::ALL).
pub const ENTRY: Entry = Entry {
    name: "winsorize",
    about: "A clipped to percentiles: low=8:high=92",
    build: |settings, _| {
        let Winsorize { low, high } = Winsorize::default();
        let (low, high) = (settings.take("low", low)?, settings.take("high", high)?);
        Ok(Some(Arc::new(Winsorize::new(low, high)?)))
    },
};

impl Default for Winsorize {
    fn default() -> Self {
        Winsorize { low: 8.0, high: 92.0 }
    }
}

impl Winsorize {
    /// To percentiles `low` to `high`; 0 and 100 change nothing.
    ///
    /// # Errors
    /// [`Error::Argument`] where they are not in order from 0 to 100.
    pub fn new(low: f64, high: f64) -> Result<Self> {
        if !(0.0 <= low && low <= high && high <= 100.0) {
            return Err(Error::argument(format!(
                "winsorize from percentile {low} to {high}: they must be in order, from 0 to 100"
            )));
        }
        Ok(Winsorize { low, high })
    }

    fn clipped(&self, a: Vec<f32>) -> Vec<f32> {
        let mut sorted = a.clone();
        sorted.sort_unstable_by(f32::total_cmp);
        let (low, high) = (percentile(&sorted, self.low), percentile(&sorted, self.high));
        a.into_iter().map(|rate| rate.clamp(low, high)).collect()
    }
}

impl Method for Winsorize {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn check(&self, _: &Config, _: &Fingerprint) -> Result<()> {
        Ok(())
    }

    fn rates(&self, _: usize, own: Own<'_>) -> Result<Option<Vec<f32>>> {
        Ok(Some(self.clipped(own()?)))
    }
}

/// Linear between the two values around it; `sorted` ascends and has one at least.
fn percentile(sorted: &[f32], percent: f64) -> f32 {
    let place = (sorted.len() - 1) as f64 * percent / 100.0;
    let below = place as usize;
    let above = (below + 1).min(sorted.len() - 1);
    let (low, high) = (f64::from(sorted[below]), f64::from(sorted[above]));
    (low + (high - low) * place.fract()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let a = [-5.0, -1.0, -4.0, -2.0, -3.0];
        let clipped = |a: &[f32], low, high| Winsorize::new(low, high).unwrap().clipped(a.to_vec());
        assert_eq!(clipped(&a, 0.0, 100.0), a);
        assert_eq!(clipped(&a, 25.0, 75.0), [-4.0, -2.0, -4.0, -2.0, -3.0]);
        // A fifth of the way from -5 to -4, and the same from the other end.
        assert_eq!(clipped(&a, 5.0, 95.0), [-4.8, -1.2, -4.0, -2.0, -3.0]);
        assert_eq!(clipped(&a, 50.0, 50.0), [-3.0; 5]);
        assert_eq!(clipped(&[-2.0], 10.0, 90.0), [-2.0]);
        assert_eq!(clipped(&[-7.0; 4], 8.0, 92.0), [-7.0; 4]);
    }

    #[test]
    fn a_range_is_in_order() {
        for (low, high) in [(-1.0, 50.0), (60.0, 50.0), (0.0, 101.0), (f64::NAN, 50.0)] {
            let error = Winsorize::new(low, high).unwrap_err().to_string();
            assert!(error.contains("in order"), "{error}");
        }
        assert!(Winsorize::new(0.0, f64::NAN).is_err());
    }
}
