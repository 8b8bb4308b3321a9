//! Arguments of a Mamba-2 scan, what it makes of them, and what the oracle does.

use crate::common::{Random, Strided, assert_sums, threshold, widen};
use longmamba_core::{ChannelStats, DtLimits, Ssd, SsdInputs, SsdOut, View, oracle};
use longmamba_cpu::{Cpu, Scratch};
use std::ops::Range;

/// `Cpu::ssd` or `Cpu::ssd_bf16`.
pub type Method = fn(&Cpu, &Ssd<'_>, SsdOut<'_>, &mut Scratch) -> longmamba_core::Result<()>;

/// How a problem is laid out in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Storage {
    /// Rows end to end; the state with neighbouring elements of `head_dim` contiguous.
    Plain,
    /// Rows cut from wider buffers; the state with neighbouring states contiguous.
    Strided,
}

#[derive(Clone)]
pub struct Problem {
    /// batch, len, heads, head_dim, groups, d_state
    pub dims: [usize; 6],
    pub storage: Storage,
    pub x: Strided<4>,
    pub dt_raw: Strided<3>,
    pub a: Vec<f32>,
    pub b: Strided<4>,
    pub c: Strided<4>,
    pub d: Option<Vec<f32>>,
    pub dt_bias: Option<Vec<f32>>,
    pub delta_min: Option<Vec<f32>>,
    pub dt_limits: DtLimits,
    pub lengths: Option<Vec<usize>>,
    pub state: Vec<f32>,
}

#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub y: Vec<f32>,
    pub state: Vec<f32>,
    pub delta_sum: Vec<f64>,
    pub kept_sum: Vec<f64>,
    pub kept: Vec<u64>,
}

impl Problem {
    pub fn new(dims: [usize; 6], storage: Storage, seed: u64) -> Self {
        let [batch, len, heads, head_dim, groups, d_state] = dims;
        let mut r = Random::new(seed);
        let gap = if storage == Storage::Plain { 0 } else { 3 };
        let mut rows = |shape: [usize; 4], scale: f32| {
            Strided::rows(&r.vec(shape.iter().product(), -scale, scale), shape, gap)
        };
        let x = rows([batch, len, heads, head_dim], 2.0);
        let (b, c) =
            (rows([batch, len, groups, d_state], 1.0), rows([batch, len, groups, d_state], 1.0));
        let dt_raw = r.vec(batch * len * heads, -7., 2.);
        Problem {
            dims,
            storage,
            x,
            dt_raw: Strided::rows(&dt_raw, [batch, len, heads], gap),
            a: r.vec(heads, -8., -0.05),
            b,
            c,
            d: Some(r.vec(heads, -1., 1.)),
            dt_bias: Some(r.vec(heads, -1., 1.)),
            delta_min: None,
            dt_limits: DtLimits::default(),
            lengths: None,
            state: r.vec(batch * heads * head_dim * d_state, -1., 1.),
        }
    }

    /// Every other head drops about half of its tokens.
    pub fn masked(mut self) -> Self {
        let [batch, len, heads, ..] = self.dims;
        let dt = self.dt_raw.values();
        let values = |k: usize| -> Vec<f64> {
            let bias = self.dt_bias.as_ref().map_or(0.0, |v| v[k]);
            let raw = (0..batch * len).map(|i| dt[i * heads + k]);
            raw.map(|raw| oracle::delta(raw, bias, self.dt_limits)).collect()
        };
        let thresholds =
            (0..heads).map(|k| if k % 2 == 0 { threshold(values(k), 0.5) } else { 0.0 }).collect();
        self.delta_min = Some(thresholds);
        self
    }

