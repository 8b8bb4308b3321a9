//! The causal convolution against the oracle, and against itself.

mod common;

use common::{Random, Strided, assert_same, assert_sums, cpus, widen, with_threads};
use longmamba_core::{View, oracle};
use longmamba_cpu::Cpu;
use proptest::prelude::*;

#[derive(Clone)]
struct Problem {
    /// batch, len, channels, width
    dims: [usize; 4],
    x: Strided<3>,
    weight: Strided<2>,
    bias: Option<Vec<f32>>,
    history: Vec<f32>,
    gap: usize,
}

impl Problem {
    fn new(dims: [usize; 4], strided: bool, seed: u64) -> Self {
        let [batch, len, channels, width] = dims;
        let mut r = Random::new(seed);
        let gap = if strided { 5 } else { 0 };
        let order = if strided { [0, 1] } else { [1, 0] };
        Problem {
            dims,
            x: Strided::rows(&r.vec(batch * len * channels, -2., 2.), [batch, len, channels], gap),
            weight: Strided::new(&r.vec(channels * width, -1., 1.), [channels, width], order, gap),
            bias: strided.then(|| r.vec(channels, -1., 1.)),
            history: r.vec(batch * (width - 1) * channels, -2., 2.),
            gap,
        }
    }

    /// y and the history, in the parts that `ends` cuts the tokens into.
    fn run(&self, cpu: Cpu, ends: &[usize], lengths: Option<&[usize]>) -> (Vec<f32>, Vec<f32>) {
        self.run_as(cpu, true, ends, lengths)
    }

    /// With the SiLU or without.
    fn run_as(
        &self,
        cpu: Cpu,
        silu: bool,
        ends: &[usize],
        lengths: Option<&[usize]>,
    ) -> (Vec<f32>, Vec<f32>) {
        let [batch, len, channels, width] = self.dims;
        let mut history = Strided::rows(&self.history, [batch, width - 1, channels], self.gap);
        let mut y =
            Strided::rows(&vec![7.0; batch * len * channels], [batch, len, channels], self.gap);
        let mut start = 0;
        for &end in ends.iter().chain([&len]) {
            let x = self.x.view().slice(1, start..end).unwrap();
            let out = y.view_mut().slice(1, start..end).unwrap();
            let bias = self.bias.as_deref();
            let (weight, history) = (self.weight.view(), history.view_mut());
            match silu {
                true => cpu.causal_conv1d(x, weight, bias, history, out, lengths),
                false => cpu.causal_conv1d_linear(x, weight, bias, history, out, lengths),
            }
            .unwrap();
            start = end;
        }
        (y.values(), history.values())
    }

    /// The oracle for one sequence of `n` tokens.
    fn oracle(&self, b: usize, n: usize) -> (Vec<f64>, Vec<f64>) {
        let [_, len, channels, width] = self.dims;
        let x = self.x.values()[b * len * channels..][..n * channels].to_vec();
        let history = &self.history[b * (width - 1) * channels..][..(width - 1) * channels];
        let x = View::new(&x, [n, channels]).unwrap();
        oracle::causal_conv1d(&x, &self.weight.view(), self.bias.as_deref(), &widen(history))
    }

    fn check(&self, what: &str, outcome: &(Vec<f32>, Vec<f32>), lengths: &[usize]) {
        let [_, len, channels, width] = self.dims;
        for (b, &n) in lengths.iter().enumerate() {
            let (y, history) = self.oracle(b, n);
            let what = format!("{what} {:?}", self.dims);
            let part = &outcome.0[b * len * channels..][..len * channels];
            assert_sums(&format!("{what} y"), &part[..n * channels], &y, 2e-6);
            assert!(part[n * channels..].iter().all(|&y| y == 0.0));
            let part = &outcome.1[b * (width - 1) * channels..][..(width - 1) * channels];
            assert_sums(&format!("{what} history"), part, &history, 1e-30);
        }
    }
}

#[test]
fn every_shape_agrees_with_the_oracle() {
    let cpus = cpus();
    let mut seed = 0;
    for width in [1, 2, 3, 4, 5, 8, 9, 17] {
        for len in [0, 1, 2, 3, 4, 7, 20] {
            // The last are around a run of channels.
            for channels in [1, 3, 5, 8, 15, 16, 17, 33, 63, 64, 65, 100, 447, 448, 449, 513] {
                seed += 1;
                let problem =
                    Problem::new([1 + seed % 2, len, channels, width], seed % 3 == 0, seed as u64);
                for &cpu in &cpus {
                    let outcome = problem.run(cpu, &[], None);
                    problem.check(&format!("{cpu:?}"), &outcome, &vec![len; problem.dims[0]]);
                }
            }
        }
    }
}

