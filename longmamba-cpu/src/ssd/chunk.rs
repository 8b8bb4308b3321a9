//! Many tokens at once. For a chunk of tokens and one head, with `h` the state before the chunk and
//! `u[t] = Σ_{s ≤ t} Δ[s]·A·log₂e` the decay since then, in powers of two:
//!
//! ```text
//! y[t,p] = 2^u[t] · Σ_n C[t,n]·h[n,p]
//!        + Σ_{s ≤ t} (G[t,s] · 2^(u[t]-u[s])) · (Δ[s]·x[s,p])     G = C·Bᵀ, once per group
//!        + D·x[t,p]
//! h[n,p] = 2^u[end] · h[n,p] + Σ_s B[s,n] · (2^(u[end]-u[s])·Δ[s]·x[s,p])
//! ```
//!
//! Only differences of `u` that are ≤ 0 are raised. They would cancel badly in `f32` where `u` has
//! grown large, so `u` is summed in `f64` and kept in two floats: the difference of the leading parts
//! is exact where the two are close, and small against the result's own rounding where they are not.
//!
//! The causal mask is a block of zeros in a product, so a NaN or an infinity in x also reaches the
//! tokens up to `ROWS` - 1 before it.

use super::{Place, Scan};
use crate::dispatch::Block;
use crate::isa::Isa;
use crate::isa::tile::{Left, Right, multiply};
use crate::math::{Exp2Nonpositive, map};
use crate::select::{LINE, Selection, TILE};
use longmamba_core::{Layout, Result, View, ViewMut};
use std::f64::consts::LOG2_E;

/// Tokens of a chunk. The work inside a chunk grows with it, that between chunks shrinks; 32 and 64
/// are equally good at 128 states, and 32 is better at 64.
const CHUNK: usize = 32;
const _: () = assert!(CHUNK <= TILE && CHUNK.is_multiple_of(ROWS));

/// Rows of G and y whose causal part is multiplied at once; a multiple of every vector.
const ROWS: usize = 16;

/// The working memory of one thread; `width` is `head_dim` in whole cache lines.
pub(super) struct Workspace<'a> {
    /// The states of a line of heads, `[LINE][d_state, width]`
    states: &'a mut [f32],
    /// B of the chunk and group, transposed: `[d_state, CHUNK]`
    b: &'a mut [f32],
    /// C·Bᵀ of the chunk and group, and the same with a head's decay: `[CHUNK, CHUNK]`
    scores: &'a mut [f32],
    decayed: &'a mut [f32],
    /// Δ·x, and the same with the decay to the end of the chunk: `[CHUNK, width]`
    update: &'a mut [f32],
    late_update: &'a mut [f32],
    /// y before it goes out: `[CHUNK, width]`
    y: &'a mut [f32],
}

impl<'a> Workspace<'a> {
    /// The floats that it needs.
    pub(super) fn len(heads: usize, head_dim: usize, d_state: usize) -> usize {
        let width = head_dim.next_multiple_of(ROWS);
        heads * d_state * width + d_state * CHUNK + 2 * CHUNK * CHUNK + 3 * CHUNK * width
    }

    fn new(slot: &'a mut [f32], heads: usize, width: usize, d_state: usize) -> Self {
        let (states, slot) = slot.split_at_mut(heads * d_state * width);
        let (b, slot) = slot.split_at_mut(d_state * CHUNK);
        let (scores, slot) = slot.split_at_mut(CHUNK * CHUNK);
        let (decayed, slot) = slot.split_at_mut(CHUNK * CHUNK);
        let (update, slot) = slot.split_at_mut(CHUNK * width);
        let (late_update, slot) = slot.split_at_mut(CHUNK * width);
        let y = &mut slot[..CHUNK * width];
        Workspace { states, b, scores, decayed, update, late_update, y }
    }
}

/// The decay of one head over a chunk.
#[repr(align(64))]
struct Decay {
    /// `u`, its leading and its trailing part.
    high: [f32; CHUNK],
    low: [f32; CHUNK],
    /// `2^u[t]`
    since_start: [f32; CHUNK],
    /// `2^(u[end] - u[t])`
    to_end: [f32; CHUNK],
    /// `2^u[end]`
    whole: f32,
}

