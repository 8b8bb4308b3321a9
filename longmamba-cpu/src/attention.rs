//! Causal softmax attention over keys and values that are kept in pages.
//!
//! The scores of a block of queries against a page are a matrix product, and so is what the weights
//! take from the values; in between, the maximum and the sum of each query's softmax are carried from
//! page to page (arXiv 1805.02867), so that memory does not grow with the number of positions. Keys
//! are stored transposed, because the product wants neighbouring positions side by side.

use crate::check;
use crate::dispatch::{
    Block, Cpu, Cut, Divide, Kernel, Scratch, Slots, block_cut, block_units, parallel, pieces,
};
use crate::isa::Isa;
use crate::isa::tile::{Add, Coming, Left, Right, multiply_streamed};
use crate::math::exp_nonpositive;
use longmamba_core::{AlignedVec, Error, Layout, Result, View, ViewMut};

/// Positions to a page.
pub const KV_PAGE: usize = 256;

/// Queries that go over a page together: enough to make the products worth their loads.
const QUERIES: usize = 32;

/// Keys and values of [`KV_PAGE`] neighbouring positions.
#[derive(Clone, Debug)]
pub struct KvPage {
    /// `[kv_heads, head_dim, KV_PAGE]`
    keys: AlignedVec<f32>,
    /// `[KV_PAGE, kv_heads, head_dim]`
    values: AlignedVec<f32>,
    kv_heads: usize,
    head_dim: usize,
}

impl KvPage {
    /// A page of zeros.
    pub fn new(kv_heads: usize, head_dim: usize) -> Self {
        let len = KV_PAGE * kv_heads * head_dim;
        let (keys, values) = (AlignedVec::zeros(len), AlignedVec::zeros(len));
        KvPage { keys, values, kv_heads, head_dim }
    }

    /// Elements of keys, and of values, of one position.
    pub fn width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Writes rows `first..first + rows`; `keys` and `values` are `[rows, kv_heads · head_dim]`, rows
    /// contiguous.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotContiguous`], or [`Error::Value`] for rows past the page.
    pub fn fill(
        &mut self,
        first: usize,
        keys: View<'_, f32, 2>,
        values: View<'_, f32, 2>,
    ) -> Result<()> {
        let ([rows, _], width) = (keys.shape(), self.width());
        check::rows("keys", &keys, [rows, width])?;
        check::rows("values", &values, [rows, width])?;
        if first.checked_add(rows).is_none_or(|end| end > KV_PAGE) {
            let (value, allowed) = (first as f64, "a row with room for all after it");
            return Err(Error::Value { tensor: "first", index: 0, value, allowed });
        }
        for r in 0..rows {
            for (at, &key) in keys.row([r, 0]).iter().enumerate() {
                self.keys[at * KV_PAGE + first + r] = key;
            }
            let row = &mut self.values[(first + r) * width..][..width];
            row.copy_from_slice(values.row([r, 0]));
        }
        Ok(())
    }

    /// Copies the keys and the values of one row out, `[kv_heads · head_dim]` each.
    ///
    /// # Panics
    /// Where `row` is not below [`KV_PAGE`] or a slice has another length.
    pub fn read(&self, row: usize, keys: &mut [f32], values: &mut [f32]) {
        let width = self.width();
        assert_eq!((keys.len(), values.len()), (width, width), "a row has this width");
        values.copy_from_slice(&self.values[row * width..][..width]);
        for (at, key) in keys.iter_mut().enumerate() {
            *key = self.keys[at * KV_PAGE..][..KV_PAGE][row];
        }
    }
}

/// The arguments of [`Cpu::attention`].
#[derive(Clone, Copy, Debug)]
pub struct AttentionArgs<'a> {
    /// `[rows, heads · head_dim]`, rows contiguous: the queries of neighbouring positions.
    pub q: View<'a, f32, 2>,
    /// Query heads; a multiple of the pages' heads. Head `h` reads key head `h · kv_heads / heads`.
    pub heads: usize,
    /// What can be attended to, in order of position.
    pub pages: &'a [KvPage],
    /// The position of the first page's first row.
    pub first: usize,
    /// The position of the first query. Its own key must be in the pages, and those of all queries.
    pub position: usize,
    /// The number of positions that a query sees, its own included: those before are forgotten.
    /// `usize::MAX`: all.
    pub window: usize,
    /// The scores' factor, usually 1/√head_dim.
    pub scale: f32,
}

