//! The search for LongMamba's θ, by perplexity on held-out text.
//!
//! Between two neighbouring scores all θ are the same classification, so the candidates are the
//! [gaps](Gap) between scores, each with the θ in its middle. [`Sweep::search`] goes from coarse to fine:
//! the θ that is there, then the widest gap in each of a few shares of the numbers of global channels, then
//! wide gaps around the best. A candidate is left as soon as its windows say that it is worse than the best
//! by a clear margin. [`Sweep::choice`] does not take a θ beside a cliff, where another window or another
//! clamp would have made another classification, and says which better one it passed over.

mod search;

use crate::backend::Backend;
use crate::eval::perplexity::{Windows, window_nll, window_starts};
use crate::eval::run::Part;
use crate::eval::{Estimate, Progress};
use crate::model::Model;
use crate::session::SessionOptions;
use crate::tokenizer::Text;
use crate::{Error, Result};
use longmamba_core::policy::Gap;
pub use search::{Choice, SearchOptions, Sweep};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A θ that was tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The number of the search that it is of: that of the plan, where there are several.
    pub plan: usize,
    /// Where θ is the middle of.
    pub gap: Gap,
    /// What came of it.
    pub score: Score,
}

/// How well a model reads held-out text with a θ.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The windows that were read, in the order in which all θ read them.
    pub windows: Vec<WindowNll>,
    /// Whether the rest was not read, because this θ was clearly worse than the best.
    pub stopped: bool,
}

/// One window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowNll {
    /// Its tokens.
    pub length: usize,
    /// The number of the text.
    pub text: usize,
    /// The window's first token.
    pub start: usize,
    /// Mean negative log-likelihood of its labels, in nats.
    pub nll: f64,
}

impl Score {
    /// Mean negative log-likelihood in nats, over the lengths that were read, each the mean of its windows;
    /// NaN where none was.
    pub fn nll(&self) -> f64 {
        let lengths = self.lengths();
        lengths.iter().map(|l| l.nll).sum::<f64>() / lengths.len() as f64
    }

    /// By how much the nll is above that of another score, and the standard error of that, from the
    /// differences on the same windows; `None` where a length has fewer than two in both.
    pub fn above(&self, other: &Score) -> Option<(f64, f64)> {
        let lengths = self.lengths();
        let pairs = || self.windows.iter().zip(&other.windows);
        let difference = |length: &LengthNll| {
            let of_length = pairs().filter(|(own, _)| own.length == length.length);
            let differences: Vec<f64> = of_length.map(|(own, other)| own.nll - other.nll).collect();
            let difference = Estimate::of(&differences)?;
            Some((difference.mean, difference.standard_error?.powi(2)))
        };
        let all: Vec<(f64, f64)> = lengths.iter().map(difference).collect::<Option<_>>()?;
        let (means, squares): (Vec<f64>, Vec<f64>) = all.into_iter().unzip();
        let count = means.len() as f64;
        let mean = means.iter().sum::<f64>() / count;
        Some((mean, squares.iter().sum::<f64>().sqrt() / count))
    }

    /// Of each length, ascending, over the windows that were read.
    pub fn lengths(&self) -> Vec<LengthNll> {
        let mut lengths: Vec<usize> = self.windows.iter().map(|w| w.length).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let of = |length| {
            let nlls = || self.windows.iter().filter(|w| w.length == length).map(|w| w.nll);
            let windows = nlls().count();
            LengthNll { length, windows, nll: nlls().sum::<f64>() / windows as f64 }
        };
        lengths.into_iter().map(of).collect()
    }
}

/// The windows of a length together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LengthNll {
    /// Tokens of a window.
    pub length: usize,
    /// How many were read.
    pub windows: usize,
    /// Mean negative log-likelihood of a label, in nats.
    pub nll: f64,
}

/// The held-out windows that every θ is measured on.
#[derive(Clone, Debug)]
pub struct HeldOut<'a> {
    windows: Vec<Window<'a>>,
    labels: usize,
    margin: f64,
}