impl Decay {
    #[inline(always)]
    fn new<I: Isa>(isa: I, deltas: &[[f32; LINE]], head: usize, a: f32) -> Self {
        let zeros = [0.0; CHUNK];
        let mut decay =
            Decay { high: zeros, low: zeros, since_start: zeros, to_end: zeros, whole: 1.0 };
        let rate = f64::from(a) * LOG2_E;
        let mut sum = 0.0f64;
        for (t, deltas) in deltas.iter().enumerate() {
            sum += f64::from(deltas[head]);
            let u = sum * rate;
            decay.high[t] = u as f32;
            decay.low[t] = (u - f64::from(u as f32)) as f32;
        }
        let last = deltas.len() - 1;
        let end = (isa.splat(decay.high[last]), isa.splat(decay.low[last]));
        for t in (0..CHUNK).step_by(I::LANES) {
            let u = (isa.load(&decay.high[t..]), isa.load(&decay.low[t..]));
            isa.store(between(isa, end, u), &mut decay.to_end[t..]);
        }
        decay.since_start = decay.high;
        map(isa, Exp2Nonpositive, &mut decay.since_start);
        map(isa, Exp2Nonpositive, &mut decay.to_end);
        decay.whole = decay.since_start[last];
        decay
    }
}

/// `later - earlier`, or 0 where that is positive, which it is only where it is not used.
#[inline(always)]
fn between<I: Isa>(isa: I, later: (I::V, I::V), earlier: (I::V, I::V)) -> I::V {
    let high = isa.sub(later.0, earlier.0);
    isa.min(isa.zero(), isa.add(high, isa.sub(later.1, earlier.1)))
}

