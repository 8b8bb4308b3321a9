//! Attention over pages against the oracle, and rotary embedding against its formula, on every
//! instruction set.

mod common;

use common::{Random, Strided, assert_close, assert_same, assert_sums, cpus, widen, with_threads};
use longmamba_core::{Error, View, ViewMut, oracle};
use longmamba_cpu::{AttentionArgs, Cpu, KV_PAGE, KvPage, Rotation, Scratch};
use proptest::prelude::*;

/// Of a weighted mean: the scores' rounding moves the weights, the sums add theirs.
const TOLERANCE: f64 = 5e-6;

#[derive(Clone)]
struct Problem {
    /// rows, heads, kv_heads, head_dim
    dims: [usize; 4],
    /// `[rows, heads · head_dim]`
    q: Vec<f32>,
    /// `[position + rows - first, kv_heads · head_dim]`
    k: Vec<f32>,
    v: Vec<f32>,
    first: usize,
    position: usize,
    window: usize,
    scale: f32,
}

impl Problem {
    /// Pages that no query sees are dropped, if `drop`.
    fn new(dims: [usize; 4], position: usize, window: usize, drop: bool, seed: u64) -> Self {
        let [rows, heads, kv_heads, head_dim] = dims;
        let mut r = Random::new(seed);
        let oldest = (position + 1).saturating_sub(window);
        let first = if drop { oldest / KV_PAGE * KV_PAGE } else { 0 };
        let held = (position + rows - first) * kv_heads * head_dim;
        Problem {
            dims,
            q: r.vec(rows * heads * head_dim, -2.0, 2.0),
            k: r.vec(held, -2.0, 2.0),
            v: r.vec(held, -1.0, 3.0),
            first,
            position,
            window,
            scale: 1.0 / (head_dim as f32).sqrt(),
        }
    }

    /// Rows that no query may read hold NaN: those after the last and those before every window.
    fn pages(&self) -> Vec<KvPage> {
        let [rows, _, kv_heads, head_dim] = self.dims;
        let width = kv_heads * head_dim;
        let held = self.position + rows - self.first;
        let mut pages = vec![KvPage::new(kv_heads, head_dim); held.div_ceil(KV_PAGE)];
        let nan = vec![f32::NAN; width];
        let row = |values: &[f32]| Strided::rows(values, [1, width], 3);
        for at in 0..pages.len() * KV_PAGE {
            let seen = at < held
                && self.first + at >= (self.position + 1).saturating_sub(self.window)
                && rows > 0;
            let part =
                |values: &[f32]| if seen { row(&values[at * width..][..width]) } else { row(&nan) };
            let (k, v) = (part(&self.k), part(&self.v));
            pages[at / KV_PAGE].fill(at % KV_PAGE, k.view(), v.view()).unwrap();
        }
        pages
    }

    /// The queries in the parts that `ends` cuts them into.
    fn run(&self, cpu: Cpu, ends: &[usize]) -> Vec<f32> {
        let [rows, heads, _, head_dim] = self.dims;
        let (pages, width) = (self.pages(), heads * head_dim);
        let q = Strided::rows(&self.q, [rows, width], 5);
        let mut out = Strided::rows(&vec![7.0; rows * width], [rows, width], 2);
        let mut scratch = Scratch::new();
        let mut start = 0;
        for &end in ends.iter().chain([&rows]) {
            let args = AttentionArgs {
                q: q.view().slice(0, start..end).unwrap(),
                heads,
                pages: &pages,
                first: self.first,
                position: self.position + start,
                window: self.window,
                scale: self.scale,
            };
            let to = out.view_mut().slice(0, start..end).unwrap();
            cpu.attention(&args, to, &mut scratch).unwrap();
            start = end;
        }
        out.values()
    }

