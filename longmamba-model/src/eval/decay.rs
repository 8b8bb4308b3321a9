//! Cumulative decay (the LongMamba paper's figure 4): what is left, at token t, of what a channel's state held
//! before the text, `exp(A·Σ_{k≤t} Δ_k)`.
//!
//! A Mamba-1 channel has a decay rate a state; as in LongMamba's scores each token's decay is the mean over
//! the states. At t = L it is the channel's score, but for the clamp that scores have.

use super::channel_scan::{ChannelScan, Place};
use longmamba_core::policy::{Plan, log_score_per_head, log_score_per_state};

/// The decay of one channel, at some tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct CumulativeDecay {
    /// How many tokens were read, ascending; the last is all of them.
    pub tokens: Vec<usize>,
    /// log10 of what is left after them, ≤ 0. The decay itself underflows.
    pub log10: Vec<f64>,
}

impl CumulativeDecay {
    /// At no more than `points` places, evenly over the text; at none without tokens or points.
    pub fn new(scan: &ChannelScan, points: usize) -> Self {
        let total = scan.delta.len();
        let points = points.min(total);
        let mut decay = CumulativeDecay { tokens: Vec::new(), log10: Vec::new() };
        let mut log = 0.0;
        for (index, &delta) in scan.delta.iter().enumerate() {
            log += match scan.rates[..] {
                [rate] => log_score_per_head(rate, delta.into()),
                _ => log_score_per_state(&scan.rates, &[delta]),
            };
            // Point i is after ⌈i·total / points⌉ tokens.
            let due = (decay.tokens.len() + 1) as u128 * total as u128;
            if ((index + 1) as u128 * points as u128) >= due {
                decay.tokens.push(index + 1);
                decay.log10.push(log / std::f64::consts::LN_10);
            }
        }
        decay
    }
}

/// `count` of the global channels, evenly over all from the first layer to the last; of one layer where that is
/// given. Fewer where there are fewer.
pub fn sampled_global(plan: &Plan, layer: Option<usize>, count: usize) -> Vec<Place> {
    let channels = plan.fingerprint().channels;
    let layers = (0..plan.layers().len()).filter(|l| layer.is_none_or(|only| only == *l));
    let all: Vec<Place> = layers
        .flat_map(|layer| (0..channels).map(move |channel| Place { layer, channel }))
        .filter(|place| plan.is_global(place.layer, place.channel))
        .collect();
    let count = count.min(all.len());
    (0..count).map(|i| all[i * all.len() / count]).collect()
}

/// The channel with the highest score: of one layer where that is given. `None` where the plan has no such
/// layer.
pub fn most_global(plan: &Plan, layer: Option<usize>) -> Option<Place> {
    let tables = plan.layers().iter().enumerate();
    let scores =
        tables.filter(|(l, _)| layer.is_none_or(|only| only == *l)).flat_map(|(l, table)| {
            let scores = table.log_scores.iter().enumerate();
            scores.map(move |(channel, score)| (Place { layer: l, channel }, *score))
        });
    // Of equals the first.
    scores.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::super::attention_map::tests::random;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decay_is_a_product(
            seed in any::<u64>(),
            tokens in 0usize..60,
            d_state in 2usize..6,
            per_state in any::<bool>(),
            points in 1usize..70,
        ) {
            let scan = random(seed, tokens, d_state, per_state);
            let decay = CumulativeDecay::new(&scan, points);
            prop_assert_eq!(decay.tokens.len(), points.min(tokens));
            prop_assert!(tokens == 0 || decay.tokens.last() == Some(&tokens));
            prop_assert!(decay.tokens.is_sorted_by(|a, b| a < b));
            for (&t, log10) in decay.tokens.iter().zip(&decay.log10) {
                let mean = |&delta: &f32| {
                    let states = scan.rates.iter().map(|a| (f64::from(*a) * f64::from(delta)).exp());
                    states.sum::<f64>() / scan.rates.len() as f64
                };
                let left: f64 = scan.delta[..t].iter().map(mean).product();
                prop_assert!((log10 - left.log10()).abs() < 1e-9, "{log10} for {left}");
            }
        }
    }
}