impl Scan<'_> {
    /// A line of heads, chunk by chunk.
    #[inline(always)]
    pub(super) fn by_chunks<I: Isa>(&mut self, isa: I, selection: &Selection, place: Place) {
        let Place { b, k, count, n, .. } = place;
        let [_, _, d_state, head_dim] = self.state.shape();
        let width = head_dim.next_multiple_of(ROWS);
        let slots = std::mem::take(&mut self.slots);
        let mut work = Workspace::new(&mut *slots, count, width, d_state);
        let size = d_state * width;
        for i in 0..count {
            let states = &mut work.states[i * size..][..size];
            self.copy_state([b, k + i], states, width, Direction::In);
        }
        let mut token = 0;
        while token < n {
            let place = Place { token, n: CHUNK.min(n - token), ..place };
            let mut deltas = [[0.0; LINE]; CHUNK];
            self.deltas(isa, selection, place, &mut deltas);
            let mut group = None;
            for i in 0..count {
                let found = self.group(self.head + k + i);
                if group != Some(found) {
                    group = Some(found);
                    self.scores(isa, place, found, &mut work);
                }
                let a = self.args.a[self.head + k + i];
                let decay = Decay::new(isa, &deltas[..place.n], i, a);
                self.head(isa, place, i, found, &deltas, &decay, &mut work);
            }
            token += place.n;
        }
        for i in 0..count {
            let states = &mut work.states[i * size..][..size];
            self.copy_state([b, k + i], states, width, Direction::Out);
        }
        self.slots = slots;
    }

    /// Copies the state of head `[sequence, head]` between the block and the workspace, where rows
    /// have `width` elements and end in zeros.
    #[inline(always)]
    fn copy_state(
        &mut self,
        [b, k]: [usize; 2],
        states: &mut [f32],
        width: usize,
        direction: Direction,
    ) {
        let [_, _, d_state, head_dim] = self.state.shape();
        if self.state.strides()[3] == 1 {
            let rows = self.state.rows_mut([b, k, 0, 0], 2, d_state, head_dim);
            for (row, block) in states.chunks_exact_mut(width.max(1)).zip(rows) {
                let (row, rest) = row.split_at_mut(head_dim);
                match direction {
                    Direction::In => {
                        row.copy_from_slice(block);
                        rest.fill(0.0);
                    }
                    Direction::Out => block.copy_from_slice(row),
                }
            }
            return;
        }
        if let Direction::In = direction {
            states.fill(0.0);
        }
        for p in 0..head_dim {
            for s in 0..d_state {
                let (at, value) = ([b, k, s, p], &mut states[s * width + p]);
                match direction {
                    Direction::In => *value = self.state.get(at),
                    Direction::Out => self.state.set(at, *value),
                }
            }
        }
    }

    /// Bᵀ and the causal part of C·Bᵀ of one group.
    #[inline(always)]
    fn scores<I: Isa>(&self, isa: I, place: Place, group: usize, work: &mut Workspace<'_>) {
        let Place { b, token, n, .. } = place;
        let sequence = self.sequence + b;
        let [_, _, _, _, _, d_state] = self.args.dims();
        let b = matrix(&self.args.b, [sequence, token, group, 0]);
        transpose(isa, b, [n, d_state], work.b);
        let c = matrix(&self.args.c, [sequence, token, group, 0]);
        for first in (0..n).step_by(ROWS) {
            let (rows, columns) = (ROWS.min(n - first), first + ROWS);
            let left = Left { data: from(c.data, first * c.row_stride), ..c };
            let right = Right { data: work.b, depth_stride: CHUNK };
            let out = &mut work.scores[first * CHUNK..];
            let layout = Layout::strided([rows, columns], [CHUNK, 1]);
            multiply(isa, left, right, d_state, &mut block(out, layout), false);
        }
    }

    /// All of a chunk for head `i` of the line.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "the body of the loop over heads")]
    fn head<I: Isa>(
        &mut self,
        isa: I,
        place: Place,
        i: usize,
        group: usize,
        deltas: &[[f32; LINE]; CHUNK],
        decay: &Decay,
        work: &mut Workspace<'_>,
    ) {
        let Place { b, k, token, n, .. } = place;
        let (sequence, head) = (self.sequence + b, self.head + k + i);
        let [_, _, d_state, head_dim] = self.state.shape();
        let width = head_dim.next_multiple_of(ROWS);
        let x = |t| self.args.x.row([sequence, token + t, head, 0]);

        let updates = work.update.chunks_exact_mut(width.max(1));
        let late_updates = work.late_update.chunks_exact_mut(width.max(1));
        for (t, (update, late)) in updates.zip(late_updates).take(n).enumerate() {
            let (delta, to_end) = (isa.splat(deltas[t][i]), isa.splat(decay.to_end[t]));
            let x = x(t);
            for p in (0..width).step_by(I::LANES) {
                let now = isa.mul(delta, isa.load_at(x, p));
                isa.store(now, &mut update[p..]);
                isa.store(isa.mul(to_end, now), &mut late[p..]);
            }
        }

        // What the state before the chunk gives, and D·x.
        let states = &mut work.states[i * d_state * width..][..d_state * width];
        let c = matrix(&self.args.c, [sequence, token, group, 0]);
        let right = Right { data: states, depth_stride: width };
        let rows = Layout::contiguous([n, width]);
        multiply(isa, c, right, d_state, &mut block(work.y, rows), false);
        let d = self.skip(isa, head);
        for (t, y) in work.y.chunks_exact_mut(width.max(1)).take(n).enumerate() {
            let since_start = isa.splat(decay.since_start[t]);
            let x = x(t);
            for p in (0..width).step_by(I::LANES) {
                let skip = isa.mul(d.at(isa, p), isa.load_at(x, p));
                isa.store(isa.fma(since_start, isa.load(&y[p..]), skip), &mut y[p..]);
            }
        }

        // What the chunk's own tokens give.
        decayed_scores(isa, decay, n, work.scores, work.decayed);
        for first in (0..n).step_by(ROWS) {
            let left = &work.decayed[first * CHUNK..];
            let left = Left { data: left, row_stride: CHUNK, depth_stride: 1 };
            let right = Right { data: work.update, depth_stride: width };
            let rows = Layout::contiguous([ROWS.min(n - first), width]);
            let out = &mut work.y[first * width..];
            multiply(isa, left, right, n.min(first + ROWS), &mut block(out, rows), true);
        }
        for (t, y) in work.y.chunks_exact(width.max(1)).take(n).enumerate() {
            self.y.row_mut([b, token + t, k + i, 0], head_dim).copy_from_slice(&y[..head_dim]);
        }

        let whole = isa.splat(decay.whole);
        for h in states.chunks_exact_mut(I::LANES) {
            isa.store(isa.mul(whole, isa.load(h)), h);
        }
        let left = Left { data: work.b, row_stride: CHUNK, depth_stride: 1 };
        let right = Right { data: work.late_update, depth_stride: width };
        let rows = Layout::contiguous([d_state, width]);
        multiply(isa, left, right, n, &mut block(states, rows), true);
    }
}

