use super::score::Decay;
use super::threshold::Profile;
use crate::{Error, PlanError, Result, Shape};
use std::fmt;

/// How the scores and thresholds of several windows become one, channel by channel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Aggregate {
    /// The largest: the most global channels, the strictest filter. The published tables are these.
    #[default]
    Max,
    /// The mean; of scores, not of their logarithms.
    Average,
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Aggregate::Max => "max",
            Aggregate::Average => "average",
        })
    }
}

impl Aggregate {
    /// `[of all windows so far, of this one]` → of all.
    fn scores(self, [all, one]: [f64; 2]) -> f64 {
        let (low, high) = (all.min(one), all.max(one));
        match self {
            Aggregate::Max => high,
            // ln(eᵃ + eᵇ); −∞ is the score 0.
            Aggregate::Average if low == f64::NEG_INFINITY => high,
            Aggregate::Average => high + (low - high).exp().ln_1p(),
        }
    }

    fn thresholds(self, [all, one]: [f64; 2]) -> f64 {
        match self {
            Aggregate::Max => all.max(one),
            Aggregate::Average => all + one,
        }
    }
}

/// What a calibration measures: checked.
#[derive(Clone, Debug, PartialEq)]
pub struct CalibrationSettings {
    train_len: usize,
    clamp_percent: f64,
    aggregate: Aggregate,
    lengths: Vec<usize>,
}

impl CalibrationSettings {
    /// Windows of `train_len` tokens, the top `clamp_percent` of each channel's Δ clamped, thresholds
    /// for texts of `lengths` tokens ([`RELEASED_LENGTHS`](super::RELEASED_LENGTHS) are the usual ones).
    ///
    /// # Errors
    /// [`PlanError::Lengths`] where the lengths are not positive and strictly ascending, or there are
    /// none; [`Error::Value`] where `train_len` is 0 or `clamp_percent` is not in (0, 100].
    pub fn new(
        train_len: usize,
        clamp_percent: f64,
        aggregate: Aggregate,
        lengths: Vec<usize>,
    ) -> Result<Self> {
        positive("train_len", train_len)?;
        if !(clamp_percent > 0.0 && clamp_percent <= 100.0) {
            let allowed = "above 0 and at most 100";
            let (tensor, value) = ("clamp_percent", clamp_percent);
            return Err(Error::Value { tensor, index: 0, value, allowed });
        }
        let above = |index: usize| if index == 0 { 0 } else { lengths[index - 1] };
        let unsorted = (0..lengths.len()).find(|&index| lengths[index] <= above(index));
        if let Some(index) = unsorted.or(lengths.is_empty().then_some(0)) {
            return Err(PlanError::Lengths { index }.into());
        }
        Ok(CalibrationSettings { train_len, clamp_percent, aggregate, lengths })
    }

    /// L: the tokens of a window, and of the sequences that the model was trained on.
    pub fn train_len(&self) -> usize {
        self.train_len
    }

    /// The share of the largest Δ that is clamped, in percent.
    pub fn clamp_percent(&self) -> f64 {
        self.clamp_percent
    }

    /// How windows are combined.
    pub fn aggregate(&self) -> Aggregate {
        self.aggregate
    }

    /// The lengths of the threshold table, ascending.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }
}

/// An error unless `value` is at least 1.
pub(super) fn positive(tensor: &'static str, value: usize) -> Result<()> {
    if value == 0 {
        return Err(Error::Value { tensor, index: 0, value: 0.0, allowed: "at least 1" });
    }
    Ok(())
}

/// What calibration finds out about one layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerTable {
    /// `[channels]`: the logarithm of each channel's decay over a window of L tokens. −∞ is a decay
    /// to 0.
    pub log_scores: Vec<f64>,
    /// `[lengths, channels]`, row-major: g(S) of each channel. 0 keeps every token.
    pub thresholds: Vec<f32>,
}

/// Gathers the Δ of the unmodified model over several windows.
///
/// Each window is given layer by layer, in any order; a window is complete once every layer has come.
///
/// ```
/// # use longmamba_core::policy::{Aggregate, Calibration, CalibrationSettings, Decay};
/// let settings = CalibrationSettings::new(4, 25.0, Aggregate::Max, vec![8])?;
/// let mut calibration = Calibration::new(settings, 1, 1)?;
/// calibration.add(0, &[1.0, 4.0, 2.0, 3.0], Decay::PerHead(&[-0.5]))?;
/// assert_eq!(calibration.windows(), 1);
/// let layers = calibration.finish()?;
/// assert_eq!(layers[0].log_scores, [-5.0]);
/// assert_eq!(layers[0].thresholds, [2.75]);
/// # Ok::<(), longmamba_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Calibration {
    settings: CalibrationSettings,
    channels: usize,
    /// Complete ones.
    windows: usize,
    /// How many layers the window under way lacks.
    layers_left: usize,
    layers: Vec<LayerSums>,
}

