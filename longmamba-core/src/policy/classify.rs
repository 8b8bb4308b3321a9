/// What LongMamba does with a channel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// Its memory does not span the training length: left as it is.
    Local,
    /// Its memory spans the training length: filtered on longer texts.
    Global,
}

/// Global where the score exceeds θ, strictly. Both are decays in [0, 1]; the score comes as its
/// natural logarithm, so that decays below the smallest `f64` still count.
///
/// With θ = 0 every score above 0 is global, with θ ≥ 1 none is; nothing is above a NaN.
///
/// ```
/// use longmamba_core::policy::{Class, classify};
/// assert_eq!(classify(-2.0, 0.05), Class::Global);
/// assert_eq!(classify(-4.0, 0.05), Class::Local);
/// assert_eq!(classify(-20_000.0, 0.0), Class::Global);
/// ```
pub fn classify(log_score: f64, theta: f64) -> Class {
    // ln of a negative θ is NaN, but every score is above it.
    if theta < 0.0 || log_score > theta.ln() { Class::Global } else { Class::Local }
}

/// Where one channel lies.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ChannelScore {
    /// Natural logarithm of the score.
    pub log_score: f64,
    /// Index among the model's Mamba layers.
    pub layer: usize,
    /// Index in the layer: of a `d_inner` channel in Mamba-1, of a head in Mamba-2.
    pub channel: usize,
}

/// The multiples of θ at which a [`ThetaReport`] counts global channels.
pub const THETA_MULTIPLES: [f64; 7] = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// A θ is near a cliff where a channel's class flips if θ changes by less than this many decades, that
/// is, by 12 %: another window or another clamp moves scores by as much.
pub const CLIFF_DECADES: f64 = 0.05;

/// What a θ does to a model, and how safe it is.
///
/// One channel can decide between a model that reads long texts and one that does not, so θ belongs
/// into a wide gap between scores.
#[derive(Clone, PartialEq, Debug)]
pub struct ThetaReport {
    /// The θ reported on.
    pub theta: f64,
    /// `[layers]`: global channels of each layer.
    pub global_per_layer: Vec<usize>,
    /// Channels of all layers.
    pub channels: usize,
    /// The largest score that is still local.
    pub below: Option<ChannelScore>,
    /// The smallest score that is already global.
    pub above: Option<ChannelScore>,
    /// |log10(score / θ)| of the nearest score; ∞ where there is none, or θ is 0.
    pub decades_to_nearest: f64,
    /// Channels whose class flips within [`CLIFF_DECADES`] of θ.
    pub flips_nearby: usize,
    /// Whether there is any such channel.
    pub near_cliff: bool,
    /// For each of [`THETA_MULTIPLES`], how many channels were global at that multiple of θ.
    pub global_at_multiples: [usize; THETA_MULTIPLES.len()],
    /// A θ within one decade that is as far from all scores as can be: the middle, on a logarithmic
    /// scale, of the widest gap. The decade's ends, and 1, bound a gap as scores do. `None` where θ
    /// is no number between 0 and 10.
    pub suggestion: Option<f64>,
}