    fn oracle(&self) -> Vec<f64> {
        let [rows, heads, kv_heads, head_dim] = self.dims;
        let held = self.position + rows - self.first;
        let q = View::new(&self.q, [rows, heads, head_dim]).unwrap();
        let k = View::new(&self.k, [held, kv_heads, head_dim]).unwrap();
        let v = View::new(&self.v, [held, kv_heads, head_dim]).unwrap();
        oracle::attention(&q, &k, &v, self.position - self.first, self.window, self.scale)
    }

    fn check(&self, cpus: &[Cpu], tolerance: f64) {
        let expected = self.oracle();
        let Problem { dims, first, position, window, .. } = self;
        for cpu in cpus {
            let what = format!("{cpu:?} {dims:?}, {position} from {first}, window {window}");
            assert_sums(&what, &self.run(*cpu, &[]), &expected, tolerance);
        }
    }
}

const WINDOWS: [usize; 6] = [1, 5, 255, 256, 257, usize::MAX];
const POSITIONS: [usize; 8] = [0, 1, 100, 255, 256, 300, 511, 700];
const ROWS: [usize; 6] = [0, 1, 31, 32, 33, 70];

/// Around blocks of queries, vectors of every width, and heads that share keys.
#[test]
fn every_shape_agrees_with_the_oracle() {
    let cpus = cpus();
    let mut seed = 0;
    for rows in ROWS {
        for (heads, kv_heads) in [(1, 1), (4, 2), (3, 3)] {
            for head_dim in [1, 7, 8, 16, 33, 64] {
                seed += 1;
                let (position, window) = (POSITIONS[seed % 8], WINDOWS[seed / 2 % 6]);
                let dims = [rows, heads, kv_heads, head_dim];
                let problem = Problem::new(dims, position, window, seed % 3 > 0, seed as u64);
                problem.check(&cpus, TOLERANCE);
            }
        }
    }
}

/// Every window at every place in a page, with and without the pages before it.
#[test]
fn windows_and_pages_agree_with_the_oracle() {
    let cpus = cpus();
    for (i, window) in WINDOWS.into_iter().enumerate() {
        for (j, position) in POSITIONS.into_iter().enumerate() {
            for rows in ROWS {
                for drop in [false, true] {
                    let seed = (100 * i + j) as u64;
                    let problem = Problem::new([rows, 2, 1, 5], position, window, drop, seed);
                    problem.check(&cpus, TOLERANCE);
                }
            }
        }
    }
}

/// Pages need not begin at a multiple of their length, and what was before the first is not seen.
#[test]
fn pages_begin_anywhere() {
    for (first, position) in [(37, 37), (37, 300), (1000, 1260)] {
        let mut problem = Problem::new([40, 2, 2, 9], position - first, usize::MAX, false, 3);
        (problem.first, problem.position) = (first, position);
        problem.check(&cpus(), TOLERANCE);
    }
}

/// Products of powers of two, so that the scores are exact and the weights' spread is what is tested.
#[test]
fn large_scores_neither_overflow_nor_vanish() {
    let (rows, position) = (40, 530);
    // By page: the largest scores come last, first, in the middle, or in turn.
    let orders: [fn(usize) -> f32; 4] = [
        |at| if at < 512 { -80.0 } else { 80.0 },
        |at| if at < 256 { 80.0 } else { -80.0 },
        |at| if at / 256 == 1 { 80.0 } else { -80.0 + (at % 3) as f32 },
        |at| ((at * 37 % 161) as f32) - 80.0,
    ];
    for order in orders {
        let mut problem = Problem::new([rows, 1, 1, 8], position, usize::MAX, false, 4);
        problem.scale = 1.0;
        problem.q.fill(0.5);
        for (at, key) in problem.k.chunks_exact_mut(8).enumerate() {
            key.fill(order(at) / 4.0);
        }
        problem.check(&cpus(), TOLERANCE);
    }
}

