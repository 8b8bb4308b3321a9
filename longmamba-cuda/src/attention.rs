//! Causal softmax attention over keys and values that are kept in pages.
//!
//! Memory does not grow with the number of positions: the maximum and the sum of each query's softmax are
//! carried from key to key (arXiv 1805.02867).

mod pages;
mod scratch;

pub use pages::{KV_PAGE, KvPages};
pub use scratch::AttentionScratch;

use crate::arguments::{Strided, refuse};
use crate::launch::{Grid, Pointer};
use crate::plane::lines;
use crate::position::{Placed, Position};
use crate::ptx::Module;
use crate::{Device, Error, Result, Rows, RowsMut};
use longmamba_core::Error as ArgumentError;

/// Up to this many queries each go over the keys by themselves; more do so together.
const FEW: usize = 4;

/// Heads that share their keys and that a block takes together.
const SHARING: usize = 4;

/// The fewest keys that are worth a block.
const LEAST_KEYS: usize = 256;

/// The most blocks that share the keys of a query.
const MOST_SPLITS: usize = 256;

/// The arguments of [`Device::attention`].
#[derive(Clone, Copy, Debug)]
pub struct AttentionArgs<'a> {
    /// `[rows, heads · head_dim]`: the queries of neighbouring positions.
    pub q: Rows<'a, f32>,
    /// Query heads; a multiple of the pages' heads. Head `h` reads key head `h · kv_heads / heads`.
    pub heads: usize,
    /// What can be attended to.
    pub pages: &'a KvPages,
    /// The position of the first query. Its own key must be in the pages, and those of all queries.
    pub position: Position<'a>,
    /// The number of positions that a query sees, its own included: those before are forgotten.
    /// `usize::MAX`: all.
    pub window: usize,
    /// The scores' factor, usually 1/√head_dim.
    pub scale: f32,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Attention {
    q: Strided,
    out: Strided,
    table: Pointer,
    sums: Pointer,
    stats: Pointer,
    rows: u64,
    position: Placed,
    begin: u64,
    window: u64,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    splits: u32,
    scale: f32,
    unused: u32,
}

/// A kernel, and how it divides the work.
struct Choice {
    kernel: &'static str,
    grid: Grid,
    splits: usize,
    /// What `splits` may become where more is seen.
    most_splits: usize,
}