impl ThetaReport {
    /// For the log scores of each layer, `[channels]` each, and a θ.
    pub fn new<'a>(layers: impl IntoIterator<Item = &'a [f64]>, theta: f64) -> Self {
        let mut all = Vec::new();
        let mut global_per_layer = Vec::new();
        for (layer, scores) in layers.into_iter().enumerate() {
            let channels = scores.iter().enumerate();
            all.extend(channels.map(|(channel, &s)| ChannelScore { log_score: s, layer, channel }));
            global_per_layer.push(count(scores.iter().copied(), theta));
        }
        all.sort_by(|a, b| a.log_score.total_cmp(&b.log_score));
        let first_global = all.partition_point(|s| classify(s.log_score, theta) == Class::Local);
        let (below, above) = (first_global.checked_sub(1), Some(first_global));
        let [below, above] = [below, above].map(|at| at.and_then(|at| all.get(at).copied()));
        let decades = |score: f64| ((score - theta.ln()) / std::f64::consts::LN_10).abs();
        let scores = || all.iter().map(|s| s.log_score);
        let flips_nearby = scores().filter(|&s| decades(s) < CLIFF_DECADES).count();
        // −∞ − −∞: a score of 0 is not near a θ of 0, the two cannot be told apart.
        let decades_to_nearest = scores().map(decades).fold(f64::INFINITY, f64::min);
        ThetaReport {
            theta,
            channels: all.len(),
            below,
            above,
            decades_to_nearest,
            flips_nearby,
            near_cliff: flips_nearby > 0,
            global_at_multiples: THETA_MULTIPLES.map(|m| count(scores(), m * theta)),
            suggestion: widest_gap(scores(), theta),
            global_per_layer,
        }
    }

    /// Global channels of all layers.
    pub fn global(&self) -> usize {
        self.global_per_layer.iter().sum()
    }
}

fn count(log_scores: impl Iterator<Item = f64>, theta: f64) -> usize {
    log_scores.filter(|&s| classify(s, theta) == Class::Global).count()
}

/// The middle of the widest gap between ascending log scores, within a decade of θ.
fn widest_gap(log_scores: impl Iterator<Item = f64>, theta: f64) -> Option<f64> {
    let decade = std::f64::consts::LN_10;
    let (low, high) = (theta.ln() - decade, (theta.ln() + decade).min(0.0));
    // Also false for a NaN.
    if !(low.is_finite() && low < high) {
        return None;
    }
    let mut widest = (0.0, low);
    let mut last = low;
    for score in log_scores.filter(|&s| s > low && s < high).chain([high]) {
        if score - last > widest.0 {
            widest = (score - last, f64::midpoint(score, last));
        }
        last = score;
    }
    Some(widest.1.exp())
}

/// Scores counted by powers of ten, to be drawn.
#[derive(Clone, PartialEq, Debug)]
pub struct Histogram {
    /// log10 of the lower end of the first bin.
    pub low: f64,
    /// log10 of the upper end of the last bin.
    pub high: f64,
    /// Equally wide on the logarithmic scale; each without its upper end, but for the last.
    pub counts: Vec<usize>,
    /// Scores below the first bin, those of 0 among them.
    pub below: usize,
    /// Scores above the last bin.
    pub above: usize,
}

