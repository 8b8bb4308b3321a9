use super::calibrate::{Aggregate, Calibration, CalibrationSettings, LayerTable, positive};
use super::classify::{Class, ThetaReport, classify};
use super::lookup::Lookup;
use crate::{Error, PlanError, Result, Shape};
use std::fmt;

/// Which model a plan was made from.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Fingerprint {
    /// The architecture, as in "mamba2".
    pub family: String,
    /// Mamba layers.
    pub layers: usize,
    /// Channels of a layer: `d_inner` in Mamba-1, heads in Mamba-2.
    pub channels: usize,
    /// A digest of the weights, in whatever form the caller makes it.
    pub digest: String,
}

impl Fingerprint {
    /// In what two models differ, as in "weights"; empty where they are the same.
    pub fn differences(&self, other: &Fingerprint) -> Vec<&'static str> {
        [
            ("architecture", self.family != other.family),
            ("number of layers", self.layers != other.layers),
            ("number of channels", self.channels != other.channels),
            ("weights", self.digest != other.digest),
        ]
        .into_iter()
        .filter_map(|(what, differs)| differs.then_some(what))
        .collect()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fingerprint { family, layers, channels, digest } = self;
        // As many digits as tell two models apart; the strings may come from a file.
        let digest: String = digest.chars().take(12).flat_map(char::escape_debug).collect();
        let family: String = family.chars().take(40).flat_map(char::escape_debug).collect();
        write!(f, "{family} of {layers} × {channels} channels, weights {digest}")
    }
}

/// The largest log score that rounding can give a decay of at most 1.
const MAX_LOG_SCORE: f64 = 1e-6;

/// What a [`Plan`] is made of; [`Plan::new`] checks it.
#[derive(Clone, PartialEq, Debug)]
pub struct PlanParts {
    /// The model.
    pub fingerprint: Fingerprint,
    /// How it was calibrated.
    pub settings: CalibrationSettings,
    /// Over how many windows.
    pub windows: usize,
    /// The score above which a channel is global, finite and ≥ 0.
    pub theta: f64,
    /// The shortest text that is filtered, in tokens; see [`Plan::min_total_len`].
    pub min_total_len: usize,
    /// `[layers]`
    pub layers: Vec<LayerTable>,
}

/// A calibrated model: which channels are global, and what they forget of a text of S tokens.
///
/// ```
/// # use longmamba_core::policy::*;
/// let settings = CalibrationSettings::new(4, 25.0, Aggregate::Max, vec![8])?;
/// let mut calibration = Calibration::new(settings, 1, 2)?;
/// // [4 tokens, 2 channels]
/// let delta = [1.0, 0.1, 4.0, 0.4, 2.0, 0.2, 3.0, 0.3];
/// calibration.add(0, &delta, Decay::PerHead(&[-0.1, -9.0]))?;
/// let fingerprint =
///     Fingerprint { family: "mamba2".into(), layers: 1, channels: 2, digest: "0".into() };
/// let plan = Plan::calibrated(calibration, fingerprint, 0.05)?;
///
/// // The scores are exp(−1) and exp(−9): only channel 0 is global.
/// let mut delta_min = [0.0; 2];
/// plan.delta_min(0, 8, Lookup::default(), 1.0, &mut delta_min)?;
/// assert!((delta_min[0] / 2.75 - 1.0).abs() < 2e-5 && delta_min[1] == 0.0);
/// # Ok::<(), longmamba_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Debug)]
pub struct Plan(PlanParts);

/// How much larger, relatively, `delta_min` is than g(S).
///
/// Ties are common, not rare: in a first layer of Mamba-2 Δ depends on the token alone, and where the
/// sorted profile has a run of equal values g(S) is one of them. Whether that token is dropped must not
/// hang on the last bit of a sum, which differs between instruction sets, numbers of rows and devices.
/// Rounding moves Δ by some 1e-6; a hundred-thousandth is above that and far below what matters.
pub const TIE: f32 = 1e-5;

