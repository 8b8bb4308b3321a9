//! Perplexity of the last tokens of long windows, as the papers measure it on PG-19.

use super::run::{Line, Part, Run, Shard};
use super::{Estimate, Progress, at_least_one};
use crate::backend::Backend;
use crate::generate::Timing;
use crate::model::Model;
use crate::session::SessionOptions;
use crate::tokenizer::Text;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::f64::consts::LN_2;
use std::sync::Arc;
use std::time::Instant;

/// Which windows, and how much of each is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Tokens of a window.
    pub length: usize,
    /// About how many a text; see [`window_starts`].
    pub windows: usize,
    /// How many tokens at the end of each are scored.
    pub labels: usize,
}

impl Windows {
    /// As in the papers: 10 windows a text, the last 100 tokens scored.
    pub fn new(length: usize) -> Self {
        Windows { length, windows: 10, labels: 100 }
    }

    /// Whether the three numbers go together.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub fn check(&self) -> Result<()> {
        at_least_one("the number of windows", self.windows)?;
        at_least_one("the number of labels", self.labels)?;
        if self.length <= self.labels {
            return Err(Error::argument(format!(
                "a window of {} tokens cannot have {} labels; the first token is never scored",
                self.length, self.labels
            )));
        }
        Ok(())
    }
}

/// The perplexity at one length.
#[derive(Clone, Debug, PartialEq)]
pub struct Perplexity {
    /// Tokens of a window.
    pub length: usize,
    /// Mean negative log-likelihood of a label in nats, over all windows of all texts alike.
    pub nll: Estimate,
    /// The same in bits for each byte of the labels' text, where their bytes are known.
    pub bits_per_byte: Option<Estimate>,
    /// Tokens read.
    pub timing: Timing,
}

impl Perplexity {
    /// exp(nll).
    pub fn perplexity(&self) -> f64 {
        self.nll.mean.exp()
    }
}

/// The first tokens of the windows in a text of `tokens` tokens: 0, s, 2s, … below
/// `tokens − length`, with the stride s = max(⌊(tokens − length) / windows⌋, 10).
///
/// The end is exclusive, as in the papers' code: a text of exactly `length` tokens has no window, and
/// one that has room for many has `windows` or, unless the stride divides the room, one more.
pub fn window_starts(
    tokens: usize,
    Windows { length, windows, .. }: Windows,
) -> impl Iterator<Item = usize> + Clone {
    let room = tokens.saturating_sub(length);
    let stride = (room / windows.max(1)).max(10);
    (0..room).step_by(stride)
}

/// Reads every window of every text from a fresh state and scores the last labels of each.
///
/// With a plan in `session` the labels are filtered like all other tokens of the window.
///
/// # Errors
/// [`Error::Argument`] where no text has a window or the numbers do not go together; [`Error::Logit`]
/// where the model breaks down; as [`Session::prefill`](crate::Session::prefill).
pub fn perplexity<B: Backend>(
    model: &Arc<Model<B>>,
    texts: &[Text],
    windows: Windows,
    session: &SessionOptions,
    progress: Progress<'_>,
) -> Result<Perplexity> {
    let part = Run::in_memory(Shard::WHOLE).part("", window_count(texts, windows))?;
    perplexity_in(part, model, texts, windows, session, progress)
}

/// A window that was scored, as a run records it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowScore {
    /// The number of the text.
    pub text: usize,
    /// The window's first token.
    pub start: usize,
    /// Mean negative log-likelihood of its labels, in nats.
    pub nll: f64,
}

/// How many windows there are in all texts: the samples of a part of a run for [`perplexity_in`].
pub fn window_count(texts: &[Text], windows: Windows) -> usize {
    texts.iter().map(|text| window_starts(text.tokens.len(), windows).count()).sum()
}

/// As [`perplexity`], as a part of a [`Run`]: what was done before is not done again, and of several shards
/// this one's windows are read.
///
/// # Errors
/// As [`perplexity`], and [`Part::finish`].
pub fn perplexity_in<B: Backend>(
    part: Part<WindowScore>,
    model: &Arc<Model<B>>,
    texts: &[Text],
    windows: Windows,
    session: &SessionOptions,
    progress: Progress<'_>,
) -> Result<Perplexity> {
    windows.check()?;
    let Windows { length, labels, .. } = windows;
    let all: Vec<(usize, usize)> = texts
        .iter()
        .enumerate()
        .flat_map(|(number, text)| {
            window_starts(text.tokens.len(), windows).map(move |start| (number, start))
        })
        .collect();
    if all.is_empty() {
        return Err(too_short(texts, length));
    }
    let (start, left) = (Instant::now(), part.left().len());
    let lines = part.finish(model, |index| {
        let (text, start) = all[index];
        let window = &texts[text].tokens[start..start + length];
        let nll = window_nll(model, window, labels, session)?;
        progress(length);
        Ok(WindowScore { text, start, nll })
    })?;
    let timing = Timing::since(start, left * length);
    let nlls: Vec<f64> = lines.iter().map(|line| line.sample.nll).collect();
    let nll = Estimate::of(&nlls).ok_or_else(|| {
        let windows = all.len();
        Error::argument(format!("this shard has none of the {windows} windows; take fewer shards"))
    })?;
    let label_bytes = |line: &Line<WindowScore>| {
        let (text, start) = all[line.index];
        texts[text].bytes(start + length - labels..start + length)
    };
    let bytes: Option<usize> = lines.iter().map(label_bytes).sum();
    // Windows weigh the same, so the bits are those of all windows over the bytes of all windows.
    let bits_per_byte = bytes
        .filter(|&b| b > 0)
        .map(|bytes| nll.scaled((lines.len() * labels) as f64 / bytes as f64 / LN_2));
    Ok(Perplexity { length, nll, bits_per_byte, timing })
}