impl Cpu {
    /// For query `p` and head `h`, over the positions `j` that it sees:
    ///
    /// ```text
    /// out[p, h] = Σ_j softmax_j(scale · q[p, h] · k[j, h]) · v[j, h]
    /// ```
    ///
    /// `out` is `[rows, heads · head_dim]`, rows contiguous.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotContiguous`], or [`Error::Value`] where the heads do not fit each
    /// other, where a query's own position is not in the pages, or where it sees none.
    pub fn attention(
        &self,
        args: &AttentionArgs<'_>,
        out: ViewMut<'_, f32, 2>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let [rows, width] = args.q.shape();
        check::rows("q", &args.q, [rows, width])?;
        check::rows("out", &out.as_view(), [rows, width])?;
        let value = |tensor, value: usize, allowed| {
            Err(Error::Value { tensor, index: 0, value: value as f64, allowed })
        };
        if args.heads == 0 || !width.is_multiple_of(args.heads) {
            return value("heads", args.heads, "a divisor of q's width");
        }
        let head_dim = width / args.heads;
        let end = args.first.saturating_add(args.pages.len() * KV_PAGE);
        if args.position < args.first || args.position.saturating_add(rows) > end {
            return value("position", args.position, "a position in the pages");
        }
        if args.window == 0 {
            return value("window", 0, "at least 1");
        }
        for page in args.pages {
            if page.kv_heads == 0 || !args.heads.is_multiple_of(page.kv_heads) {
                return value("kv_heads", page.kv_heads, "a divisor of the number of heads");
            }
            check::shape("head_dim", [page.head_dim], [head_dim])?;
        }
        if head_dim == 0 {
            return Ok(());
        }
        let stride = out.layout().strides()[0];
        let layout = Layout::strided([rows, args.heads, head_dim], [stride, head_dim, 1])?;
        let mut out = out;
        let out = Block::new(ViewMut::with_layout(out.data_mut(), layout)?);
        // What a thread is woken for: some 30 µs of multiply-adds.
        let seen = (args.position + rows - args.first).min(args.window.saturating_add(rows));
        let least = (1 << 19) / (rows.min(QUERIES) * head_dim * seen).max(1);
        let units = args.heads * rows.div_ceil(QUERIES);
        let slot_len = QUERIES * (KV_PAGE + head_dim);
        let slots = scratch.slots(pieces(units, least), slot_len);
        parallel(Attend { cpu: *self, args, row: 0, head: 0, out, slots }, least);
        Ok(())
    }
}

/// The work of one thread: some of the heads of some of the queries.
struct Attend<'a> {
    cpu: Cpu,
    args: &'a AttentionArgs<'a>,
    /// The first query and head of `out`.
    row: usize,
    head: usize,
    /// `[rows, heads, head_dim]`
    out: Block<'a, f32, 3>,
    slots: Slots<'a, f32>,
}

impl Divide for Attend<'_> {
    fn units(&self) -> usize {
        let [rows, heads, _] = self.out.shape();
        block_units(rows.div_ceil(QUERIES), heads, 1)
    }

    fn divide(self, at: usize) -> (Self, Self) {
        let [rows, heads, _] = self.out.shape();
        let (dim, at, row, head) = match block_cut(rows.div_ceil(QUERIES), heads, 1, at) {
            Cut::Channel(h) => (1, h, self.row, self.head + h),
            Cut::Sequence(b) => (0, b * QUERIES, self.row + b * QUERIES, self.head),
        };
        let (out, out_) = self.out.split_at(dim, at);
        let (slots, slots_) = self.slots.halve();
        (Attend { out, slots, ..self }, Attend { out: out_, slots: slots_, row, head, ..self })
    }

    fn run(self) {
        self.cpu.call(self)
    }
}

impl Kernel for Attend<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let [rows, heads, head_dim] = self.out.shape();
        for head in 0..heads {
            let mut row = 0;
            while row < rows {
                let count = QUERIES.min(rows - row);
                self.block(isa, head, row, count, head_dim);
                row += count;
            }
        }
    }
}