impl Plan {
    /// The plan of these parts.
    ///
    /// # Errors
    /// [`Error::Shape`] where the tables do not fit the fingerprint and the lengths; [`Error::Value`]
    /// where a threshold is not finite and ≥ 0, a log score is NaN or above 0 (−∞ is allowed), θ is
    /// not finite and ≥ 0, or a count is 0.
    pub fn new(parts: PlanParts) -> Result<Self> {
        let PlanParts { fingerprint, settings, windows, theta, layers, .. } = &parts;
        let channels = fingerprint.channels;
        positive("layers", fingerprint.layers)?;
        positive("channels", channels)?;
        positive("windows", *windows)?;
        check_theta(*theta)?;
        expect("layers", [layers.len()], [fingerprint.layers])?;
        let rows = settings.lengths().len();
        for LayerTable { log_scores, thresholds } in layers {
            expect("log_scores", [log_scores.len()], [channels])?;
            // A product that overflows is no size of a table.
            if rows.checked_mul(channels) != Some(thresholds.len()) {
                let (expected, actual) = ([rows, channels].into(), [thresholds.len()].into());
                return Err(Error::Shape { tensor: "thresholds", expected, actual });
            }
            if let Some(index) = log_scores.iter().position(|&s| s.is_nan() || s > MAX_LOG_SCORE) {
                let (tensor, value) = ("log_scores", log_scores[index]);
                return Err(Error::Value {
                    tensor, index, value, allowed: "a number ≤ 0, or −∞"
                });
            }
            if let Some(index) = thresholds.iter().position(|&g| !(g >= 0.0 && g.is_finite())) {
                let (tensor, value) = ("thresholds", thresholds[index].into());
                return Err(Error::Value {
                    tensor, index, value, allowed: "a finite number ≥ 0"
                });
            }
        }
        Ok(Plan(parts))
    }

    /// The plan that a finished calibration gives, with the default
    /// [minimum length](Plan::min_total_len).
    ///
    /// # Errors
    /// As [`Calibration::finish`] and [`Plan::new`].
    pub fn calibrated(
        calibration: Calibration,
        fingerprint: Fingerprint,
        theta: f64,
    ) -> Result<Self> {
        let (settings, windows) = (calibration.settings().clone(), calibration.windows());
        let min_total_len = settings.train_len();
        let layers = calibration.finish()?;
        Plan::new(PlanParts { fingerprint, settings, windows, theta, min_total_len, layers })
    }

    /// The same plan with another θ.
    ///
    /// # Errors
    /// [`Error::Value`] where θ is not finite and ≥ 0.
    pub fn with_theta(mut self, theta: f64) -> Result<Self> {
        check_theta(theta)?;
        self.0.theta = theta;
        Ok(self)
    }

    /// The same plan with another [minimum length](Plan::min_total_len).
    #[must_use]
    pub fn with_min_total_len(mut self, min_total_len: usize) -> Self {
        self.0.min_total_len = min_total_len;
        self
    }