/// Why there is no window.
fn too_short(texts: &[Text], length: usize) -> Error {
    let longest = texts.iter().map(|t| t.tokens.len()).max().unwrap_or(0);
    Error::argument(format!(
        "no text has more than {length} tokens, as windows of that length need; the longest has {longest}"
    ))
}

/// Mean negative log-likelihood of the last `labels` tokens of `window`, in nats.
pub(crate) fn window_nll<B: Backend>(
    model: &Arc<Model<B>>,
    window: &[u32],
    labels: usize,
    options: &SessionOptions,
) -> Result<f64> {
    let mut session = model.session(options.clone())?;
    let first = window.len() - labels;
    let (mut sum, mut bad) = (0.0, None);
    // The logits of a position predict the token after it.
    session.prefill_scored(window, first - 1..window.len() - 1, |index, logits| {
        match nll(logits, window[index + 1]) {
            Ok(nll) => sum += nll,
            Err(e) => bad = bad.take().or(Some(e)),
        }
    })?;
    bad.map_or(Ok(sum / labels as f64), Err)
}

/// −ln softmax(logits)[token].
fn nll(logits: &[f32], token: u32) -> Result<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| f64::from(l - max).exp()).sum();
    let label = logits.get(token as usize).copied().unwrap_or(f32::NAN);
    let nll = f64::from(max) + sum.ln() - f64::from(label);
    if nll.is_nan() {
        let token = logits.iter().position(|l| !l.is_finite()).unwrap_or(token as usize);
        return Err(Error::Logit { token, value: logits.get(token).copied().unwrap_or(f32::NAN) });
    }
    Ok(nll)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(tokens: usize, length: usize) -> Vec<usize> {
        window_starts(tokens, Windows::new(length)).collect()
    }

    #[test]
    fn the_window_rule_of_the_papers() {
        assert!(starts(0, 1000).is_empty() && starts(999, 1000).is_empty());
        assert!(starts(1000, 1000).is_empty(), "the end is exclusive");
        assert_eq!(starts(1001, 1000), [0]);
        // Room for less than 100: a stride of 10.
        assert_eq!(starts(1045, 1000), [0, 10, 20, 30, 40]);
        assert_eq!(starts(1050, 1000), [0, 10, 20, 30, 40]);
        // 10 windows if the stride divides the room, else 11; none ends at the last token.
        let ten: Vec<usize> = (0..10).map(|i| i * 12).collect();
        assert_eq!(starts(1120, 1000), ten);
        for (room, count) in
            [(100, 10), (101, 11), (119, 11), (200, 10), (1_234_560, 10), (1_234_567, 11)]
        {
            let starts = starts(1000 + room, 1000);
            assert_eq!(starts.len(), count, "room {room}");
            assert!(starts.iter().all(|s| s < &room));
        }
    }

    #[test]
    fn nll_by_hand() {
        let uniform = nll(&[3.0; 8], 5).unwrap();
        assert!((uniform - 8f64.ln()).abs() < 1e-12);
        // Large logits do not overflow, −∞ is a token that cannot come.
        assert!(nll(&[1e30, -1e30], 0).unwrap().abs() < 1e-12);
        assert_eq!(nll(&[0.0, f32::NEG_INFINITY], 0).unwrap(), 0.0);
        assert!(matches!(nll(&[0.0, f32::NAN], 0), Err(Error::Logit { token: 1, .. })));
        assert!(matches!(nll(&[0.0, f32::INFINITY], 0), Err(Error::Logit { token: 1, .. })));
    }

    #[test]
    fn windows_are_checked() {
        assert!(Windows::new(101).check().is_ok());
        for bad in [
            Windows::new(100),
            Windows { windows: 0, ..Windows::new(200) },
            Windows { labels: 0, ..Windows::new(200) },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
