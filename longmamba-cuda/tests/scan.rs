//! The Mamba-1 scan against the oracle, and against itself.

mod common;
#[path = "scan/problem.rs"]
mod problem;
#[path = "common/rows.rs"]
mod rows;

use common::device;
use half::{bf16, f16};
use longmamba_core::{DtLimits, Element};
use longmamba_cuda::{ChannelSums, Device, Rows, RowsMut, ScanElement, SelectiveScanInputs};
use problem::Problem;
use proptest::prelude::*;
use rows::assert_same;

/// So many sequences of a block of channels that the scan spreads the states over 4 threads, not 8.
fn many(device: &Device) -> usize {
    4 * device.multiprocessors() as usize
}

fn every_shape<T: ScanElement + Element>(seed: usize) {
    let device = device();
    // Around one token, a few, and a tile; a sector of channels and the 32 of a warp; a group of states.
    for (i, len) in [0, 1, 2, 7, 8, 9, 63, 64, 65, 131].into_iter().enumerate() {
        for (j, d_inner) in [1, 5, 15, 16, 17, 35].into_iter().enumerate() {
            let seed = seed + i * 6 + j;
            let d_state = [16, 1, 7, 15, 17, 16, 0, 33][seed % 8];
            let dims = [1 + seed % 2, len, d_inner, d_state];
            let problem = Problem::new::<T>(dims, [0, 3][j % 2], seed as u64);
            let problem = if seed.is_multiple_of(3) { problem } else { problem.masked() };
            problem.check::<T>("8 threads a channel", &problem.run::<T>(&device, &[]));
        }
    }
    for (i, len) in [2, 31, 32, 33, 70].into_iter().enumerate() {
        let d_state = [16, 19, 5, 16, 16][i];
        let problem = Problem::new::<T>([many(&device), len, 3 + 3 * i, d_state], i % 2, i as u64);
        let problem = problem.masked();
        problem.check::<T>("4 threads a channel", &problem.run::<T>(&device, &[]));
    }
}

#[test]
fn every_shape_in_f32() {
    every_shape::<f32>(0);
}

#[test]
fn every_shape_in_f16() {
    every_shape::<f16>(1);
}

#[test]
fn every_shape_in_bf16() {
    every_shape::<bf16>(2);
}

#[test]
fn many_states() {
    let device = device();
    for len in [1, 70] {
        let problem = Problem::new::<f32>([1, len, 5, 256], 0, 3);
        problem.check::<f32>("256 states", &problem.run::<f32>(&device, &[]));
    }
}

#[test]
fn no_sequence_and_no_channel() {
    let device = device();
    for dims in [[0, 5, 4, 16], [2, 5, 0, 16], [0, 0, 0, 0]] {
        let problem = Problem::new::<f32>(dims, 0, 4);
        problem.check::<f32>("empty", &problem.run::<f32>(&device, &[]));
    }
}

#[test]
fn optional_arguments_default_as_documented() {
    let device = device();
    for len in [1, 20] {
        let full = Problem::new::<f32>([2, len, 21, 16], 2, 5);
        let cases = [
            Problem { z: None, ..full.clone() },
            Problem { d: None, ..full.clone() },
            Problem { dt_bias: None, ..full.clone() },
            Problem { z: None, d: None, dt_bias: None, ..full.clone() },
            Problem { dt_limits: DtLimits { min: 0.01, max: 0.5 }, ..full.clone() },
            Problem { delta_min: Some(vec![-1.0; 21]), ..full },
        ];
        for problem in &cases {
            problem.check::<f32>("options", &problem.run::<f32>(&device, &[]));
        }
    }
}

#[test]
fn very_large_and_very_small_delta() {
    let device = device();
    let mut problem = Problem::new::<f32>([1, 40, 19, 16], 0, 8);
    let extremes = [-1e4, -90.0, -87.0, -60.0, -20.0, 0.0, 20.0, 100.0, 1e4];
    for (i, dt_raw) in problem.dt_raw.iter_mut().enumerate() {
        *dt_raw = extremes[i * 7 % extremes.len()];
    }
    problem.check::<f32>("extremes", &problem.run::<f32>(&device, &[]));
}

