//! Attention over pages against the oracle.

mod common;
#[path = "common/rows.rs"]
mod rows;

use common::device;
use longmamba_core::{View, oracle};
use longmamba_cuda::{
    AttentionArgs, AttentionScratch, Buffer, Device, Error, KV_PAGE, KvPages, Position, Positions,
    Rows, RowsMut,
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
    fn pages(&self, device: &Device) -> KvPages {
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
        let mut pages = KvPages::new(device, self.kv_heads, self.head_dim).unwrap();
        pages.arrange(0, k.len() / step, self.first).unwrap();
        for (index, (k, v)) in k.chunks(step).zip(v.chunks(step)).enumerate() {
            pages.write(index, k, v).unwrap();
        }
        pages
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

    fn args<'a>(&self, q: Rows<'a, f32>, pages: &'a KvPages) -> AttentionArgs<'a> {
        let Problem { heads, position, window, scale, .. } = *self;
        AttentionArgs { q, heads, pages, position: Position::Fixed(position), window, scale }
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

/// A sequence that is read token by token.
struct Steps {
    /// Of all positions.
    all: Problem,
    pages: KvPages,
    first: usize,
    /// q, k and v of a token, and what attention makes of them.
    row: Buffer<f32>,
    out: Buffer<f32>,
}

impl Steps {
    fn new(device: &Device, dims: [usize; 3], len: usize, window: usize, seed: u64) -> Self {
        let [heads, kv_heads, head_dim] = dims;
        let all = Problem::new([len, heads, kv_heads, head_dim], 0, window, false, seed);
        Steps {
            pages: KvPages::new(device, kv_heads, head_dim).unwrap(),
            first: 0,
            row: device.zeros((heads + 2 * kv_heads) * head_dim).unwrap(),
            out: device.zeros(heads * head_dim).unwrap(),
            all,
        }
    }

    fn widths(&self) -> [usize; 2] {
        [self.all.heads, self.all.kv_heads].map(|heads| heads * self.all.head_dim)
    }

    /// Before the work of a step: its token, and room for it; whether recordings are void.
    fn prepare(&mut self, position: usize) -> bool {
        let [width, kv_width] = self.widths();
        let part = |values: &[f32], width| values[position * width..][..width].to_vec();
        let Problem { q, k, v, window, .. } = &self.all;
        let row = [part(q, width), part(k, kv_width), part(v, kv_width)].concat();
        self.row.write(&row, 0).unwrap();
        let oldest = (position + 1).saturating_sub(*window);
        let unused = oldest.saturating_sub(self.first) / KV_PAGE;
        self.first += unused * KV_PAGE;
        let count = (position + 1 - self.first).div_ceil(KV_PAGE);
        self.pages.arrange(unused, count, self.first).unwrap()
    }

    /// Keeps the token's key and value.
    fn fill(&mut self, position: Position<'_>) -> Result<(), Error> {
        let [width, kv_width] = self.widths();
        let all = Rows::all(&self.row, width + 2 * kv_width);
        let (k, v) = (all.part(width, kv_width), all.part(width + kv_width, kv_width));
        self.pages.fill(1, k, v, position)
    }

    fn work(
        &mut self,
        position: Position<'_>,
        scratch: &mut AttentionScratch,
    ) -> Result<(), Error> {
        self.fill(position)?;
        let ([width, kv_width], device) = (self.widths(), self.row.device().clone());
        let q = Rows::all(&self.row, width + 2 * kv_width).part(0, width);
        let args = AttentionArgs { position, ..self.all.args(q, &self.pages) };
        device.attention(1, args, RowsMut::all(&mut self.out, width), scratch)
    }

    /// The same step by itself, with new pages.
    fn expected(&self, position: usize) -> Vec<f32> {
        let ([width, kv_width], first) = (self.widths(), self.first);
        let part = |values: &[f32], from: usize, width: usize| {
            values[from * width..(position + 1) * width].to_vec()
        };
        let Problem { q, k, v, .. } = &self.all;
        let problem = Problem {
            rows: 1,
            first,
            position,
            q: part(q, position, width),
            k: part(k, first, kv_width),
            v: part(v, first, kv_width),
            ..self.all.clone()
        };
        problem.run(0)
    }
}

/// Two sequences that step together, recorded for as long as no table of pages has to grow: each step has the
/// bits of a launch of its own, in the middle of pages, where pages are added, and where a window lets go of
/// some.
#[test]
fn steps_are_replayed_while_pages_come_and_go() {
    let device = device();
    let steps = [0..4, 100..102, 254..259, 294..299, 510..514, 550..556, 766..770, 1022..1029];
    // The table has 1, 2, 4 and 8 pages; with windows it needs no more than 3, and 2. The second sequence
    // grows later.
    for (window, dims, recordings) in
        [(usize::MAX, [2, 1, 6], 6), (300, [3, 3, 4], 5), (KV_PAGE, [5, 1, 8], 3)]
    {
        let mut sequences = [0, 1].map(|i| Steps::new(&device, dims, 1030, window, i));
        let mut scratch = AttentionScratch::new();
        let mut positions = Positions::new(&device, 2).unwrap();
        let (mut graph, mut recorded) = (None, 0);
        // Once as it is after every change, to load and to make room.
        let mut fresh = true;
        for step in 0..1029 {
            let places = [step, usize::saturating_sub(step, 40)];
            let stepping = steps.iter().any(|range| range.contains(&step));
            for (sequence, position) in sequences.iter_mut().zip(places) {
                fresh |= sequence.prepare(position);
                if !stepping {
                    sequence.fill(Position::Fixed(position)).unwrap();
                }
            }
            if !stepping {
                continue;
            }
            positions.set(places.into_iter()).unwrap();
            let mut work = || {
                let all = sequences.iter_mut().enumerate();
                let mut work =
                    all.map(|(i, s)| s.work(Position::Stored(&positions, i), &mut scratch));
                work.try_for_each(|done| done)
            };
            if fresh {
                (graph, fresh) = (None, false);
                work().unwrap();
            } else {
                if graph.is_none() {
                    graph = device.capture(work).unwrap();
                    recorded += 1;
                }
                graph.as_mut().expect("launches").launch().unwrap();
            }
            for (i, (sequence, position)) in sequences.iter().zip(places).enumerate() {
                let what = format!("sequence {i} at {position}, window {window}");
                assert_same(&what, &sequence.out.to_vec().unwrap(), &sequence.expected(position));
            }
        }
        assert_eq!(recorded, recordings, "window {window}");
    }
}

/// A graph may be launched where the host would refuse: nothing is written, and nothing that is not there is
/// read; it keeps its pages, also those that came later.
#[test]
fn a_replay_outside_of_its_pages_does_nothing() {
    let device = device();
    let mut steps = Steps::new(&device, [2, 1, 6], 600, usize::MAX, 5);
    let (mut scratch, mut positions) =
        (AttentionScratch::new(), Positions::new(&device, 1).unwrap());
    // Three pages, in a table with room for four.
    steps.prepare(2 * KV_PAGE);
    positions.set([2 * KV_PAGE].into_iter()).unwrap();
    steps.work(Position::Stored(&positions, 0), &mut scratch).unwrap();
    let mut graph = device
        .capture(|| steps.work(Position::Stored(&positions, 0), &mut scratch))
        .unwrap()
        .expect("launches");
    graph.launch().unwrap();
    let before = steps.out.to_vec().unwrap();
    for outside in [3 * KV_PAGE, 4 * KV_PAGE, 1 << 40, usize::MAX] {
        positions.set([outside].into_iter()).unwrap();
        let refused = steps.work(Position::Stored(&positions, 0), &mut scratch);
        assert!(matches!(refused, Err(Error::Argument(_))), "{outside}: {refused:?}");
        steps.out.clear().unwrap();
        graph.launch().unwrap();
        assert_same("untouched", &steps.out.to_vec().unwrap(), &[0.0; 12]);
    }
    // Before the first page, once it is another.
    assert!(!steps.pages.arrange(1, 4, KV_PAGE).unwrap());
    positions.set([KV_PAGE - 1].into_iter()).unwrap();
    graph.launch().unwrap();
    assert_same("untouched", &steps.out.to_vec().unwrap(), &[0.0; 12]);
    // Where it was, among the pages that are there by now: the first is the last.
    assert!(!steps.pages.arrange(3, 4, 0).unwrap());
    positions.set([2 * KV_PAGE].into_iter()).unwrap();
    let Steps { pages, out, .. } = steps;
    drop(pages);
    graph.launch().unwrap();
    assert_same("again", &out.to_vec().unwrap(), &before);
}

/// Many queries, as a prompt has them, are recorded alike.
#[test]
fn a_chunk_is_replayed_further_on() {
    let device = device();
    let (len, rows) = (400, 40);
    let all = Problem::new([len, 2, 1, 6], 0, usize::MAX, false, 12);
    let mut pages = KvPages::new(&device, 1, 6).unwrap();
    pages.arrange(0, 2, 0).unwrap();
    let (k, v) = (device.upload(&all.k).unwrap(), device.upload(&all.v).unwrap());
    pages.fill(len, Rows::all(&k, 6), Rows::all(&v, 6), Position::Fixed(0)).unwrap();
    let mut q = device.zeros::<f32>(rows * 12).unwrap();
    let mut out = device.zeros(rows * 12).unwrap();
    let (mut scratch, mut positions) =
        (AttentionScratch::new(), Positions::new(&device, 1).unwrap());
    let mut graph = None;
    for (i, position) in [0, 0, 100, 230, 360].into_iter().enumerate() {
        let chunk = Problem {
            rows,
            position,
            q: all.q[position * 12..][..rows * 12].to_vec(),
            k: all.k[..(position + rows) * 6].to_vec(),
            v: all.v[..(position + rows) * 6].to_vec(),
            ..all.clone()
        };
        q.write(&chunk.q, 0).unwrap();
        positions.set([position].into_iter()).unwrap();
        let mut work = || {
            let position = Position::Stored(&positions, 0);
            let args = AttentionArgs { position, ..all.args(Rows::all(&q, 12), &pages) };
            device.attention(rows, args, RowsMut::all(&mut out, 12), &mut scratch)
        };
        match i {
            0 => work().unwrap(),
            1 => graph = device.capture(work).unwrap(),
            _ => {}
        }
        if let Some(graph) = &mut graph {
            graph.launch().unwrap();
        }
        // Recorded where less is seen, it shares the keys among fewer blocks.
        let expected: Vec<f64> = chunk.run(0).into_iter().map(f64::from).collect();
        let (what, actual) = (format!("at {position}"), out.to_vec().unwrap());
        assert_close(&what, &actual, &expected, TOLERANCE, TOLERANCE);
    }
    let changed: Result<_, Error> = device.capture(|| pages.arrange(0, 3, 0).map(drop));
    assert!(matches!(changed, Err(Error::NotRecordable { .. })), "{changed:?}");
}

#[test]
fn pages_give_back_what_they_were_given() {
    let device = device();
    let (kv_heads, head_dim, width) = (3, 5, 15);
    let mut pages = KvPages::new(&device, kv_heads, head_dim).unwrap();
    assert_eq!((pages.width(), pages.len(), pages.capacity()), (width, 0, 0));
    assert!(pages.arrange(0, 3, 7).unwrap());
    assert!(!pages.arrange(0, 2, 7).unwrap());
    assert_eq!((pages.len(), pages.capacity(), pages.is_empty()), (3, 4, false));
    let mut random = Random::new(10);
    let len = KV_PAGE * width;
    let (k, v) = (random.vec(2 * len, -9.0, 9.0), random.vec(2 * len, -9.0, 9.0));
    let read = |pages: &KvPages, index| {
        let (mut keys, mut values) = (vec![1.0; len], vec![1.0; len]);
        pages.read(index, &mut keys, &mut values).unwrap();
        (keys, values)
    };
    for index in 0..3 {
        let (keys, values) = read(&pages, index);
        assert!(keys.iter().chain(&values).all(|&v| v == 0.0));
    }
    // In uneven parts, the later of which must not disturb the earlier, over the end of a page; an empty one.
    for part in [0..1, 1..33, 33..400, 400..512, 512..512] {
        let (rows, cut) = (part.len(), part.start * width..part.end * width);
        let keys = Stored::<f32>::new(&device, &k[cut.clone()], width, 2);
        let values = Stored::<f32>::new(&device, &v[cut], width, 4);
        let position = Position::Fixed(7 + part.start);
        pages.fill(rows, keys.rows(), values.rows(), position).unwrap();
    }
    for (index, part) in [0..len, len..2 * len].into_iter().enumerate() {
        let (keys, values) = read(&pages, index);
        assert_same("keys", &keys, &k[part.clone()]);
        assert_same("values", &values, &v[part]);
    }
    // The first to the end: the others move up.
    assert!(!pages.arrange(1, 4, 263).unwrap());
    assert_same("keys", &read(&pages, 0).0, &k[len..]);
    assert_same("keys", &read(&pages, 2).0, &k[..len]);
    assert!(read(&pages, 1).0.iter().chain(&read(&pages, 3).0).all(|&v| v == 0.0));
    let one = Stored::<f32>::new(&device, &k[..2 * width], width, 0);
    for outside in [0, 262, 263 + 4 * KV_PAGE - 1, usize::MAX] {
        let filled = pages.fill(2, one.rows(), one.rows(), Position::Fixed(outside));
        assert!(matches!(filled, Err(Error::Argument(_))), "{outside}: {filled:?}");
    }
    let (mut keys, mut values) = (vec![1.0; len], vec![1.0; len]);
    assert!(matches!(pages.read(0, &mut keys[1..], &mut values), Err(Error::Argument(_))));
    assert!(matches!(pages.read(4, &mut keys, &mut values), Err(Error::Argument(_))));
    assert!(matches!(pages.write(4, &keys, &values), Err(Error::Argument(_))));
    // Four columns at a time.
    let mut pages = KvPages::new(&device, 2, 4).unwrap();
    pages.arrange(0, 2, 0).unwrap();
    let rows = Stored::<f32>::new(&device, &k[..24], 8, 4);
    pages.fill(3, rows.rows(), rows.rows(), Position::Fixed(KV_PAGE - 1)).unwrap();
    let (mut keys, mut values) = (vec![1.0; 2048], vec![1.0; 2048]);
    pages.read(0, &mut keys, &mut values).unwrap();
    assert_same("keys", &keys[2040..], &k[..8]);
    pages.read(1, &mut keys, &mut values).unwrap();
    assert_same("keys", &keys[..16], &k[8..24]);
    assert_same("values", &values[..16], &k[8..24]);
}

#[test]
fn arguments_are_checked_by_name() {
    let device = device();
    let q = device.upload(&[0.5; 24]).unwrap();
    let mut out = device.upload(&[7.0; 24]).unwrap();
    let pages = |kv_heads, head_dim| {
        let mut pages = KvPages::new(&device, kv_heads, head_dim).unwrap();
        pages.arrange(0, 2, 256).unwrap();
        pages
    };
    let (own, none) = (pages(2, 3), KvPages::new(&device, 2, 3).unwrap());
    let good = AttentionArgs {
        q: Rows::all(&q, 12),
        heads: 4,
        pages: &own,
        position: Position::Fixed(300),
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
        let position = Position::Fixed(position);
        assert_eq!(call(2, AttentionArgs { position, ..good }), "position");
    }
    assert_eq!(call(2, AttentionArgs { pages: &none, ..good }), "position");
    assert_eq!(call(2, AttentionArgs { window: 0, ..good }), "window");
    for kv_heads in [0, 3, 8] {
        let pages = pages(kv_heads, 3);
        assert_eq!(call(2, AttentionArgs { pages: &pages, ..good }), "kv_heads");
    }
    assert_eq!(call(2, AttentionArgs { pages: &pages(2, 4), ..good }), "head_dim");
    assert_eq!(call(2, AttentionArgs { q: Rows::all(&q, 11), ..good }), "q");
    assert_eq!(call(3, good), "bounds");
    // The last two positions that the pages hold.
    assert_eq!(call(2, AttentionArgs { position: Position::Fixed(766), ..good }), "ok");

    let (q, mut out) = (device.zeros(257).unwrap(), device.zeros(257).unwrap());
    let wide = pages(1, 257);
    let args = AttentionArgs { q: Rows::all(&q, 257), heads: 1, pages: &wide, ..good };
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