    /// The model that the plan was made from.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.0.fingerprint
    }

    /// How the model was calibrated.
    pub fn settings(&self) -> &CalibrationSettings {
        &self.0.settings
    }

    /// L, in tokens: no text of at most this length is filtered.
    pub fn train_len(&self) -> usize {
        self.0.settings.train_len()
    }

    /// The share of the largest Δ that was clamped, in percent.
    pub fn clamp_percent(&self) -> f64 {
        self.0.settings.clamp_percent()
    }

    /// How the windows were combined.
    pub fn aggregate(&self) -> Aggregate {
        self.0.settings.aggregate()
    }

    /// The lengths of the threshold tables, in tokens, ascending.
    pub fn lengths(&self) -> &[usize] {
        self.0.settings.lengths()
    }

    /// The number of windows of the calibration.
    pub fn windows(&self) -> usize {
        self.0.windows
    }

    /// θ: a channel is global where its score exceeds it.
    pub fn theta(&self) -> f64 {
        self.0.theta
    }

    /// The shortest text that is filtered, in tokens. The default is L, from where on the thresholds
    /// leave 0; the published code has 3000 for Mamba-2 and 5001 for Zamba2.
    pub fn min_total_len(&self) -> usize {
        self.0.min_total_len
    }

    /// `[layers]`: log scores and thresholds.
    pub fn layers(&self) -> &[LayerTable] {
        &self.0.layers
    }

    /// Whether a channel is global; false for one that does not exist.
    pub fn is_global(&self, layer: usize, channel: usize) -> bool {
        let scores = self.0.layers.get(layer).map(|l| &l.log_scores);
        let score = scores.and_then(|s| s.get(channel));
        score.is_some_and(|&s| classify(s, self.0.theta) == Class::Global)
    }

    /// How safe θ is; [`ThetaReport::new`] makes the report for another one.
    pub fn theta_report(&self) -> ThetaReport {
        ThetaReport::new(self.0.layers.iter().map(|l| &l.log_scores[..]), self.0.theta)
    }

    /// Writes `delta_min`, `[channels]`, of one layer for a text of `total_len` tokens:
    /// `scale_b` · g(S) for global channels and 0, which keeps every token, for local ones. Allocates
    /// nothing.
    ///
    /// The values are larger than that by [`TIE`], so that a Δ that equals g(S) but for rounding is
    /// dropped like one that equals it.
    ///
    /// All zeros where `total_len` ≤ L or `total_len` < [`Plan::min_total_len`].
    ///
    /// # Errors
    /// [`Error::Shape`] where `out` is not `[channels]`; [`Error::Value`] where the layer does not
    /// exist or `scale_b` is not finite and ≥ 0.
    pub fn delta_min(
        &self,
        layer: usize,
        total_len: usize,
        lookup: Lookup,
        scale_b: f32,
        out: &mut [f32],
    ) -> Result<()> {
        let channels = self.0.fingerprint.channels;
        expect("delta_min", [out.len()], [channels])?;
        let Some(table) = self.0.layers.get(layer) else {
            let (value, allowed) = (layer as f64, "below the number of layers");
            return Err(Error::Value { tensor: "layer", index: 0, value, allowed });
        };
        if !(scale_b >= 0.0 && scale_b.is_finite()) {
            let (value, allowed) = (scale_b.into(), "a finite number ≥ 0");
            return Err(Error::Value { tensor: "scale_b", index: 0, value, allowed });
        }
        out.fill(0.0);
        let position = lookup.position(self.lengths(), self.train_len(), total_len);
        let Some(position) = position.filter(|_| total_len >= self.0.min_total_len) else {
            return Ok(());
        };
        for (channel, (min, &score)) in out.iter_mut().zip(&table.log_scores).enumerate() {
            if classify(score, self.0.theta) == Class::Global {
                let entry = |row: usize| table.thresholds[row * channels + channel];
                *min = scale_b * position.threshold(entry) * (1.0 + TIE);
            }
        }
        Ok(())
    }

    /// That the plan was made from the model with this fingerprint.
    ///
    /// # Errors
    /// [`PlanError::OtherModel`], with what both are and in what they differ.
    pub fn check(&self, model: &Fingerprint) -> Result<()> {
        let plan = &self.0.fingerprint;
        let differ = plan.differences(model);
        if differ.is_empty() {
            return Ok(());
        }
        let (plan, model) = (plan.to_string(), model.to_string());
        Err(PlanError::OtherModel { plan, model, differ }.into())
    }
}

fn check_theta(theta: f64) -> Result<()> {
    if theta >= 0.0 && theta.is_finite() {
        return Ok(());
    }
    let allowed = "a finite number ≥ 0";
    Err(Error::Value { tensor: "theta", index: 0, value: theta, allowed })
}

