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
//! Where `u[t]` is above -60, `2^(u[t]-u[s])` is `2^u[t] · 2^-u[s]`, one multiplication; else the difference is raised (see
//! [`decay`](super::decay)). The choice depends on no later token, so that none can be felt, not even in y's last bits. A
//! decay below 2⁻⁶⁴ counts as 0.
//!
//! The products are taken in `f32` or of values rounded to `bf16` (see [`factor`](super::factor)); the state is
//! kept in `f32` either way.
//!
//! The causal mask is a block of zeros in a product, so a NaN or an infinity in x also reaches the
//! tokens up to 11 before it, with AMX 31.

use super::decay::Decay;
use super::factor::ChunkFactor;
use super::output::{Decayed, Output};
use super::{Place, Scan};
use crate::dispatch::Block;
use crate::isa::tile::{Add, BLOCK, Left, Right, multiply};
use crate::isa::{Isa, MOST_LANES};
use crate::select::{LINE, Selection, TILE};
use longmamba_core::{Layout, Result, View, ViewMut};

/// The most tokens of a chunk.
pub(super) const MOST: usize = 64;
const _: () = assert!(MOST <= TILE && MOST.is_multiple_of(MOST_LANES));

/// Rows of G and y whose causal part is multiplied at once: a multiple of every tile.
#[inline(always)]
fn causal_rows<I: Isa, F: ChunkFactor>(isa: I) -> usize {
    if F::PAIRS && isa.amx().is_some() { BLOCK } else { 12 }
}

/// The working memory of one thread; `width` is `head_dim` in whole vectors, `CHUNK` the tokens of a chunk.
pub(super) struct Workspace<'a, F> {
    /// The states of a line of heads, `[LINE][d_state, width]`, rows [`state_stride`] apart, or nothing where they are
    /// used in place.
    states: &'a mut [f32],
    /// B of the chunk and group, transposed: `[d_state, CHUNK]`
    b: &'a mut [f32],
    /// C·Bᵀ of the chunk and group: `[CHUNK, CHUNK]`
    scores: &'a mut [f32],
    /// C·Bᵀ with a head's decay, a left factor of `CHUNK` by `CHUNK`
    decayed: &'a mut [F],
    /// Δ·x, and the same with the decay to the end of the chunk: right factors of `CHUNK` rows
    update: &'a mut [F],
    late_update: &'a mut [F],
    /// Bᵀ and C as left factors, and what lies to the right of them, where factors are not `f32`.
    b_factors: &'a mut [F],
    c_factors: &'a mut [F],
    right: &'a mut [F],
}

/// Takes `count` elements off the front of `slot`.
fn take<'a, T>(slot: &mut &'a mut [T], count: usize) -> &'a mut [T] {
    let (first, rest) = std::mem::take(slot).split_at_mut(count);
    *slot = rest;
    first
}

impl<'a, F: ChunkFactor> Workspace<'a, F> {
    /// The floats and the factors that it needs, with the states of so many heads.
    pub(super) fn len(heads: usize, head_dim: usize, d_state: usize) -> [usize; 2] {
        let (chunk, width) = (F::CHUNK, head_dim.next_multiple_of(MOST_LANES));
        let states = heads * d_state * state_stride(width);
        let floats = states + d_state * chunk + chunk * chunk;
        [floats, Self::factors(width, d_state).iter().sum()]
    }

    /// Factors of all that consists of them, in the order of the fields.
    fn factors(width: usize, d_state: usize) -> [usize; 6] {
        let chunk = F::CHUNK;
        let (tokens, states) = (chunk.div_ceil(F::STEP), d_state.div_ceil(F::STEP));
        let converted = match F::STEP {
            1 => [0; 3],
            _ => [d_state * tokens, chunk * states, states * width.max(chunk)],
        };
        let [b, c, right] = converted;
        [chunk * tokens, tokens * width, tokens * width, b, c, right]
    }

