use super::*;
use crate::Error;
use crate::methods::theta::WindowNll;
use proptest::prelude::*;

fn score(nll: f64) -> Score {
    Score { windows: vec![WindowNll { length: 8, text: 0, start: 0, nll }], stopped: false }
}

/// Wide gaps, a third of a decade, between `scores` scores.
fn wide(scores: usize) -> Vec<Gap> {
    Gap::all((0..scores).map(|i| -(i as f64) * 0.33 * std::f64::consts::LN_10))
}

fn sweep(
    gaps: &[Gap],
    global: usize,
    options: &SearchOptions,
    nll: impl Fn(usize) -> f64,
) -> Sweep {
    let mut sweep = Sweep::new();
    sweep.search(gaps, global, options, |gap, _| Ok(score(nll(gap.global)))).unwrap();
    sweep
}

fn globals(sweep: &Sweep) -> Vec<usize> {
    sweep.trials().iter().map(|trial| trial.gap.global).collect()
}

fn chosen(sweep: &Sweep, allow_cliff: bool) -> Option<usize> {
    sweep.choice(allow_cliff).chosen.map(|trial| trial.gap.global)
}

#[test]
fn the_bottom_of_a_bowl_is_found_from_coarse_to_fine() {
    let gaps = wide(200);
    assert_eq!(gaps.len(), 201);
    for bottom in [0, 1, 37, 118, 199, 200] {
        let bowl = |global: usize| (global as f64 - bottom as f64).abs() / 10.0;
        let options = SearchOptions { evaluations: 40, ..SearchOptions::default() };
        let sweep = sweep(&gaps, 90, &options, bowl);
        assert_eq!(globals(&sweep)[0], 90);
        // The shares alone are up to 25 away.
        let off = chosen(&sweep, false).unwrap().abs_diff(bottom);
        assert!(off <= 3, "{off} from {bottom}");
        assert!(sweep.trials().len() < 40, "{} for {bottom}", sweep.trials().len());
    }
}

#[test]
fn a_monotone_landscape_ends_at_its_end() {
    let falling = |global: usize| 5.0 - 0.05 * global as f64;
    assert_eq!(chosen(&sweep(&wide(60), 3, &SearchOptions::default(), falling), false), Some(60));
    let rising = |global: usize| 5.0 + 0.05 * global as f64;
    assert_eq!(chosen(&sweep(&wide(60), 3, &SearchOptions::default(), rising), false), Some(0));
}

#[test]
fn a_plateau_ends_the_search_and_the_widest_gap_wins() {
    let options = SearchOptions { evaluations: 1000, ..SearchOptions::default() };
    let mut scores: Vec<f64> = (0..500).map(|i| -(i as f64) * 0.33).collect();
    scores.iter_mut().skip(300).for_each(|s| *s -= 3.0);
    let gaps = Gap::all(scores);
    let flat = sweep(&gaps, 250, &options, |_| 2.0);
    // The first, the shares, and some rounds to both sides.
    assert!(flat.trials().len() <= 1 + options.coarse + 2 * PATIENCE, "{}", flat.trials().len());
    assert_eq!(chosen(&flat, false), Some(300));
}

#[test]
fn a_point_beside_a_cliff_is_passed_over_and_named() {
    // Two scores 5 % apart, in the middle of wide gaps; between them it is best.
    let ln = |s: f64| s.ln();
    let gaps = Gap::all([0.9, 0.3, 0.1, 0.095, 0.03, 0.01].map(ln));
    let nll = |global: usize| [9.0, 8.0, 4.0, 2.0, 3.0, 7.0, 9.0][global];
    let found = sweep(&gaps, 3, &SearchOptions::default(), nll);
    assert_eq!(chosen(&found, false), Some(4));
    let passed = found.choice(false).passed_over.unwrap();
    assert_eq!((passed.gap.global, passed.gap.near_cliff()), (3, true));
    assert_eq!((chosen(&found, true), found.choice(true).passed_over), (Some(3), None));
    // A worse one beside a cliff is no loss.
    let found =
        sweep(&gaps, 3, &SearchOptions::default(), |global| if global == 3 { 5.0 } else { 3.0 });
    assert_eq!(found.choice(false).passed_over, None);
}

