//! The search for the factors of MambaExtend and Mamba Modulation: zeroth order, by forward passes alone.
//!
//! Simultaneous perturbation (Spall's SPSA), as in MambaExtend's published code: at every step a random
//! direction δ of ±1 a layer, the loss L at s + c·δ and at s − c·δ, a step s − a·(L₊ − L₋) / 2c · δ, and
//! the best of the three points is the next. c falls as 0.1 / k^0.1.
//!
//! Here the loss is the mean negative log-likelihood of the last labels of the windows (there: perplexity,
//! and the third point is judged on the test texts); the search begins with the model as it is, and the
//! result is the best point that was seen, so that it is never worse than that on its windows.

use super::scales::Point;
use super::{MambaExtend, Method, Modulation, Scaled, Scales, scales};
use crate::backend::Backend;
use crate::eval::perplexity::window_nll;
use crate::eval::samples;
use crate::model::Model;
use crate::session::SessionOptions;
use crate::{Error, Result};
use std::sync::Arc;

/// How the search goes.
#[derive(Clone, Debug)]
pub struct TuneOptions {
    /// Steps; each reads all windows three times.
    pub steps: usize,
    /// How many tokens at the end of each window are scored.
    pub labels: usize,
    /// Of the random directions.
    pub seed: u64,
    /// a: how far a step goes.
    pub rate: f64,
    /// How windows are read; without a method or a plan.
    pub session: SessionOptions,
}

impl Default for TuneOptions {
    fn default() -> Self {
        TuneOptions {
            steps: 20,
            labels: 100,
            seed: 0,
            rate: 0.1,
            session: SessionOptions::default(),
        }
    }
}

/// The smallest factor, as in MambaExtend's code.
const SMALLEST: f64 = 0.01;
const LARGEST: f64 = 10.0;

/// How many times [`tune`] reads all windows.
pub fn passes(options: &TuneOptions) -> usize {
    1 + 3 * options.steps
}

/// Finds factors under which the model predicts the last labels of `windows` best. All windows have one
/// length; the same seed finds the same factors. `progress` is called with the tokens of each window read.
///
/// # Errors
/// [`Error::Argument`] where there is no window, they differ in length or are not longer than the labels;
/// [`Error::Logit`] where the model breaks down; as [`Session::prefill`](crate::Session::prefill).
pub fn tune<B: Backend>(
    model: &Arc<Model<B>>,
    scaled: Scaled,
    windows: &[&[u32]],
    options: &TuneOptions,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Scales> {
    let length = windows.first().map_or(0, |w| w.len());
    if options.labels == 0 || length <= options.labels || windows.iter().any(|w| w.len() != length)
    {
        return Err(Error::argument(format!(
            "tuning needs windows of one length, longer than the {} labels, and a label at least",
            options.labels
        )));
    }
    if options.session.resolved()?.is_some() {
        return Err(Error::argument("tuning is of the model as it is, without a method or a plan"));
    }
    let tuning = scales::Tuning {
        length,
        windows: windows.len(),
        labels: options.labels,
        seed: options.seed,
    };
    let at = |factors: &[f64], path: Vec<Point>| {
        let factors = factors.iter().map(|&f| f as f32).collect();
        Scales::new(scaled, model.fingerprint().clone(), factors, tuning.clone(), path)
    };
    let loss = |factors: &[f64]| -> Result<f64> {
        let scales = at(factors, Vec::new())?;
        let method: Arc<dyn Method> = match scaled {
            Scaled::Delta => Arc::new(MambaExtend::new(scales)?),
            Scaled::Rates => Arc::new(Modulation::new(scales)?),
        };
        let session = SessionOptions { method: Some(method), ..options.session.clone() };
        let nlls = samples(model, windows.len(), |index| {
            let nll = window_nll(model, windows[index], options.labels, &session)?;
            progress(length);
            Ok(nll)
        })?;
        Ok(nlls.iter().sum::<f64>() / nlls.len() as f64)
    };
    let path = search(model.fingerprint().layers, options, loss)?;
    let best = path.iter().min_by(|a, b| a.1.total_cmp(&b.1)).map(|(factors, _)| factors.clone());
    let best = best.unwrap_or_default();
    let point = |(factors, nll): &(Vec<f64>, f64)| Point {
        factors: factors.iter().map(|&f| f as f32).collect(),
        nll: *nll,
    };
    at(&best, path.iter().map(point).collect())
}

/// The points that the search went through and the loss at each, from all ones on.
fn search(
    layers: usize,
    options: &TuneOptions,
    loss: impl Fn(&[f64]) -> Result<f64>,
) -> Result<Vec<(Vec<f64>, f64)>> {
    let mut random = fastrand::Rng::with_seed(options.seed);
    let start = vec![1.0; layers];
    let mut here = (start.clone(), loss(&start)?);
    let mut path = vec![here.clone()];
    for step in 0..options.steps {
        let reach = 0.1 / (1.0 + step as f64).powf(0.1);
        let direction: Vec<f64> =
            (0..layers).map(|_| if random.bool() { 1.0 } else { -1.0 }).collect();
        let moved = |by: f64| -> Vec<f64> {
            let pairs = here.0.iter().zip(&direction);
            pairs.map(|(s, d)| (s + by * d).clamp(SMALLEST, LARGEST)).collect()
        };
        let (plus, minus) = (moved(reach), moved(-reach));
        let (l_plus, l_minus) = (loss(&plus)?, loss(&minus)?);
        let stepped = moved(-options.rate * (l_plus - l_minus) / (2.0 * reach));
        let l_stepped = loss(&stepped)?;
        let mut next = (stepped, l_stepped);
        for other in [(plus, l_plus), (minus, l_minus)] {
            if other.1 < next.1 {
                next = other;
            }
        }
        here = next;
        path.push(here.clone());
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_finds_the_bottom_of_a_bowl() {
        let bottom = [0.4, 1.3, 0.8];
        let loss = |s: &[f64]| Ok(s.iter().zip(bottom).map(|(s, b)| (s - b).powi(2)).sum::<f64>());
        let options = TuneOptions { steps: 300, ..TuneOptions::default() };
        let path = search(3, &options, loss).unwrap();
        assert_eq!(path.len(), 301);
        assert_eq!(path[0].0, [1.0; 3]);
        let best = path.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
        assert!(path[0].1 > 0.4 && best < 0.01, "{best}");
        // The same seed, the same path; another seed, another.
        assert_eq!(search(3, &options, loss).unwrap(), path);
        let other = TuneOptions { seed: 1, ..options };
        assert_ne!(search(3, &other, loss).unwrap(), path);
    }

    #[test]
    fn factors_stay_in_their_range() {
        let options = TuneOptions { steps: 60, rate: 50.0, ..TuneOptions::default() };
        let path = search(2, &options, |s| Ok(s.iter().sum())).unwrap();
        assert!(path.iter().flat_map(|p| &p.0).all(|f| (SMALLEST..=LARGEST).contains(f)));
        assert_eq!(path.last().map(|p| p.0.clone()), Some(vec![SMALLEST; 2]));
    }

    #[test]
    fn an_error_ends_the_search() {
        let loss = |_: &[f64]| Err(Error::EmptyPrompt);
        assert!(matches!(search(2, &TuneOptions::default(), loss), Err(Error::EmptyPrompt)));
    }
}