#[derive(Clone, Copy, Debug)]
struct Window<'a> {
    text: usize,
    start: usize,
    tokens: &'a [u32],
    /// How much it weighs in the mean over lengths.
    weight: f64,
}

impl<'a> HeldOut<'a> {
    /// The windows of each of `lengths`, as [`window_starts`] says, the lengths in turn. `margin`, in nats,
    /// is by how much a θ must be worse than the best on the windows read so far, counted as if there were
    /// no difference on the others, for those not to be read.
    ///
    /// # Errors
    /// [`Error::Argument`] where a length has no window, the numbers do not go together, or the margin is
    /// no number ≥ 0.
    pub fn new(texts: &'a [Text], lengths: &[Windows], margin: f64) -> Result<Self> {
        if margin.is_nan() || margin < 0.0 {
            return Err(Error::argument(format!("the margin is {margin}, must be ≥ 0")));
        }
        let labels = lengths.first().map_or(0, |w| w.labels);
        if lengths.is_empty() || lengths.iter().any(|w| w.labels != labels) {
            return Err(Error::argument("θ needs a length, and all lengths the same labels"));
        }
        let of_length = |&windows: &Windows| -> Result<Vec<Window<'a>>> {
            windows.check()?;
            let length = windows.length;
            let places: Vec<(usize, usize)> = texts
                .iter()
                .enumerate()
                .flat_map(|(text, t)| {
                    window_starts(t.tokens.len(), windows).map(move |start| (text, start))
                })
                .collect();
            if places.is_empty() {
                let longest = texts.iter().map(|t| t.tokens.len()).max().unwrap_or(0);
                return Err(Error::argument(format!(
                    "no text has more than {length} tokens, as windows of that length need; the longest \
                     has {longest}"
                )));
            }
            let weight = 1.0 / (lengths.len() * places.len()) as f64;
            let window = |(text, start): (usize, usize)| {
                let tokens = &texts[text].tokens[start..start + length];
                Window { text, start, tokens, weight }
            };
            Ok(places.into_iter().map(window).collect())
        };
        let mut turns: Vec<(usize, Window<'a>)> = Vec::new();
        for length in lengths {
            turns.extend(of_length(length)?.into_iter().enumerate());
        }
        turns.sort_by_key(|(turn, _)| *turn);
        let windows = turns.into_iter().map(|(_, window)| window).collect();
        Ok(HeldOut { windows, labels, margin })
    }

    /// How many windows there are.
    pub fn windows(&self) -> usize {
        self.windows.len()
    }

    /// Their tokens together.
    pub fn tokens(&self) -> usize {
        self.windows.iter().map(|w| w.tokens.len()).sum()
    }

    /// Reads the windows, all of them or until it is clear that `best` is better. `part` has as many samples
    /// as there are windows.
    ///
    /// # Errors
    /// [`Error::Logit`] where the model breaks down; as [`Part::finish`] and
    /// [`Session::prefill`](crate::Session::prefill).
    pub fn measure<B: Backend>(
        &self,
        part: Part<WindowNll>,
        model: &Arc<Model<B>>,
        session: &SessionOptions,
        best: Option<&Score>,
        progress: Progress<'_>,
    ) -> Result<Score> {
        let work = |index: usize| {
            let Window { text, start, tokens, .. } = self.windows[index];
            let nll = window_nll(model, tokens, self.labels, session)?;
            progress(tokens.len());
            Ok(WindowNll { length: tokens.len(), text, start, nll })
        };
        let worse = |nlls: &mut dyn Iterator<Item = f64>| best.is_some_and(|b| self.worse(nlls, b));
        let lines = part.finish_while(model, work, |lines| {
            !worse(&mut lines.iter().map(|line| line.sample.nll))
        })?;
        let windows: Vec<WindowNll> = lines.into_iter().map(|line| line.sample).collect();
        let stopped = windows.len() < self.windows.len();
        Ok(Score { windows, stopped })
    }

