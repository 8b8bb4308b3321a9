use super::clamp::top_count;
use std::cmp::Reverse;

/// The lengths, in tokens, at which the published tables were made.
pub const RELEASED_LENGTHS: [usize; 25] = [
    1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000, 8_000, 10_000, 12_000, 14_000, 16_000, 20_000,
    24_000, 30_000, 36_000, 44_000, 54_000, 64_000, 80_000, 96_000, 120_000, 144_000, 168_000,
    192_000,
];

/// Δ of one channel over one calibration window of L tokens: clamped, sorted, and with its sum.
///
/// The sum σ is what the channel's state decayed over in training; [`Profile::threshold`] finds how
/// much must be forgotten of a longer text so that its sum is σ again.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// Scratch of the sort.
    keys: Vec<Reverse<u32>>,
    /// Descending.
    sorted: Vec<f64>,
    clamp: f32,
    target: f64,
}

impl Profile {
    /// The profile of `delta`, one value a token, each finite and ≥ 0, clamped as by
    /// [`clamp_top_percent`](super::clamp_top_percent).
    pub fn new(delta: &[f32], clamp_percent: f64) -> Self {
        let mut profile = Profile::default();
        profile.refill(&mut delta.to_vec(), clamp_percent);
        profile
    }

    /// Becomes the profile of `delta`, which is clamped in place; allocates nothing the second time.
    pub(super) fn refill(&mut self, delta: &mut [f32], clamp_percent: f64) {
        // The bits of numbers ≥ 0 are in the order of the numbers, and integers sort twice as
        // fast. Adding 0 makes −0 into 0.
        self.keys.clear();
        self.keys.extend(delta.iter().map(|&v| Reverse((v + 0.0).to_bits())));
        self.keys.sort_unstable();
        let value = |key: &Reverse<u32>| f32::from_bits(key.0);
        let top = top_count(delta.len(), clamp_percent);
        self.clamp = self.keys.get(top - 1).map_or(0.0, value);
        delta.iter_mut().for_each(|v| *v = v.min(self.clamp));
        self.sorted.clear();
        self.sorted.extend(self.keys.iter().map(|key| f64::from(value(key).min(self.clamp))));
        // In the order of the tokens, as the published sum.
        self.target = delta.iter().map(|&v| f64::from(v)).sum();
    }

    /// L, the number of tokens.
    pub fn train_len(&self) -> usize {
        self.sorted.len()
    }

    /// σ = Σ Δ after the clamp.
    pub fn target(&self) -> f64 {
        self.target
    }

    /// The value that Δ was clamped to from above; 0 for an empty profile.
    pub fn clamp(&self) -> f32 {
        self.clamp
    }

    /// The clamped Δ, descending.
    pub fn sorted(&self) -> &[f64] {
        &self.sorted
    }

    /// g(S): the threshold under which a text of `total_len` = S tokens with this profile of Δ adds
    /// up to about σ, as the L tokens of the window did.
    ///
    /// The sorted profile is stretched linearly to S samples with half-pixel centres, sample `i` lying
    /// at `(i + 0.5)·L/S − 0.5`, and added up from the largest on, in `f64`. Where the sum first
    /// exceeds σ, at sample k, the threshold is sample k + 1, or the last one past the end. It is 0,
    /// which keeps every token, for S ≤ L and where the sum never exceeds σ (all Δ are 0).
    ///
    /// The stretched list is never stored, and little of it is visited: k samples from the top hold
    /// at least a share k/S of a sum that is S/L times σ, so k is about L at most, however large S.
    pub fn threshold(&self, total_len: usize) -> f64 {
        if total_len <= self.train_len() || self.target == 0.0 {
            return 0.0;
        }
        let step = self.train_len() as f64 / total_len as f64;
        let mut sum = 0.0;
        for k in 0..total_len {
            sum += self.sample(k, step);
            if sum > self.target {
                return self.sample((k + 1).min(total_len - 1), step);
            }
        }
        0.0
    }

