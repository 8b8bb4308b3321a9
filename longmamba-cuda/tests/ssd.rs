//! The Mamba-2 scan on the device, against the oracle and against itself.

mod common;
#[path = "ssd/problem.rs"]
mod problem;
#[path = "common/rows.rs"]
mod rows;

use half::{bf16, f16};
use longmamba_core::DtLimits;
use longmamba_cuda::{Device, Precision, Rows, RowsMut, SsdInputs, SsdScratch};
use problem::{Element, Problem, Random, Storage, assert_within};
use proptest::prelude::*;

const BOTH: [Precision; 2] = [Precision::Exact, Precision::Tensor];

/// Around one token, the tokens that are staged at once, a warp of elements and of states, the switch of
/// kernels at 128 states.
#[test]
fn token_by_token_agrees_with_the_oracle() {
    fn every_shape<T: Element>() {
        for (i, len) in [0, 1, 2, 8, 15, 16, 17, 33].into_iter().enumerate() {
            for (j, head_dim) in [1, 31, 32, 33, 64, 5, 0].into_iter().enumerate() {
                let d_state = [16, 1, 7, 17, 0, 128, 33, 129, 256][(i * 7 + j) % 9];
                let (heads, groups) = [(1, 1), (2, 1), (4, 2), (3, 3)][(i + j) % 4];
                let storage = if (i + j) % 2 == 0 { Storage::Plain } else { Storage::Strided };
                let dims = [1 + j % 2, len, heads, head_dim, groups, d_state];
                let problem = Problem::new::<T>(dims, storage, (i * 10 + j) as u64);
                let problem = if i % 2 == 0 { problem.masked() } else { problem };
                problem.agrees::<T>(Precision::Exact);
            }
        }
    }
    every_shape::<f32>();
    every_shape::<f16>();
    every_shape::<bf16>();
}

/// Around a chunk, a slice and a block of elements, the two numbers of states.
#[test]
fn chunks_agree_with_the_oracle() {
    fn every_shape<T: Element>() {
        for (i, len) in [17, 63, 64, 65, 100, 130].into_iter().enumerate() {
            for (j, head_dim) in [64, 1, 15, 16, 17, 65].into_iter().enumerate() {
                let d_state = [64, 1, 15, 16, 65, 128, 120][(i * 6 + j) % 7];
                let (heads, groups) = [(1, 1), (2, 1), (4, 2), (3, 3)][(i + j) % 4];
                let storage = if (i + j) % 2 == 0 { Storage::Plain } else { Storage::Strided };
                let dims = [1 + j % 2, len, heads, head_dim, groups, d_state];
                let problem = Problem::new::<T>(dims, storage, (i * 10 + j) as u64);
                let problem = if i % 2 == 0 { problem.masked() } else { problem };
                problem.agrees::<T>(Precision::Tensor);
            }
        }
    }
    every_shape::<f32>();
    every_shape::<f16>();
    every_shape::<bf16>();
}

/// Enough chunks for a sequence to be cut.
#[test]
fn segments_agree_with_the_oracle() {
    fn cut<T: Element>(dims: [usize; 6], lengths: Option<Vec<usize>>) {
        let problem = Problem::new::<T>(dims, Storage::Plain, 21).masked();
        let problem = Problem { lengths, ..problem };
        let outcome = problem.agrees::<T>(Precision::Tensor);
        // The sums too.
        assert_eq!(outcome, problem.run::<T>(Precision::Tensor, &[]), "a second run differs");
    }
    cut::<f32>([1, 513, 2, 16, 1, 16], None);
    cut::<bf16>([2, 700, 1, 20, 1, 80], Some(vec![700, 130]));
    cut::<f16>([2, 512, 2, 16, 2, 64], Some(vec![0, 511]));
}

#[test]
fn optional_arguments_default_as_documented() {
    for (precision, len) in [(Precision::Exact, 3), (Precision::Exact, 40), (Precision::Tensor, 70)]
    {
        let full = Problem::new::<f32>([2, len, 6, 20, 2, 16], Storage::Strided, 5);
        let per_element = Random::new(77).vec(6 * 20, -3.0, 3.0);
        let cases = [
            Problem { d: None, ..full.clone() },
            Problem { d: Some(per_element), ..full.clone() },
            Problem { dt_bias: None, ..full.clone() },
            Problem { dt_limits: DtLimits { min: 0.01, max: 0.5 }, ..full.clone() },
            Problem { delta_min: Some(vec![-1.0; 6]), ..full },
        ];
        for problem in &cases {
            problem.agrees::<f32>(precision);
        }
    }
}

