use crate::{Error, Result, Shape};

/// ln exp(A·ΣΔ) = A·ΣΔ: the logarithm of a Mamba-2 head's decay over a window.
///
/// `delta_sum` is ΣΔ after the clamp. The logarithm is kept because the decay itself underflows.
pub fn log_score_per_head(a: f32, delta_sum: f64) -> f64 {
    f64::from(a) * delta_sum
}

/// `Σ_t ln mean_n exp(Δ_t·A[n])`: the logarithm of a Mamba-1 channel's decay over a window, its
/// `d_state` states averaged token by token.
///
/// `delta` is `[tokens]`, after the clamp, finite and ≥ 0; `a` is `[d_state]`, finite and ≤ 0. 0 where
/// there is no state.
pub fn log_score_per_state(a: &[f32], delta: &[f32]) -> f64 {
    let slowest = a.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if a.is_empty() {
        return 0.0;
    }
    // exp(Δ·A[n]) = exp(Δ·slowest) · exp(Δ·(A[n] − slowest)): the first factor goes into the sum as a
    // logarithm; the mean of the second lies in [1/d_state, 1] and cannot underflow.
    let slowest = f64::from(slowest);
    let mut sum = slowest * delta.iter().map(|&v| f64::from(v)).sum::<f64>();
    // One logarithm for the product of 16 means, each above 2^-63: no underflow either.
    for tokens in delta.chunks(16) {
        let product: f64 = tokens
            .iter()
            .map(|&delta| {
                let delta = f64::from(delta);
                let terms = a.iter().map(|&a| (delta * (f64::from(a) - slowest)).exp());
                terms.sum::<f64>() / a.len() as f64
            })
            .product();
        sum += product.ln();
    }
    sum
}

/// The decay rates of one layer's channels.
#[derive(Clone, Copy, Debug)]
pub enum Decay<'a> {
    /// Mamba-2: A of each head, `[channels]`.
    PerHead(&'a [f32]),
    /// Mamba-1: A of each channel and state.
    PerState {
        /// `[channels, d_state]`, row-major.
        a: &'a [f32],
        /// The states of one channel.
        d_state: usize,
    },
}

impl Decay<'_> {
    pub(super) fn check(&self, channels: usize) -> Result<()> {
        let (values, expected) = match *self {
            Decay::PerHead(a) => (a, Shape::from([channels])),
            Decay::PerState { a, d_state } => (a, Shape::from([channels, d_state])),
        };
        if expected.elements() != Some(values.len()) || values.is_empty() {
            return Err(Error::Shape { tensor: "A", expected, actual: [values.len()].into() });
        }
        if let Some(index) = values.iter().position(|&a| !(a <= 0.0 && a.is_finite())) {
            let (value, allowed) = (values[index].into(), "a finite number ≤ 0");
            return Err(Error::Value { tensor: "A", index, value, allowed });
        }
        Ok(())
    }

    /// Over one channel's clamped Δ and its sum.
    pub(super) fn log_score(&self, channel: usize, delta: &[f32], delta_sum: f64) -> f64 {
        match *self {
            Decay::PerHead(a) => log_score_per_head(a[channel], delta_sum),
            Decay::PerState { a, d_state } => {
                log_score_per_state(&a[channel * d_state..][..d_state], delta)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scores_that_underflow_keep_their_order() {
        let delta = [30.0f32; 2000];
        // exp(−60000) and exp(−120000) are both 0 in f64.
        assert_eq!(log_score_per_state(&[-1.0; 16], &delta), -60_000.0);
        assert_eq!(log_score_per_state(&[-2.0; 16], &delta), -120_000.0);
        assert_eq!(log_score_per_head(-2.0, 60_000.0), -120_000.0);
        // One slow state of four: mean = (1 + 3·0)/4.
        let log = log_score_per_state(&[0.0, -1e6, -1e6, -1e6], &delta);
        assert!((log - 2000.0 * 0.25f64.ln()).abs() < 1e-9, "{log}");
    }

    proptest! {
        #[test]
        fn per_state_is_the_plain_product_where_that_does_not_underflow(
            delta in prop::collection::vec(0.0f32..0.5, 1..60),
            a in prop::collection::vec(-4.0f32..0.0, 1..20),
        ) {
            let mean = |d: f32| {
                let terms = a.iter().map(|&a| (f64::from(d) * f64::from(a)).exp());
                terms.sum::<f64>() / a.len() as f64
            };
            let plain: f64 = delta.iter().map(|&d| mean(d)).product();
            prop_assert!((log_score_per_state(&a, &delta) - plain.ln()).abs() < 1e-9);
        }
    }
}