/// Equal scores: the mean of the values seen.
#[test]
fn equal_scores_give_the_mean() {
    for (window, seen) in [(usize::MAX, 0..301), (7, 294..301)] {
        for score in [0.0, 80.0, -80.0] {
            let mut problem = Problem::new([1, 1, 1, 4], 300, window, false, 6);
            problem.q.fill(score);
            problem.k.fill(0.5);
            let mean: Vec<f64> = (0..4)
                .map(|d| {
                    let values = seen.clone().map(|j| f64::from(problem.v[j * 4 + d]));
                    values.sum::<f64>() / seen.len() as f64
                })
                .collect();
            for cpu in cpus() {
                assert_sums(&format!("{cpu:?} {score}"), &problem.run(cpu, &[]), &mean, 1e-6);
            }
        }
    }
}

/// A NaN in a key is seen by the queries that see the key; all others have the bits that they had.
#[test]
fn nan_in_a_key_shows_only_where_it_is_seen() {
    let (rows, position, width) = (70, 300, 3 * 8);
    for (window, bad) in [(usize::MAX, 320), (9, 320), (9, 295), (40, 301), (257, 369)] {
        let good = Problem::new([rows, 3, 3, 8], position, window, false, 7);
        let mut problem = good.clone();
        // The second head's.
        problem.k[bad * width + 8 + 3] = f32::NAN;
        for cpu in cpus() {
            let (expected, actual) = (good.run(cpu, &[]), problem.run(cpu, &[]));
            for (i, (a, e)) in actual.iter().zip(&expected).enumerate() {
                let (p, head) = (position + i / width, i % width / 8);
                let sees = head == 1 && bad <= p && p - bad < window;
                assert_eq!(a.is_nan(), sees, "{cpu:?} window {window}, key {bad}: {p} {head}");
                assert!(sees || a.to_bits() == e.to_bits(), "{cpu:?} {window} {bad}: {p} {head}");
            }
        }
    }
}

/// A NaN in a value meets the zero weights of the other queries of its block of 32, as in the scan in
/// chunks, but no other block, head or element.
#[test]
fn nan_in_a_value_stays_in_its_block() {
    let (position, width, bad) = (300, 3 * 8, 340);
    let good = Problem::new([70, 3, 3, 8], position, usize::MAX, false, 8);
    let mut problem = good.clone();
    problem.v[bad * width + 8 + 3] = f32::NAN;
    for cpu in cpus() {
        let (expected, actual) = (good.run(cpu, &[]), problem.run(cpu, &[]));
        for (i, (a, e)) in actual.iter().zip(&expected).enumerate() {
            let (row, element) = (i / width, i % width);
            let (seen, near) = (position + row >= bad, row >= 32);
            assert!(!(seen && element == 11) || a.is_nan(), "{cpu:?} {row} {element}");
            assert!(near && element == 11 || a.to_bits() == e.to_bits(), "{cpu:?} {row} {element}");
        }
    }
}

#[test]
fn the_number_of_threads_cannot_be_seen() {
    for (dims, position, window) in [
        ([1, 8, 2, 64], 2000, usize::MAX),
        ([200, 3, 3, 33], 500, usize::MAX),
        ([200, 1, 1, 16], 500, 300),
    ] {
        let problem = Problem::new(dims, position, window, true, 9);
        for cpu in cpus() {
            let one = with_threads(1, || problem.run(cpu, &[]));
            for threads in [2, 3, 7] {
                let more = with_threads(threads, || problem.run(cpu, &[]));
                assert_same(&format!("{cpu:?} {dims:?}, {threads} threads"), &more, &one);
            }
        }
    }
}