/// `into[k, t] = from[t, k]` for `n` tokens and `depth` states; rows of `into` have `CHUNK` elements.
#[inline(always)]
fn transpose<I: Isa>(isa: I, from: Left<'_>, [n, depth]: [usize; 2], into: &mut [f32]) {
    let (data, stride) = (from.data, from.row_stride);
    for t in (0..n).step_by(I::LANES) {
        for k in (0..depth).step_by(I::LANES) {
            let (source, target) = (&data[t * stride + k..], &mut into[k * CHUNK + t..]);
            if t + I::LANES <= n && k + I::LANES <= depth {
                isa.transpose(source, stride, target, CHUNK);
                continue;
            }
            for i in 0..I::LANES.min(n - t) {
                for j in 0..I::LANES.min(depth - k) {
                    target[j * CHUNK + i] = source[i * stride + j];
                }
            }
        }
    }
}

/// `scores[t,s] · 2^(u[t]-u[s])`, and 0 where s is later than t.
#[inline(always)]
fn decayed_scores<I: Isa>(isa: I, decay: &Decay, n: usize, scores: &[f32], decayed: &mut [f32]) {
    const INDEX: [f32; CHUNK] = {
        let mut index = [0.0; CHUNK];
        let mut s = 0;
        while s < CHUNK {
            index[s] = s as f32;
            s += 1;
        }
        index
    };
    let rows = scores.chunks_exact(CHUNK).zip(decayed.chunks_exact_mut(CHUNK)).take(n);
    for (t, (scores, decayed)) in rows.enumerate() {
        let later = (isa.splat(decay.high[t]), isa.splat(decay.low[t]));
        let now = isa.splat(t as f32);
        // The products use whole blocks of `ROWS` columns.
        let columns = (t + 1).next_multiple_of(ROWS);
        for s in (0..columns).step_by(I::LANES) {
            let earlier = (isa.load(&decay.high[s..]), isa.load(&decay.low[s..]));
            isa.store(between(isa, later, earlier), &mut decayed[s..]);
        }
        map(isa, Exp2Nonpositive, &mut decayed[..columns]);
        for s in (0..columns).step_by(I::LANES) {
            let score = isa.mul(isa.load(&scores[s..]), isa.load(&decayed[s..]));
            let causal = isa.zero_where_gt(isa.load(&INDEX[s..]), now, score);
            isa.store(causal, &mut decayed[s..]);
        }
    }
}

/// Which way a state is copied.
#[derive(Clone, Copy)]
enum Direction {
    In,
    Out,
}

/// The tokens of a group of B or C, as the left factor of a product.
#[inline(always)]
fn matrix<'a>(view: &View<'a, f32, 4>, index: [usize; 4]) -> Left<'a> {
    let strides = view.layout().strides();
    let start: usize = index.iter().zip(&strides).map(|(i, s)| i * s).sum();
    Left { data: from(view.data(), start), row_stride: strides[1], depth_stride: 1 }
}

/// `data` from `start` on; empty where it is shorter, which an empty matrix is.
#[inline(always)]
fn from(data: &[f32], start: usize) -> &[f32] {
    data.get(start..).unwrap_or(&[])
}

/// A matrix in the workspace.
#[inline(always)]
fn block(data: &mut [f32], layout: Result<Layout<2>>) -> Block<'_, f32, 2> {
    let view = layout.and_then(|layout| ViewMut::with_layout(data, layout));
    Block::new(view.expect("the workspace is sized for it"))
}