/// Decays so near to 1 that errors of each would add up.
#[test]
fn long_memory() {
    let device = device();
    let mut problem = Problem::new::<f32>([1, 3000, 2, 16], 0, 9);
    problem.a.iter_mut().for_each(|a| *a *= 1e-4);
    problem.check::<f32>("long memory", &problem.run::<f32>(&device, &[]));
}

#[test]
fn a_sequence_in_which_every_token_is_dropped_keeps_its_state() {
    let device = device();
    for len in [1, 100] {
        let mut problem = Problem::new::<bf16>([2, len, 37, 16], 0, 10);
        problem.delta_min = Some(vec![f32::INFINITY; 37]);
        let outcome = problem.run::<bf16>(&device, &[]);
        assert_same("state", &outcome.state, &problem.state);
        assert!(outcome.kept.iter().all(|&kept| kept == 0));
        problem.check::<bf16>("all dropped", &outcome);
    }
}

/// What lies past the end is not read; a length beyond len is len.
#[test]
fn ragged_sequences() {
    let device = device();
    for (len, lengths) in [(1, vec![0, 1, 5]), (70, vec![0, 1, 63, 64, 65, 1000])] {
        let dims = [lengths.len(), len, 20, 16];
        let mut problem = Problem::new::<f32>(dims, 0, 11).masked();
        problem.lengths = Some(lengths);
        let spoiled = |mut values: Vec<f32>, width: usize| {
            for s in 0..dims[0] {
                let start = (s * len + problem.tokens(s)) * width;
                values[start..(s + 1) * len * width].fill(f32::NAN);
            }
            values
        };
        let spoiled = Problem {
            x: spoiled(problem.x.clone(), 20),
            dt_raw: spoiled(problem.dt_raw.clone(), 20),
            z: problem.z.clone().map(|z| spoiled(z, 20)),
            b: spoiled(problem.b.clone(), 16),
            c: spoiled(problem.c.clone(), 16),
            ..problem.clone()
        };
        problem.check::<f32>("ragged", &spoiled.run::<f32>(&device, &[]));
    }
}

/// A NaN reaches what depends on it, and nothing else.
#[test]
fn nan_stays_in_its_channel() {
    let device = device();
    for which in 0..3 {
        let mut problem = Problem::new::<f32>([2, 50, 18, 16], 0, 12).masked();
        let rows = [&mut problem.x, &mut problem.dt_raw, problem.z.as_mut().unwrap()];
        // Sequence 1, token 20, channel 17, which drops no token.
        rows.into_iter().nth(which).unwrap()[(50 + 20) * 18 + 17] = f32::NAN;
        let outcome = problem.run::<f32>(&device, &[]);
        for (i, y) in outcome.y.iter().enumerate() {
            let (token, channel) = (i / 18, i % 18);
            let reached = channel == 17
                && match which {
                    2 => token == 50 + 20,
                    _ => token >= 50 + 20,
                };
            assert_eq!(y.is_nan(), reached, "input {which}, token {token}, channel {channel}");
        }
        for (i, state) in outcome.state.iter().enumerate() {
            let reached = which != 2 && i / (16 * 18) == 1 && i % 18 == 17;
            assert_eq!(state.is_nan(), reached, "input {which}, state {i}");
        }
        assert_eq!(outcome.delta_sum[18 + 17].is_nan(), which == 1);
        assert_eq!(outcome.kept_sum[18 + 17].is_nan(), which == 1);
        assert_eq!(outcome.kept[18 + 17], 50);
    }
}

#[test]
fn sums_are_added_to() {
    let device = device();
    let problem = Problem::new::<f32>([1, 30, 4, 16], 0, 13).masked();
    let (whole, expected) = (problem.run::<f32>(&device, &[1, 2, 19]), problem.expected());
    problem.check::<f32>("in four parts", &whole);
    assert_eq!(whole.kept, expected.kept);
}