    /// Sample `i` of the profile stretched to L / `step` samples.
    fn sample(&self, i: usize, step: f64) -> f64 {
        let at = ((i as f64 + 0.5) * step - 0.5).max(0.0);
        let left = at as usize;
        let (a, b) = match self.sorted.get(left..) {
            Some([a, b, ..]) => (*a, *b),
            Some([a]) => return *a,
            // at < L − 0.5, but for rounding.
            _ => return self.sorted.last().copied().unwrap_or(0.0),
        };
        // In this form a plateau stays exactly level; the clamped top is one.
        a + (at - left as f64) * (b - a)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Δ = 1 4 2 3; sorted 4 3 2 1.
    const DELTA: [f32; 4] = [1.0, 4.0, 2.0, 3.0];

    #[test]
    fn four_tokens_by_hand() {
        // 25 % of 4 tokens: the top 1 is clamped to itself. σ = 10.
        let profile = Profile::new(&DELTA, 25.0);
        assert_eq!((profile.target(), profile.clamp()), (10.0, 4.0));
        // S = 8: positions 0 (from −.25), .25 .75 1.25 1.75 2.25 2.75, 3 (from 3.25)
        // samples 4 3.75 3.25 2.75 2.25 1.75 1.25 1; sums 4 7.75 11 > 10 at k = 2; sample 3 is 2.75.
        assert_eq!(profile.threshold(8), 2.75);
        // S = 5: positions 0 (from −.1) .7 1.5 2.3 3 (from 3.1); samples 4 3.3 2.5 1.7 1;
        // sums 4 7.3 9.8 11.5 > 10 at k = 3; sample 4 is 1.
        assert!((profile.threshold(5) - 1.0).abs() < 1e-15);
    }

    #[test]
    fn four_tokens_clamped_by_hand() {
        // 50 % of 4: the top 2 become 3. Sorted 3 3 2 1, σ = 9.
        let profile = Profile::new(&DELTA, 50.0);
        assert_eq!((profile.target(), profile.clamp()), (9.0, 3.0));
        assert_eq!(profile.sorted(), [3.0, 3.0, 2.0, 1.0]);
        // S = 8: samples 3 3 3 2.75 2.25 …; sums 3 6 9, which does not exceed 9, 11.75 at k = 3;
        // sample 4 is 2.25.
        assert_eq!(profile.threshold(8), 2.25);
    }

    #[test]
    fn edges() {
        let profile = Profile::new(&DELTA, 25.0);
        for len in 0..=4 {
            assert_eq!(profile.threshold(len), 0.0, "S = {len} is not past L = 4");
        }
        assert_eq!(Profile::new(&[0.0; 7], 5.0).threshold(usize::MAX), 0.0, "all zero");
        // 1 1 1 1 stretched to 5: the sum exceeds 4 at the last sample, and there is no next one.
        assert_eq!(Profile::new(&[1.0; 4], 5.0).threshold(5), 1.0, "past the end");
        assert_eq!(Profile::new(&[], 5.0).threshold(5), 0.0, "empty");
        // One token stretches to a plateau.
        assert_eq!(Profile::new(&[0.5], 5.0).threshold(3), 0.5);
        // S/L so large that only the clamped plateau is visited.
        assert_eq!(Profile::new(&DELTA, 50.0).threshold(1 << 40), 3.0);
    }

    #[test]
    fn the_order_of_tokens_does_not_matter() {
        let sorted = Profile::new(&[4.0, 3.0, 2.0, 1.0], 25.0);
        assert_eq!(sorted.threshold(8), Profile::new(&DELTA, 25.0).threshold(8));
    }

    proptest! {
        #[test]
        fn a_threshold_is_within_the_profile(
            delta in prop::collection::vec(0.0f32..5.0, 1..200),
            clamp in 0.1f64..100.0,
            extra in 1usize..5000,
        ) {
            let profile = Profile::new(&delta, clamp);
            let g = profile.threshold(delta.len() + extra);
            let least = delta.iter().copied().fold(f32::INFINITY, f32::min);
            prop_assert!(g <= f64::from(profile.clamp()));
            prop_assert!(profile.target() == 0.0 || g >= f64::from(least));
        }
    }
}
