//! How long a launch takes: launched from the host again and again, and replayed from a graph.

use super::{Case, Result};
use longmamba_cuda::Device;
use std::time::Instant;

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// How often.
    repeats: usize,
    /// A repeat takes at least so many seconds.
    repeat: f64,
}

impl Effort {
    /// Enough for a median.
    pub(super) const FULL: Effort = Effort { repeats: 9, repeat: 20e-3 };
    /// Just to see that it runs.
    pub(super) const QUICK: Effort = Effort { repeats: 1, repeat: 0.0 };
}

/// A launch that takes longer is not worth a graph: what the host does for it is hidden.
const SHORT: f64 = 200e-6;

/// As many launches are in a graph at least.
const RECORDED: usize = 256;

/// Seconds of one launch, repeat by repeat.
#[derive(Clone, Debug)]
pub(super) struct Times(Vec<f64>);

impl Times {
    pub(super) fn median(&self) -> f64 {
        median(self.0.clone())
    }

    pub(super) fn best(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// How far apart the slowest and the fastest repeat are, relative to the median.
    pub(super) fn spread(&self) -> f64 {
        let worst = self.0.iter().copied().fold(0.0, f64::max);
        (worst - self.best()) / self.median()
    }

    /// How much longer these take, relative to `other`: the median over repeats that were neighbours.
    pub(super) fn more_than(&self, other: &Times) -> f64 {
        median(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect()) - 1.0
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Times launches of each case, a repeat of each in turn.
pub(super) fn launched(
    device: &Device,
    cases: &mut [Box<dyn Case>],
    effort: Effort,
) -> Result<Vec<Times>> {
    let mut launches = Vec::new();
    for case in cases.iter_mut() {
        launches.push(enough(device, &mut **case, effort)?);
    }
    let mut times = vec![Vec::new(); cases.len()];
    for _ in 0..effort.repeats {
        for ((case, &launches), times) in cases.iter_mut().zip(&launches).zip(&mut times) {
            times.push(seconds(device, launches, || case.launch())? / launches as f64);
        }
    }
    Ok(times.into_iter().map(Times).collect())
}

/// The number of launches that a repeat takes.
fn enough(device: &Device, case: &mut dyn Case, effort: Effort) -> Result<usize> {
    let mut launches = 1;
    loop {
        let taken = seconds(device, launches, || case.launch())?;
        if taken >= effort.repeat {
            return Ok(launches);
        }
        // Towards what is missing, carefully while the clock is too coarse to tell.
        let factor = (1.2 * effort.repeat / taken.max(1e-6)).clamp(2.0, 16.0);
        launches = (launches as f64 * factor).ceil() as usize;
    }
}

/// The seconds from an idle device to an idle device.
fn seconds(
    device: &Device,
    launches: usize,
    mut launch: impl FnMut() -> Result<()>,
) -> Result<f64> {
    device.synchronize()?;
    let start = Instant::now();
    for _ in 0..launches {
        launch()?;
    }
    device.synchronize()?;
    Ok(start.elapsed().as_secs_f64())
}

/// The same launches out of a graph, as models decode: without the host's part. `None` where a launch is
/// long, or cannot be recorded.
pub(super) fn replayed(
    device: &Device,
    case: &mut dyn Case,
    launched: &Times,
    effort: Effort,
) -> Result<Option<Times>> {
    let quick = effort.repeats == 1;
    if !case.recordable() || launched.median() > SHORT && !quick {
        return Ok(None);
    }
    let sets = case.sets();
    let recorded = if quick { 1 } else { sets * RECORDED.div_ceil(sets) };
    let work = || (0..recorded).try_for_each(|_| case.launch().map_err(Failure));
    let graph = device.capture(work).map_err(|error| format!("recording a graph: {}", error.0))?;
    let mut graph = graph.ok_or("recording a graph: nothing was launched")?;
    let launches = (effort.repeat / (recorded as f64 * launched.median())).ceil().max(1.0) as usize;
    let mut times = Vec::new();
    seconds(device, 1, || Ok(graph.launch()?))?;
    for _ in 0..effort.repeats {
        let taken = seconds(device, launches, || Ok(graph.launch()?))?;
        times.push(taken / (launches * recorded) as f64);
    }
    Ok(Some(Times(times)))
}

/// An error of either side of a capture.
struct Failure(Box<dyn std::error::Error>);

impl From<longmamba_cuda::Error> for Failure {
    fn from(error: longmamba_cuda::Error) -> Self {
        Failure(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_repeats() {
        let times = Times(vec![2.0, 1.0, 4.0]);
        assert_eq!((times.median(), times.best(), times.spread()), (2.0, 1.0, 1.5));
        let twice = Times(vec![4.0, 2.0, 8.0]);
        assert_eq!(twice.more_than(&times), 1.0);
    }
}