/// The sums themselves; the history is that of the convolution with SiLU.
#[test]
fn without_silu_the_sums_are_left() {
    for width in [1, 2, 4, 8, 9, 17] {
        for len in [0, 1, 3, 20] {
            for (strided, channels) in [(false, 1), (true, 33), (false, 64), (true, 100)] {
                let dims = [2, len, channels, width];
                let problem = Problem::new(dims, strided, (width * 100 + len) as u64);
                let (x, weight) = (problem.x.values(), problem.weight.view());
                let mut expected = Vec::new();
                for (b, t, c) in (0..2 * len * channels)
                    .map(|i| (i / channels / len, i / channels % len, i % channels))
                {
                    let bias = problem.bias.as_ref().map_or(0.0, |bias| f64::from(bias[c]));
                    let tap = |k: usize| {
                        let input = match (t + k).checked_sub(width - 1) {
                            Some(token) => x[(b * len + token) * channels + c],
                            None => problem.history[(b * (width - 1) + t + k) * channels + c],
                        };
                        f64::from(weight.get([c, k]).unwrap()) * f64::from(input)
                    };
                    expected.push(bias + (0..width).map(tap).sum::<f64>());
                }
                for cpu in cpus() {
                    let (y, history) = problem.run_as(cpu, false, &[], None);
                    assert_sums(&format!("{cpu:?} {dims:?}"), &y, &expected, 2e-6);
                    assert_same("history", &history, &problem.run(cpu, &[], None).1);
                    let parts = problem.run_as(cpu, false, &[0, len / 2, len], None);
                    assert_same("y of the parts", &parts.0, &y);
                    assert_same("history of the parts", &parts.1, &history);
                    let threads = with_threads(3, || problem.run_as(cpu, false, &[], None));
                    assert_same("y of three threads", &threads.0, &y);
                }
            }
        }
    }
}

#[test]
fn ragged_sequences_stop_at_their_ends() {
    let lengths = [0, 1, 2, 9, 5];
    for width in [1, 4, 9] {
        let mut problem = Problem::new([lengths.len(), 9, 37, width], true, 3);
        let mut view = problem.x.view_mut();
        for (b, &n) in lengths.iter().enumerate() {
            (n..9).for_each(|t| (0..37).for_each(|c| view.set([b, t, c], f32::NAN)));
        }
        for cpu in cpus() {
            let outcome = problem.run(cpu, &[], Some(&lengths));
            problem.check("ragged", &outcome, &lengths);
        }
    }
}

#[test]
fn the_number_of_threads_cannot_be_seen() {
    for dims in [[1, 300, 700, 4], [7, 700, 20, 4]] {
        let problem = Problem::new(dims, true, 4);
        for cpu in cpus() {
            let one = with_threads(1, || problem.run(cpu, &[], None));
            for threads in [2, 3, 7] {
                let more = with_threads(threads, || problem.run(cpu, &[], None));
                assert_same("y", &more.0, &one.0);
                assert_same("history", &more.1, &one.1);
            }
        }
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let good = Problem::new([1, 5, 6, 4], false, 5);
    let call = |problem: &Problem, lengths: Option<&[usize]>, history: usize| {
        let (mut h, mut y) = (vec![0.0; history * 6], vec![0.0; 30]);
        let history = longmamba_core::ViewMut::new(&mut h, [1, history, 6]).unwrap();
        let out = longmamba_core::ViewMut::new(&mut y, [1, 5, 6]).unwrap();
        let (x, weight) = (problem.x.view(), problem.weight.view());
        Cpu::new().causal_conv1d(x, weight, problem.bias.as_deref(), history, out, lengths)
    };
    assert!(call(&good, None, 3).is_ok());
    let error = call(&good, None, 4).unwrap_err().to_string();
    assert_eq!(error, "history has shape [1, 4, 6], expected [1, 3, 6]");
    let error = call(&good, Some(&[6]), 3).unwrap_err().to_string();
    assert_eq!(error, "lengths[0] is 6, must be at most len");
    let bias = Problem { bias: Some(vec![0.0; 5]), ..good.clone() };
    assert_eq!(call(&bias, None, 3).unwrap_err().to_string(), "bias has shape [5], expected [6]");
    let empty = Problem { weight: Strided::rows(&[], [6, 0], 0), ..good };
    let error = call(&empty, None, 3).unwrap_err().to_string();
    assert_eq!(error, "weight's width[0] is 0, must be at least 1");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every tap meets the same element wherever the sequence is cut, so the bits agree.
    #[test]
    fn parts_give_the_same_as_the_whole(
        batch in 1usize..3, len in 1usize..30, channels in 1usize..80, width in 1usize..12,
        mut ends in proptest::collection::vec(0usize..30, 0..5), seed: u64, strided: bool,
    ) {
        let problem = Problem::new([batch, len, channels, width], strided, seed);
        ends.retain(|&end| end <= len);
        ends.sort_unstable();
        let tokens: Vec<usize> = (1..len).collect();
        for cpu in Cpu::available() {
            let whole = problem.run(cpu, &[], None);
            for ends in [&ends, &tokens] {
                let parts = problem.run(cpu, ends, None);
                assert_same("y", &parts.0, &whole.0);
                assert_same("history", &parts.1, &whole.1);
            }
        }
    }
}