/// The windows so far, combined but for the division of an average.
#[derive(Clone, Debug)]
struct LayerSums {
    /// How often the layer has come.
    windows: usize,
    /// `[channels]`
    log_scores: Vec<f64>,
    /// `[channels, lengths]`: each block's part is contiguous.
    thresholds: Vec<f64>,
}

/// Channels that are gathered from the rows of Δ at once: a cache line of `f32`.
const BLOCK: usize = 16;

/// The work that [`Calibration::add_blocks`] gives out: a few channels of one layer and window.
#[derive(Debug)]
pub struct ChannelBlock<'a> {
    settings: &'a CalibrationSettings,
    /// `[train_len, channels]`, of which the block takes some columns.
    delta: &'a [f32],
    channels: usize,
    decay: Decay<'a>,
    /// The first channel.
    first: usize,
    /// `[channels of the block]`
    log_scores: &'a mut [f64],
    /// `[channels of the block, lengths]`
    thresholds: &'a mut [f64],
}

impl ChannelBlock<'_> {
    /// Scores and thresholds of these channels, combined with those of the windows before.
    pub fn measure(self) {
        let CalibrationSettings { train_len, clamp_percent, aggregate, ref lengths } =
            *self.settings;
        let mut columns = vec![0.0f32; self.log_scores.len() * train_len];
        for (t, row) in self.delta.chunks_exact(self.channels).enumerate() {
            let row = &row[self.first..][..self.log_scores.len()];
            for (i, &value) in row.iter().enumerate() {
                columns[i * train_len + t] = value;
            }
        }
        let mut profile = Profile::default();
        let results = self.log_scores.iter_mut().zip(self.thresholds.chunks_mut(lengths.len()));
        for (i, (column, (log_score, thresholds))) in
            columns.chunks_exact_mut(train_len).zip(results).enumerate()
        {
            profile.refill(column, clamp_percent);
            let one = self.decay.log_score(self.first + i, column, profile.target());
            *log_score = aggregate.scores([*log_score, one]);
            for (threshold, &length) in thresholds.iter_mut().zip(lengths) {
                *threshold = aggregate.thresholds([*threshold, profile.threshold(length)]);
            }
        }
    }
}

impl Calibration {
    /// Of a model with `layers` Mamba layers of `channels` channels each (heads in Mamba-2).
    ///
    /// # Errors
    /// [`Error::Value`] where one of them is 0.
    pub fn new(settings: CalibrationSettings, layers: usize, channels: usize) -> Result<Self> {
        positive("layers", layers)?;
        positive("channels", channels)?;
        let empty = LayerSums {
            windows: 0,
            log_scores: vec![f64::NEG_INFINITY; channels],
            thresholds: vec![0.0; settings.lengths.len() * channels],
        };
        Ok(Calibration {
            settings,
            channels,
            windows: 0,
            layers_left: layers,
            layers: vec![empty; layers],
        })
    }

    /// What is measured.
    pub fn settings(&self) -> &CalibrationSettings {
        &self.settings
    }

    /// The number of windows that every layer was given of.
    pub fn windows(&self) -> usize {
        self.windows
    }

    /// Adds one layer of the window under way. `delta` is `[train_len, channels]`, row-major, after
    /// softplus, not clamped.
    ///
    /// Costs a sort of L values and at most about L additions a length for each channel, and in
    /// Mamba-1 `d_state` exponentials a token; [`Calibration::add_blocks`] shares that among threads.
    ///
    /// # Errors
    /// [`Error::Shape`] where `delta` or A has another size, [`Error::Value`] where an A is not finite
    /// and ≤ 0, [`PlanError::Window`] where a Δ is not finite and ≥ 0, or the layer does not exist or
    /// came before in this window. After an error nothing has been added.
    pub fn add(&mut self, layer: usize, delta: &[f32], decay: Decay<'_>) -> Result<()> {
        self.add_blocks(layer, delta, decay, |blocks| {
            blocks.into_iter().for_each(ChannelBlock::measure);
        })
    }