impl Device {
    /// For query `p` and head `h`, over the positions `j` that it sees, `p − window < j ≤ p`, with
    /// `g = h · kv_heads / heads`:
    ///
    /// ```text
    /// out[p, h] = Σ_j softmax_j(scale · q[p, h] · k[j, g]) · v[j, g]
    /// ```
    ///
    /// `out` is `[rows, heads · head_dim]`. A NaN in a key reaches the queries that see it, and no other;
    /// one in a value reaches those, and others among the neighbouring queries that work together, which
    /// are up to 64 where there are more than 4.
    ///
    /// How up to 4 queries share the multiprocessors depends on how many positions the pages can hold before
    /// their table grows, not on how many they see: so a recorded launch does for all of those, bit for bit
    /// what a new one would.
    ///
    /// # Errors
    /// [`Error::Argument`] where the heads do not fit each other, or a query's own position is not in the
    /// pages (a replay then writes nothing), or it sees none; [`Error::Unsupported`] for heads wider than
    /// 256, or more than 65535 of them; [`Error::Driver`].
    pub fn attention(
        &self,
        rows: usize,
        args: AttentionArgs<'_>,
        mut out: RowsMut<'_, f32>,
        scratch: &mut AttentionScratch,
    ) -> Result<()> {
        let AttentionArgs { heads, pages, position, window, scale, .. } = args;
        let width = out.width;
        let q = Strided::new(self, "q", args.q, rows, width)?;
        let out = Strided::new_mut(self, "out", &mut out, rows, width)?;
        if heads == 0 || !width.is_multiple_of(heads) {
            return refuse("heads", heads as f64, "a divisor of q's width");
        }
        let (head_dim, kv_heads, now) = (width / heads, pages.kv_heads(), position.now()?);
        pages.expect(now, rows)?;
        if window == 0 {
            return refuse("window", 0.0, "at least 1");
        }
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return refuse("kv_heads", kv_heads as f64, "a divisor of the number of heads");
        }
        if pages.head_dim() != head_dim {
            let (expected, actual) = ([head_dim].into(), [pages.head_dim()].into());
            return Err(ArgumentError::Shape { tensor: "head_dim", expected, actual }.into());
        }
        for (what, limit, actual) in
            [("elements of a head", 256, head_dim), ("heads", 65535, heads)]
        {
            if actual > limit {
                return Err(Error::Unsupported { kernel: "attention", what, limit, actual });
            }
        }
        if rows == 0 || head_dim == 0 {
            return Ok(());
        }
        let held = match rows {
            0..=FEW => pages.capacity() * KV_PAGE,
            _ => now + rows - pages.positions().start,
        };
        let seen = held.min(window.saturating_add(rows - 1));
        let Choice { kernel, grid, splits, most_splits } =
            self.choose(rows, heads, kv_heads, head_dim, seen);
        let units = rows * heads;
        let [sums, stats] = match splits {
            1 => [Pointer::NULL; 2],
            // As much as it can become, so that a growing context does not move it.
            _ => scratch.partial(self, units * most_splits * head_dim, units * most_splits * 2)?,
        };
        let arguments = Attention {
            q,
            out,
            table: pages.table(self)?,
            sums,
            stats,
            rows: rows as u64,
            position: position.placed(self)?,
            begin: 0,
            window: window as u64,
            heads: heads as u32,
            kv_heads: kv_heads as u32,
            head_dim: head_dim as u32,
            splits: splits as u32,
            scale,
            unused: 0,
        };
        self.launch(Module::Attention, kernel, grid, &arguments)?;
        if splits > 1 {
            let threads = head_dim.next_multiple_of(32) as u32;
            let grid = Grid::line(lines(units), threads);
            self.launch(Module::Attention, "attention_combine", grid, &arguments)?;
        }
        Ok(())
    }

    /// `seen`: the positions that some query sees, at most.
    fn choose(
        &self,
        rows: usize,
        heads: usize,
        kv_heads: usize,
        head_dim: usize,
        seen: usize,
    ) -> Choice {
        let splits = |blocks: usize, wanted: usize| {
            let most = (wanted * self.multiprocessors() as usize).div_ceil(blocks).min(MOST_SPLITS);
            (most.min(seen.div_ceil(LEAST_KEYS)), most)
        };
        if rows <= FEW {
            let sharing = heads / kv_heads;
            let (shared, kernels) = match sharing {
                1 => (1, DECODE),
                _ => (SHARING, DECODE_SHARED),
            };
            let blocks = kv_heads * sharing.div_ceil(shared);
            // 16 warps on each multiprocessor, 4 a block.
            let (splits, most_splits) = splits(blocks * rows, 4);
            let grid =
                Grid { blocks: [splits, blocks, rows].map(|n| n as u32), ..Grid::line(1, 128) };
            let kernel = by_width(kernels, head_dim);
            return Choice { kernel, grid, splits, most_splits };
        }
        let kernel = by_width(TILE, head_dim);
        let (queries, stored) = match head_dim {
            0..=64 => (64, 64),
            65..=128 => (64, 128),
            _ => (32, 256),
        };
        let tiles = rows.div_ceil(queries);
        let (splits, most_splits) = splits(tiles * heads, 2);
        let grid = Grid {
            blocks: [tiles, heads, splits].map(|n| n as u32),
            ..Grid::line(1, 4 * queries as u32)
        };
        // Tile in attention/tile.cuh: queries, keys, values.
        let shared = queries * (stored + 4) + 64 * (64 + 4) + 32 * 64;
        Choice { kernel, grid: grid.shared(shared * size_of::<f32>()), splits, most_splits }
    }
}

const TILE: [&str; 3] = ["attention_tile_64", "attention_tile_128", "attention_tile_256"];
const DECODE: [&str; 3] =
    ["attention_decode_64_1", "attention_decode_128_1", "attention_decode_256_1"];
const DECODE_SHARED: [&str; 3] =
    ["attention_decode_64_4", "attention_decode_128_4", "attention_decode_256_4"];

/// The kernel for the narrowest heads that are wide enough.
fn by_width(kernels: [&'static str; 3], head_dim: usize) -> &'static str {
    kernels[if head_dim <= 64 {
        0
    } else if head_dim <= 128 {
        1
    } else {
        2
    }]
}