/// Decays that underflow within a chunk, and differences of sums that have grown large.
#[test]
fn very_large_and_very_small_delta() {
    for (precision, len) in [(Precision::Exact, 20), (Precision::Tensor, 100)] {
        let mut problem = Problem::new::<f32>([1, len, 11, 8, 1, 16], Storage::Plain, 8);
        let extremes = [-1e4, -90.0, -87.0, -60.0, -20.0, 0.0, 20.0, 100.0, 1e4];
        problem.dt_raw = (0..len * 11).map(|i| extremes[i * 7 % extremes.len()]).collect();
        problem.agrees::<f32>(precision);
    }
}

/// One large Δ early in the chunk must not cost the later, small ones their precision.
#[test]
fn differences_of_large_sums_keep_their_precision() {
    let mut problem = Problem::new::<f32>([1, 64, 2, 8, 1, 16], Storage::Plain, 9);
    problem.dt_raw = (0..128).map(|i| if i < 2 { 5e4 } else { -6.0 }).collect();
    problem.a = vec![-8.0, -0.5];
    let problem = problem.rounded::<f32>();
    for (precision, tolerance) in [(Precision::Exact, 2e-5), (Precision::Tensor, 2e-2)] {
        let (outcome, expected) = (problem.run::<f32>(precision, &[]), problem.oracle());
        // y of the first token is huge, and so is the state until it has decayed: the tolerance is
        // relative to the largest element of the same token and head.
        for (i, (y, expected)) in outcome.y.chunks(8).zip(expected.y.chunks(8)).enumerate().skip(2)
        {
            let largest = expected.iter().fold(1.0f64, |m, v| m.max(v.abs()));
            let what = format!("{precision:?} token {} head {}", i / 2, i % 2);
            assert_within(&what, y, expected, &[tolerance * largest; 8]);
        }
    }
}

#[test]
fn a_sequence_in_which_every_token_is_dropped_keeps_its_state() {
    for precision in BOTH {
        for len in [1, 16, 40, 600] {
            let mut problem = Problem::new::<f32>([1, len, 2, 20, 1, 16], Storage::Plain, 9);
            problem.delta_min = Some(vec![f32::INFINITY; 2]);
            let outcome = problem.agrees::<f32>(precision);
            assert_eq!(outcome.state, problem.state);
            assert!(outcome.kept.iter().all(|&n| n == 0));
        }
    }
}

/// What lies past the end of a sequence is neither read nor counted.
#[test]
fn ragged_sequences_end_where_they_end() {
    let (lengths, len) = (vec![0, 1, 64, 80, 65, 4, 17], 80);
    let dims @ [_, _, heads, head_dim, groups, d_state] = [lengths.len(), len, 4, 24, 2, 16];
    for storage in [Storage::Plain, Storage::Strided] {
        let whole = Problem::new::<bf16>(dims, storage, 10).masked();
        let mut problem = Problem { lengths: Some(lengths.clone()), ..whole };
        for (sequence, &n) in lengths.iter().enumerate() {
            let past = sequence * len + n..(sequence + 1) * len;
            let fill = |values: &mut [f32], width: usize| {
                values[past.start * width..past.end * width].fill(f32::NAN);
            };
            fill(&mut problem.x, heads * head_dim);
            fill(&mut problem.dt_raw, heads);
            fill(&mut problem.b, groups * d_state);
            fill(&mut problem.c, groups * d_state);
        }
        for precision in BOTH {
            let outcome = problem.agrees::<bf16>(precision);
            let width = heads * head_dim;
            for (sequence, &n) in lengths.iter().enumerate() {
                let rows = sequence * len + n..(sequence + 1) * len;
                let y = &outcome.y[rows.start * width..rows.end * width];
                assert!(y.iter().all(|&y| y == 0.0));
            }
        }
    }
}

