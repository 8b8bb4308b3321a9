//! LAMB (ACL 2025, "A Training-Free Method to Enhance the Long-Context Understanding of SSMs via
//! Attention-Guided Token Filtering"): in global channels, the tokens are kept that the hidden attention of
//! the last tokens favours, instead of those with a large Δ.
//!
//! Its public abstract says what guides the filter and no more, so these are inferred. *Attention*: for
//! channel c, query t and token s it is `Δ_s · C_t · (Π_{k=s+1..t} Ā_k) · B_s`; a token's weight is the mean
//! of its size over the last `queries` tokens, which are always kept. *Channels*: those that LongMamba's
//! plan calls global. *How many*: from the largest weight down, as long as the kept tokens decay the state
//! no more than a text of the training length did in calibration, which is LongMamba's own aim. *When*: in
//! prompts that LongMamba would filter, and not after them.
//!
//! It ranks all tokens of a prompt, so the prompt goes through as one chunk. The attention of k queries
//! costs about as much as k scans of the global channels on the processor, whatever the device; it grows
//! with the prompt's length, not with its square.

use super::{Entry, Method, Rates, Reading, Scan, Selection};
use crate::config::Config;
use crate::{Error, Result};
use longmamba_core::policy::{Fingerprint, Plan, log_score_per_head, log_score_per_state};
use rayon::prelude::*;
use std::fmt;
use std::sync::Arc;

/// LAMB over a calibrated plan.
#[derive(Clone, PartialEq)]
pub struct Lamb {
    plan: Arc<Plan>,
    queries: usize,
    decay: bool,
}

/// In [`ALL`](super::ALL).
pub const ENTRY: Entry = Entry {
    name: "lamb",
    about: "Global channels forget tokens that the last ones do not attend to; needs a plan: queries=16:decay=true",
    build: |settings, context| {
        let (queries, decay) = (settings.take("queries", 16)?, settings.take("decay", true)?);
        Ok(Some(Arc::new(Lamb::new(context.plan("lamb")?, queries, decay)?)))
    },
};

impl Lamb {
    /// With the attention of the last `queries` tokens; without `decay`, as if Ā were 1: what a token would
    /// be to them, had nothing come between.
    ///
    /// # Errors
    /// [`Error::Argument`] for none.
    pub fn new(plan: Arc<Plan>, queries: usize, decay: bool) -> Result<Self> {
        match queries {
            0 => Err(Error::argument("method lamb: queries is 0, must be at least 1")),
            _ => Ok(Lamb { plan, queries, decay }),
        }
    }
}

impl Method for Lamb {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn identity(&self) -> String {
        format!("{self:?} {}", crate::snapshot::digest(&self.plan.to_bytes()))
    }

    fn check(&self, _: &Config, model: &Fingerprint) -> Result<()> {
        Ok(self.plan.check(model)?)
    }

    fn needs_whole(&self) -> bool {
        true
    }

    fn rewrites(&self, layer: usize, reading: Reading) -> bool {
        let Reading::Prompt(total) = reading else { return false };
        let channels = self.plan.fingerprint().channels;
        total > self.plan.train_len()
            && total >= self.plan.min_total_len()
            && (0..channels).any(|channel| self.plan.is_global(layer, channel))
    }

    fn rewrite(&self, layer: usize, scan: &Scan<'_>, delta: &mut [f32]) -> Result<()> {
        let Scan { rows, channels, .. } = *scan;
        let Some(table) = self.plan.layers().get(layer) else { return Ok(()) };
        let selection = scan.selection()?;
        let attention = Attention::new(&selection, rows, channels, self.queries, self.decay);
        let global: Vec<usize> = (0..channels).filter(|&c| self.plan.is_global(layer, c)).collect();
        let dropped: Vec<(usize, Vec<usize>)> = global
            .into_par_iter()
            .map(|channel| {
                let column: Vec<f32> =
                    delta.iter().skip(channel).step_by(channels).copied().collect();
                let weights = attention.weights(channel, &column);
                let least = table.log_scores[channel];
                let decay = |token: usize| attention.log_decay(channel, column[token]);
                (channel, unattended(&weights, rows, least, decay))
            })
            .collect();
        for (channel, tokens) in dropped {
            for token in tokens {
                delta[token * channels + channel] = 0.0;
            }
        }
        Ok(())
    }
}

