//! Attention of Zamba2's shared block: a chunk of a prompt, and a token at the end of a long context.

use crate::Work;
use crate::gpu::check::{close, read};
use crate::gpu::inputs::Numbers;
use crate::gpu::sets::Sets;
use crate::gpu::{Arithmetic, Case, Entry, Options, Result};
use longmamba_core::{View, ViewMut};
use longmamba_cpu::{AttentionArgs as HostArgs, Cpu, KvPage as HostPage, Scratch};
use longmamba_cuda::{
    AttentionArgs, AttentionScratch, Buffer, Device, KV_PAGE, KvPages, Position, Rows, RowsMut,
};

/// As many key heads as query heads.
#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    /// Of the first row.
    position: usize,
    heads: usize,
    head_dim: usize,
}

impl Shape {
    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn positions(&self) -> usize {
        self.position + self.rows
    }

    /// Zamba2's factor.
    fn scale(&self) -> f32 {
        (2.0 / self.head_dim as f32).sqrt()
    }
}

pub(super) fn entries(options: &Options) -> Vec<Entry> {
    let shape = |rows, position| Shape { rows, position, heads: 32, head_dim: 128 };
    match options.quick {
        true => {
            let tiny = |rows, position| Shape { rows, position, heads: 2, head_dim: 16 };
            vec![entry("tiny", tiny(5, 9)), entry("tiny", tiny(1, 300))]
        }
        false => [shape(256, 0), shape(256, 4096), shape(1, 2047), shape(1, 16383)]
            .map(|shape| entry("zamba2-1.2b", shape))
            .into(),
    }
}

fn entry(model: &str, shape: Shape) -> Entry {
    let Shape { rows, position, heads, head_dim } = shape;
    Entry {
        kernel: "attention".into(),
        dtype: "f32".into(),
        shape: format!("{model}: {rows} × {heads} heads × {head_dim}, at position {position}"),
        make: Box::new(move |device, options| {
            Ok(vec![Box::new(Attention::new(device, options, shape)?)])
        }),
    }
}

const Q: Numbers = Numbers::wide(1);
const KEYS: Numbers = Numbers::wide(2);
const VALUES: Numbers = Numbers::unit(3);

/// What a launch reads and writes.
struct Set {
    q: Buffer<f32>,
    pages: KvPages,
    out: Buffer<f32>,
    scratch: AttentionScratch,
}

struct Attention {
    shape: Shape,
    sets: Sets<Set>,
}

impl Attention {
    fn new(device: &Device, options: &Options, shape: Shape) -> Result<Self> {
        let (width, positions) = (shape.width(), shape.positions());
        let keys = KEYS.upload(device, positions * width)?;
        let values = VALUES.upload(device, positions * width)?;
        let sets = Sets::new(options.quick, work(shape).bytes, || {
            let mut pages = KvPages::new(device, shape.heads, shape.head_dim)?;
            pages.arrange(0, positions.div_ceil(KV_PAGE), 0)?;
            let (keys, values) = (Rows::all(&keys, width), Rows::all(&values, width));
            pages.fill(positions, keys, values, Position::Fixed(0))?;
            let (q, out) =
                (Q.upload(device, shape.rows * width)?, device.zeros(shape.rows * width)?);
            Ok(Set { q, pages, out, scratch: AttentionScratch::new() })
        })?;
        Ok(Attention { shape, sets })
    }

    /// The first `heads` heads of all rows, by the CPU.
    fn expected(&self, heads: usize) -> Result<Vec<f32>> {
        let Shape { rows, position, head_dim, .. } = self.shape;
        let (width, columns) = (self.shape.width(), heads * head_dim);
        let mut pages = Vec::new();
        for first in (0..self.shape.positions()).step_by(KV_PAGE) {
            let of_page = first..self.shape.positions().min(first + KV_PAGE);
            let shape = [of_page.len(), columns];
            let [keys, values] =
                [KEYS, VALUES].map(|n| n.block(of_page.clone(), width, 0..columns));
            let mut page = HostPage::new(heads, head_dim);
            page.fill(0, View::new(&keys, shape)?, View::new(&values, shape)?)?;
            pages.push(page);
        }
        let q = Q.block(0..rows, width, 0..columns);
        let args = HostArgs {
            q: View::new(&q, [rows, columns])?,
            heads,
            pages: &pages,
            first: 0,
            position,
            window: usize::MAX,
            scale: self.shape.scale(),
        };
        let mut out = vec![0.0; rows * columns];
        let view = ViewMut::new(&mut out, [rows, columns])?;
        Cpu::new().attention(&args, view, &mut Scratch::new())?;
        Ok(out)
    }
}

/// For every query, head and position that it sees `4 · head_dim` operations and one exponential. Keys and
/// values, q and out.
fn work(shape: Shape) -> Work {
    let Shape { rows, position, heads, .. } = shape;
    let (rows, width) = (rows as f64, shape.width() as f64);
    let seen = rows * (position as f64 + (rows + 1.0) / 2.0);
    Work {
        flops: 4.0 * seen * width,
        exps: seen * heads as f64,
        bytes: 4.0 * width * (2.0 * shape.positions() as f64 + 2.0 * rows),
        ..Work::default()
    }
}

impl Case for Attention {
    fn work(&self) -> Work {
        work(self.shape)
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Single
    }

    fn sets(&self) -> usize {
        self.sets.len()
    }

    /// Two heads of all rows.
    fn check(&mut self) -> Result<f64> {
        self.sets.rewind();
        self.launch()?;
        let Shape { rows, heads, head_dim, .. } = self.shape;
        let some = heads.min(2);
        let columns = 0..some * head_dim;
        let found = read(&self.sets.first().out, 0..rows, self.shape.width(), columns)?;
        close("out", &found, &self.expected(some)?, 1e-4)
    }

    fn launch(&mut self) -> Result<()> {
        let (shape, width) = (self.shape, self.shape.width());
        let Set { q, pages, out, scratch } = self.sets.turn();
        let device = q.device().clone();
        let args = AttentionArgs {
            q: Rows::all(q, width),
            heads: shape.heads,
            pages,
            position: Position::Fixed(shape.position),
            window: usize::MAX,
            scale: shape.scale(),
        };
        Ok(device.attention(shape.rows, args, RowsMut::all(out, width), scratch)?)
    }
}