#[test]
fn arguments_are_checked_by_name() {
    let (q, mut out) = ([0.5; 24], [7.0; 24]);
    let pages = vec![KvPage::new(2, 3); 2];
    let good = AttentionArgs {
        q: View::new(&q, [2, 12]).unwrap(),
        heads: 4,
        pages: &pages,
        first: 256,
        position: 300,
        window: usize::MAX,
        scale: 1.0,
    };
    let mut call = |args: AttentionArgs<'_>, shape: [usize; 2]| {
        let to = ViewMut::new(&mut out[..shape[0] * shape[1]], shape).unwrap();
        let result = Cpu::new().attention(&args, to, &mut Scratch::new());
        let untouched = out.iter().all(|&v| v == 7.0);
        assert!(result.is_ok() || untouched, "an error must write nothing");
        result
    };
    let named = |result: Result<(), Error>| match result {
        Err(Error::Value { tensor, .. } | Error::Shape { tensor, .. }) => tensor,
        other => panic!("{other:?}"),
    };
    for heads in [0, 5, 24] {
        assert_eq!(named(call(AttentionArgs { heads, ..good }, [2, 12])), "heads");
    }
    // Before the pages, past them, and so far that a sum would overflow.
    for position in [255, 767, usize::MAX] {
        assert_eq!(named(call(AttentionArgs { position, ..good }, [2, 12])), "position");
    }
    assert_eq!(named(call(AttentionArgs { pages: &[], ..good }, [2, 12])), "position");
    assert_eq!(named(call(AttentionArgs { window: 0, ..good }, [2, 12])), "window");
    for kv_heads in [0, 3, 8] {
        // The second page is checked like the first.
        let pages = [KvPage::new(2, 3), KvPage::new(kv_heads, 3)];
        assert_eq!(named(call(AttentionArgs { pages: &pages, ..good }, [2, 12])), "kv_heads");
    }
    let narrow = [KvPage::new(2, 3), KvPage::new(2, 4)];
    assert_eq!(named(call(AttentionArgs { pages: &narrow, ..good }, [2, 12])), "head_dim");
    assert_eq!(named(call(good, [1, 12])), "out");
    assert_eq!(named(call(good, [2, 11])), "out");
    let turned = View::new(&q, [12, 2]).unwrap().permute([1, 0]).unwrap();
    let result = call(AttentionArgs { q: turned, ..good }, [2, 12]);
    assert_eq!(result, Err(Error::NotContiguous { tensor: "q" }));
    // The last two positions that the pages hold.
    assert_eq!(call(AttentionArgs { position: 766, ..good }, [2, 12]), Ok(()));
}

