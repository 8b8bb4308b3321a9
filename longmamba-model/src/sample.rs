//! The next token from the logits.

use crate::{Error, Result};

/// How the next token is drawn. The steps are taken in this order: banned tokens go, logits are
/// divided by the temperature, then top-k, top-p and min-p each keep a part of what is left, of which
/// [one number draws a token](Sampler::sample_at).
#[derive(Clone, Debug, PartialEq)]
pub struct SampleOptions {
    /// Logits are divided by it. 0 takes the most likely token.
    pub temperature: f32,
    /// Keep the k most likely tokens.
    pub top_k: Option<usize>,
    /// Keep the fewest most likely tokens that together have at least this share, in (0, 1]. 1 keeps
    /// all.
    pub top_p: f32,
    /// Keep the tokens with at least this share of the probability of the most likely one, in [0, 1].
    /// 0 keeps all.
    pub min_p: f32,
    /// Tokens that are never drawn.
    pub banned: Vec<u32>,
    /// The same seed draws the same tokens.
    pub seed: u64,
}

impl Default for SampleOptions {
    /// Greedy.
    fn default() -> Self {
        SampleOptions {
            temperature: 0.0,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            banned: Vec::new(),
            seed: 0,
        }
    }
}

/// Draws tokens. Allocates at the first token only.
///
/// ```
/// # use longmamba_model::{SampleOptions, Sampler};
/// let mut greedy = Sampler::new(SampleOptions::default())?;
/// assert_eq!(greedy.sample(&[0.5, 2.0, 2.0, -1.0])?, 1);
/// # Ok::<(), longmamba_model::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SampleOptions,
    random: fastrand::Rng,
    candidates: Vec<Candidate>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    token: u32,
    logit: f32,
    /// Relative to the most likely token's.
    weight: f64,
}

impl Candidate {
    /// More likely first, and the lower id of equals.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        other.logit.total_cmp(&self.logit).then(self.token.cmp(&other.token))
    }
}

impl Sampler {
    /// Checks the options.
    ///
    /// # Errors
    /// [`Error::Argument`], which names the option and its range.
    pub fn new(options: SampleOptions) -> Result<Self> {
        let SampleOptions { temperature, top_k, top_p, min_p, .. } = options;
        let refuse = |why: String| Err(Error::argument(why));
        if !(temperature >= 0.0 && temperature.is_finite()) {
            return refuse(format!("temperature is {temperature}, must be finite and ≥ 0"));
        }
        if top_k == Some(0) {
            return refuse("top_k is 0, must keep at least one token".into());
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return refuse(format!("top_p is {top_p}, must be above 0 and at most 1"));
        }
        if !(0.0..=1.0).contains(&min_p) {
            return refuse(format!("min_p is {min_p}, must be between 0 and 1"));
        }
        let random = fastrand::Rng::with_seed(options.seed);
        Ok(Sampler { options, random, candidates: Vec::new() })
    }

    /// The options.
    pub fn options(&self) -> &SampleOptions {
        &self.options
    }

