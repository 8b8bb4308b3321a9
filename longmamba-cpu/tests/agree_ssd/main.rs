//! The Mamba-2 scan against the oracle, and against itself.

#[path = "../common/mod.rs"]
mod common;
mod problem;

use common::{Random, Strided, assert_same, assert_sums, cpus, widen, with_threads};
use half::bf16;
use longmamba_core::{DtLimits, Ssd, SsdOut, View, ViewMut};
use longmamba_cpu::{Accumulate, Cpu, Scratch};
use problem::{Method, Problem, Storage};
use proptest::prelude::*;

fn problems() -> Vec<Problem> {
    let mut all = Vec::new();
    // Around the switch of methods, a chunk of tokens, a line of heads, a vector of each width.
    for (i, len) in [0, 1, 2, 4, 5, 16, 31, 32, 33, 64, 131].into_iter().enumerate() {
        for (j, head_dim) in [1, 3, 4, 7, 8, 9, 16, 17, 33, 64, 0].into_iter().enumerate() {
            let d_state = [16, 1, 7, 8, 17, 33, 64, 0, 9][(i * 11 + j) % 9];
            let (heads, groups) =
                [(1, 1), (2, 1), (4, 2), (3, 3), (17, 1), (18, 6), (20, 2)][(i + 3 * j) % 7];
            let storage = if (i + j) % 2 == 0 { Storage::Plain } else { Storage::Strided };
            let dims = [1 + j % 2, len, heads, head_dim, groups, d_state];
            all.push(Problem::new(dims, storage, (i * 100 + j) as u64));
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

/// Each factor of a product is off by at most 2⁻⁹ of itself, so that an element of y, which is made of products
/// of three of them, is off by 3 · 2⁻⁹ of what its sum would be without signs, which is a few times the largest.
#[test]
fn rounded_to_bf16_every_shape_agrees_with_the_oracle() {
    let cpus = cpus();
    for problem in problems() {
        let problem = problem.masked();
        let expected = problem.oracle();
        for &cpu in &cpus {
            let outcome = problem.run_as(cpu, &[], Cpu::ssd_bf16);
            problem.check_within(&format!("{cpu:?} bf16"), &outcome, &expected, 3e-2);
            let parts = problem.run_as(cpu, &[problem.dims[1] / 3], Cpu::ssd_bf16);
            problem.check_within(&format!("{cpu:?} bf16, parts"), &parts, &expected, 3e-2);
        }
    }
}

#[test]
fn optional_arguments_default_as_documented() {
    for len in [3, 70] {
        let full = Problem::new([2, len, 6, 20, 2, 16], Storage::Strided, 5);
        let cases = [
            Problem { d: None, ..full.clone() },
            Problem { dt_bias: None, ..full.clone() },
            Problem { dt_limits: DtLimits { min: 0.01, max: 0.5 }, ..full.clone() },
            Problem { delta_min: Some(vec![-1.0; 6]), ..full },
        ];
        for problem in &cases {
            for cpu in cpus() {
                problem.check("options", &problem.run(cpu, &[]), &problem.oracle());
            }
        }
    }
}

/// D with a value for every element of a head, token by token (up to 4) and in chunks.
#[test]
fn the_skip_may_differ_by_element() {
    for (i, len) in [1, 3, 4, 5, 33, 70].into_iter().enumerate() {
        for (j, head_dim) in [1, 3, 8, 20, 33].into_iter().enumerate() {
            let (heads, groups) = [(1, 1), (4, 2), (18, 6)][(i + j) % 3];
            let storage = if (i + j) % 2 == 0 { Storage::Plain } else { Storage::Strided };
            let dims = [2, len, heads, head_dim, groups, 16];
            let mut problem = Problem::new(dims, storage, (i * 10 + j) as u64).masked();
            problem.d = Some(Random::new(77).vec(heads * head_dim, -3., 3.));
            for cpu in cpus() {
                let outcome = problem.run(cpu, &[]);
                problem.check(&format!("{cpu:?}"), &outcome, &problem.oracle());
                let threads = with_threads(3, || problem.run(cpu, &[]));
                assert_eq!(outcome, threads, "{cpu:?} {dims:?}: three threads");
                // Equal values are one value a head.
                let per_head = Problem { d: Some(vec![0.75; heads]), ..problem.clone() };
                let equal = Problem { d: Some(vec![0.75; heads * head_dim]), ..problem.clone() };
                assert_eq!(per_head.run(cpu, &[]), equal.run(cpu, &[]), "{cpu:?} {dims:?}");
            }
        }
    }
    let problem = Problem::new([1, 4, 3, 2, 1, 5], Storage::Plain, 1);
    let problem = Problem { d: Some(vec![1.0; 5]), ..problem };
    let error = Ssd::new(problem.inputs(&(0..4), None)).unwrap_err().to_string();
    assert!(error.starts_with("D has shape [5]"), "{error}");
}

/// Decays that underflow within a chunk, and differences of sums that have grown large.
#[test]
fn very_large_and_very_small_delta() {
    for len in [4, 100] {
        let mut problem = Problem::new([1, len, 11, 8, 1, 16], Storage::Plain, 8);
        let extremes = [-1e4, -90.0, -87.0, -60.0, -20.0, 0.0, 20.0, 100.0, 1e4];
        let raw: Vec<f32> = (0..len * 11).map(|i| extremes[i * 7 % extremes.len()]).collect();
        problem.dt_raw = Strided::rows(&raw, [1, len, 11], 0);
        for cpu in cpus() {
            problem.check("extremes", &problem.run(cpu, &[]), &problem.oracle());
        }
    }
}

/// One large Δ early in the chunk must not cost the later, small ones their precision.
#[test]
fn differences_of_large_sums_keep_their_precision() {
    let mut problem = Problem::new([1, 64, 2, 8, 1, 16], Storage::Plain, 9);
    let raw: Vec<f32> = (0..128).map(|i| if i < 2 { 5e4 } else { -6.0 }).collect();
    problem.dt_raw = Strided::rows(&raw, [1, 64, 2], 0);
    problem.a = vec![-8.0, -0.5];
    // y of the first token is huge; compare the others only.
    for cpu in cpus() {
        let (outcome, expected) = (problem.run(cpu, &[]), problem.oracle());
        for t in 1..64 {
            // The state after the first token is huge too, until it has decayed: the tolerance is
            // relative to the largest element of the same token and head.
            for k in 0..2 {
                let at = (t * 2 + k) * 8;
                let what = format!("{cpu:?} token {t} head {k}");
                assert_sums(&what, &outcome.y[at..at + 8], &expected.y[at..at + 8], 2e-5);
            }
        }
    }
}

/// What has decayed below 2⁻⁶⁴ leaves no subnormal numbers, which slow some processors down many times.
#[test]
fn what_has_decayed_is_gone() {
    let mut problem = Problem::new([1, 64, 2, 8, 1, 16], Storage::Plain, 10);
    // Δ is ln 2, so that a token is worth 2⁻⁴ and 2⁻²³.
    (problem.dt_raw, problem.dt_bias) = (Strided::rows(&[0.0; 128], [1, 64, 2], 0), None);
    problem.a = vec![-4.0, -23.0];
    let x: Vec<f32> = (0..1024).map(|i| if i < 16 { 1.0 + i as f32 } else { 0.0 }).collect();
    problem.x = Strided::rows(&x, [1, 64, 2, 8], 0);
    for cpu in cpus() {
        for (ssd, tolerance) in [(Cpu::ssd as Method, 2e-5), (Cpu::ssd_bf16, 1e-2)] {
            let (outcome, expected) = (problem.run_as(cpu, &[], ssd), problem.oracle());
            for (i, y) in outcome.y.chunks_exact(8).enumerate() {
                let (t, k) = (i / 2, i % 2);
                let what = format!("{cpu:?} token {t} head {k}");
                match t * [4, 23][k] {
                    ..64 => assert_sums(&what, y, &expected.y[i * 8..][..8], tolerance),
                    64 => {}
                    _ => assert_eq!(y, [0.0; 8], "{what}"),
                }
            }
            assert!(outcome.state.iter().all(|&h| h == 0.0), "{cpu:?}");
        }
    }
}

/// Not even by rounding: to the last bit.
#[test]
fn later_tokens_cannot_be_felt() {
    let problem = Problem::new([1, 150, 3, 24, 1, 20], Storage::Plain, 12);
    for from in [1, 13, 63, 64, 100] {
        let mut other = Problem::new(problem.dims, Storage::Plain, 13);
        (other.a, other.state) = (problem.a.clone(), problem.state.clone());
        (other.d, other.dt_bias) = (problem.d.clone(), problem.dt_bias.clone());
        other.x = spliced(&problem.x, &other.x, from);
        other.dt_raw = spliced(&problem.dt_raw, &other.dt_raw, from);
        other.b = spliced(&problem.b, &other.b, from);
        other.c = spliced(&problem.c, &other.c, from);
        for cpu in cpus() {
            for ssd in [Cpu::ssd as Method, Cpu::ssd_bf16] {
                let y = |problem: &Problem| problem.run_as(cpu, &[], ssd).y;
                let (one, two) = (y(&problem), y(&other));
                assert_same("before", &one[..from * 72], &two[..from * 72]);
                assert_ne!(one[from * 72..], two[from * 72..]);
            }
        }
    }
}

/// The tokens of one sequence, from `from` on those of another.
fn spliced<const R: usize>(one: &Strided<R>, other: &Strided<R>, from: usize) -> Strided<R> {
    let (mut values, shape) = (one.values(), one.view().shape());
    let at = from * shape[2..].iter().product::<usize>();
    values[at..].copy_from_slice(&other.values()[at..]);
    Strided::rows(&values, shape, 0)
}

#[test]
fn a_sequence_in_which_every_token_is_dropped_keeps_its_state() {
    for storage in [Storage::Plain, Storage::Strided] {
        for len in [1, 4, 5, 150] {
            let mut problem = Problem::new([2, len, 18, 20, 2, 16], storage, 9);
            problem.delta_min = Some(vec![f32::INFINITY; 18]);
            for cpu in cpus() {
                let outcome = problem.run(cpu, &[]);
                assert_same("state", &outcome.state, &problem.state);
                assert!(outcome.kept.iter().all(|&n| n == 0));
                problem.check("all dropped", &outcome, &problem.oracle());
            }
        }
    }
}

/// A token of a ragged batch is computed as in a batch of its own, to the bit, and what lies past the
/// end is neither read nor counted.
#[test]
fn ragged_sequences_equal_separate_runs() {
    let lengths = vec![0, 1, 70, 130, 64, 4, 5];
    let len = 130;
    // States of 64 columns stay where they are in short sequences and are copied in long ones.
    for (storage, head_dim) in
        [(Storage::Plain, 20), (Storage::Strided, 20), (Storage::Plain, 64), (Storage::Strided, 64)]
    {
        let dims = [lengths.len(), len, 6, head_dim, 2, 16];
        let [_, _, heads, head_dim, groups, d_state] = dims;
        let mut problem = Problem::new(dims, storage, 10).masked();
        problem.lengths = Some(lengths.clone());
        // NaN past the ends.
        for (b, &n) in lengths.iter().enumerate() {
            for t in n..len {
                (0..heads).for_each(|k| problem.dt_raw.view_mut().set([b, t, k], f32::NAN));
                (0..heads).for_each(|k| problem.x.view_mut().set([b, t, k, 0], f32::NAN));
                (0..groups).for_each(|g| problem.b.view_mut().set([b, t, g, 0], f32::NAN));
                (0..groups).for_each(|g| problem.c.view_mut().set([b, t, g, 0], f32::NAN));
            }
        }
        for cpu in cpus() {
            let outcome = problem.run(cpu, &[]);
            problem.check("ragged", &outcome, &problem.oracle());
            for (b, &n) in lengths.iter().enumerate() {
                let size = heads * head_dim * d_state;
                let alone = Problem {
                    dims: [1, n, heads, head_dim, groups, d_state],
                    x: one(&problem.x, b, n),
                    dt_raw: one(&problem.dt_raw, b, n),
                    b: one(&problem.b, b, n),
                    c: one(&problem.c, b, n),
                    lengths: None,
                    state: problem.state[b * size..][..size].to_vec(),
                    ..problem.clone()
                }
                .run(cpu, &[]);
                let width = heads * head_dim;
                let y = &outcome.y[b * len * width..][..len * width];
                assert_same("y", &y[..n * width], &alone.y);
                assert!(y[n * width..].iter().all(|&y| y == 0.0));
                assert_same("state", &outcome.state[b * size..][..size], &alone.state);
                assert_eq!(outcome.kept[b * heads..][..heads], alone.kept);
            }
        }
    }
}

/// The first `n` tokens of sequence `b`, as a batch of one.
fn one<const R: usize>(rows: &Strided<R>, b: usize, n: usize) -> Strided<R> {
    let mut shape = rows.view().shape();
    let per_token: usize = shape[2..].iter().product();
    let values = rows.values()[b * shape[1] * per_token..][..n * per_token].to_vec();
    (shape[0], shape[1]) = (1, n);
    Strided::rows(&values, shape, 0)
}

#[test]
fn the_number_of_threads_cannot_be_seen() {
    for dims in [[1, 200, 21, 16, 3, 32], [5, 100, 1, 40, 1, 64], [3, 1, 64, 64, 1, 64]] {
        let problem = Problem::new(dims, Storage::Plain, 11).masked();
        for cpu in cpus() {
            let one = with_threads(1, || problem.run(cpu, &[]));
            for threads in [2, 3, 7] {
                assert_eq!(one, with_threads(threads, || problem.run(cpu, &[])), "{dims:?}");
            }
        }
    }
}

/// In chunks a NaN meets the zeros of the causal mask, and so spreads to the tokens before it in the
/// same block of 16, but to no other element.
#[test]
fn nan_goes_where_it_comes_from_and_hardly_further() {
    for (len, first) in [(4, 2), (70, 64)] {
        let mut problem = Problem::new([1, len, 3, 8, 1, 16], Storage::Plain, 12).masked();
        problem.x.view_mut().set([0, len - 2, 1, 5], f32::NAN);
        for cpu in cpus() {
            let y = problem.run(cpu, &[]).y;
            for (i, y) in y.iter().enumerate() {
                let (token, element) = (i / 24, i % 24);
                if (first..len - 2).contains(&token) && element == 13 {
                    continue;
                }
                assert_eq!(y.is_nan(), element == 13 && token >= len - 2, "{cpu:?} {len} {i}");
            }
        }
    }
}

/// Of what lies in the working memory, nothing gets into a result, however many tokens the last chunk has.
#[test]
fn scratch_may_hold_anything() {
    for cpu in cpus() {
        for len in 4..=70 {
            let problem = Problem::new([1, len, 3, 20, 1, 16], Storage::Plain, 16);
            for ssd in [Cpu::ssd as Method, Cpu::ssd_bf16] {
                let found = problem.run_in(&mut full_of_nan(cpu), cpu, &[], ssd);
                let expected = problem.run_as(cpu, &[], ssd);
                let what = format!("{cpu:?}, {len} tokens");
                assert_same(&what, &found.y, &expected.y);
                assert_same(&what, &found.state, &expected.state);
            }
        }
    }
}

/// What a product of rounded NaN and a scan of NaN have used: pairs and floats.
fn full_of_nan(cpu: Cpu) -> Scratch {
    let mut scratch = Scratch::new();
    let (x, w, mut out) = (vec![f32::NAN; 100 * 128], vec![bf16::ONE; 128], vec![0.0; 100]);
    let w = View::new(&w, [1, 128]).unwrap();
    let (x, out) = (View::new(&x, [100, 128]), ViewMut::new(&mut out, [100, 1]));
    cpu.matmul_bf16(x.unwrap(), w, out.unwrap(), Accumulate::No, &mut scratch).unwrap();
    let mut problem = Problem::new([1, 64, 4, 40, 2, 40], Storage::Plain, 15);
    let nan = |shape: [usize; 4]| Strided::rows(&vec![f32::NAN; shape.iter().product()], shape, 0);
    (problem.x, problem.c) = (nan([1, 64, 4, 40]), nan([1, 64, 2, 40]));
    problem.run_in(&mut scratch, cpu, &[], Cpu::ssd);
    scratch
}

#[test]
fn scratch_grows_once() {
    let problem = Problem::new([1, 100, 4, 16, 1, 32], Storage::Plain, 14);
    let args = Ssd::new(problem.inputs(&(0..100), None)).unwrap();
    let mut scratch = Scratch::new();
    let mut capacities = Vec::new();
    for _ in 0..3 {
        let (mut y, mut state) = (vec![0.0; 6400], vec![0.0; 2048]);
        let out = SsdOut {
            y: ViewMut::new(&mut y, [1, 100, 4, 16]).unwrap(),
            state: ViewMut::new(&mut state, [1, 4, 16, 32]).unwrap(),
            stats: None,
        };
        Cpu::new().ssd(&args, out, &mut scratch).unwrap();
        capacities.push(scratch.capacity());
    }
    assert!(capacities[0] > 0 && capacities.iter().all(|&c| c == capacities[0]));
}

#[test]
fn outputs_that_do_not_fit_are_refused() {
    let problem = Problem::new([1, 4, 3, 2, 1, 5], Storage::Plain, 13);
    let args = Ssd::new(problem.inputs(&(0..4), None)).unwrap();
    let (mut y, mut state) = ([0.0; 24], [0.0; 30]);
    let out = SsdOut {
        y: ViewMut::new(&mut y, [1, 4, 3, 2]).unwrap(),
        state: ViewMut::new(&mut state, [1, 3, 5, 2]).unwrap(),
        stats: None,
    };
    let error = Cpu::new().ssd(&args, out, &mut Scratch::new()).unwrap_err().to_string();
    assert_eq!(error, "state has shape [1, 3, 5, 2], expected [1, 3, 2, 5]");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whole, in parts and token by token.
    #[test]
    fn parts_give_the_same_as_the_whole(
        batch in 1usize..3, len in 1usize..150, groups in 1usize..4, per_group in 1usize..5,
        head_dim in 1usize..24, d_state in 0usize..24,
        mut ends in proptest::collection::vec(0usize..150, 0..5), seed: u64, strided: bool,
    ) {
        let storage = if strided { Storage::Strided } else { Storage::Plain };
        let dims = [batch, len, groups * per_group, head_dim, groups, d_state];
        let problem = Problem::new(dims, storage, seed).masked();
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