/// Without the plan's tables, which are long.
impl fmt::Debug for Lamb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lamb")
            .field("theta", &self.plan.theta())
            .field("queries", &self.queries)
            .field("decay", &self.decay)
            .finish_non_exhaustive()
    }
}

/// Which of `rows` tokens a channel drops. Those past `weights` stay; of the others, from the largest
/// weight down, as many as keep the sum of `decay` from falling below `least`. Of equals the later stays.
fn unattended(
    weights: &[f64],
    rows: usize,
    least: f64,
    decay: impl Fn(usize) -> f64,
) -> Vec<usize> {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_unstable_by(|&a, &b| weights[b].total_cmp(&weights[a]).then(b.cmp(&a)));
    let mut sum: f64 = (weights.len()..rows).map(&decay).sum();
    let kept = order.iter().take_while(|&&token| {
        sum += decay(token);
        sum >= least
    });
    let kept = kept.count();
    order.split_off(kept)
}

/// The hidden attention of the last queries of a layer.
struct Attention<'a> {
    selection: &'a Selection,
    /// Channels of a group.
    group: usize,
    /// The first query; all after it are queries too.
    first: usize,
    rows: usize,
    decay: bool,
}

impl<'a> Attention<'a> {
    fn new(
        selection: &'a Selection,
        rows: usize,
        channels: usize,
        queries: usize,
        decay: bool,
    ) -> Self {
        let first = rows.saturating_sub(queries);
        Attention { selection, group: channels / selection.groups, first, rows, decay }
    }