    fn new(
        mut floats: &'a mut [f32],
        mut factors: &'a mut [F],
        heads: usize,
        width: usize,
        d_state: usize,
    ) -> Self {
        let chunk = F::CHUNK;
        let [decayed, update, late_update, b, c, right] = Self::factors(width, d_state);
        Workspace {
            states: take(&mut floats, heads * d_state * state_stride(width)),
            b: take(&mut floats, d_state * chunk),
            scores: take(&mut floats, chunk * chunk),
            decayed: take(&mut factors, decayed),
            update: take(&mut factors, update),
            late_update: take(&mut factors, late_update),
            b_factors: take(&mut factors, b),
            c_factors: take(&mut factors, c),
            right: take(&mut factors, right),
        }
    }
}

/// From so many chunks on a state is copied even where it need not be.
const COPIED_FROM: usize = 3;

/// Whether the states of a block are used where they are in `n` tokens. They can be where rows are whole vectors, one
/// after the other. But a product with a state goes down its columns, and where rows are a power of two apart, a column
/// has too few places in the nearest cache.
pub(super) fn in_place<F: ChunkFactor>(state: &Block<'_, f32, 4>, n: usize) -> bool {
    let width = state.shape()[3];
    let can = state.is_flat() && width.is_multiple_of(MOST_LANES);
    // Where factors are not `f32`, these are a copy anyway.
    can && (F::STEP > 1 || width == state_stride(width) || n < COPIED_FROM * F::CHUNK)
}

/// The distance between rows of copies of states: an odd number of cache lines.
fn state_stride(width: usize) -> usize {
    ((width / MOST_LANES) | 1) * MOST_LANES
}