impl Attend<'_> {
    /// `count` queries of one head.
    #[inline(always)]
    fn block<I: Isa>(&mut self, isa: I, head: usize, row: usize, count: usize, head_dim: usize) {
        let args = self.args;
        let (scores, sums) = self.slots.own().split_at_mut(QUERIES * KV_PAGE);
        let sums = &mut sums[..count * head_dim];
        sums.fill(0.0);
        let mut maximum = [f32::NEG_INFINITY; QUERIES];
        let mut total = [0.0f32; QUERIES];
        // From this head's first query on: a view's row would end with the row, the product goes on.
        let row_stride = args.q.layout().strides()[0];
        let at = (self.row + row) * row_stride + (self.head + head) * head_dim;
        let queries = Left { data: &args.q.data()[at..], row_stride };
        let position = args.position + self.row + row;
        let oldest = position.saturating_sub(args.window - 1).max(args.first);
        for (index, page) in args.pages.iter().enumerate() {
            let base = args.first + index * KV_PAGE;
            let from = oldest.saturating_sub(base);
            let to = (position + count).saturating_sub(base).min(KV_PAGE);
            if from >= to {
                continue;
            }
            let kv_head = (self.head + head) * page.kv_heads / args.heads;
            let keys = &page.keys[kv_head * head_dim * KV_PAGE + from..];
            let right = Right { data: keys, depth_stride: KV_PAGE };
            let mut block = view(scores, [count, to - from], KV_PAGE);
            let (ending, coming) = (Add(false), Coming::NOTHING);
            multiply_streamed(isa, queries, right, head_dim, &mut block, ending, coming);
            for r in 0..count {
                // What this query sees of the columns.
                let p = position + r;
                let first = p.saturating_sub(args.window - 1).saturating_sub(base + from);
                let end = (p + 1).saturating_sub(base + from).min(to - from);
                let line = &mut scores[r * KV_PAGE..][..to - from];
                let sum = &mut sums[r * head_dim..][..head_dim];
                line[..first.min(to - from)].fill(0.0);
                line[end..].fill(0.0);
                if first < end {
                    let line = &mut line[first..end];
                    soften(isa, line, args.scale, &mut maximum[r], &mut total[r], sum);
                }
            }
            let left = Left { data: scores, row_stride: KV_PAGE };
            let values = &page.values[from * page.width() + kv_head * head_dim..];
            let right = Right { data: values, depth_stride: page.width() };
            let mut block = view(sums, [count, head_dim], head_dim);
            multiply_streamed(isa, left, right, to - from, &mut block, Add(true), coming);
        }
        for r in 0..count {
            let out = self.out.row_mut([row + r, head, 0], head_dim);
            for (out, &sum) in out.iter_mut().zip(&sums[r * head_dim..]) {
                *out = sum / total[r];
            }
        }
    }
}

/// Turns the scores of one query into weights, relative to the largest score so far; where that grew,
/// what was summed before shrinks by as much.
#[inline(always)]
fn soften<I: Isa>(
    isa: I,
    scores: &mut [f32],
    scale: f32,
    maximum: &mut f32,
    total: &mut f32,
    sums: &mut [f32],
) {
    let before = *maximum;
    for score in scores.iter_mut() {
        *score *= scale;
        *maximum = maximum.max(*score);
    }
    if *maximum > before {
        let [shrink] = exp_nonpositive(isa, [isa.splat(before - *maximum)]);
        let mut at = 0;
        while at < sums.len() {
            isa.store_at(isa.mul(shrink, isa.load_at(sums, at)), sums, at);
            at += I::LANES;
        }
        let mut lanes = [0.0; 16];
        isa.store(shrink, &mut lanes);
        *total *= lanes[0];
    }
    let highest = isa.splat(*maximum);
    let mut sum = isa.zero();
    let mut at = 0;
    while scores.len() - at >= I::LANES {
        let [weight] = exp_nonpositive(isa, [isa.sub(isa.load(&scores[at..]), highest)]);
        sum = isa.add(sum, weight);
        isa.store(weight, &mut scores[at..]);
        at += I::LANES;
    }
    *total += isa.reduce_sum(sum);
    if at < scores.len() {
        let part = &mut scores[at..];
        let [weight] = exp_nonpositive(isa, [isa.sub(isa.load_part(part), highest)]);
        isa.store_part(weight, part);
        *total += part.iter().sum::<f32>();
    }
}

/// The first rows of working memory, `stride` apart.
#[inline(always)]
fn view(data: &mut [f32], shape: [usize; 2], stride: usize) -> Block<'_, f32, 2> {
    let layout = Layout::strided(shape, [stride, 1]).expect("rows do not overlap");
    Block::new(ViewMut::with_layout(data, layout).expect("working memory holds all rows"))
}
