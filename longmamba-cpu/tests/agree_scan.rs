//! The Mamba-1 scan against the oracle, and against itself.

mod common;

use common::{Random, Strided, assert_same, assert_sums, cpus, threshold, widen, with_threads};
use longmamba_core::{
    ChannelStats, DtLimits, SelectiveScan, SelectiveScanInputs, SelectiveScanOut, oracle,
};
use longmamba_cpu::Cpu;
use proptest::prelude::*;
use std::ops::Range;

/// How a problem is laid out in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Storage {
    /// Rows end to end; A and the state with neighbouring channels contiguous.
    Plain,
    /// Rows cut from wider buffers; A and the state with neighbouring states contiguous.
    Strided,
}

#[derive(Clone)]
struct Problem {
    dims: [usize; 4],
    storage: Storage,
    x: Strided<3>,
    dt_raw: Strided<3>,
    z: Option<Strided<3>>,
    a: Strided<2>,
    b: Strided<3>,
    c: Strided<3>,
    d: Option<Vec<f32>>,
    dt_bias: Option<Vec<f32>>,
    delta_min: Option<Vec<f32>>,
    dt_limits: DtLimits,
    lengths: Option<Vec<usize>>,
    state: Vec<f32>,
}

#[derive(Debug, PartialEq)]
struct Outcome {
    y: Vec<f32>,
    state: Vec<f32>,
    delta_sum: Vec<f64>,
    kept_sum: Vec<f64>,
    kept: Vec<u64>,
}

impl Problem {
    fn new(dims: [usize; 4], storage: Storage, seed: u64) -> Self {
        let [batch, len, d_inner, d_state] = dims;
        let mut r = Random::new(seed);
        let gap = if storage == Storage::Plain { 0 } else { 3 };
        let mut rows = |width: usize, low, high| {
            Strided::rows(&r.vec(batch * len * width, low, high), [batch, len, width], gap)
        };
        let (x, dt_raw, z) =
            (rows(d_inner, -2., 2.), rows(d_inner, -7., 2.), rows(d_inner, -3., 3.));
        let (b, c) = (rows(d_state, -1., 1.), rows(d_state, -1., 1.));
        let order = if storage == Storage::Plain { [1, 0] } else { [0, 1] };
        Problem {
            dims,
            storage,
            x,
            dt_raw,
            z: Some(z),
            a: Strided::new(&r.vec(d_inner * d_state, -8., -0.05), [d_inner, d_state], order, gap),
            b,
            c,
            d: Some(r.vec(d_inner, -1., 1.)),
            dt_bias: Some(r.vec(d_inner, -1., 1.)),
            delta_min: None,
            dt_limits: DtLimits::default(),
            lengths: None,
            state: r.vec(batch * d_inner * d_state, -1., 1.),
        }
    }

    /// Every other channel drops about half of its tokens.
    fn masked(mut self) -> Self {
        let [batch, len, d_inner, _] = self.dims;
        let dt = self.dt_raw.values();
        let values = |c: usize| -> Vec<f64> {
            let bias = self.dt_bias.as_ref().map_or(0.0, |v| v[c]);
            let raw = (0..batch * len).map(|i| dt[i * d_inner + c]);
            raw.map(|raw| oracle::delta(raw, bias, self.dt_limits)).collect()
        };
        let thresholds = (0..d_inner)
            .map(|c| if c % 2 == 0 { threshold(values(c), 0.5) } else { 0.0 })
            .collect();
        self.delta_min = Some(thresholds);
        self
    }