#[test]
fn where_all_are_beside_cliffs_none_is_chosen() {
    let gaps: Vec<Gap> =
        Gap::all((0..50).map(|i| -0.05 * f64::from(i))).into_iter().skip(1).take(48).collect();
    assert!(gaps.iter().all(Gap::near_cliff));
    let found = sweep(&gaps, 10, &SearchOptions::default(), |global| (global as f64 - 20.0).abs());
    assert_eq!(found.choice(false).chosen, None);
    assert_eq!(found.choice(false).passed_over.map(|t| t.gap.global), Some(20));
    assert_eq!(chosen(&found, true), Some(20));
}

#[test]
fn stopped_ones_are_no_choice_and_the_best_is_handed_on() {
    let gaps = wide(30);
    let mut sweep = Sweep::new();
    let best_of = |global: usize| 1.0 + (global as f64 - 12.0).abs() / 10.0;
    let search = |sweep: &mut Sweep, better: f64| {
        sweep
            .search(&gaps, 20, &SearchOptions::default(), |gap, best| {
                let nll = best_of(gap.global) - better;
                let stopped = best.is_some_and(|best| nll > best.nll() + 0.2);
                // A partial mean may look better than it is.
                let shown = if stopped { 0.0 } else { nll };
                Ok(Score { stopped, ..score(shown) })
            })
            .unwrap();
    };
    search(&mut sweep, 0.0);
    assert!(sweep.trials().iter().any(|t| t.score.stopped));
    assert_eq!(chosen(&sweep, true), Some(12));
    // A second plan, worse everywhere, is stopped from its first θ on, and leaves the choice as it was.
    let before = sweep.trials().len();
    search(&mut sweep, -3.0);
    let second = &sweep.trials()[before..];
    assert!(second.iter().all(|t| t.plan == 1 && t.score.stopped) && !second.is_empty());
    assert_eq!(sweep.choice(true).chosen.map(|t| (t.plan, t.gap.global)), Some((0, 12)));
}

#[test]
fn an_error_ends_the_search() {
    let failing = |_: &Gap, _: Option<&Score>| Err(Error::EmptyPrompt);
    let found = Sweep::new().search(&wide(5), 2, &SearchOptions::default(), failing);
    assert!(matches!(found, Err(Error::EmptyPrompt)));
    // And nothing to search in is no error.
    Sweep::new().search(&[], 2, &SearchOptions::default(), failing).unwrap();
}

proptest! {
    #[test]
    fn the_choice_is_the_best_of_what_was_tried(
        scores in prop::collection::vec(-20.0f64..0.0, 1..80),
        nlls in prop::collection::vec(0.0f64..5.0, 81),
        evaluations in 0usize..30,
        coarse in 0usize..12,
        global in 0usize..90,
        allow_cliff: bool,
    ) {
        let gaps = Gap::all(scores);
        let options = SearchOptions { evaluations, coarse, allow_cliff, ..SearchOptions::default() };
        let found = sweep(&gaps, global, &options, |global| nlls[global]);
        let tried = globals(&found);
        prop_assert!(tried.len() <= evaluations);
        let mut once = tried.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), tried.len(), "nothing is tried twice");
        let may = found.trials().iter().filter(|t| allow_cliff || !t.gap.near_cliff());
        let best = may.map(|t| t.score.nll()).fold(f64::INFINITY, f64::min);
        let choice = found.choice(allow_cliff);
        match choice.chosen {
            Some(trial) => {
                prop_assert_eq!(trial.score.nll(), best);
                prop_assert!(allow_cliff || !trial.gap.near_cliff());
            }
            None => prop_assert_eq!(best, f64::INFINITY),
        }
        let all = found.trials().iter().map(|t| t.score.nll()).fold(f64::INFINITY, f64::min);
        prop_assert_eq!(choice.passed_over.is_some(), all < best);
    }
}