    /// Draws a token: [`sample_at`](Self::sample_at) the seed's next number.
    ///
    /// # Errors
    /// As [`Sampler::sample_at`].
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        let uniform = self.uniform();
        self.sample_at(logits, uniform)
    }

    /// The number of the next draw, in [0, 1). Every draw takes one, wherever and whatever it draws.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.random.f64()
    }

    /// The token that `uniform`, in [0, 1), draws; every device gives the same.
    ///
    /// The kept tokens lie side by side, each as wide as its probability, in order of their ids or, where
    /// top-k or top-p may leave out some, the most likely first; the token is the one at that share of
    /// the whole. Of equals, the one with the lower id counts as more likely. Temperature 0 takes the
    /// most likely for any number.
    ///
    /// # Errors
    /// [`Error::Logit`] where a logit is NaN or +∞, [`Error::Argument`] where no token is left to draw.
    pub fn sample_at(&mut self, logits: &[f32], uniform: f64) -> Result<u32> {
        let best = self.collect(logits)?;
        let SampleOptions { temperature, top_k, top_p, .. } = self.options;
        if temperature == 0.0 {
            return Ok(best.token);
        }
        let target = uniform * self.keep_likely(best);
        let passed = |mass| mass > target;
        let (count, _) = match top_p < 1.0 || top_k.is_some_and(|k| k < logits.len()) {
            true => self.rank(passed),
            false => prefix(&self.candidates, passed),
        };
        // Rounding can leave the sum of all just below; what cannot be drawn is not, even then.
        let drawn = self.candidates[..count].iter().rfind(|c| c.weight > 0.0);
        Ok(drawn.map_or(best.token, |d| d.token))
    }

    /// All tokens that may be drawn, in order of id; returns the most likely.
    fn collect(&mut self, logits: &[f32]) -> Result<Candidate> {
        if let Some(token) = logits.iter().position(|l| l.is_nan() || *l == f32::INFINITY) {
            return Err(Error::Logit { token, value: logits[token] });
        }
        self.candidates.clear();
        // −0 + 0 is 0: the two zeros are equals.
        let candidate = |(&logit, token)| Candidate { token, logit: logit + 0.0, weight: 0.0 };
        let all = logits.iter().zip(0..).map(candidate);
        self.candidates.extend(all);
        for &banned in &self.options.banned {
            if let Some(candidate) = self.candidates.get_mut(banned as usize) {
                candidate.logit = f32::NEG_INFINITY;
            }
        }
        let best = self.candidates.iter().min_by(|a, b| a.order(b)).copied();
        best.filter(|b| b.logit > f32::NEG_INFINITY).ok_or_else(|| {
            Error::argument("no token can be drawn: all are banned or have the logit −∞")
        })
    }

    /// Cuts the candidates down to those that top-k, top-p and min-p keep; returns their weight.
    fn keep_likely(&mut self, best: Candidate) -> f64 {
        let SampleOptions { temperature, top_k, top_p, min_p, .. } = self.options;
        if let Some(k) = top_k {
            self.select(k);
        }
        let (scale, top) = (1.0 / f64::from(temperature), f64::from(best.logit));
        let mut mass = 0.0;
        for candidate in &mut self.candidates {
            candidate.weight = ((f64::from(candidate.logit) - top) * scale).exp();
            mass += candidate.weight;
        }
        if top_p < 1.0 {
            mass = self.keep_mass(mass * f64::from(top_p));
        }
        if min_p > 0.0 {
            self.candidates.retain(|c| c.weight >= f64::from(min_p));
            mass = self.candidates.iter().map(|c| c.weight).sum();
        }
        mass
    }

    /// Keeps the `k` most likely, in no order.
    fn select(&mut self, k: usize) {
        if k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k, Candidate::order);
            self.candidates.truncate(k);
        }
    }

    /// Keeps the fewest most likely that weigh at least `wanted`; returns their weight.
    fn keep_mass(&mut self, wanted: f64) -> f64 {
        let (count, mass) = self.rank(|mass| mass >= wanted);
        self.candidates.truncate(count);
        mass
    }

    /// The [`prefix`] of the most likely, which are then the first candidates, in order.
    ///
    /// A whole vocabulary need not be sorted for that: the few dozen most likely tokens mostly do.
    fn rank(&mut self, enough: impl Fn(f64) -> bool) -> (usize, f64) {
        let all = self.candidates.len();
        let mut sorted = 64;
        loop {
            if sorted < all {
                self.candidates.select_nth_unstable_by(sorted, Candidate::order);
            }
            let head = &mut self.candidates[..sorted.min(all)];
            head.sort_unstable_by(Candidate::order);
            let (count, mass) = prefix(head, &enough);
            if sorted >= all || enough(mass) {
                return (count, mass);
            }
            sorted *= 8;
        }
    }
}

/// How many of these, from the first on, have a weight that is `enough`, and that weight. All of them
/// where even that is not: rounding can leave the sum just below.
fn prefix(candidates: &[Candidate], enough: impl Fn(f64) -> bool) -> (usize, f64) {
    let mut mass = 0.0;
    for (index, candidate) in candidates.iter().enumerate() {
        mass += candidate.weight;
        if enough(mass) {
            return (index + 1, mass);
        }
    }
    (candidates.len(), mass)
}