#[test]
fn pages_give_back_what_they_were_given() {
    let (kv_heads, head_dim, width) = (3, 5, 15);
    let mut page = KvPage::new(kv_heads, head_dim);
    assert_eq!(page.width(), width);
    let mut r = Random::new(10);
    let (k, v) = (r.vec(KV_PAGE * width, -9.0, 9.0), r.vec(KV_PAGE * width, -9.0, 9.0));
    let row = |values: &[f32], at: usize| values[at * width..][..width].to_vec();
    let (mut keys, mut values) = (vec![1.0; width], vec![1.0; width]);
    page.read(0, &mut keys, &mut values);
    assert_eq!((&keys, &values), (&vec![0.0; width], &vec![0.0; width]));
    // In uneven parts, the later of which must not disturb the earlier; an empty one at the end.
    for part in [0..1, 1..33, 33..100, 100..256, 256..256] {
        let (rows, cut) = (part.len(), part.start * width..part.end * width);
        let (k, v) = (&k[cut.clone()], &v[cut]);
        let (k, v) = (Strided::rows(k, [rows, width], 2), Strided::rows(v, [rows, width], 4));
        page.fill(part.start, k.view(), v.view()).unwrap();
    }
    for at in 0..KV_PAGE {
        page.read(at, &mut keys, &mut values);
        assert_same("keys", &keys, &row(&k, at));
        assert_same("values", &values, &row(&v, at));
    }

    // Refused, and nothing changes.
    let before = page.clone();
    let two = View::new(&k[..2 * width], [2, width]).unwrap();
    let one = View::new(&k[..width], [1, width]).unwrap();
    let wide = View::new(&k[..2 * width + 2], [2, width + 1]).unwrap();
    let turned = View::new(&k[..width * width], [width, width]).unwrap().permute([1, 0]).unwrap();
    for first in [255, 256, usize::MAX] {
        let error = page.fill(first, two, two).unwrap_err();
        assert!(matches!(error, Error::Value { tensor: "first", .. }), "{first}: {error}");
    }
    assert!(matches!(page.fill(0, wide, two), Err(Error::Shape { tensor: "keys", .. })));
    assert!(matches!(page.fill(0, two, one), Err(Error::Shape { tensor: "values", .. })));
    let error = Error::NotContiguous { tensor: "keys" };
    assert_eq!(page.fill(0, turned, turned), Err(error));
    for at in 0..KV_PAGE {
        before.read(at, &mut keys, &mut values);
        let (k, v) = (keys.clone(), values.clone());
        page.read(at, &mut keys, &mut values);
        assert_eq!((k, v), (keys.clone(), values.clone()), "{at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Queries in any parts, as a prompt read in chunks has them.
    #[test]
    fn parts_give_the_same_as_the_whole(
        rows in 1usize..100, kv_heads in 1usize..3, per_key in 1usize..4, head_dim in 1usize..40,
        position in 0usize..600, window in prop_oneof![1usize..600, Just(usize::MAX)],
        mut ends in proptest::collection::vec(0usize..100, 0..5), seed: u64,
    ) {
        let dims = [rows, kv_heads * per_key, kv_heads, head_dim];
        let problem = Problem::new(dims, position, window, true, seed);
        ends.retain(|&end| end <= rows);
        ends.sort_unstable();
        let single: Vec<usize> = (1..rows).collect();
        for cpu in Cpu::available() {
            let whole = widen(&problem.run(cpu, &[]));
            for ends in [&ends, &single] {
                assert_sums("parts", &problem.run(cpu, ends), &whole, TOLERANCE);
            }
        }
    }
}

fn rotation(head_dim: usize, width: usize, interleaved: bool, position: usize) -> Rotation {
    Rotation { head_dim, width, base: 10_000.0, interleaved, position }
}

/// `x` `[rows, heads · head_dim]` rotated in `f64`, with the angle that `angle` gives to a position and
/// the share `2i / width` of pair `i`; and, for each element, its pair's size and angle.
fn rotated(
    x: &[f32],
    row_width: usize,
    r: Rotation,
    angle: impl Fn(usize, usize) -> f64,
) -> (Vec<f64>, Vec<[f64; 2]>) {
    let (mut out, mut pairs) = (widen(x), vec![[0.0; 2]; x.len()]);
    for start in (0..x.len()).step_by(r.head_dim) {
        let position = r.position + start / row_width;
        for i in 0..r.width / 2 {
            let (u, v) = if r.interleaved { (2 * i, 2 * i + 1) } else { (i, i + r.width / 2) };
            let (u, v) = (start + u, start + v);
            let (sin, cos) = angle(position, i).sin_cos();
            let (a, b) = (f64::from(x[u]), f64::from(x[v]));
            (out[u], out[v]) = (a * cos - b * sin, b * cos + a * sin);
            for at in [u, v] {
                pairs[at] = [a.hypot(b), angle(position, i)];
            }
        }
    }
    (out, pairs)
}

/// heads, head_dim, rotated width: partial, one pair, and more pairs than are turned at a time.
const ROTATIONS: [[usize; 3]; 8] = [
    [1, 2, 2],
    [3, 8, 8],
    [2, 16, 6],
    [4, 7, 6],
    [1, 64, 64],
    [2, 160, 132],
    [1, 300, 300],
    [2, 5, 0],
];

#[test]
fn rope_agrees_with_its_formula() {
    let rows = 5;
    for cpu in cpus() {
        for [heads, head_dim, width] in ROTATIONS {
            for position in [0, 1, 1000, 99_996] {
                for interleaved in [false, true] {
                    let row_width = heads * head_dim;
                    let x = Random::new(11).vec(rows * row_width, -2.0, 2.0);
                    let mut out = Strided::rows(&x, [rows, row_width], 3);
                    let base = [200.0, 10_000.0, 1e6][(head_dim + position) % 3];
                    let r = Rotation { base, ..rotation(head_dim, width, interleaved, position) };
                    cpu.rope(out.view_mut(), r).unwrap();
                    let out = out.values();
                    let what = format!("{cpu:?} {heads} heads, {r:?}");

                    // The exact angle: that of the kernel is off by its rounding, up to 10 ULP.
                    let power = |i| f64::from(r.base).powf(-2.0 * i as f64 / r.width as f64);
                    let exact = |position, i| position as f64 * power(i);
                    let (expected, pairs) = rotated(&x, row_width, r, exact);
                    for (i, (&a, e)) in out.iter().zip(&expected).enumerate() {
                        let [size, angle] = pairs[i];
                        let bound = size * (2e-7 + 6e-7 * angle);
                        let error = (f64::from(a) - e).abs();
                        assert!(error <= bound, "{what} [{i}]: {a} {e}, angle {angle}");
                    }

                    // The angle rounded as documented: nothing but the last roundings is left.
                    let documented = |position: usize, i: usize| {
                        let exponent = (2 * i) as f32 / r.width as f32;
                        f64::from(position as f32 * (1.0 / r.base.powf(exponent)))
                    };
                    let (expected, _) = rotated(&x, row_width, r, documented);
                    assert_close(&what, &out, &expected, 5e-7, 0.0);

                    let beyond = (0..x.len()).filter(|i| i % head_dim >= width);
                    let kept = beyond.clone().map(|i| out[i]).collect::<Vec<_>>();
                    assert_same(&what, &kept, &beyond.map(|i| x[i]).collect::<Vec<_>>());
                }
            }
        }
    }
}

#[test]
fn position_zero_turns_nothing() {
    for cpu in cpus() {
        for interleaved in [false, true] {
            let x = Random::new(12).vec(48, -2.0, 2.0);
            let mut out = x.clone();
            let to = ViewMut::new(&mut out, [1, 48]).unwrap();
            cpu.rope(to, rotation(16, 16, interleaved, 0)).unwrap();
            assert_same(&format!("{cpu:?}"), &out, &x);
        }
    }
}

/// A row has the angle of its own position, whatever thread turns it.
#[test]
fn rope_of_parts_is_that_of_the_whole() {
    let (rows, row_width) = (601, 96);
    let x = Random::new(13).vec(rows * row_width, -2.0, 2.0);
    for cpu in cpus() {
        let run = |threads, cuts: &[usize]| {
            let mut out = x.clone();
            let mut start = 0;
            for &end in cuts {
                let part = &mut out[start * row_width..end * row_width];
                let to = ViewMut::new(part, [end - start, row_width]).unwrap();
                let r = rotation(32, 24, false, 70 + start);
                with_threads(threads, || cpu.rope(to, r)).unwrap();
                start = end;
            }
            out
        };
        let whole = run(1, &[rows]);
        for (threads, cuts) in [(2, vec![rows]), (7, vec![rows]), (1, vec![1, 64, 300, rows])] {
            assert_same(&format!("{cpu:?}, {threads} threads"), &run(threads, &cuts), &whole);
        }
    }
}

#[test]
fn rotations_that_do_not_fit_are_refused() {
    let mut x = [7.0; 24];
    let mut call = |head_dim, width| {
        let to = ViewMut::new(&mut x, [2, 12]).unwrap();
        Cpu::new().rope(to, rotation(head_dim, width, false, 3))
    };
    for head_dim in [0, 5, 24] {
        let error = call(head_dim, 0).unwrap_err();
        assert!(matches!(error, Error::Value { tensor: "head_dim", .. }), "{head_dim}");
    }
    for width in [5, 8, usize::MAX - 1] {
        let error = call(6, width).unwrap_err();
        assert!(matches!(error, Error::Value { tensor: "rotated width", .. }), "{width}");
    }
    assert_eq!(x, [7.0; 24], "an error must write nothing");
    let turned = ViewMut::new(&mut x, [12, 2]).unwrap().permute([1, 0]).unwrap();
    let error = Cpu::new().rope(turned, rotation(6, 6, false, 0));
    assert_eq!(error, Err(Error::NotContiguous { tensor: "x" }));
}
