//! Thresholds against an obvious reference that stores the stretched list, and what a table of them
//! is worth between its lengths.

use longmamba_core::policy::{Lookup, Profile, RELEASED_LENGTHS};
use proptest::prelude::*;

/// g(S), word by word.
fn reference(delta: &[f32], clamp_percent: f64, total_len: usize) -> f64 {
    let train_len = delta.len();
    if total_len <= train_len {
        return 0.0;
    }
    let mut sorted: Vec<f64> = delta.iter().map(|&v| f64::from(v)).collect();
    sorted.sort_by(|a, b| b.partial_cmp(a).unwrap());
    let top = ((train_len as f64 * clamp_percent / 100.0).floor() as usize).max(1);
    let level = sorted[top - 1];
    let clamped: Vec<f64> = delta.iter().map(|&v| f64::from(v).min(level)).collect();
    let target: f64 = clamped.iter().sum();
    let mut sorted = clamped;
    sorted.sort_by(|a, b| b.partial_cmp(a).unwrap());

    let scale = train_len as f64 / total_len as f64;
    let stretched: Vec<f64> = (0..total_len)
        .map(|i| {
            let position = ((i as f64 + 0.5) * scale - 0.5).clamp(0.0, (train_len - 1) as f64);
            let (left, right) = (position.floor() as usize, position.ceil() as usize);
            sorted[left] + (position - position.floor()) * (sorted[right] - sorted[left])
        })
        .collect();
    let sums: Vec<f64> = stretched
        .iter()
        .scan(0.0, |sum, v| {
            *sum += v;
            Some(*sum)
        })
        .collect();
    match sums.iter().position(|&sum| sum > target) {
        Some(k) => stretched[(k + 1).min(total_len - 1)],
        None => 0.0,
    }
}

/// Seeded log-normal Δ.
struct LogNormal(u64);

impl LogNormal {
    /// In (0, 1): splitmix64.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 + 1e-17
    }

    /// `tokens` values whose logarithms have the standard deviation `sigma`.
    fn window(&mut self, tokens: usize, sigma: f64) -> Vec<f32> {
        let normal = |r: &mut Self| {
            (-2.0 * r.uniform().ln()).sqrt() * (std::f64::consts::TAU * r.uniform()).cos()
        };
        (0..tokens).map(|_| (0.02 * (sigma * normal(self)).exp()) as f32).collect()
    }
}

/// Δ as it comes, with many ties, with zeros, and all alike.
fn deltas() -> impl Strategy<Value = Vec<f32>> {
    let plain = prop::collection::vec(0.0f32..5.0, 1..200);
    let tails = (any::<u64>(), 1usize..200, 0.1f64..3.0)
        .prop_map(|(seed, tokens, sigma)| LogNormal(seed).window(tokens, sigma));
    let few = prop::collection::vec((0u8..4).prop_map(|v| f32::from(v) / 2.0), 1..60);
    let alike = (0.0f32..5.0, 1usize..60).prop_map(|(v, tokens)| vec![v; tokens]);
    prop_oneof![plain, tails, few, alike]
}

proptest! {
    // A failure prints its case; tests/ has no place for files of them.
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn agrees_with_the_reference(
        delta in deltas(),
        clamp in prop_oneof![Just(5.0), 0.01f64..100.0],
        total_len in 1usize..3000,
    ) {
        let (fast, slow) = (Profile::new(&delta, clamp).threshold(total_len), reference(&delta, clamp, total_len));
        // Adding in the same order, the two stop at the same sample.
        prop_assert!((fast - slow).abs() <= 1e-12 * slow, "{fast} {slow}");
    }

    /// In exact arithmetic g never falls. In `f64` a sum that equals σ may be rounded across it, which
    /// moves the threshold by one sample.
    #[test]
    fn thresholds_do_not_fall_as_texts_grow(
        delta in deltas(),
        clamp in prop_oneof![Just(5.0), 0.01f64..100.0],
        total_len in 1usize..3000,
        more in 1usize..3000,
    ) {
        let profile = Profile::new(&delta, clamp);
        let (short, long) = (profile.threshold(total_len), profile.threshold(total_len + more));
        // The values of Δ within one sample, L/S tokens, below g(S).
        let sorted = profile.sorted();
        let above = sorted.iter().filter(|&&v| v > short).count();
        let sample = delta.len().div_ceil(total_len);
        let floor = sorted.get(above + sample).copied().unwrap_or(0.0);
        prop_assert!(long >= floor.min(short) * (1.0 - 1e-12), "{short} {long} {floor}");
        // Over twice the length one sample makes no difference.
        let twice = profile.threshold(2 * total_len + more);
        prop_assert!(twice >= short * (1.0 - 1e-12), "{short} {twice}");
    }
}