    /// As [`Calibration::add`], the work being done by `run`, which must [measure](ChannelBlock::measure)
    /// every block, on whichever threads it likes; with rayon,
    /// `|blocks| blocks.into_par_iter().for_each(ChannelBlock::measure)`.
    ///
    /// # Errors
    /// As [`Calibration::add`].
    pub fn add_blocks<'a>(
        &'a mut self,
        layer: usize,
        delta: &'a [f32],
        decay: Decay<'a>,
        run: impl FnOnce(Vec<ChannelBlock<'a>>),
    ) -> Result<()> {
        self.check(layer, delta, &decay)?;
        self.layers_left -= 1;
        if self.layers_left == 0 {
            self.windows += 1;
            self.layers_left = self.layers.len();
        }
        let (settings, channels) = (&self.settings, self.channels);
        let sums = &mut self.layers[layer];
        sums.windows += 1;
        let scores = sums.log_scores.chunks_mut(BLOCK);
        let thresholds = sums.thresholds.chunks_mut(BLOCK * settings.lengths.len());
        let block = |(i, (log_scores, thresholds))| {
            let first = i * BLOCK;
            ChannelBlock { settings, delta, channels, decay, first, log_scores, thresholds }
        };
        run(scores.zip(thresholds).enumerate().map(block).collect());
        Ok(())
    }

    fn check(&self, layer: usize, delta: &[f32], decay: &Decay<'_>) -> Result<()> {
        let window = self.windows;
        let Some(sums) = self.layers.get(layer) else {
            let layers = self.layers.len();
            let why = format!("layer {layer} of window {window} in a model of {layers} layers");
            return Err(PlanError::Window(why).into());
        };
        if sums.windows > window {
            let why = format!("layer {layer} came twice in window {window}");
            return Err(PlanError::Window(why).into());
        }
        decay.check(self.channels)?;
        let expected = Shape::from([self.settings.train_len, self.channels]);
        if expected.elements() != Some(delta.len()) {
            return Err(Error::Shape { tensor: "delta", expected, actual: [delta.len()].into() });
        }
        if let Some(at) = delta.iter().position(|&v| !(v >= 0.0 && v.is_finite())) {
            let (token, channel, value) = (at / self.channels, at % self.channels, delta[at]);
            return Err(PlanError::Window(format!(
                "Δ of layer {layer}, channel {channel}, token {token} of window {window} is {value}, \
                 must be a finite number ≥ 0"
            ))
            .into());
        }
        Ok(())
    }