    fn inputs<'a>(
        &'a self,
        tokens: &Range<usize>,
        lengths: Option<&'a [usize]>,
    ) -> SelectiveScanInputs<'a> {
        SelectiveScanInputs {
            x: cut(&self.x, tokens),
            dt_raw: cut(&self.dt_raw, tokens),
            a: self.a.view(),
            b: cut(&self.b, tokens),
            c: cut(&self.c, tokens),
            z: self.z.as_ref().map(|z| cut(z, tokens)),
            d: self.d.as_deref(),
            dt_bias: self.dt_bias.as_deref(),
            delta_min: self.delta_min.as_deref(),
            dt_limits: self.dt_limits,
            lengths,
        }
    }

    /// The scan, in the parts that `ends` cuts it into; the state goes from part to part.
    fn run(&self, cpu: Cpu, ends: &[usize]) -> Outcome {
        let [batch, len, d_inner, d_state] = self.dims;
        let (order, gap) = match self.storage {
            Storage::Plain => ([0, 2, 1], 0),
            Storage::Strided => ([0, 1, 2], 2),
        };
        let mut state = Strided::new(&self.state, [batch, d_inner, d_state], order, gap);
        let mut y = Strided::rows(&vec![7.0; batch * len * d_inner], [batch, len, d_inner], gap);
        let (mut delta_sum, mut kept_sum) =
            (vec![0.0; batch * d_inner], vec![0.0; batch * d_inner]);
        let mut kept = vec![0; batch * d_inner];
        let mut start = 0;
        for &end in ends.iter().chain([&len]) {
            let lengths: Option<Vec<usize>> = self
                .lengths
                .as_ref()
                .map(|l| l.iter().map(|&n| n.clamp(start, end) - start).collect());
            let args = SelectiveScan::new(self.inputs(&(start..end), lengths.as_deref())).unwrap();
            let stats = ChannelStats {
                delta_sum: &mut delta_sum,
                kept_sum: &mut kept_sum,
                kept: &mut kept,
            };
            let y = y.view_mut().slice(1, start..end).unwrap();
            let out = SelectiveScanOut { y, state: state.view_mut(), stats: Some(stats) };
            cpu.selective_scan(&args, out).unwrap();
            start = end;
        }
        Outcome { y: y.values(), state: state.values(), delta_sum, kept_sum, kept }
    }

    fn oracle(&self) -> oracle::ScanResult {
        let args = SelectiveScan::new(self.inputs(&(0..self.dims[1]), self.lengths.as_deref()));
        oracle::selective_scan(&args.unwrap(), &widen(&self.state))
    }

    fn check(&self, what: &str, outcome: &Outcome, expected: &oracle::ScanResult) {
        let what = format!("{what} {:?} {:?}", self.dims, self.storage);
        assert_sums(&format!("{what} y"), &outcome.y, &expected.y, 1e-5);
        assert_sums(&format!("{what} state"), &outcome.state, &expected.state, 1e-5);
        let sums = |v: &[f64]| v.iter().map(|&v| v as f32).collect::<Vec<_>>();
        assert_sums(&format!("{what} Σ Δ"), &sums(&outcome.delta_sum), &expected.delta_sum, 2e-6);
        assert_sums(&format!("{what} kept"), &sums(&outcome.kept_sum), &expected.kept_sum, 2e-6);
        assert_eq!(outcome.kept, expected.kept, "{what}");
    }
}

fn cut<'a>(rows: &'a Strided<3>, tokens: &Range<usize>) -> longmamba_core::View<'a, f32, 3> {
    rows.view().slice(1, tokens.clone()).unwrap()
}

fn problems() -> Vec<Problem> {
    let mut all = Vec::new();
    // Around the channels of a tile of one token, and of several.
    for (i, d_inner) in [63, 64, 65, 511, 512, 513, 1030].into_iter().enumerate() {
        for storage in [Storage::Plain, Storage::Strided] {
            all.push(Problem::new([2, 1 + i % 2, d_inner, 5], storage, 1000 + i as u64));
            all.push(Problem::new([1, 1, d_inner, 16], storage, 2000 + i as u64));
        }
    }
    // Around a tile of tokens, a vector and a line of channels, a group of states.
    for (i, len) in [0, 1, 2, 63, 64, 65, 131].into_iter().enumerate() {
        for (j, d_inner) in [1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 35].into_iter().enumerate() {
            let d_state = [16, 1, 7, 8, 9, 15, 17, 0, 33][(i * 11 + j) % 9];
            let storage = if (i + j) % 2 == 0 { Storage::Plain } else { Storage::Strided };
            all.push(Problem::new(
                [1 + j % 2, len, d_inner, d_state],
                storage,
                (i * 100 + j) as u64,
            ));
        }
    }
    all
}

