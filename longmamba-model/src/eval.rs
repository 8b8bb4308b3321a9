//! What a model can do at a length: perplexity, whether it finds what it was told, and the scores of
//! LongBench and RULER; and how far back its channels see: hidden attention, cumulative decay.

pub mod attention_map;
pub mod channel_scan;
pub mod decay;
mod json_lines;
pub mod latency;
pub mod longbench;
pub mod metrics;
pub mod passkey;
pub mod perplexity;
pub mod prose;
pub mod recall;
pub mod ruler;
pub mod run;
pub mod score;

use crate::backend::Backend;
use crate::model::Model;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// A mean over samples, and how far it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Standard deviation of the samples ÷ √samples; `None` for a single sample.
    pub standard_error: Option<f64>,
    /// How many samples.
    pub samples: usize,
}

impl Estimate {
    /// Of `values`; `None` where there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let samples = values.len();
        if samples == 0 {
            return None;
        }
        let count = samples as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let standard_error = (samples > 1).then(|| (squares / (count - 1.0) / count).sqrt());
        Some(Estimate { mean, standard_error, samples })
    }

    /// Mean and error times `factor`.
    pub fn scaled(self, factor: f64) -> Self {
        let standard_error = self.standard_error.map(|e| e * factor.abs());
        Estimate { mean: self.mean * factor, standard_error, ..self }
    }
}

/// Called with the number of tokens that a sample had, from the thread that finished it.
pub type Progress<'a> = &'a (dyn Fn(usize) + Sync);

/// Runs `work` for samples 0 to `count`, as [`samples_in_order`]; the results are in order of samples.
pub(crate) fn samples<B: Backend, T: Send>(
    model: &Model<B>,
    count: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let mut results = Vec::with_capacity(count);
    samples_in_order(model, count, work, |_, result| {
        results.push(result);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(results)
}

/// Runs `work` for samples 0 to `count`, as many at a time as the device reads best together, and gives
/// each result to `done` as soon as those of all samples before it were given.
///
/// Samples are started in order, and spread over threads because small models have too little work in a
/// chunk for several; in a large model the stages inside a sample use the threads that others leave idle.
///
/// After the first error, of `work` or `done`, no sample is started; of several errors the first sample's is
/// returned, and the results before it were given to `done`. Nor is one started after `done` breaks off,
/// which is no error; `done` is given no more then.
pub(crate) fn samples_in_order<B: Backend, T: Send>(
    model: &Model<B>,
    count: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
    done: impl FnMut(usize, T) -> Result<ControlFlow<()>> + Send,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let sink = Mutex::new(InOrder { done, given: 0, early: BTreeMap::new(), ended: None });
    let worker = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return;
            }
            let result = work(index);
            // A poisoned lock means that another worker panicked, which the scope passes on.
            let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
            let failed = result.is_err();
            sink.take(index, result);
            if failed || sink.ended.is_some() {
                next.store(count, Ordering::Relaxed);
            }
        }
    };
    let workers = model.backend().sequences_at_once().min(count);
    if workers <= 1 {
        // Without `run`, which sessions call themselves: on a device of one turn at a time they would
        // wait for it for ever.
        worker();
    } else {
        model.backend().run(|| {
            rayon::scope(|scope| (0..workers).for_each(|_| scope.spawn(|_| worker())));
        });
    }
    let sink = sink.into_inner().unwrap_or_else(PoisonError::into_inner);
    sink.ended.unwrap_or(Ok(()))
}

/// Results on their way to `done`.
struct InOrder<T, F> {
    done: F,
    /// How many were given.
    given: usize,
    /// Those that wait for one before them.
    early: BTreeMap<usize, Result<T>>,
    /// How it ended before the last one; after that nothing is given.
    ended: Option<Result<()>>,
}

impl<T, F: FnMut(usize, T) -> Result<ControlFlow<()>>> InOrder<T, F> {
    fn take(&mut self, index: usize, result: Result<T>) {
        self.early.insert(index, result);
        while self.ended.is_none()
            && let Some(result) = self.early.remove(&self.given)
        {
            match result.and_then(|result| (self.done)(self.given, result)) {
                Ok(ControlFlow::Continue(())) => self.given += 1,
                Ok(ControlFlow::Break(())) => self.ended = Some(Ok(())),
                Err(error) => self.ended = Some(Err(error)),
            }
        }
    }
}

/// The number of windows or prompts must not be 0.
fn at_least_one(what: &str, value: usize) -> Result<()> {
    if value == 0 {
        return Err(Error::argument(format!("{what} is 0, must be at least 1")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_by_hand() {
        let e = Estimate::of(&[1.0, 2.0, 3.0, 6.0]).unwrap();
        // Squares 4 + 1 + 0 + 9 = 14; 14 / 3 / 4.
        assert_eq!((e.mean, e.samples), (3.0, 4));
        assert!((e.standard_error.unwrap() - (14.0f64 / 12.0).sqrt()).abs() < 1e-12);
        assert_eq!(e.scaled(2.0).mean, 6.0);
        assert_eq!(Estimate::of(&[2.0]).unwrap().standard_error, None);
        assert_eq!(Estimate::of(&[]), None);
    }
}