#[test]
fn the_published_lengths_on_a_long_window() {
    let delta = LogNormal(1).window(2000, 1.0);
    let profile = Profile::new(&delta, 5.0);
    let mut last = 0.0;
    for length in RELEASED_LENGTHS {
        let g = profile.threshold(length);
        let slow = reference(&delta, 5.0, length);
        assert!((g - slow).abs() <= 1e-12 * slow, "{length}: {g} {slow}");
        assert!(g >= last);
        last = g;
    }
    assert_eq!(last, f64::from(profile.clamp()), "the longest text keeps only what was clamped");
}

/// Mean of |g / g(S) − 1| over lengths in geometric steps, by interval of S:
/// from L to the first length above it, from there to 8 L, above.
fn lookup_errors(sigma: f64, clamp: f64, guess: impl Fn(&[f32], usize) -> f64) -> [f64; 3] {
    const TRAIN_LEN: usize = 2000;
    let mut random = LogNormal(7);
    let mut errors = [(0.0, 0usize); 3];
    for _channel in 0..6 {
        let windows: Vec<Profile> =
            (0..5).map(|_| Profile::new(&random.window(TRAIN_LEN, sigma), clamp)).collect();
        let exact = |s| windows.iter().map(|p| p.threshold(s)).fold(0.0, f64::max);
        let table: Vec<f32> = RELEASED_LENGTHS.iter().map(|&s| exact(s) as f32).collect();
        let mut total_len = TRAIN_LEN as f64 * 1.005;
        while total_len < 192_000.0 {
            let s = total_len as usize;
            let error = (guess(&table, s) / exact(s) - 1.0).abs();
            let interval = usize::from(s > 3000) + usize::from(s > 8 * TRAIN_LEN);
            errors[interval].0 += error;
            errors[interval].1 += 1;
            total_len *= 1.02;
        }
    }
    errors.map(|(sum, count)| sum / count as f64)
}

/// Linear in some function of S between the lengths around it, from 0 at L = 2000 on.
fn linear_in(scale: fn(f64) -> f64) -> impl Fn(&[f32], usize) -> f64 {
    move |table, s| {
        let above = RELEASED_LENGTHS.partition_point(|&length| length < s);
        let (from, to) = (RELEASED_LENGTHS[above - 1] as f64, RELEASED_LENGTHS[above] as f64);
        let weight = (scale(s as f64) - scale(from)) / (scale(to) - scale(from));
        let (lower, upper) = (f64::from(table[above - 1]), f64::from(table[above]));
        lower + weight * (upper - lower)
    }
}

/// The numbers in the documentation of [`Lookup`].
#[test]
fn interpolation_beats_the_nearest_entry() {
    let looked_up = |lookup: Lookup| {
        move |table: &[f32], s| {
            let position = lookup.position(&RELEASED_LENGTHS, 2000, s);
            position.map_or(0.0, |p| p.threshold(|row| table[row]).into())
        }
    };
    for sigma in [0.3, 1.0, 2.0] {
        for clamp in [5.0, 20.0] {
            let nearest = lookup_errors(sigma, clamp, looked_up(Lookup::Nearest));
            let ours = lookup_errors(sigma, clamp, looked_up(Lookup::Interpolated));
            let reciprocal = lookup_errors(sigma, clamp, linear_in(|s| -1.0 / s));
            let logarithm = lookup_errors(sigma, clamp, linear_in(f64::ln));
            let linear = lookup_errors(sigma, clamp, linear_in(|s| s));
            println!("log-normal σ {sigma}, clamp {clamp} %: mean relative error by interval");
            println!(
                "  nearest {nearest:.4?}, S {linear:.4?}, ln S {logarithm:.4?}, 1/S {ours:.4?}"
            );
            for (interval, (ours, direct)) in ours.into_iter().zip(reciprocal).enumerate() {
                assert!((ours - direct).abs() < 1e-6, "Interpolated is linear in 1/S");
                assert!(ours <= 0.75 * nearest[interval] + 1e-6);
            }
        }
    }
}