impl Histogram {
    /// `bins` bins between 10^`low` and 10^`high`; the scores are natural logarithms.
    pub fn new(
        log_scores: impl IntoIterator<Item = f64>,
        low: f64,
        high: f64,
        bins: usize,
    ) -> Self {
        let mut histogram = Histogram { low, high, counts: vec![0; bins], below: 0, above: 0 };
        for score in log_scores {
            let log10 = score / std::f64::consts::LN_10;
            if log10 < low {
                histogram.below += 1;
            } else if log10 > high {
                histogram.above += 1;
            } else {
                let bin = ((log10 - low) / (high - low) * bins as f64) as usize;
                if let Some(count) = histogram.counts.get_mut(bin.min(bins.saturating_sub(1))) {
                    *count += 1;
                }
            }
        }
        histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn report(scores: &[&[f64]], theta: f64) -> ThetaReport {
        let logs: Vec<Vec<f64>> =
            scores.iter().map(|l| l.iter().map(|s| s.ln()).collect()).collect();
        ThetaReport::new(logs.iter().map(|l| &l[..]), theta)
    }

    #[test]
    fn strict_in_log_space_and_at_the_ends() {
        let global = |log, theta| classify(log, theta) == Class::Global;
        assert!(!global(0.05f64.ln(), 0.05) && global(0.05f64.ln().next_up(), 0.05));
        assert!(global(-1e6, 0.0) && !global(f64::NEG_INFINITY, 0.0));
        assert!(!global(0.0, 1.0) && !global(0.0, 3.0) && !global(-1.0, f64::INFINITY));
        assert!(!global(0.0, f64::NAN) && global(f64::NEG_INFINITY, -1.0));
        assert!(global(-68.0, 1e-30) && !global(-70.0, 1e-30));
    }

    #[test]
    fn two_layers_by_hand() {
        let r = report(&[&[0.9, 0.02, 0.3], &[1e-9, 0.06, 0.0]], 0.05);
        assert_eq!((r.global(), r.global_per_layer.as_slice(), r.channels), (3, &[2, 1][..], 6));
        let near = |s: Option<ChannelScore>| s.map(|s| (s.layer, s.channel));
        assert_eq!((near(r.below), near(r.above)), (Some((0, 1)), Some((1, 1))));
        // log10(0.06 / 0.05) = 0.0792
        assert!((r.decades_to_nearest - 0.0792).abs() < 1e-4);
        assert!(!r.near_cliff && r.flips_nearby == 0);
        // θ = .005 .01 .025 .05 .1 .25 .5
        assert_eq!(r.global_at_multiples, [4, 4, 3, 3, 2, 2, 1]);
        // Within .005 and .5: gaps by ratio .02/.005 = 4, 3, .3/.06 = 5, 1.7; √(.06·.3) = .134
        assert!((r.suggestion.unwrap() - 0.1342).abs() < 1e-4);
        assert!(report(&[&[0.9, 0.0555]], 0.05).near_cliff);
    }

    #[test]
    fn a_theta_without_neighbours() {
        let r = report(&[&[1e-9]], 0.05);
        assert_eq!((r.above, r.below.unwrap().channel), (None, 0));
        // Nothing within a decade: θ itself is the middle.
        assert!((r.suggestion.unwrap() - 0.05).abs() < 1e-12);
        let none = ThetaReport::new([], 0.05);
        assert_eq!((none.global(), none.decades_to_nearest), (0, f64::INFINITY));
        for (theta, global) in [(0.0, 1), (1.0, 0), (50.0, 0), (f64::NAN, 0)] {
            let r = report(&[&[0.3, 0.0]], theta);
            assert_eq!(r.global(), global, "{theta}");
            assert!(!r.near_cliff && !r.decades_to_nearest.is_nan());
            assert_eq!(r.suggestion.is_some(), theta == 1.0);
        }
    }

    #[test]
    fn every_score_is_in_one_bin() {
        let logs = [1.0, 0.1, 0.05, 1e-4, 9e-5, 0.0, 2.0].map(f64::ln);
        let h = Histogram::new(logs, -4.0, 0.0, 4);
        assert_eq!(h.counts, [1, 0, 1, 2]);
        assert_eq!((h.below, h.above), (2, 1));
        assert!(Histogram::new(logs, -4.0, 0.0, 0).counts.is_empty());
    }

    proptest! {
        #[test]
        fn reports_agree_with_the_plain_comparison(
            layers in prop::collection::vec(prop::collection::vec(0.0f64..1.0, 1..20), 1..4),
            theta in 0.001f64..1.2,
        ) {
            let slices: Vec<&[f64]> = layers.iter().map(|l| &l[..]).collect();
            let r = report(&slices, theta);
            let flat = layers.concat();
            // ln and back may round across θ; exact ties are no case of interest.
            prop_assume!(flat.iter().all(|s| (s / theta - 1.0).abs() > 1e-12));
            prop_assert_eq!(r.global(), flat.iter().filter(|&&s| s > theta).count());
            if let Some(suggestion) = r.suggestion {
                prop_assert!(suggestion >= theta / 10.0 && suggestion <= theta * 10.0);
                let there = report(&slices, suggestion);
                // At least as far from the scores as θ is, where θ is inside its decade.
                if theta < 1.0 {
                    let to_one = -theta.log10();
                    prop_assert!(there.decades_to_nearest.max(1e-9) + 1e-9
                        >= r.decades_to_nearest.min(to_one).min(1.0) / 2.0);
                }
            }
        }
    }
}
