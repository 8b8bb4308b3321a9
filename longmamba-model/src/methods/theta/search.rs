//! Which gaps are tried, and which one is chosen: the search without a model.

use super::{Score, Trial};
use crate::Result;
use longmamba_core::policy::Gap;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Range;

/// How the search goes.
#[derive(Clone, Copy, Debug)]
pub struct SearchOptions {
    /// How many θ are tried in a search, at most.
    pub evaluations: usize,
    /// Into how many shares the gaps are divided before the search is refined.
    pub coarse: usize,
    /// Refinement goes on while it makes the nll better by more than this, in nats.
    pub gain: f64,
    /// Whether a θ beside a cliff may be chosen.
    pub allow_cliff: bool,
}

impl Default for SearchOptions {
    fn default() -> Self {
        SearchOptions { evaluations: 24, coarse: 8, gain: 1e-3, allow_cliff: false }
    }
}

/// How many rounds of refinement in a row may bring nothing.
const PATIENCE: usize = 3;

/// All θ that were tried, of one plan or several.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    trials: Vec<Trial>,
    plans: usize,
}

/// What came of a sweep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice<'a> {
    /// The best θ that may be chosen; `None` where all are beside a cliff.
    pub chosen: Option<&'a Trial>,
    /// The best θ beside a cliff, where it is better but may not be chosen.
    pub passed_over: Option<&'a Trial>,
}

impl Sweep {
    /// A sweep with nothing tried.
    pub fn new() -> Self {
        Sweep::default()
    }

    /// In the order in which they were tried.
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// Tries θ in `gaps`, which ascend by global channels, of another plan on the same windows. The gap where
    /// `global` channels are global is the first. `evaluate` gets a gap and the best score so far that may be
    /// chosen, with which it may stop early.
    ///
    /// # Errors
    /// The first of `evaluate`; what was tried before is kept.
    pub fn search(
        &mut self,
        gaps: &[Gap],
        global: usize,
        options: &SearchOptions,
        mut evaluate: impl FnMut(&Gap, Option<&Score>) -> Result<Score>,
    ) -> Result<()> {
        let plan = self.plans;
        self.plans += 1;
        let mut tried = BTreeSet::new();
        let mut try_gap =
            |sweep: &mut Sweep, tried: &mut BTreeSet<usize>, index: usize| -> Result<()> {
                if tried.len() < options.evaluations && tried.insert(index) {
                    let best = sweep.choice(options.allow_cliff).chosen.map(|trial| &trial.score);
                    let (gap, score) = (gaps[index], evaluate(&gaps[index], best)?);
                    sweep.trials.push(Trial { plan, gap, score });
                }
                Ok(())
            };

        let first = gaps.partition_point(|gap| gap.global < global);
        if first < gaps.len() {
            try_gap(self, &mut tried, first)?;
        }
        for share in shares(gaps.len(), options.coarse) {
            if let Some(index) = widest(gaps, share) {
                try_gap(self, &mut tried, index)?;
            }
        }
        let mut idle = 0;
        while tried.len() < options.evaluations && idle < PATIENCE {
            let Some(best) = self.best_of(plan, options.allow_cliff) else { break };
            let (nll, global) = (best.score.nll(), best.gap.global);
            let here = gaps.partition_point(|gap| gap.global < global);
            let before = tried.range(..here).next_back().map_or(0, |index| index + 1);
            let after = tried.range(here + 1..).next().copied().unwrap_or(gaps.len());
            let sides = [before..here, here + 1..after].map(middle);
            let next: Vec<usize> =
                sides.into_iter().filter_map(|side| widest(gaps, side)).collect();
            if next.is_empty() {
                break;
            }
            for index in next {
                try_gap(self, &mut tried, index)?;
            }
            let now = self.best_of(plan, options.allow_cliff).map_or(nll, |b| b.score.nll());
            idle = if now < nll - options.gain { 0 } else { idle + 1 };
        }
        Ok(())
    }

    /// What to take. Of θ that were read to the end the one with the lowest nll, where that is the same the
    /// one in the widest gap; beside a cliff only with `allow_cliff`.
    pub fn choice(&self, allow_cliff: bool) -> Choice<'_> {
        let whole = || self.trials.iter().filter(|trial| !trial.score.stopped);
        let may = |trial: &&Trial| allow_cliff || !trial.gap.near_cliff();
        let chosen = whole().filter(may).min_by(better);
        let passed_over = whole()
            .filter(|trial| !may(trial))
            .min_by(better)
            .filter(|cliff| chosen.is_none_or(|chosen| cliff.score.nll() < chosen.score.nll()));
        Choice { chosen, passed_over }
    }

    /// What to refine around, of a plan: where all are beside a cliff, the best of those.
    fn best_of(&self, plan: usize, allow_cliff: bool) -> Option<&Trial> {
        let whole = || self.trials.iter().filter(|t| t.plan == plan && !t.score.stopped);
        let may = whole().filter(|t| allow_cliff || !t.gap.near_cliff()).min_by(better);
        may.or_else(|| whole().min_by(better))
    }
}

fn better(a: &&Trial, b: &&Trial) -> Ordering {
    let wider = || b.gap.decades().total_cmp(&a.gap.decades());
    a.score.nll().total_cmp(&b.score.nll()).then_with(wider)
}

/// `count` ranges of about the same length that are all of 0 to `len`; fewer where there are not as many.
fn shares(len: usize, count: usize) -> impl Iterator<Item = Range<usize>> {
    let count = count.clamp(1, len.max(1));
    (0..count).map(move |i| i * len / count..(i + 1) * len / count)
}

/// The middle half, so that a search ends soon; all where there are few.
fn middle(range: Range<usize>) -> Range<usize> {
    let quarter = range.len() / 4;
    range.start + quarter..range.end - quarter
}

/// The index of the widest gap of a range.
fn widest(gaps: &[Gap], range: Range<usize>) -> Option<usize> {
    range.max_by(|&a, &b| gaps[a].decades().total_cmp(&gaps[b].decades()))
}

#[cfg(test)]
mod tests;