impl<F: ChunkFactor> Scan<'_, F> {
    /// A line of heads, chunk by chunk.
    #[inline(always)]
    pub(super) fn by_chunks<I: Isa>(&mut self, isa: I, selection: &Selection<LINE>, place: Place) {
        let Place { b, k, count, n, .. } = place;
        let [_, _, d_state, head_dim] = self.state.shape();
        let width = head_dim.next_multiple_of(MOST_LANES);
        let (mut slots, mut factors) = (self.slots.take(), self.factors.take());
        let in_place = in_place::<F>(&self.state, n);
        let copied = if in_place { 0 } else { count };
        let mut work = Workspace::new(slots.own(), factors.own(), copied, width, d_state);
        let stride = state_stride(width);
        for i in 0..copied {
            let states = &mut work.states[i * d_state * stride..][..d_state * stride];
            self.copy_state([b, k + i], states, stride, Direction::In);
        }
        let mut token = 0;
        while token < n {
            let place = Place { token, n: F::CHUNK.min(n - token), ..place };
            let mut deltas = [[0.0; LINE]; MOST];
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
                self.head(isa, place, i, found, in_place, &deltas, &decay, &mut work);
            }
            token += place.n;
        }
        for i in 0..copied {
            let states = &mut work.states[i * d_state * stride..][..d_state * stride];
            self.copy_state([b, k + i], states, stride, Direction::Out);
        }
        (self.slots, self.factors) = (slots, factors);
    }

    /// Copies the state of head `[sequence, head]` between the block and the workspace, where rows are `stride` apart and
    /// end in zeros.
    #[inline(always)]
    fn copy_state(
        &mut self,
        [b, k]: [usize; 2],
        states: &mut [f32],
        stride: usize,
        direction: Direction,
    ) {
        let [_, _, d_state, head_dim] = self.state.shape();
        if self.state.strides()[3] == 1 {
            let rows = self.state.rows_mut([b, k, 0, 0], 2, d_state, head_dim);
            for (row, block) in states.chunks_exact_mut(stride).zip(rows) {
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
                let (at, value) = ([b, k, s, p], &mut states[s * stride + p]);
                match direction {
                    Direction::In => *value = self.state.get(at),
                    Direction::Out => self.state.set(at, *value),
                }
            }
        }
    }

    /// Bᵀ and the causal part of C·Bᵀ of one group.
    #[inline(always)]
    fn scores<I: Isa>(&self, isa: I, place: Place, group: usize, work: &mut Workspace<'_, F>) {
        let Place { b, token, n, .. } = place;
        let sequence = self.sequence + b;
        let [_, _, _, _, _, d_state] = self.args.dims();
        let b = matrix(&self.args.b, [sequence, token, group, 0]);
        transpose(isa, b, [n, d_state], work.b, F::CHUNK);
        let c = matrix(&self.args.c, [sequence, token, group, 0]);
        let c = F::left(isa, c, [n, d_state], work.c_factors);
        let right = Right { data: &*work.b, depth_stride: F::CHUNK };
        let right = F::right(isa, right, [d_state, F::CHUNK], work.right);
        let rows = causal_rows::<I, F>(isa);
        for first in (0..n).step_by(rows) {
            let shape = [rows.min(n - first), seen::<I, F>(isa, first)];
            let left = Left { data: from(c.data, first * c.row_stride), ..c };
            let out = &mut work.scores[first * F::CHUNK..];
            let layout = Layout::strided(shape, [F::CHUNK, 1]);
            let depth = d_state.div_ceil(F::STEP);
            multiply(isa, left, right, depth, &mut block(out, layout), Add(false));
        }
        let b = Left { data: work.b, row_stride: F::CHUNK };
        F::left(isa, b, [d_state, n], work.b_factors);
    }

    /// Has the rows of x brought near that head `i` of the line reads: short pieces far apart, which the processor does not
    /// foresee.
    #[inline(always)]
    fn ask_for<I: Isa>(&self, isa: I, place: Place, i: usize) {
        let Place { b, k, token, n, .. } = place;
        let x = matrix(&self.args.x, [self.sequence + b, token, self.head + k + i, 0]);
        isa.prefetch_rows(x.data.as_ptr(), x.row_stride, n, self.state.shape()[3]);
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
        in_place: bool,
        deltas: &[[f32; LINE]; MOST],
        decay: &Decay,
        work: &mut Workspace<'_, F>,
    ) {
        let Place { b, k, count, token, n } = place;
        let (sequence, head) = (self.sequence + b, self.head + k + i);
        let [_, _, d_state, head_dim] = self.state.shape();
        let width = head_dim.next_multiple_of(MOST_LANES);
        let d = self.skip(head);

        // Δ·x, two tokens at a time; a token that is missing at the end counts as zeros.
        let x = matrix(&self.args.x, [sequence, token, head, 0]);
        for t in (0..n).step_by(2) {
            let row = |t: usize| match t < n {
                true => &from(x.data, t * x.row_stride)[..head_dim],
                false => &[],
            };
            let rows = [row(t), row(t + 1)];
            let delta = [isa.splat(deltas[t][i]), isa.splat(deltas[t + 1][i])];
            let to_end = [isa.splat(decay.to_end[t]), isa.splat(decay.to_end[t + 1])];
            let pair = t / F::STEP * width;
            let update = &mut work.update[pair..][..2 / F::STEP * width];
            let late_update = &mut work.late_update[pair..][..2 / F::STEP * width];
            for p in (0..width).step_by(I::LANES) {
                let (mut now, mut late) = ([isa.zero(); 2], [isa.zero(); 2]);
                for r in 0..2 {
                    now[r] = isa.mul(delta[r], isa.load_at(rows[r], p));
                    late[r] = isa.mul(to_end[r], now[r]);
                }
                F::put_right(isa, now, update, width, p);
                F::put_right(isa, late, late_update, width, p);
            }
        }

        if i + 1 < count {
            self.ask_for(isa, place, i + 1);
        }

        // C·Bᵀ with this head's decay.
        let stride = F::CHUNK / F::STEP;
        let rows = causal_rows::<I, F>(isa);
        for first in (0..n).step_by(rows) {
            let seen = seen::<I, F>(isa, first);
            for t in first..n.min(first + rows) {
                let row = &mut work.decayed[t * stride..][..stride];
                decay.scores(isa, t, &work.scores[t * F::CHUNK..][..seen], row);
            }
        }

        // y: what the state before the chunk gives, and what the chunk's own tokens give.
        let stride_between = if in_place { width } else { state_stride(width) };
        let size = d_state * stride_between;
        let states = match in_place {
            true => self.state.flat_mut([b, k + i, 0, 0]),
            false => &mut work.states[i * size..][..size],
        };
        let c = matrix(&self.args.c, [sequence, token, group, 0]);
        let c = F::again(c, d_state, work.c_factors);
        let right = Right { data: &*states, depth_stride: stride_between };
        let ending = Output {
            start: &decay.since_start,
            decayed: Left { data: &*work.decayed, row_stride: stride },
            update: Right { data: &*work.update, depth_stride: width },
            d,
            x: matrix(&self.args.x, [sequence, token, head, 0]),
        };
        let mut out = self.y.matrix_mut([b, token, k + i, 0], 1, [n, head_dim]);
        F::multiply(isa, c, right, d_state, work.right, &mut out, ending);

        // And the state.
        let next = (in_place && token == 0 && i + 1 < count)
            .then(|| (states.as_ptr().wrapping_add(size), stride_between));
        let left = Left { data: &*work.b, row_stride: F::CHUNK };
        let left = F::again(left, n, work.b_factors);
        let right = Right { data: &*work.late_update, depth_stride: width };
        let mut states = block(states, Layout::strided([d_state, width], [stride_between, 1]));
        multiply(
            isa,
            left,
            right,
            n.div_ceil(F::STEP),
            &mut states,
            Decayed { decay: decay.whole, next },
        );
    }
}