    /// The channel's B or C of a token.
    fn of(&self, values: &'a [f32], token: usize, channel: usize) -> &'a [f32] {
        let Selection { groups, d_state, .. } = *self.selection;
        &values[(token * groups + channel / self.group) * d_state..][..d_state]
    }

    /// The decay rates of a channel: one for all states, or one each.
    fn rates(&self, channel: usize) -> &[f32] {
        match &self.selection.rates {
            Rates::PerHead(a) => &a[channel..=channel],
            Rates::PerState { a, d_state } => &a[channel * d_state..][..*d_state],
        }
    }

    /// The logarithm of a token's decay, as LongMamba's scores have it.
    fn log_decay(&self, channel: usize, delta: f32) -> f64 {
        match self.rates(channel) {
            [a] => log_score_per_head(*a, delta.into()),
            a => log_score_per_state(a, &[delta]),
        }
    }

    /// The weight of each token before the first query, Δ of the channel being `delta`.
    fn weights(&self, channel: usize, delta: &[f32]) -> Vec<f64> {
        let Selection { b, c, d_state, .. } = self.selection;
        let rate = {
            let rates = self.rates(channel);
            move |n: usize| f64::from(rates[n % rates.len()])
        };
        let passed = |token: usize| if self.decay { f64::from(delta[token]) } else { 0.0 };
        // C of each query, decayed back to the first of them.
        let mut since = 0.0;
        let mut queries = Vec::with_capacity((self.rows - self.first) * d_state);
        for token in self.first..self.rows {
            if token > self.first {
                since += passed(token);
            }
            let c = self.of(c, token, channel).iter().enumerate();
            queries.extend(c.map(|(n, &c)| f64::from(c) * (rate(n) * since).exp()));
        }
        let mut weights = vec![0.0; self.first];
        let mut key = vec![0.0; *d_state];
        let mut since = 0.0;
        for token in (0..self.first).rev() {
            since += passed(token + 1);
            let one_for_all = self.rates(channel).len() == 1;
            let decay = if one_for_all { (rate(0) * since).exp() } else { 0.0 };
            for (n, (key, &b)) in key.iter_mut().zip(self.of(b, token, channel)).enumerate() {
                let decay = if one_for_all { decay } else { (rate(n) * since).exp() };
                *key = f64::from(b) * decay;
            }
            let attention =
                |query: &[f64]| query.iter().zip(&key).map(|(q, k)| q * k).sum::<f64>().abs();
            let sum: f64 = queries.chunks_exact(*d_state).map(attention).sum();
            weights[token] = sum * f64::from(delta[token]) / (self.rows - self.first) as f64;
        }
        weights
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn random(rng: &mut fastrand::Rng, len: usize, low: f32, high: f32) -> Vec<f32> {
        (0..len).map(|_| low + (high - low) * rng.f32()).collect()
    }

    /// The definition, token by token and factor by factor.
    fn brute_force(
        selection: &Selection,
        channel: usize,
        delta: &[f32],
        [channels, queries]: [usize; 2],
        decays: bool,
    ) -> Vec<f64> {
        let Selection { b, c, groups, d_state, rates } = selection;
        let rows = delta.len();
        let first = rows.saturating_sub(queries);
        let a = |n: usize| match rates {
            Rates::PerHead(a) => f64::from(a[channel]),
            Rates::PerState { a, d_state } => f64::from(a[channel * d_state + n]),
        };
        let group = channel * groups / channels;
        let at = |values: &[f32], t: usize, n: usize| {
            f64::from(values[(t * groups + group) * d_state + n])
        };
        let weight = |s: usize| {
            let attention = |t: usize| {
                let mut sum = 0.0;
                for n in 0..*d_state {
                    let decay: f64 =
                        (s + 1..=t).map(|k| (f64::from(delta[k]) * a(n)).exp()).product();
                    let decay = if decays { decay } else { 1.0 };
                    sum += at(c, t, n) * decay * f64::from(delta[s]) * at(b, s, n);
                }
                sum.abs()
            };
            (first..rows).map(attention).sum::<f64>() / (rows - first) as f64
        };
        (0..first).map(weight).collect()
    }

    proptest! {
        #[test]
        fn weights_are_hidden_attention(
            per_state in any::<bool>(),
            seed in any::<u64>(),
            rows in 1usize..40,
            queries in 1usize..8,
            d_state in 1usize..6,
            groups in 1usize..3,
            decay in any::<bool>(),
        ) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let groups = if per_state { 1 } else { groups };
            let channels = 2 * groups;
            let rates = match per_state {
                true => {
                    let a = random(&mut rng, channels * d_state, -2.0, 0.0);
                    Rates::PerState { a, d_state }
                }
                false => Rates::PerHead(random(&mut rng, channels, -2.0, 0.0)),
            };
            let selection = Selection {
                b: random(&mut rng, rows * groups * d_state, -1.0, 1.0),
                c: random(&mut rng, rows * groups * d_state, -1.0, 1.0),
                groups,
                d_state,
                rates,
            };
            let attention = Attention::new(&selection, rows, channels, queries, decay);
            for channel in 0..channels {
                let delta = random(&mut rng, rows, 0.0, 1.0);
                let expected = brute_force(&selection, channel, &delta, [channels, queries], decay);
                let weights = attention.weights(channel, &delta);
                prop_assert_eq!(weights.len(), expected.len());
                for (w, e) in weights.iter().zip(&expected) {
                    prop_assert!((w - e).abs() <= 1e-9 * e.max(1e-6), "{w} for {e}");
                }
            }
        }

        #[test]
        fn as_many_stay_as_decay_allows(
            weights in prop::collection::vec(0.0f64..1.0, 0..30),
            more in 1usize..5,
            least in -20.0f64..0.0,
        ) {
            let rows = weights.len() + more;
            let decay = |token: usize| -0.1 * (1 + token % 5) as f64;
            let dropped = unattended(&weights, rows, least, decay);
            let lightest_kept = (0..weights.len())
                .filter(|t| !dropped.contains(t))
                .map(|t| weights[t])
                .fold(f64::INFINITY, f64::min);
            prop_assert!(dropped.iter().all(|&t| t < weights.len() && weights[t] <= lightest_kept));
            let kept: Vec<usize> = (0..rows).filter(|t| !dropped.contains(t)).collect();
            let sum: f64 = kept.iter().map(|&t| decay(t)).sum();
            prop_assert!(sum >= least - 1e-12 || kept.len() == more, "{sum} < {least}");
            if let Some(&next) = dropped.first() {
                prop_assert!(sum + decay(next) < least + 1e-12, "one more would have fitted");
            }
        }
    }
}