#[test]
fn arguments_are_checked_by_name() {
    let device = device();
    let zeros = |len| device.zeros::<f32>(len).unwrap();
    let (x, b, a) = (zeros(40), zeros(30), zeros(12));
    let (mut y, mut state, short, mut counts) =
        (zeros(40), zeros(24), zeros(3), device.zeros(8).unwrap());
    let lengths = device.zeros::<u32>(3).unwrap();
    let good = SelectiveScanInputs {
        batch: 2,
        x: Rows::all(&x, 4),
        dt_raw: Rows::all(&x, 4),
        b: Rows::all(&b, 3),
        c: Rows::all(&b, 3),
        z: None,
        a: &a,
        d: None,
        dt_bias: None,
        delta_min: None,
        dt_limits: DtLimits::default(),
        lengths: None,
    };
    let mut message = |inputs, stride| {
        let y = RowsMut { buffer: &mut y, first: 0, width: 4, stride };
        device.selective_scan(5, inputs, y, &mut state, None).unwrap_err().to_string()
    };
    let inputs = SelectiveScanInputs { dt_raw: Rows::all(&x, 5), ..good };
    assert_eq!(message(inputs, 4), "dt_raw has shape [10, 5], expected [10, 4]");
    let inputs = SelectiveScanInputs { c: Rows::all(&b, 2), ..good };
    assert_eq!(message(inputs, 4), "C has shape [10, 2], expected [10, 3]");
    let inputs = SelectiveScanInputs { z: Some(Rows::all(&b, 4)), ..good };
    assert!(message(inputs, 4).contains("needs 40 elements, storage has 30"));
    let inputs = SelectiveScanInputs { a: &b, ..good };
    assert_eq!(message(inputs, 4), "A has shape [30], expected [3, 4]");
    let inputs = SelectiveScanInputs { d: Some(&short), ..good };
    assert_eq!(message(inputs, 4), "D has shape [3], expected [4]");
    let inputs = SelectiveScanInputs { lengths: Some(&lengths), ..good };
    assert_eq!(message(inputs, 4), "lengths has shape [3], expected [2]");
    let inputs = SelectiveScanInputs { dt_limits: DtLimits { min: 0.1, max: 0.0 }, ..good };
    assert!(message(inputs, 4).contains("dt limits[1]"));
    let inputs = SelectiveScanInputs { dt_limits: DtLimits { min: f32::NAN, max: 1.0 }, ..good };
    assert!(message(inputs, 4).contains("dt limits[0]"));
    assert!(message(good, 3).contains("names an element twice"));
    let inputs = SelectiveScanInputs { batch: usize::MAX, ..good };
    assert!(message(inputs, 4).contains("more elements than can be counted"));
    let mut short_state = zeros(23);
    let error = device.selective_scan(5, good, RowsMut::all(&mut y, 4), &mut short_state, None);
    assert!(error.unwrap_err().to_string().contains("needs 24 elements, storage has 23"));
    let (mut delta_sum, mut kept_sum) = (device.zeros(8).unwrap(), device.zeros(7).unwrap());
    let sums =
        ChannelSums { delta_sum: &mut delta_sum, kept_sum: &mut kept_sum, kept: &mut counts };
    let error = device.selective_scan(5, good, RowsMut::all(&mut y, 4), &mut state, Some(sums));
    assert_eq!(error.unwrap_err().to_string(), "kept_sum has shape [7], expected [2, 4]");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// Cut anywhere, also into single tokens: the same state to the bit, the same y within rounding.
    #[test]
    fn parts_equal_the_whole(
        batch in 1usize..3,
        len in 1usize..100,
        d_inner in 1usize..40,
        d_state in 1usize..36,
        gap in 0usize..3,
        cuts in prop::collection::vec(0.0f64..1.0, 0..4),
        singles in 0usize..3,
        seed in 0u64..1000,
    ) {
        let device = device();
        let problem = Problem::new::<f32>([batch, len, d_inner, d_state], gap, seed).masked();
        let mut ends: Vec<usize> = cuts.iter().map(|cut| (cut * len as f64) as usize).collect();
        ends.extend(1..=singles.min(len));
        ends.sort_unstable();
        let (whole, parts) = (problem.run::<f32>(&device, &[]), problem.run::<f32>(&device, &ends));
        problem.check::<f32>("whole", &whole);
        problem.check::<f32>("parts", &parts);
        assert_same("state", &parts.state, &whole.state);
    }
}

#[test]
fn token_by_token_equals_the_whole() {
    let device = device();
    let problem = Problem::new::<bf16>([2, 40, 33, 16], 1, 14).masked();
    let ends: Vec<usize> = (1..40).collect();
    let (whole, tokens) = (problem.run::<bf16>(&device, &[]), problem.run::<bf16>(&device, &ends));
    problem.check::<bf16>("token by token", &tokens);
    assert_same("state", &tokens.state, &whole.state);
}