#[test]
fn every_shape_agrees_with_the_oracle() {
    let cpus = cpus();
    for problem in problems() {
        for problem in [problem.clone().masked(), problem] {
            let expected = problem.oracle();
            for &cpu in &cpus {
                problem.check(&format!("{cpu:?}"), &problem.run(cpu, &[]), &expected);
            }
        }
    }
}

#[test]
fn optional_arguments_default_as_documented() {
    let full = Problem::new([2, 20, 21, 16], Storage::Strided, 5);
    let cases = [
        Problem { z: None, ..full.clone() },
        Problem { d: None, ..full.clone() },
        Problem { dt_bias: None, ..full.clone() },
        Problem { z: None, d: None, dt_bias: None, ..full.clone() },
        Problem { dt_limits: DtLimits { min: 0.01, max: 0.5 }, ..full.clone() },
        Problem { delta_min: Some(vec![-1.0; 21]), ..full },
    ];
    for problem in &cases {
        for cpu in cpus() {
            problem.check("options", &problem.run(cpu, &[]), &problem.oracle());
        }
    }
}

#[test]
fn very_large_and_very_small_delta() {
    let mut problem = Problem::new([1, 40, 19, 16], Storage::Plain, 8);
    let [batch, len, d_inner, _] = problem.dims;
    let extremes = [-1e4, -90.0, -87.0, -60.0, -20.0, 0.0, 20.0, 100.0, 1e4];
    let raw: Vec<f32> = (0..len * d_inner).map(|i| extremes[i * 7 % extremes.len()]).collect();
    problem.dt_raw = Strided::rows(&raw, [batch, len, d_inner], 0);
    for cpu in cpus() {
        problem.check("extremes", &problem.run(cpu, &[]), &problem.oracle());
    }
}

#[test]
fn a_sequence_in_which_every_token_is_dropped_keeps_its_state() {
    for storage in [Storage::Plain, Storage::Strided] {
        let mut problem = Problem::new([2, 150, 37, 16], storage, 9);
        problem.delta_min = Some(vec![f32::INFINITY; 37]);
        for cpu in cpus() {
            let outcome = problem.run(cpu, &[]);
            assert_same("state", &outcome.state, &problem.state);
            assert!(outcome.kept.iter().all(|&n| n == 0));
            problem.check("all dropped", &outcome, &problem.oracle());
        }
    }
}

/// A token of a ragged batch is computed as in a batch of its own, to the bit, and what lies past the
/// end is neither read nor counted.
#[test]
fn ragged_sequences_equal_separate_runs() {
    let lengths = vec![0, 1, 70, 130, 64];
    let len = 130;
    for storage in [Storage::Plain, Storage::Strided] {
        let mut problem = Problem::new([lengths.len(), len, 20, 16], storage, 10).masked();
        problem.lengths = Some(lengths.clone());
        // NaN past the ends.
        let [batch, _, d_inner, d_state] = problem.dims;
        for (rows, width) in
            [(&mut problem.x, d_inner), (&mut problem.dt_raw, d_inner), (&mut problem.b, d_state)]
        {
            let mut view = rows.view_mut();
            for (b, &n) in lengths.iter().enumerate() {
                (n..len).for_each(|t| (0..width).for_each(|i| view.set([b, t, i], f32::NAN)));
            }
        }
        for cpu in cpus() {
            let outcome = problem.run(cpu, &[]);
            problem.check("ragged", &outcome, &problem.oracle());
            for (b, &n) in lengths.iter().enumerate() {
                let one = |rows: &Strided<3>, width: usize| {
                    let values = rows.values();
                    let from = b * len * width;
                    Strided::rows(&values[from..from + n * width], [1, n, width], 0)
                };
                let alone = Problem {
                    dims: [1, n, d_inner, d_state],
                    x: one(&problem.x, d_inner),
                    dt_raw: one(&problem.dt_raw, d_inner),
                    z: problem.z.as_ref().map(|z| one(z, d_inner)),
                    b: one(&problem.b, d_state),
                    c: one(&problem.c, d_state),
                    lengths: None,
                    state: problem.state[b * d_inner * d_state..][..d_inner * d_state].to_vec(),
                    ..problem.clone()
                }
                .run(cpu, &[]);
                let from = b * len * d_inner;
                assert_same("y", &outcome.y[from..from + n * d_inner], &alone.y);
                let rest = &outcome.y[from + n * d_inner..from + len * d_inner];
                assert!(rest.iter().all(|&y| y == 0.0));
                let state = &outcome.state[b * d_inner * d_state..][..d_inner * d_state];
                assert_same("state", state, &alone.state);
                assert_eq!(outcome.kept[b * d_inner..][..d_inner], alone.kept);
            }
            assert_eq!(outcome.y.len(), batch * len * d_inner);
        }
    }
}

