//! The causal convolution against the obvious loop in f64, and against itself.

mod common;
#[path = "common/rows.rs"]
mod rows;

use common::device;
use half::{bf16, f16};
use longmamba_core::{Element, oracle};
use longmamba_cuda::{CausalConv1dInputs, Device, Error, Rows, RowsMut, ScanElement};
use proptest::prelude::*;
use rows::{Random, Stored, assert_close, assert_same, rounded, rounding};
use std::ops::Range;

#[derive(Clone)]
struct Problem {
    /// batch, len, channels, width
    dims: [usize; 4],
    /// Unused elements between rows.
    gap: usize,
    silu: bool,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    history: Vec<f32>,
    lengths: Option<Vec<u32>>,
}

/// out `[batch, len, channels]` and the history after it.
type Outcome<T> = (Vec<T>, Vec<T>);

impl Problem {
    fn new<T: Element>(dims: [usize; 4], gap: usize, silu: bool, seed: u64) -> Self {
        let [batch, len, channels, width] = dims;
        let mut r = Random::new(seed);
        Problem {
            dims,
            gap,
            silu,
            x: rounded::<T>(&r.vec(batch * len * channels, -2., 2.)),
            weight: r.vec(width * channels, -1., 1.),
            bias: seed.is_multiple_of(2).then(|| r.vec(channels, -1., 1.)),
            history: r.vec(batch * (width - 1) * channels, -2., 2.),
            lengths: None,
        }
    }

    fn tokens(&self, sequence: usize) -> usize {
        let len = self.dims[1];
        self.lengths.as_ref().map_or(len, |lengths| len.min(lengths[sequence] as usize))
    }

    fn expected(&self) -> Outcome<f64> {
        let [batch, len, channels, width] = self.dims;
        let mut out = vec![0.0; batch * len * channels];
        let mut history = vec![0.0; batch * (width - 1) * channels];
        for (s, c) in (0..batch).flat_map(|s| (0..channels).map(move |c| (s, c))) {
            let before = (0..width - 1).map(|i| self.history[(s * (width - 1) + i) * channels + c]);
            let x = (0..self.tokens(s)).map(|t| self.x[(s * len + t) * channels + c]);
            let inputs: Vec<f64> = before.chain(x).map(f64::from).collect();
            for t in 0..self.tokens(s) {
                let taps =
                    (0..width).map(|k| f64::from(self.weight[k * channels + c]) * inputs[t + k]);
                let bias = self.bias.as_ref().map_or(0.0, |bias| f64::from(bias[c]));
                let sum = bias + taps.sum::<f64>();
                out[(s * len + t) * channels + c] = if self.silu { oracle::silu(sum) } else { sum };
            }
            for (i, &input) in inputs[inputs.len() - (width - 1)..].iter().enumerate() {
                history[(s * (width - 1) + i) * channels + c] = input;
            }
        }
        (out, history)
    }

    /// In the parts that `ends` cuts the tokens into.
    fn run<T: ScanElement + Element>(&self, device: &Device, ends: &[usize]) -> Outcome<f32> {
        let [batch, len, channels, width] = self.dims;
        let weight = device.upload(&self.weight).unwrap();
        let bias = self.bias.as_ref().map(|bias| device.upload(bias).unwrap());
        let mut history = device.upload(&self.history).unwrap();
        let mut out = vec![0.0; batch * len * channels];
        let mut start = 0;
        for &end in ends.iter().chain([&len]) {
            let (part, tokens) = (end - start, start..end);
            let x = cut(&self.x, [batch, len, channels], &tokens);
            let x = Stored::<T>::new(device, &x, channels, self.gap);
            let mut y =
                Stored::<T>::new(device, &vec![7.0; batch * part * channels], channels, self.gap);
            let within = |&n: &u32| n.clamp(start as u32, end as u32) - start as u32;
            let lengths: Option<Vec<u32>> =
                self.lengths.as_ref().map(|lengths| lengths.iter().map(within).collect());
            let lengths = lengths.map(|lengths| device.upload(&lengths).unwrap());
            let inputs = CausalConv1dInputs {
                batch,
                x: x.rows(),
                width,
                weight: &weight,
                bias: bias.as_ref(),
                silu: self.silu,
                lengths: lengths.as_ref(),
            };
            device.causal_conv1d(part, inputs, &mut history, y.rows_mut()).unwrap();
            for (row, values) in y.values().chunks(channels.max(1)).enumerate() {
                let at = (row / part * len + start + row % part) * channels;
                out[at..at + channels].copy_from_slice(values);
            }
            start = end;
        }
        (out, history.to_vec().unwrap())
    }

    fn check<T: ScanElement + Element>(&self, device: &Device) {
        let what = format!("{} {:?} gap {} silu {}", T::DTYPE, self.dims, self.gap, self.silu);
        let ((out, history), expected) = (self.run::<T>(device, &[]), self.expected());
        assert_close(&format!("{what} out"), &out, &expected.0, 2e-6, rounding::<T>());
        // Copies are exact.
        assert_close(&format!("{what} history"), &history, &expected.1, 1e-30, 0.0);
    }
}

/// Of `[batch, len, width]`, some tokens of every sequence.
fn cut(values: &[f32], [batch, len, width]: [usize; 3], tokens: &Range<usize>) -> Vec<f32> {
    let part = |s| &values[(s * len + tokens.start) * width..(s * len + tokens.end) * width];
    (0..batch).flat_map(part).copied().collect()
}