fn expect<const R: usize>(
    tensor: &'static str,
    actual: [usize; R],
    expected: [usize; R],
) -> Result<()> {
    if actual != expected {
        let (expected, actual) = (Shape::from(expected), Shape::from(actual));
        return Err(Error::Shape { tensor, expected, actual });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two layers of three channels, L = 10, a table at 20 and 40.
    fn parts() -> PlanParts {
        let layer = |shift: f64| LayerTable {
            log_scores: vec![-1.0 - shift, f64::NEG_INFINITY, 0.0],
            thresholds: vec![0.1, 0.2, 0.3, 0.3, 0.4, 0.5],
        };
        PlanParts {
            fingerprint: Fingerprint {
                family: "mamba2".into(),
                layers: 2,
                channels: 3,
                digest: "0123456789abcdef".into(),
            },
            settings: CalibrationSettings::new(10, 5.0, Aggregate::Max, vec![20, 40]).unwrap(),
            windows: 5,
            theta: 0.05,
            min_total_len: 10,
            layers: vec![layer(0.0), layer(10.0)],
        }
    }

    #[test]
    fn thresholds_reach_global_channels_of_long_texts_only() {
        let plan = Plan::new(parts()).unwrap();
        let get = |plan: &Plan, layer, total_len, lookup, b| {
            let mut out = [9.0; 3];
            plan.delta_min(layer, total_len, lookup, b, &mut out).unwrap();
            // A little above the table, and by no more than `TIE` allows.
            out.map(|above| {
                let value = (above * 1e3).round() / 1e3;
                assert!(value == 0.0 || (value < above && above <= value * (1.0 + 1.1 * TIE)));
                value
            })
        };
        use Lookup::{Interpolated, Nearest};
        assert_eq!(get(&plan, 0, 20, Interpolated, 1.0), [0.1, 0.0, 0.3]);
        assert_eq!(get(&plan, 1, 20, Interpolated, 1.0), [0.0, 0.0, 0.3]);
        assert_eq!(get(&plan, 0, 10, Nearest, 1.0), [0.0; 3], "S = L");
        assert_eq!(get(&plan, 0, 11, Nearest, 1.0), [0.1, 0.0, 0.3]);
        assert_eq!(get(&plan, 0, 30, Nearest, 2.0), [0.2, 0.0, 0.6], "a tie, doubled");
        assert_eq!(get(&plan, 0, 99, Interpolated, 0.0), [0.0; 3], "b = 0");
        let late = plan.with_min_total_len(30);
        assert_eq!(get(&late, 0, 29, Nearest, 1.0), [0.0; 3]);
        assert_eq!(get(&late, 0, 30, Nearest, 1.0), [0.1, 0.0, 0.3]);
        let none = late.with_theta(1.0).unwrap();
        assert_eq!(get(&none, 0, 40, Nearest, 1.0), [0.0; 3]);
        assert!(!none.is_global(0, 2));
        let all = none.with_theta(0.0).unwrap();
        assert_eq!(get(&all, 1, 40, Nearest, 1.0), [0.3, 0.0, 0.5], "a score of 0 never is global");
        assert!(all.is_global(1, 0) && !all.is_global(1, 3) && !all.is_global(2, 0));
        assert_eq!(all.theta_report().global_per_layer, [2, 2]);
    }

    #[test]
    fn wrong_arguments_are_named() {
        let plan = Plan::new(parts()).unwrap();
        let mut out = [0.0; 3];
        let mut get =
            |layer, b, len: usize| plan.delta_min(layer, 9, Lookup::Nearest, b, &mut out[..len]);
        assert!(matches!(get(2, 1.0, 3), Err(Error::Value { tensor: "layer", .. })));
        assert!(matches!(get(0, 1.0, 2), Err(Error::Shape { tensor: "delta_min", .. })));
        for b in [f32::NAN, -1.0, f32::INFINITY] {
            assert!(matches!(get(0, b, 3), Err(Error::Value { tensor: "scale_b", .. })));
        }
    }

    #[test]
    fn every_part_is_checked() {
        let broken = |change: &dyn Fn(&mut PlanParts)| {
            let mut parts = parts();
            change(&mut parts);
            match Plan::new(parts) {
                Err(Error::Shape { tensor, .. } | Error::Value { tensor, .. }) => tensor,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(broken(&|p| p.windows = 0), "windows");
        assert_eq!(broken(&|p| p.layers.clear()), "layers");
        assert_eq!(broken(&|p| p.fingerprint.layers = 0), "layers");
        assert_eq!(broken(&|p| p.fingerprint.channels = 0), "channels");
        assert_eq!(broken(&|p| p.fingerprint.channels = usize::MAX), "log_scores");
        assert_eq!(broken(&|p| p.layers[1].thresholds.truncate(5)), "thresholds");
        for bad in [f64::NAN, f64::INFINITY, 0.1] {
            assert_eq!(broken(&|p| p.layers[1].log_scores[0] = bad), "log_scores");
        }
        for bad in [f32::NAN, f32::INFINITY, -0.1] {
            assert_eq!(broken(&|p| p.layers[0].thresholds[5] = bad), "thresholds");
        }
        for bad in [f64::NAN, f64::INFINITY, -0.1] {
            assert_eq!(broken(&|p| p.theta = bad), "theta");
            assert!(Plan::new(parts()).unwrap().with_theta(bad).is_err());
        }
    }

    #[test]
    fn another_model_is_refused_with_the_difference() {
        let plan = Plan::new(parts()).unwrap();
        assert_eq!(plan.check(&parts().fingerprint), Ok(()));
        let mut other = parts().fingerprint;
        other.channels = 4;
        other.digest = "fedcba9876543210".into();
        let error = plan.check(&other).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the plan was made from model mamba2 of 2 × 3 channels, weights 0123456789ab and cannot be \
             used with model mamba2 of 2 × 4 channels, weights fedcba987654: they differ in number of \
             channels and weights; calibrate this model"
        );
    }
}