#[test]
fn the_number_of_threads_cannot_be_seen() {
    for dims in [[1, 200, 200, 16], [5, 300, 17, 16], [1, 1, 5000, 16]] {
        let problem = Problem::new(dims, Storage::Plain, 11).masked();
        for cpu in cpus() {
            let one = with_threads(1, || problem.run(cpu, &[]));
            for threads in [2, 3, 7] {
                assert_eq!(one, with_threads(threads, || problem.run(cpu, &[])), "{dims:?}");
            }
        }
    }
}

#[test]
fn nan_goes_where_it_comes_from_and_no_further() {
    let mut problem = Problem::new([1, 70, 20, 16], Storage::Plain, 12).masked();
    problem.dt_raw.view_mut().set([0, 66, 3], f32::NAN);
    for cpu in cpus() {
        let y = problem.run(cpu, &[]).y;
        for (i, y) in y.iter().enumerate() {
            assert_eq!(y.is_nan(), i % 20 == 3 && i / 20 >= 66, "{}", i);
        }
    }
}

#[test]
fn outputs_that_do_not_fit_are_refused() {
    let problem = Problem::new([1, 4, 3, 2], Storage::Plain, 13);
    let args = SelectiveScan::new(problem.inputs(&(0..4), None)).unwrap();
    let (mut y, mut state) = ([0.0; 12], [0.0; 6]);
    let out = SelectiveScanOut {
        y: longmamba_core::ViewMut::new(&mut y, [1, 3, 4]).unwrap(),
        state: longmamba_core::ViewMut::new(&mut state, [1, 3, 2]).unwrap(),
        stats: None,
    };
    let error = Cpu::new().selective_scan(&args, out).unwrap_err().to_string();
    assert_eq!(error, "y has shape [1, 3, 4], expected [1, 4, 3]");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whole, in parts and token by token.
    #[test]
    fn parts_give_the_same_as_the_whole(
        batch in 1usize..3, len in 1usize..150, d_inner in 1usize..40, d_state in 0usize..20,
        mut ends in proptest::collection::vec(0usize..150, 0..5), seed: u64, strided: bool,
    ) {
        let storage = if strided { Storage::Strided } else { Storage::Plain };
        let problem = Problem::new([batch, len, d_inner, d_state], storage, seed).masked();
        ends.retain(|&end| end <= len);
        ends.sort_unstable();
        let tokens: Vec<usize> = (1..len).collect();
        for cpu in Cpu::available() {
            let whole = problem.run(cpu, &[]);
            for ends in [&ends, &tokens] {
                let parts = problem.run(cpu, ends);
                assert_sums("y", &parts.y, &widen(&whole.y), 1e-5);
                assert_sums("state", &parts.state, &widen(&whole.state), 1e-5);
                assert_eq!(&parts.kept, &whole.kept);
            }
        }
    }
}