/// In a chunk a NaN meets the zeros of the causal mask, and so spreads to the tokens before it in the
/// same block of 16, but to no other element.
#[test]
fn nan_goes_where_it_comes_from_and_hardly_further() {
    let [len, heads, head_dim] = [70, 3, 8];
    let problem =
        Problem::new::<f32>([1, len, heads, head_dim, 1, 16], Storage::Plain, 12).masked();
    let nan_of =
        |y: &[f32], expected: &dyn Fn(usize, usize, usize) -> bool, may: &dyn Fn(usize) -> bool| {
            for (i, y) in y.iter().enumerate() {
                let (t, k, p) = (i / (heads * head_dim), i / head_dim % heads, i % head_dim);
                assert!(
                    y.is_nan() == expected(t, k, p) || may(t),
                    "token {t}, head {k}, element {p}: {y}"
                );
            }
        };
    for precision in BOTH {
        let spread = |t: usize| precision == Precision::Tensor && (64..68).contains(&t);
        let mut x = problem.clone();
        x.x[68 * 24 + 8 + 5] = f32::NAN;
        let y = x.run::<f32>(precision, &[]).y;
        nan_of(&y, &|t, k, p| t >= 68 && [k, p] == [1, 5], &spread);
        // A NaN in Δ reaches the whole head, from there on, and the sums.
        let mut delta = problem.clone();
        delta.dt_raw[40 * 3 + 2] = f32::NAN;
        let outcome = delta.run::<f32>(precision, &[]);
        nan_of(&outcome.y, &|t, k, _| t >= 40 && k == 2, &|_| false);
        assert!(outcome.delta_sum[2].is_nan() && outcome.kept_sum[2].is_nan());
        assert!(outcome.state[2 * 8 * 16..].iter().all(|h| h.is_nan()));
    }
}

/// The largest d_state and head_dim that the models have, on both kernels.
#[test]
fn sizes_of_published_models() {
    for (head_dim, d_state, groups) in [(64, 128, 1), (64, 64, 2)] {
        let dims = [1, 66, 2, head_dim, groups, d_state];
        Problem::new::<bf16>(dims, Storage::Plain, 30).agrees::<bf16>(Precision::Tensor);
        let dims = [2, 1, 2, head_dim, groups, d_state];
        Problem::new::<f32>(dims, Storage::Plain, 31).agrees::<f32>(Precision::Exact);
    }
}

#[test]
fn scratch_grows_once_and_not_with_the_length() {
    let device = common::device();
    let mut scratch = SsdScratch::new();
    let mut bytes = Vec::new();
    for len in [64, 1024, 1024, 640, 1536] {
        scan(&device, len, [2, 4], &mut scratch).unwrap();
        bytes.push(scratch.bytes());
    }
    assert_eq!(bytes[0], 0, "one chunk needs no scratch");
    if device.capability() < (8, 0) {
        assert_eq!(bytes, [0; 5], "without chunks there are no segments");
        return;
    }
    assert!(bytes[1] > 0 && bytes[1] == bytes[2] && bytes[2] == bytes[3], "{bytes:?}");
    let most = 4 * device.multiprocessors() as usize * (16 * 64 * 4 + 4);
    assert!(bytes[4] <= most, "{bytes:?}");
}

/// Decoding is one launch after another with the same arguments: as a graph it goes on from the state that
/// the launch before left.
#[test]
fn a_step_can_be_replayed_as_a_graph() {
    let device = common::device();
    let upload = |values: &[f32]| device.upload(values).unwrap();
    let (x, b, dt_raw, a) =
        (upload(&[2.0; 8]), upload(&[1.0; 3]), upload(&[0.0; 2]), upload(&[-1.0; 2]));
    let inputs = SsdInputs {
        batch: 1,
        heads: 2,
        groups: 1,
        x: Rows::all(&x, 8),
        dt_raw: Rows::all(&dt_raw, 2),
        b: Rows::all(&b, 3),
        c: Rows::all(&b, 3),
        a: &a,
        d: None,
        dt_bias: None,
        delta_min: None,
        dt_limits: DtLimits::default(),
        lengths: None,
        precision: Precision::Tensor,
    };
    let (mut y, mut state) = (upload(&[0.0; 8]), upload(&[0.0; 24]));
    let mut scratch = SsdScratch::new();
    let mut step =
        || device.ssd(1, inputs, RowsMut::all(&mut y, 8), &mut state, None, &mut scratch);
    step().unwrap();
    let mut graph = device.capture(step).unwrap().expect("a launch");
    graph.launch().unwrap();
    graph.launch().unwrap();
    // softplus(0) = ln 2 = delta, so a token halves the state: h = (1 + 1/2 + 1/4) * ln 2 * 1 * 2.
    let h = 1.75 * 2.0 * std::f64::consts::LN_2;
    assert_within("state", &state.to_vec().unwrap(), &[h; 24], &[1e-6; 24]);
    assert_within("y", &y.to_vec().unwrap(), &[3.0 * h; 8], &[3e-6; 8]);
}