/// The columns of G that the tokens of t's block may have: in whole vectors, and up to the end of their last tile. At the end
/// of a chunk, tiles of 8 and of 4 rows may begin in one block and end up to 4 rows into the next.
#[inline(always)]
fn seen<I: Isa, F: ChunkFactor>(isa: I, t: usize) -> usize {
    let rows = causal_rows::<I, F>(isa);
    ((t / rows + 1) * rows + 4).next_multiple_of(MOST_LANES).min(F::CHUNK)
}

/// `into[k, t] = from[t, k]` for `n` tokens and `depth` states; rows of `into` have `chunk` elements.
#[inline(always)]
fn transpose<I: Isa>(
    isa: I,
    from: Left<'_>,
    [n, depth]: [usize; 2],
    into: &mut [f32],
    chunk: usize,
) {
    let (data, stride) = (from.data, from.row_stride);
    for t in (0..n).step_by(I::LANES) {
        for k in (0..depth).step_by(I::LANES) {
            let (source, target) = (&data[t * stride + k..], &mut into[k * chunk + t..]);
            if t + I::LANES <= n && k + I::LANES <= depth {
                isa.transpose(source, stride, target, chunk);
                continue;
            }
            for i in 0..I::LANES.min(n - t) {
                for j in 0..I::LANES.min(depth - k) {
                    target[j * chunk + i] = source[i * stride + j];
                }
            }
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
    Left { data: from(view.data(), start), row_stride: strides[1] }
}

/// `data` from `start` on; empty where it is shorter, which an empty matrix is.
#[inline(always)]
fn from<T>(data: &[T], start: usize) -> &[T] {
    data.get(start..).unwrap_or(&[])
}

/// A matrix in the workspace.
#[inline(always)]
fn block(data: &mut [f32], layout: Result<Layout<2>>) -> Block<'_, f32, 2> {
    let view = layout.and_then(|layout| ViewMut::with_layout(data, layout));
    Block::new(view.expect("the workspace is sized for it"))
}