    /// The tables of all layers.
    ///
    /// # Errors
    /// [`PlanError::Window`] where there is no window, or the last one lacks a layer.
    pub fn finish(self) -> Result<Vec<LayerTable>> {
        if self.layers_left < self.layers.len() {
            let missing = self.layers.iter().take_while(|l| l.windows > self.windows).count();
            let why = format!("window {} lacks layer {missing}", self.windows);
            return Err(PlanError::Window(why).into());
        }
        if self.windows == 0 {
            return Err(PlanError::Window("there is none".into()).into());
        }
        let rows = self.settings.lengths.len();
        let count = match self.settings.aggregate {
            Aggregate::Max => 1.0,
            Aggregate::Average => self.windows as f64,
        };
        let divide = |layer: LayerSums| {
            let row = |row| layer.thresholds.iter().skip(row).step_by(rows);
            let log_scores = layer.log_scores.iter().map(|&s| s - count.ln()).collect();
            let thresholds = (0..rows).flat_map(row).map(|&g| (g / count) as f32).collect();
            LayerTable { log_scores, thresholds }
        };
        Ok(self.layers.into_iter().map(divide).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(aggregate: Aggregate) -> CalibrationSettings {
        CalibrationSettings::new(4, 25.0, aggregate, vec![2, 8]).unwrap()
    }

    #[test]
    fn settings_are_checked() {
        let new = |len, clamp, lengths: &[usize]| {
            CalibrationSettings::new(len, clamp, Aggregate::Max, lengths.to_vec())
        };
        assert!(new(1, 100.0, &[1]).is_ok());
        assert!(matches!(new(0, 5.0, &[1]), Err(Error::Value { tensor: "train_len", .. })));
        for clamp in [0.0, -1.0, 100.1, f64::NAN, f64::INFINITY] {
            assert!(matches!(
                new(1, clamp, &[1]),
                Err(Error::Value { tensor: "clamp_percent", .. })
            ));
        }
        let cases: [(&[usize], usize); 4] =
            [(&[], 0), (&[0, 1], 0), (&[1, 2, 2], 2), (&[5, 3, 9], 1)];
        for (lengths, index) in cases {
            assert_eq!(new(1, 5.0, lengths), Err(PlanError::Lengths { index }.into()));
        }
    }

    #[test]
    fn windows_and_channels_by_hand() {
        // Window 0: channel 0 has Δ = 1 4 2 3, σ = 10, g(8) = 2.75; channel 1 has 1 1 1 1, σ = 4,
        // g(8) = 1. Window 1 has half of everything, so g(8) is half too.
        let one: [f32; 8] = [1.0, 1.0, 4.0, 1.0, 2.0, 1.0, 3.0, 1.0];
        let two = one.map(|v| v / 2.0);
        let a = [-0.1, -0.5];
        // ln scores: −1, −2 and −0.5, −1.
        let tables = |aggregate| {
            let mut c = Calibration::new(settings(aggregate), 1, 2).unwrap();
            c.add(0, &one, Decay::PerHead(&a)).unwrap();
            c.add(0, &two, Decay::PerHead(&a)).unwrap();
            assert_eq!(c.windows(), 2);
            c.finish().unwrap().remove(0)
        };
        let close = |actual: &[f64], expected: [f64; 2]| {
            actual.iter().zip(expected).all(|(a, e)| (a - e).abs() < 1e-6)
        };
        let max = tables(Aggregate::Max);
        assert!(close(&max.log_scores, [-0.5, -1.0]), "{max:?}");
        assert_eq!(max.thresholds, [0.0, 0.0, 2.75, 1.0]);
        let average = tables(Aggregate::Average);
        let mean = |a: f64, b: f64| f64::midpoint(a.exp(), b.exp()).ln();
        assert!(close(&average.log_scores, [mean(-1.0, -0.5), mean(-2.0, -1.0)]), "{average:?}");
        assert_eq!(average.thresholds, [0.0, 0.0, 2.0625, 0.75]);
    }

    #[test]
    fn windows_are_checked_and_counted() {
        let decay = Decay::PerState { a: &[-1.0, -2.0, -3.0, -4.0], d_state: 2 };
        let mut c = Calibration::new(settings(Aggregate::Max), 2, 2).unwrap();
        let why = |r: Result<()>| match r {
            Err(Error::Plan(PlanError::Window(why))) => why,
            other => panic!("{other:?}"),
        };
        for bad in [f32::NAN, f32::INFINITY, -0.5] {
            let mut delta = [0.5; 8];
            delta[5] = bad;
            let why = why(c.add(1, &delta, decay));
            assert!(why.contains("layer 1, channel 1, token 2"), "{why}");
        }
        let good = [0.5; 8];
        c.add(1, &good, decay).unwrap();
        assert_eq!(c.windows(), 0);
        assert!(why(c.add(1, &good, decay)).contains("twice"));
        assert!(why(c.add(2, &good, decay)).contains("layer 2"));
        assert!(matches!(c.add(0, &good[1..], decay), Err(Error::Shape { tensor: "delta", .. })));
        for a in [&[-1.0f32][..], &[-1.0; 3], &[]] {
            let result = c.add(0, &good, Decay::PerHead(a));
            assert!(matches!(result, Err(Error::Shape { tensor: "A", .. })));
        }
        let result = c.add(0, &good, Decay::PerHead(&[-1.0, 0.1]));
        assert!(matches!(result, Err(Error::Value { tensor: "A", index: 1, .. })));
        assert!(c.clone().finish().is_err_and(|e| e.to_string().contains("lacks layer 0")));
        c.add(0, &good, decay).unwrap();
        assert_eq!(c.windows(), 1);
        assert_eq!(c.finish().unwrap().len(), 2);
        assert!(Calibration::new(settings(Aggregate::Max), 1, 1).unwrap().finish().is_err());
        assert!(Calibration::new(settings(Aggregate::Max), 0, 1).is_err());
    }

    #[test]
    fn scores_are_averaged_not_their_logarithms() {
        let mut all = f64::NEG_INFINITY;
        for one in [-1e5, -1e5] {
            all = Aggregate::Average.scores([all, one]);
        }
        assert!((all - (-1e5 + 2f64.ln())).abs() < 1e-9);
        assert_eq!(Aggregate::Average.scores([f64::NEG_INFINITY; 2]), f64::NEG_INFINITY);
    }
}