fn every_shape<T: ScanElement + Element>() {
    let device = device();
    let mut seed = 0;
    // Around a batch, a run and a block of tokens; a pair, a warp and a block of channels.
    for len in [0, 1, 2, 7, 8, 9, 31, 32, 33, 129] {
        for channels in [1, 2, 3, 63, 64, 65, 130] {
            seed += 1;
            let (batch, width) = (1 + seed % 2, 1 + seed * 5 % 8);
            let (gap, silu) = ([0, 3, 4][seed % 3], seed % 4 != 0);
            Problem::new::<T>([batch, len, channels, width], gap, silu, seed as u64)
                .check::<T>(&device);
        }
    }
}

#[test]
fn every_shape_in_f32() {
    every_shape::<f32>();
}

#[test]
fn every_shape_in_f16() {
    every_shape::<f16>();
}

#[test]
fn every_shape_in_bf16() {
    every_shape::<bf16>();
}

#[test]
fn every_width() {
    let device = device();
    for (width, len) in (1..=8).flat_map(|width| [1, 3, 6, 7, 40].map(|len| (width, len))) {
        Problem::new::<f32>([2, len, 5, width], 0, true, 2).check::<f32>(&device);
        Problem::new::<bf16>([2, len, 6, width], 2, false, 3).check::<bf16>(&device);
    }
}

#[test]
fn no_sequence_and_no_channel() {
    let device = device();
    Problem::new::<f32>([0, 5, 4, 4], 0, true, 1).check::<f32>(&device);
    Problem::new::<f32>([2, 5, 0, 4], 0, true, 1).check::<f32>(&device);
}

/// What lies past the end is not read; a length beyond len is len.
#[test]
fn ragged_sequences() {
    let device = device();
    let lengths = vec![0u32, 1, 2, 3, 40, 39, 100];
    let mut problem = Problem::new::<bf16>([lengths.len(), 40, 66, 4], 0, true, 5);
    for (s, &tokens) in lengths.iter().enumerate() {
        let start = (s * 40 + 40.min(tokens as usize)) * 66;
        problem.x[start..(s + 1) * 40 * 66].fill(f32::NAN);
    }
    problem.lengths = Some(lengths);
    problem.check::<bf16>(&device);
}

#[test]
fn large_sums() {
    let device = device();
    let mut problem = Problem::new::<f32>([1, 50, 4, 4], 0, true, 6);
    for x in problem.x.iter_mut().step_by(3) {
        *x *= 1e3;
    }
    problem.check::<f32>(&device);
}

/// Seen by the next tokens of its channel, as many as there are taps, and by nothing else.
#[test]
fn nan_reaches_no_further_than_the_taps() {
    let device = device();
    for width in 1..=8 {
        let mut problem = Problem::new::<f32>([1, 50, 4, width], 0, true, 7);
        problem.x[20 * 4 + 1] = f32::NAN;
        let (out, _) = problem.run::<f32>(&device, &[]);
        for (i, out) in out.iter().enumerate() {
            let reached = i % 4 == 1 && (20..20 + width).contains(&(i / 4));
            assert_eq!(out.is_nan(), reached, "{width} taps, element {i}");
        }
    }
}

#[test]
fn arguments_are_checked_by_name() {
    let device = device();
    let zeros = |len| device.zeros::<f32>(len).unwrap();
    let (x, weight, mut history, mut out) = (zeros(40), zeros(16), zeros(12), zeros(40));
    let inputs = CausalConv1dInputs {
        batch: 2,
        x: Rows::all(&x, 4),
        width: 4,
        weight: &weight,
        bias: None,
        silu: true,
        lengths: None,
    };
    let mut message = |len, inputs: CausalConv1dInputs<'_, f32>, stride| {
        let y = RowsMut { buffer: &mut out, first: 0, width: 4, stride };
        device.causal_conv1d(len, inputs, &mut history, y).unwrap_err()
    };
    let wide = CausalConv1dInputs { width: 9, ..inputs };
    let unsupported =
        Error::Unsupported { kernel: "causal_conv1d", what: "taps", limit: 8, actual: 9 };
    assert_eq!(message(5, wide, 4), unsupported);
    let none = CausalConv1dInputs { width: 0, ..inputs };
    assert!(message(5, none, 4).to_string().starts_with("weight's width[0] is 0"));
    let narrow = CausalConv1dInputs { width: 3, ..inputs };
    assert_eq!(message(5, narrow, 4).to_string(), "weight has shape [16], expected [3, 4]");
    let bias = CausalConv1dInputs { bias: Some(&weight), ..inputs };
    assert_eq!(message(5, bias, 4).to_string(), "bias has shape [16], expected [4]");
    let more = CausalConv1dInputs { batch: 1, ..inputs };
    assert!(message(11, more, 4).to_string().contains("needs 44 elements, storage has 40"));
    assert!(message(5, inputs, 3).to_string().contains("names an element twice"));
    let short = CausalConv1dInputs { batch: 3, ..inputs };
    assert!(message(2, short, 4).to_string().contains("needs 36 elements, storage has 12"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Cut anywhere, to the bit.
    #[test]
    fn parts_equal_the_whole(
        batch in 1usize..3,
        len in 1usize..90,
        channels in 1usize..70,
        width in 1usize..9,
        gap in 0usize..3,
        cuts in prop::collection::vec(0.0f64..1.0, 0..4),
        seed in 0u64..1000,
    ) {
        let device = device();
        let problem = Problem::new::<f16>([batch, len, channels, width], gap, true, seed);
        let mut ends: Vec<usize> = cuts.iter().map(|cut| (cut * len as f64) as usize).collect();
        ends.sort_unstable();
        let (whole, parts) = (problem.run::<f16>(&device, &[]), problem.run::<f16>(&device, &ends));
        assert_same("out", &parts.0, &whole.0);
        assert_same("history", &parts.1, &whole.1);
        problem.check::<f16>(&device);
    }
}
