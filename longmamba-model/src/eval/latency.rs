//! How long a prompt takes until its first new token, with each of several methods.
//!
//! The authors of LongMamba measured ten rounds of a prompt and one token, one method after the other and without
//! a warm-up. Here every method first reads a prompt that does not count, and within a round they take
//! turns, the first of one round being the last of the next: what makes the machine slower for a while
//! makes all of them slower.

use super::{Progress, at_least_one};
use crate::backend::Backend;
use crate::generate::{GenerateOptions, generate};
use crate::model::Model;
use crate::sample::{SampleOptions, Sampler};
use crate::session::SessionOptions;
use crate::{Error, Result};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

/// The seconds of one method at one length.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Latency {
    /// One a round.
    pub seconds: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation, of the population, as the authors' code has it.
    pub deviation: f64,
    /// Their median; of an even number the mean of the two in the middle.
    pub median: f64,
    /// The median over rounds of these seconds ÷ those of the first method in the same round.
    pub ratio: f64,
}

impl Latency {
    /// `first`: the seconds of the first method, round by round; as many, at least one, none of them 0.
    fn new(seconds: Vec<f64>, first: &[f64]) -> Self {
        let count = seconds.len() as f64;
        let mean = seconds.iter().sum::<f64>() / count;
        let variance = seconds.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / count;
        let ratios = seconds.iter().zip(first).map(|(a, b)| a / b).collect();
        let (median, ratio) = (median(seconds.clone()), median(ratios));
        Latency { seconds, mean, deviation: variance.sqrt(), median, ratio }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() % 2 {
        0 => (values[half - 1] + values[half]) / 2.0,
        _ => values[half],
    }
}

/// Where the prompt of round r begins: 10 + 10,000 r, as in the authors' code, and from the front again where
/// the text ends. `text` is longer than `length`.
fn start(round: usize, length: usize, text: usize) -> usize {
    (10 + 10_000 * round) % (text - length + 1)
}

/// Reads `length` tokens of `text` and draws one, from a fresh session each time, `rounds` times with each of
/// `methods`. The results are in their order.
///
/// # Errors
/// [`Error::Argument`] for a text shorter than the prompt, or no rounds or methods; as [`generate`].
pub fn latency<B: Backend>(
    model: &Arc<Model<B>>,
    text: &[u32],
    length: usize,
    methods: &[SessionOptions],
    rounds: usize,
    progress: Progress<'_>,
) -> Result<Vec<Latency>> {
    at_least_one("the number of rounds", rounds)?;
    at_least_one("the number of methods", methods.len())?;
    at_least_one("the length", length)?;
    if text.len() < length {
        return Err(Error::argument(format!(
            "a prompt of {length} tokens needs as many, the text has {}",
            text.len()
        )));
    }
    let time = |round: usize, options: &SessionOptions| -> Result<f64> {
        let first = start(round, length, text.len());
        let mut greedy = Sampler::new(SampleOptions::default())?;
        let one = GenerateOptions { max_new: 1, stop: Vec::new() };
        let began = Instant::now();
        let mut session = model.session(options.clone())?;
        // The token is drawn from logits that are there: a device has done its work by then.
        let prompt = &text[first..first + length];
        generate(&mut session, prompt, &mut greedy, &one, |_| ControlFlow::Continue(()))?;
        let seconds = began.elapsed().as_secs_f64();
        progress(length);
        // A clock that stands still would divide by 0.
        Ok(seconds.max(1e-9))
    };
    for options in methods {
        time(0, options)?;
    }
    let mut seconds = vec![Vec::with_capacity(rounds); methods.len()];
    for round in 0..rounds {
        let mut turns: Vec<usize> = (0..methods.len()).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for method in turns {
            let taken = time(round, &methods[method])?;
            seconds[method].push(taken);
        }
    }
    let first = seconds[0].clone();
    Ok(seconds.into_iter().map(|seconds| Latency::new(seconds, &first)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_by_hand() {
        let latency = Latency::new(vec![2.0, 4.0, 4.0, 6.0], &[1.0, 1.0, 2.0, 2.0]);
        assert_eq!((latency.mean, latency.median), (4.0, 4.0));
        // (4 + 0 + 0 + 4) / 4.
        assert_eq!(latency.deviation, 2.0f64.sqrt());
        // 2, 4, 2, 3.
        assert_eq!(latency.ratio, 2.5);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn prompts_lie_in_the_text() {
        assert_eq!((start(0, 1000, 100_000), start(3, 1000, 100_000)), (10, 30_010));
        for round in 0..50 {
            for (length, text) in [(1, 1), (5, 5), (7, 9), (1000, 12_345)] {
                assert!(start(round, length, text) + length <= text);
            }
        }
    }

    #[cfg(feature = "builtin")]
    #[test]
    fn every_method_has_all_rounds() {
        let model = crate::builtin::find("mamba2-tiny")
            .unwrap()
            .model(crate::CpuBackend::new(Some(1)).unwrap())
            .unwrap();
        let text: Vec<u32> = (0..500).map(|i| 32 + i % 90).collect();
        let methods = vec![SessionOptions::default(); 3];
        let read = std::sync::atomic::AtomicUsize::new(0);
        let count = |n| {
            read.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
        };
        let all = latency(&model, &text, 100, &methods, 4, &count).unwrap();
        assert_eq!(all.iter().map(|l| l.seconds.len()).collect::<Vec<_>>(), [4, 4, 4]);
        assert_eq!(all[0].ratio, 1.0);
        assert_eq!(read.into_inner(), 3 * (4 + 1) * 100);
        for (length, rounds, methods) in
            [(501, 1, &methods[..]), (0, 1, &methods), (1, 0, &methods), (1, 1, &[])]
        {
            assert!(matches!(
                latency(&model, &text, length, methods, rounds, &|_| {}),
                Err(Error::Argument(_))
            ));
        }
    }
}