    pub fn inputs<'a>(
        &'a self,
        tokens: &Range<usize>,
        lengths: Option<&'a [usize]>,
    ) -> SsdInputs<'a> {
        SsdInputs {
            x: cut(&self.x, tokens),
            dt_raw: cut(&self.dt_raw, tokens),
            a: &self.a,
            b: cut(&self.b, tokens),
            c: cut(&self.c, tokens),
            d: self.d.as_deref(),
            dt_bias: self.dt_bias.as_deref(),
            delta_min: self.delta_min.as_deref(),
            dt_limits: self.dt_limits,
            lengths,
        }
    }

    /// The scan, in the parts that `ends` cuts it into; the state goes from part to part.
    pub fn run(&self, cpu: Cpu, ends: &[usize]) -> Outcome {
        self.run_as(cpu, ends, Cpu::ssd)
    }

    pub fn run_as(&self, cpu: Cpu, ends: &[usize], ssd: Method) -> Outcome {
        self.run_in(&mut Scratch::new(), cpu, ends, ssd)
    }

    pub fn run_in(&self, scratch: &mut Scratch, cpu: Cpu, ends: &[usize], ssd: Method) -> Outcome {
        let [batch, len, heads, head_dim, _, d_state] = self.dims;
        let (order, gap) = match self.storage {
            Storage::Plain => ([0, 1, 3, 2], 0),
            Storage::Strided => ([0, 1, 2, 3], 2),
        };
        let mut state = Strided::new(&self.state, [batch, heads, head_dim, d_state], order, gap);
        let shape = [batch, len, heads, head_dim];
        let mut y = Strided::rows(&vec![7.0; shape.iter().product()], shape, gap);
        let (mut delta_sum, mut kept_sum) = (vec![0.0; batch * heads], vec![0.0; batch * heads]);
        let mut kept = vec![0; batch * heads];
        let mut start = 0;
        for &end in ends.iter().chain([&len]) {
            let lengths: Option<Vec<usize>> = self
                .lengths
                .as_ref()
                .map(|l| l.iter().map(|&n| n.clamp(start, end) - start).collect());
            let args = Ssd::new(self.inputs(&(start..end), lengths.as_deref())).unwrap();
            let stats = ChannelStats {
                delta_sum: &mut delta_sum,
                kept_sum: &mut kept_sum,
                kept: &mut kept,
            };
            let y = y.view_mut().slice(1, start..end).unwrap();
            let out = SsdOut { y, state: state.view_mut(), stats: Some(stats) };
            ssd(&cpu, &args, out, scratch).unwrap();
            start = end;
        }
        Outcome { y: y.values(), state: state.values(), delta_sum, kept_sum, kept }
    }

    pub fn oracle(&self) -> oracle::ScanResult {
        let args = Ssd::new(self.inputs(&(0..self.dims[1]), self.lengths.as_deref())).unwrap();
        oracle::ssd(&args, &widen(&self.state))
    }

    pub fn check(&self, what: &str, outcome: &Outcome, expected: &oracle::ScanResult) {
        self.check_within(what, outcome, expected, 1e-5);
    }

    pub fn check_within(
        &self,
        what: &str,
        outcome: &Outcome,
        expected: &oracle::ScanResult,
        tolerance: f64,
    ) {
        let what = format!("{what} {:?} {:?}", self.dims, self.storage);
        assert_sums(&format!("{what} y"), &outcome.y, &expected.y, tolerance);
        assert_sums(&format!("{what} state"), &outcome.state, &expected.state, tolerance);
        let sums = |v: &[f64]| v.iter().map(|&v| v as f32).collect::<Vec<_>>();
        assert_sums(&format!("{what} Σ Δ"), &sums(&outcome.delta_sum), &expected.delta_sum, 2e-6);
        assert_sums(&format!("{what} kept"), &sums(&outcome.kept_sum), &expected.kept_sum, 2e-6);
        assert_eq!(outcome.kept, expected.kept, "{what}");
    }
}

pub fn cut<'a, const R: usize>(rows: &'a Strided<R>, tokens: &Range<usize>) -> View<'a, f32, R> {
    rows.view().slice(1, tokens.clone()).unwrap()
}