/// Zeros of `len` tokens, in heads of 4 elements with B and C `states` wide in all.
fn scan(
    device: &Device,
    len: usize,
    [heads, states]: [usize; 2],
    scratch: &mut SsdScratch,
) -> longmamba_cuda::Result<()> {
    let zeros = |n: usize| device.zeros::<f32>(n).unwrap();
    let (x, dt_raw, b, a) =
        (zeros(len * heads * 4), zeros(len * heads), zeros(len * states), zeros(heads));
    let (mut y, mut state) = (zeros(len * heads * 4), zeros(heads * states * 4));
    let inputs = SsdInputs {
        batch: 1,
        heads,
        groups: 1,
        x: Rows::all(&x, heads * 4),
        dt_raw: Rows::all(&dt_raw, heads),
        b: Rows::all(&b, states),
        c: Rows::all(&b, states),
        a: &a,
        d: None,
        dt_bias: None,
        delta_min: None,
        dt_limits: DtLimits::default(),
        lengths: None,
        precision: Precision::Tensor,
    };
    device.ssd(len, inputs, RowsMut::all(&mut y, heads * 4), &mut state, None, scratch)
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let device = common::device();
    let scratch = &mut SsdScratch::new();
    let error = scan(&device, 4, [2, 257], scratch).unwrap_err().to_string();
    assert_eq!(error, "ssd supports states of a head up to 256, this is 257");

    let buffer = device.zeros::<f32>(48).unwrap();
    let rows = |width| Rows::all(&buffer, width);
    let good = SsdInputs {
        batch: 1,
        heads: 2,
        groups: 1,
        x: rows(6),
        dt_raw: rows(2),
        b: rows(5),
        c: rows(5),
        a: &device.zeros(2).unwrap(),
        d: None,
        dt_bias: None,
        delta_min: None,
        dt_limits: DtLimits::default(),
        lengths: None,
        precision: Precision::Exact,
    };
    let message = |inputs: SsdInputs<'_, f32>, len: usize, state: usize| {
        let (mut y, mut state) = (device.zeros(48).unwrap(), device.zeros(state).unwrap());
        let y = RowsMut::all(&mut y, 6);
        let done = device.ssd(len, inputs, y, &mut state, None, &mut SsdScratch::new());
        done.map_or_else(|error| error.to_string(), |()| String::new())
    };
    assert_eq!(message(good, 4, 30), "");
    assert_eq!(message(good, 4, 31), "state has shape [31], expected [1, 2, 5, 3]");
    assert_eq!(message(good, 9, 30), "layout needs 54 elements, storage has 48");
    let wide = SsdInputs { c: rows(4), ..good };
    assert_eq!(message(wide, 4, 30), "C has shape [4, 4], expected [4, 5]");
    let uneven = SsdInputs { x: rows(7), ..good };
    assert_eq!(message(uneven, 4, 30), "x has shape [4, 7], expected [4, 6]");
    let groups = SsdInputs { groups: 3, ..good };
    assert_eq!(message(groups, 4, 30), "groups[0] is 3, must be a divisor of the number of heads");
    let short = SsdInputs { dt_bias: Some(&buffer), ..good };
    assert_eq!(message(short, 4, 30), "dt_bias has shape [48], expected [2]");
    let limits = SsdInputs { dt_limits: DtLimits { min: 1.0, max: 0.5 }, ..good };
    assert!(message(limits, 4, 30).starts_with("dt limits[1] is 0.5"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..Default::default() })]

    /// Whole, in parts and token by token.
    #[test]
    fn parts_give_the_same_as_the_whole(
        batch in 1usize..3, len in 1usize..150, groups in 1usize..3, per_group in 1usize..3,
        head_dim in 1usize..24, d_state in 1usize..24,
        mut ends in proptest::collection::vec(0usize..150, 0..4), seed: u64, strided: bool,
    ) {
        let storage = if strided { Storage::Strided } else { Storage::Plain };
        let dims = [batch, len, groups * per_group, head_dim, groups, d_state];
        let problem = Problem::new::<bf16>(dims, storage, seed).masked();
        ends.retain(|&end| end <= len);
        ends.sort_unstable();
        for precision in BOTH {
            problem.check::<bf16>(precision, &problem.run::<bf16>(precision, &ends));
        }
        if len < 40 {
            let tokens: Vec<usize> = (1..len).collect();
            problem.check::<bf16>(Precision::Exact, &problem.run::<bf16>(Precision::Exact, &tokens));
        }
    }
}