/// The token with the largest logit, the lower id of equals, and by how much it leads the second.
///
/// # Errors
/// [`Error::Logit`] where a logit is NaN, [`Error::Argument`] where there are none.
pub fn most_likely(logits: &[f32]) -> Result<(u32, f32)> {
    if let Some(token) = logits.iter().position(|l| l.is_nan()) {
        return Err(Error::Logit { token, value: f32::NAN });
    }
    let (mut best, mut second) = (None, f32::NEG_INFINITY);
    for (&logit, token) in logits.iter().zip(0u32..) {
        match best {
            Some((_, top)) if logit <= top => second = second.max(logit),
            Some((_, top)) => (best, second) = (Some((token, logit)), top),
            None => best = Some((token, logit)),
        }
    }
    let (token, top) = best.ok_or_else(|| Error::argument("there are no logits"))?;
    Ok((token, top - second))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sampler(options: SampleOptions) -> Sampler {
        Sampler::new(options).unwrap()
    }

    /// Logits of these probabilities.
    fn of(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln()).collect()
    }

    /// Which tokens ever come.
    fn drawn(options: SampleOptions, logits: &[f32]) -> Vec<u32> {
        let mut sampler = sampler(options);
        let mut tokens: Vec<u32> = (0..3000).map(|_| sampler.sample(logits).unwrap()).collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }

    #[test]
    fn greedy_takes_the_lowest_of_equals() {
        let mut greedy = sampler(SampleOptions::default());
        assert_eq!(greedy.sample(&[1.0, 3.0, 3.0, 2.0]).unwrap(), 1);
        assert_eq!(greedy.sample(&[-0.0, 0.0]).unwrap(), 0);
        let mut banned = sampler(SampleOptions { banned: vec![1, 2, 99], ..Default::default() });
        assert_eq!(banned.sample(&[1.0, 3.0, 3.0, 2.0]).unwrap(), 3);
        assert_eq!(most_likely(&[1.0, 3.0, 2.5, 3.0]).unwrap(), (1, 0.0));
        assert_eq!(most_likely(&[1.0, 3.0, 2.5]).unwrap(), (1, 0.5));
    }

    #[test]
    fn the_filters_keep_exactly_their_set() {
        let logits = of(&[0.05, 0.4, 0.1, 0.3, 0.15]);
        let all = SampleOptions { temperature: 1.0, ..Default::default() };
        let keeps = |o: SampleOptions| drawn(o, &logits);
        assert_eq!(keeps(all.clone()), [0, 1, 2, 3, 4]);
        assert_eq!(keeps(SampleOptions { top_k: Some(1), ..all.clone() }), [1]);
        assert_eq!(keeps(SampleOptions { top_k: Some(3), ..all.clone() }), [1, 3, 4]);
        assert_eq!(keeps(SampleOptions { top_k: Some(99), ..all.clone() }), [0, 1, 2, 3, 4]);
        assert_eq!(keeps(SampleOptions { top_p: 0.3, ..all.clone() }), [1]);
        assert_eq!(keeps(SampleOptions { top_p: 0.69, ..all.clone() }), [1, 3]);
        assert_eq!(keeps(SampleOptions { top_p: 0.71, ..all.clone() }), [1, 3, 4]);
        assert_eq!(keeps(SampleOptions { min_p: 0.3, ..all.clone() }), [1, 3, 4]);
        assert_eq!(keeps(SampleOptions { min_p: 1.0, ..all.clone() }), [1]);
        // top-p works on what top-k left: 0.4 of 0.7 is more than half.
        assert_eq!(keeps(SampleOptions { top_k: Some(2), top_p: 0.5, ..all.clone() }), [1]);
        assert_eq!(keeps(SampleOptions { banned: vec![1], min_p: 0.4, ..all.clone() }), [3, 4]);
        // Of equals the lower ids stay.
        assert_eq!(drawn(SampleOptions { top_k: Some(2), ..all.clone() }, &[0.0; 4]), [0, 1]);
        assert_eq!(drawn(SampleOptions { top_p: 0.5, ..all }, &[0.0; 4]), [0, 1]);
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let probabilities = [0.02f32, 0.28, 0.1, 0.35, 0.25];
        for temperature in [0.5f32, 1.0, 2.0] {
            let weights = probabilities.map(|p| f64::from(p).powf(1.0 / f64::from(temperature)));
            let total: f64 = weights.iter().sum();
            let mut sampler = sampler(SampleOptions { temperature, seed: 7, ..Default::default() });
            let mut counts = [0u32; 5];
            let draws = 50_000;
            for _ in 0..draws {
                counts[sampler.sample(&of(&probabilities)).unwrap() as usize] += 1;
            }
            let chi_square: f64 = weights
                .iter()
                .zip(counts)
                .map(|(w, count)| {
                    (f64::from(count) - w / total * f64::from(draws)).powi(2)
                        / (w / total * f64::from(draws))
                })
                .sum();
            // 4 degrees of freedom: 23.5 is passed once in ten thousand.
            assert!(chi_square < 23.5, "temperature {temperature}: {chi_square}, {counts:?}");
        }
    }

    #[test]
    fn a_seed_repeats_and_another_does_not() {
        let draw = |seed| {
            let mut sampler =
                sampler(SampleOptions { temperature: 1.0, seed, ..Default::default() });
            (0..50).map(|_| sampler.sample(&[0.0; 100]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn bad_logits_and_options_are_errors() {
        for temperature in [0.0, 1.0] {
            let mut s = sampler(SampleOptions { temperature, ..Default::default() });
            assert!(matches!(s.sample(&[0.0, f32::NAN]), Err(Error::Logit { token: 1, .. })));
            assert!(matches!(s.sample(&[f32::INFINITY]), Err(Error::Logit { token: 0, .. })));
            assert!(s.sample(&[f32::NEG_INFINITY; 3]).is_err());
            assert!(s.sample(&[]).is_err());
            assert_eq!(s.sample(&[f32::NEG_INFINITY, -1e30]).unwrap(), 1);
        }
        let good = SampleOptions::default();
        for (bad, name) in [
            (SampleOptions { temperature: -1.0, ..good.clone() }, "temperature"),
            (SampleOptions { temperature: f32::NAN, ..good.clone() }, "temperature"),
            (SampleOptions { top_k: Some(0), ..good.clone() }, "top_k"),
            (SampleOptions { top_p: 0.0, ..good.clone() }, "top_p"),
            (SampleOptions { top_p: 1.1, ..good.clone() }, "top_p"),
            (SampleOptions { min_p: f32::NAN, ..good.clone() }, "min_p"),
        ] {
            let error = Sampler::new(bad).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
    }

    proptest! {
        #[test]
        fn top_p_is_the_shortest_sorted_prefix(
            logits in prop::collection::vec(-8.0f32..8.0, 1..900),
            top_p in 0.01f32..0.999,
        ) {
            let mut s = sampler(SampleOptions { temperature: 1.0, top_p, ..Default::default() });
            s.sample(&logits).unwrap();
            let mut sorted: Vec<f64> = logits.iter().map(|&l| f64::from(l).exp()).collect();
            sorted.sort_unstable_by(|a, b| b.total_cmp(a));
            let wanted = sorted.iter().sum::<f64>() * f64::from(top_p);
            let kept = s.candidates.len();
            let mass = |n: usize| sorted[..n].iter().sum::<f64>();
            prop_assert!(mass(kept) >= wanted * (1.0 - 1e-9));
            prop_assert!(mass(kept - 1) <= wanted * (1.0 + 1e-9));
        }

        #[test]
        fn tokens_lie_side_by_side_by_rank_or_by_id(
            // Few values, so that there are many equals.
            logits in prop::collection::vec(
                prop_oneof![-8.0f32..8.0, (-3i8..4).prop_map(f32::from)], 1..900,
            ),
            temperature in 0.2f32..3.0,
            top_k in prop::option::of(1usize..900),
            top_p in prop_oneof![Just(1.0f32), 0.01f32..0.999],
            min_p in prop_oneof![Just(0.0f32), 0.0f32..0.5],
            banned in prop::collection::vec(0u32..900, 0..3),
            uniform in 0.0f64..1.0,
        ) {
            let options = SampleOptions { temperature, top_k, top_p, min_p, banned, seed: 0 };
            let drawn = sampler(options.clone()).sample_at(&logits, uniform);
            let mut line: Vec<(u32, f64)> = (0..).zip(logits.iter().map(|&l| f64::from(l))).collect();
            line.iter_mut().filter(|t| options.banned.contains(&t.0)).for_each(|t| t.1 = f64::NEG_INFINITY);
            // Stable: of equals the lower id stays first.
            line.sort_by(|a, b| b.1.total_cmp(&a.1));
            let top = line[0].1;
            if top == f64::NEG_INFINITY {
                prop_assert!(drawn.is_err());
                return Ok(());
            }
            line.truncate(top_k.unwrap_or(usize::MAX));
            line.iter_mut().for_each(|t| t.1 = ((t.1 - top) / f64::from(temperature)).exp());
            let sum = |line: &[(u32, f64)]| line.iter().map(|t| t.1).sum::<f64>();
            if top_p < 1.0 {
                let wanted = sum(&line) * f64::from(top_p);
                let enough = (1..line.len()).find(|&n| sum(&line[..n]) >= wanted);
                line.truncate(enough.unwrap_or(usize::MAX));
            }
            line.retain(|t| t.1 >= f64::from(min_p) && t.1 > 0.0);
            if top_p == 1.0 && top_k.is_none_or(|k| k >= logits.len()) {
                line.sort_by_key(|t| t.0);
            }
            let drawn = drawn.unwrap();
            let at = line.iter().position(|t| t.0 == drawn).unwrap();
            let target = uniform * sum(&line);
            // Sums in another order differ in the last bits.
            prop_assert!(sum(&line[..at]) <= target * (1.0 + 1e-12));
            prop_assert!(sum(&line[..=at]) >= target * (1.0 - 1e-12));
        }
    }
}