    /// Whether the first windows alone make the mean worse than that of `best` by more than the margin.
    fn worse(&self, nlls: &mut dyn Iterator<Item = f64>, best: &Score) -> bool {
        let pairs = nlls.zip(&best.windows).zip(&self.windows);
        let differences = pairs.map(|((nll, best), window)| window.weight * (nll - best.nll));
        differences.sum::<f64>() > self.margin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(tokens: usize) -> Text {
        crate::Tokenizer::bytes().encode_text(&vec![b'a'; tokens]).unwrap()
    }

    fn windows(length: usize) -> Windows {
        Windows { length, windows: 3, labels: 2 }
    }

    fn score(nlls: &[f64]) -> Score {
        let window = |&nll: &f64| WindowNll { length: 8, text: 0, start: 0, nll };
        Score { windows: nlls.iter().map(window).collect(), stopped: false }
    }

    #[test]
    fn lengths_come_in_turn_and_weigh_alike() {
        // Room for 52 − 10 = 42: 0, 14, 28; 52 − 32 = 20: 0, 10.
        let texts = [text(52)];
        let held_out = HeldOut::new(&texts, &[windows(10), windows(32)], 0.1).unwrap();
        let order: Vec<(usize, usize)> =
            held_out.windows.iter().map(|w| (w.tokens.len(), w.start)).collect();
        assert_eq!(order, [(10, 0), (32, 0), (10, 14), (32, 10), (10, 28)]);
        assert_eq!((held_out.windows(), held_out.tokens()), (5, 94));
        let weights: Vec<f64> = held_out.windows.iter().map(|w| w.weight).collect();
        assert_eq!(weights, [1.0 / 6.0, 0.25, 1.0 / 6.0, 0.25, 1.0 / 6.0]);
        assert!(HeldOut::new(&texts, &[windows(10), windows(60)], 0.1).is_err());
        for margin in [-0.1, f64::NAN] {
            assert!(HeldOut::new(&texts, &[windows(10)], margin).is_err());
        }
        assert!(HeldOut::new(&texts, &[], 0.1).is_err());
    }

    #[test]
    fn worse_is_by_the_margin_on_the_mean_of_all() {
        let texts = [text(52)];
        let held_out = HeldOut::new(&texts, &[windows(10)], 0.1).unwrap();
        let best = score(&[1.0, 2.0, 3.0]);
        let worse = |nlls: &[f64]| held_out.worse(&mut nlls.iter().copied(), &best);
        // A third of 0.29 is no tenth, a third of 0.31 is more.
        assert!(!worse(&[1.29]) && worse(&[1.31]));
        assert!(!worse(&[1.31, 1.9]) && worse(&[1.2, 2.2]) && !worse(&[]));
    }

    #[test]
    fn the_mean_is_over_lengths() {
        let window = |length, nll| WindowNll { length, text: 0, start: 0, nll };
        let windows = vec![window(20, 5.0), window(10, 1.0), window(10, 2.0), window(10, 3.0)];
        let score = Score { windows, stopped: false };
        let by_length: Vec<_> =
            score.lengths().iter().map(|l| (l.length, l.windows, l.nll)).collect();
        assert_eq!(by_length, [(10, 3, 2.0), (20, 1, 5.0)]);
        assert_eq!(score.nll(), 3.5);
    }

    #[test]
    fn differences_are_of_pairs() {
        let window = |length, nll| WindowNll { length, text: 0, start: 0, nll };
        let of = |nlls: [f64; 4]| Score {
            windows: nlls.into_iter().zip([10, 20, 10, 20]).map(|(n, l)| window(l, n)).collect(),
            stopped: false,
        };
        // At 10 by 1 and 3: 2 ± 1; at 20 by 4 both times: 4 ± 0.
        let (mean, error) = of([2.0, 5.0, 9.0, 7.0]).above(&of([1.0, 1.0, 6.0, 3.0])).unwrap();
        assert_eq!((mean, error), (3.0, 0.5));
        assert_eq!(score(&[1.0]).above(&score(&[2.0])), None);
    }
}
