//! Attention over pages against the oracle.

mod common;
#[path = "common/rows.rs"]
mod rows;

use common::device;
use longmamba_core::{View, oracle};
use longmamba_cuda::{
    AttentionArgs, AttentionScratch, Device, Error, KV_PAGE, KvPage, Rows, RowsMut,
};
use proptest::prelude::*;
use rows::{Random, Stored, assert_close, assert_same};

/// Of a weighted mean: the scores' rounding moves the weights, the sums add theirs.
const TOLERANCE: f64 = 5e-6;

#[derive(Clone, Debug)]
struct Problem {
    rows: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    first: usize,
    position: usize,
    window: usize,
    scale: f32,
    /// `[rows, heads · head_dim]`
    q: Vec<f32>,
    /// `[position + rows - first, kv_heads · head_dim]`
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Problem {
    /// Pages that no query sees are dropped, if `drop`.
    fn new(dims: [usize; 4], position: usize, window: usize, drop: bool, seed: u64) -> Self {
        let [rows, heads, kv_heads, head_dim] = dims;
        let mut random = Random::new(seed);
        let oldest = (position + 1).saturating_sub(window);
        let first = if drop { oldest / KV_PAGE * KV_PAGE } else { 0 };
        let held = (position + rows - first) * kv_heads * head_dim;
        Problem {
            rows,
            heads,
            kv_heads,
            head_dim,
            first,
            position,
            window,
            scale: 1.0 / (head_dim as f32).sqrt(),
            q: random.vec(rows * heads * head_dim, -2.0, 2.0),
            k: random.vec(held, -2.0, 2.0),
            v: random.vec(held, -1.0, 3.0),
        }
    }

    /// Rows that no query may read hold NaN: those after the last and those before every window.
    fn pages(&self, device: &Device) -> Vec<KvPage> {
        let width = self.kv_heads * self.head_dim;
        let held = self.position + self.rows - self.first;
        let len = held.div_ceil(KV_PAGE) * KV_PAGE * width;
        let forgotten = (self.position + 1).saturating_sub(self.window).saturating_sub(self.first);
        let padded = |values: &[f32]| {
            let mut all = vec![f32::NAN; len];
            if self.rows > 0 {
                let seen = forgotten * width..held * width;
                all[seen.clone()].copy_from_slice(&values[seen]);
            }
            all
        };
        let (k, v, step) = (padded(&self.k), padded(&self.v), KV_PAGE * width);
        let pages = k.chunks(step).zip(v.chunks(step)).map(|(k, v)| {
            let mut page = KvPage::new(device, self.kv_heads, self.head_dim).unwrap();
            page.write(k, v).unwrap();
            page
        });
        pages.collect()
    }

    fn run(&self, gap: usize) -> Vec<f32> {
        let device = device();
        let (pages, width) = (self.pages(&device), self.heads * self.head_dim);
        let q = Stored::<f32>::new(&device, &self.q, width, gap);
        let mut out = Stored::<f32>::new(&device, &vec![7.0; self.q.len()], width, gap);
        let mut scratch = AttentionScratch::new();
        let args = self.args(q.rows(), &pages);
        device.attention(self.rows, args, out.rows_mut(), &mut scratch).unwrap();
        out.values()
    }

    fn args<'a>(&self, q: Rows<'a, f32>, pages: &'a [KvPage]) -> AttentionArgs<'a> {
        let Problem { heads, first, position, window, scale, .. } = *self;
        AttentionArgs { q, heads, pages, first, position, window, scale }
    }

    fn check(&self, tolerance: f64) {
        let Problem { rows, heads, kv_heads, head_dim, first, position, window, scale, .. } = *self;
        let held = position + rows - first;
        let q = View::new(&self.q, [rows, heads, head_dim]).unwrap();
        let k = View::new(&self.k, [held, kv_heads, head_dim]).unwrap();
        let v = View::new(&self.v, [held, kv_heads, head_dim]).unwrap();
        let expected = oracle::attention(&q, &k, &v, position - first, window, scale);
        let what = format!(
            "{rows} × {heads} ({kv_heads}) × {head_dim} at {position} from {first}, window {window}"
        );
        assert_close(&what, &self.run((position + head_dim) % 5), &expected, tolerance, tolerance);
    }
}

const WINDOWS: [usize; 6] = [1, 5, 255, 256, 257, usize::MAX];
const POSITIONS: [usize; 8] = [0, 1, 63, 64, 255, 256, 300, 530];
/// Each by itself, together, a tile and its neighbours, several.
const ROWS: [usize; 8] = [0, 1, 2, 4, 5, 33, 64, 70];

/// Every kernel, around its widths, with one head to a key's, several, and more than a block takes.
#[test]
fn every_shape_agrees_with_the_oracle() {
    let heads = [(1, 1), (4, 2), (3, 3), (5, 1)];
    for (i, head_dim) in [1, 7, 64, 65, 80, 129, 160, 256].into_iter().enumerate() {
        for (j, rows) in ROWS.into_iter().enumerate() {
            let (heads, kv_heads) = heads[(i + j) % 4];
            let (position, window) = (POSITIONS[(3 * i + j) % 8], WINDOWS[(i + 5 * j) % 6]);
            let dims = [rows, heads, kv_heads, head_dim];
            Problem::new(dims, position, window, (i + j) % 3 > 0, (i * 100 + j) as u64)
                .check(TOLERANCE);
        }
    }
}

/// Every window at every place in a page, with and without the pages before it.
#[test]
fn windows_and_pages_agree_with_the_oracle() {
    for window in WINDOWS {
        for (i, position) in POSITIONS.into_iter().enumerate() {
            for (rows, drop) in [(1, false), (2, true), (10, i % 2 == 0)] {
                let dims = [rows, 2, 1, 5];
                Problem::new(dims, position, window, drop, position as u64).check(TOLERANCE);
            }
        }
    }
}

/// Pages need not begin at a multiple of their length, and what was before the first is not seen.
#[test]
fn pages_begin_anywhere() {
    for (rows, first, position) in [(40, 37, 37), (1, 37, 300), (40, 1000, 1260), (3, 1000, 1260)] {
        let mut problem = Problem::new([rows, 2, 2, 9], position - first, usize::MAX, false, 3);
        (problem.first, problem.position) = (first, position);
        problem.check(TOLERANCE);
    }
}

/// Products of powers of two, so that the scores are exact and the weights' spread is what is tested.
#[test]
fn large_scores_neither_overflow_nor_vanish() {
    // By page: the largest scores come last, first, in the middle, or in turn.
    let orders: [fn(usize) -> f32; 4] = [
        |at| if at < 512 { -80.0 } else { 80.0 },
        |at| if at < 256 { 80.0 } else { -80.0 },
        |at| if at / 256 == 1 { 80.0 } else { -80.0 + (at % 3) as f32 },
        |at| ((at * 37 % 161) as f32) - 80.0,
    ];
    for order in orders {
        for rows in [1, 40] {
            let mut problem = Problem::new([rows, 1, 1, 8], 530, usize::MAX, false, 4);
            problem.scale = 1.0;
            problem.q.fill(0.5);
            for (at, key) in problem.k.chunks_exact_mut(8).enumerate() {
                key.fill(order(at) / 4.0);
            }
            problem.check(TOLERANCE);
        }
    }
}

/// A NaN in a key is seen by the queries that see the key; all others have the bits that they had.
#[test]
fn nan_in_a_key_shows_only_where_it_is_seen() {
    let (position, width) = (300, 3 * 8);
    for rows in [4, 70] {
        for (window, bad) in [(usize::MAX, 302), (9, 303), (9, 295), (40, 301), (257, 303)] {
            let good = Problem::new([rows, 3, 3, 8], position, window, false, 7);
            let mut problem = good.clone();
            // The second head's.
            problem.k[bad * width + 8 + 3] = f32::NAN;
            for (i, (a, e)) in problem.run(0).iter().zip(&good.run(0)).enumerate() {
                let (p, head) = (position + i / width, i % width / 8);
                let sees = head == 1 && bad <= p && p - bad < window;
                assert_eq!(a.is_nan(), sees, "window {window}, key {bad}: {p} {head}");
                assert!(sees || a.to_bits() == e.to_bits(), "{window} {bad}: {p} {head}");
            }
        }
    }
}

/// A NaN in a value reaches all that see it, and no other head, element, or tile of 64 queries; where
/// queries go by themselves, no other query.
#[test]
fn nan_in_a_value_stays_in_its_tile() {
    let (position, width) = (300, 3 * 8);
    for (rows, bad, tile) in [(140, 375, 64), (4, 302, 1)] {
        let good = Problem::new([rows, 3, 3, 8], position, usize::MAX, false, 8);
        let mut problem = good.clone();
        problem.v[bad * width + 8 + 3] = f32::NAN;
        for (i, (a, e)) in problem.run(0).iter().zip(&good.run(0)).enumerate() {
            let (row, element) = (i / width, i % width);
            let sees = element == 11 && position + row >= bad;
            let near = element == 11 && row / tile >= (bad - position) / tile;
            assert!(!sees || a.is_nan(), "{rows}: {row} {element}");
            assert!(near || a.to_bits() == e.to_bits(), "{rows}: {row} {element}");
        }
    }
}

/// One scratch for the steps of two layers, whose pages come and go: what it remembers of the pages is
/// not what they were.
#[test]
fn a_scratch_follows_its_pages() {
    let device = device();
    let mut scratch = AttentionScratch::new();
    let all = Problem::new([1, 2, 1, 6], 700, usize::MAX, false, 9);
    let other = Problem::new([1, 2, 1, 6], 600, usize::MAX, false, 10);
    let (mut pages, others) = (all.pages(&device), other.pages(&device));
    let mut run = |problem: &Problem, pages: &[KvPage]| {
        let q = device.upload(&problem.q).unwrap();
        let mut out = device.zeros(12).unwrap();
        let args = problem.args(Rows::all(&q, 12), pages);
        device.attention(1, args, RowsMut::all(&mut out, 12), &mut scratch).unwrap();
        out.to_vec().unwrap()
    };
    let part = |problem: &Problem, first, position| {
        let mut part = Problem { first, position, ..problem.clone() };
        part.k = problem.k[first * 6..(position + 1) * 6].to_vec();
        part.v = problem.v[first * 6..(position + 1) * 6].to_vec();
        part
    };
    for (first, position, held) in
        [(0, 200, 0..1), (0, 300, 0..2), (256, 700, 1..3), (0, 700, 0..3)]
    {
        let problem = part(&all, first, position);
        assert_same("own", &run(&problem, &pages[held]), &problem.run(0));
        assert_same("other", &run(&other, &others), &other.run(0));
    }
    // The first page again, as the last: an error here would read its old place.
    pages.rotate_left(1);
    let problem = part(&all, 256, 700);
    assert_same("turned", &run(&problem, &pages[..2]), &problem.run(0));
}

/// A replay would read the pages that the scratch has by then.
#[test]
fn attention_cannot_be_captured() {
    let device = device();
    let problem = Problem::new([1, 1, 1, 4], 3, usize::MAX, false, 11);
    let (pages, q) = (problem.pages(&device), device.upload(&problem.q).unwrap());
    let (mut out, mut scratch) = (device.zeros(4).unwrap(), AttentionScratch::new());
    let mut run = || {
        let args = problem.args(Rows::all(&q, 4), &pages);
        device.attention(1, args, RowsMut::all(&mut out, 4), &mut scratch)
    };
    run().unwrap();
    let captured: Result<_, Error> = device.capture(&mut run);
    assert!(matches!(captured, Err(Error::NotRecordable { .. })), "{captured:?}");
    run().unwrap();
}

#[test]
fn pages_give_back_what_they_were_given() {
    let device = device();
    let (kv_heads, head_dim, width) = (3, 5, 15);
    let mut page = KvPage::new(&device, kv_heads, head_dim).unwrap();
    assert_eq!(page.width(), width);
    let mut random = Random::new(10);
    let len = KV_PAGE * width;
    let (k, v) = (random.vec(len, -9.0, 9.0), random.vec(len, -9.0, 9.0));
    let (mut keys, mut values) = (vec![1.0; len], vec![1.0; len]);
    page.read(&mut keys, &mut values).unwrap();
    assert!(keys.iter().chain(&values).all(|&v| v == 0.0));
    // In uneven parts, the later of which must not disturb the earlier; an empty one at the end.
    for part in [0..1, 1..33, 33..100, 100..256, 256..256] {
        let (rows, cut) = (part.len(), part.start * width..part.end * width);
        let keys = Stored::<f32>::new(&device, &k[cut.clone()], width, 2);
        let values = Stored::<f32>::new(&device, &v[cut], width, 4);
        page.fill(rows, keys.rows(), values.rows(), part.start).unwrap();
    }
    page.read(&mut keys, &mut values).unwrap();
    assert_same("keys", &keys, &k);
    assert_same("values", &values, &v);
    let one = Stored::<f32>::new(&device, &k[..2 * width], width, 0);
    for first in [255, 256, usize::MAX] {
        assert!(matches!(page.fill(2, one.rows(), one.rows(), first), Err(Error::Argument(_))));
    }
    assert!(matches!(page.read(&mut keys[1..], &mut values), Err(Error::Argument(_))));
    // Four columns at a time.
    let mut page = KvPage::new(&device, 2, 4).unwrap();
    let rows = Stored::<f32>::new(&device, &k[..24], 8, 4);
    page.fill(3, rows.rows(), rows.rows(), 1).unwrap();
    let (mut keys, mut values) = (vec![1.0; 2048], vec![1.0; 2048]);
    page.read(&mut keys, &mut values).unwrap();
    assert_same("keys", &keys[8..32], &k[..24]);
    assert_same("values", &values[8..32], &k[..24]);
}

#[test]
fn arguments_are_checked_by_name() {
    let device = device();
    let q = device.upload(&[0.5; 24]).unwrap();
    let mut out = device.upload(&[7.0; 24]).unwrap();
    let page = |kv_heads, head_dim| KvPage::new(&device, kv_heads, head_dim).unwrap();
    let pages = [page(2, 3), page(2, 3)];
    let good = AttentionArgs {
        q: Rows::all(&q, 12),
        heads: 4,
        pages: &pages,
        first: 256,
        position: 300,
        window: usize::MAX,
        scale: 1.0,
    };
    let mut call = |rows, args: AttentionArgs<'_>| {
        let to = RowsMut::all(&mut out, 12);
        let result = device.attention(rows, args, to, &mut AttentionScratch::new());
        match &result {
            Ok(()) => "ok",
            Err(Error::Argument(longmamba_core::Error::Value { tensor, .. })) => tensor,
            Err(Error::Argument(longmamba_core::Error::Shape { tensor, .. })) => tensor,
            Err(Error::Argument(_)) => "bounds",
            other => panic!("{other:?}"),
        }
    };
    for heads in [0, 5, 24] {
        assert_eq!(call(2, AttentionArgs { heads, ..good }), "heads");
    }
    // Before the pages, past them, and so far that a sum would overflow.
    for position in [255, 767, usize::MAX] {
        assert_eq!(call(2, AttentionArgs { position, ..good }), "position");
    }
    assert_eq!(call(2, AttentionArgs { pages: &[], ..good }), "position");
    assert_eq!(call(2, AttentionArgs { window: 0, ..good }), "window");
    for kv_heads in [0, 1, 3, 8] {
        // The second page is checked like the first.
        let pages = [page(2, 3), page(kv_heads, 3)];
        assert_eq!(call(2, AttentionArgs { pages: &pages, ..good }), "kv_heads");
    }
    let narrow = [page(2, 3), page(2, 4)];
    assert_eq!(call(2, AttentionArgs { pages: &narrow, ..good }), "head_dim");
    assert_eq!(call(2, AttentionArgs { q: Rows::all(&q, 11), ..good }), "q");
    assert_eq!(call(3, good), "bounds");
    // The last two positions that the pages hold.
    assert_eq!(call(2, AttentionArgs { position: 766, ..good }), "ok");

    let (q, mut out) = (device.zeros(257).unwrap(), device.zeros(257).unwrap());
    let pages = [page(1, 257)];
    let args = AttentionArgs { q: Rows::all(&q, 257), heads: 1, pages: &pages, ..good };
    let to = RowsMut::all(&mut out, 257);
    let result = device.attention(1, args, to, &mut AttentionScratch::new());
    assert!(matches!(result, Err(Error::Unsupported { .. })), "{result:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_shape(
        rows in 0usize..80,
        kv_heads in 1usize..3,
        sharing in 1usize..6,
        head_dim in 1usize..100,
        position in 0usize..600,
        window in prop::sample::select(vec![1, 10, 100, 300, usize::MAX]),
        drop: bool,
        seed: u64,
    ) {
        let dims = [rows, kv_heads * sharing, kv_heads, head_dim];
        Problem::new(dims, position, window, drop, seed).check(TOLERANCE);
    }
}
