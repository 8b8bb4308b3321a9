//! The scan of Mamba-2, token by token and in chunks on tensor cores, plain and filtered.

use super::filter::{self, Sums};
use crate::Work;
use crate::gpu::check::{close, read, tolerance};
use crate::gpu::inputs::Numbers;
use crate::gpu::sets::Sets;
use crate::gpu::{Arithmetic, Case, Entry, Options, Result};
use half::{bf16, f16};
use longmamba_core::{DtLimits, Element, Ssd, SsdInputs as HostInputs, SsdOut, View, ViewMut};
use longmamba_cpu::{Cpu, Scratch};
use longmamba_cuda::{Buffer, Device, Precision, Rows, RowsMut, SsdElement, SsdInputs, SsdScratch};
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

/// One group.
#[derive(Clone, Copy)]
struct Shape {
    batch: usize,
    len: usize,
    heads: usize,
    head_dim: usize,
    d_state: usize,
}

impl Shape {
    fn width(&self) -> usize {
        self.heads * self.head_dim
    }
}

pub(super) fn entries(options: &Options) -> Vec<Entry> {
    let (model, heads, head_dim, d_state, lengths) = match options.quick {
        true => ("tiny", 4, 16, 32, vec![[2, 70], [1, 1]]),
        false => {
            let lengths = vec![[1, 2048], [1, 16384], [1, 65536], [8, 2048], [1, 1], [8, 1]];
            ("mamba2-1.3b", 64, 64, 128, lengths)
        }
    };
    let mut all = Vec::new();
    for [batch, len] in lengths {
        let shape = Shape { batch, len, heads, head_dim, d_state };
        for precision in [Precision::Exact, Precision::Tensor] {
            // A single token is exact in any case.
            if len > 1 || precision == Precision::Exact {
                all.push(entry::<f32>(model, shape, precision));
                all.push(entry::<f16>(model, shape, precision));
                all.push(entry::<bf16>(model, shape, precision));
            }
        }
    }
    all
}

fn entry<T: SsdElement + Element>(model: &str, shape: Shape, precision: Precision) -> Entry {
    let Shape { batch, len, heads, head_dim, d_state } = shape;
    let kernel = match (len, precision) {
        (1, _) => "ssd step",
        (_, Precision::Exact) => "ssd exact",
        (_, Precision::Tensor) => "ssd tensor",
    };
    Entry {
        kernel: kernel.into(),
        dtype: T::DTYPE.to_string(),
        shape: format!("{model}: {batch} × {len} × {heads} heads × {head_dim}, {d_state} states"),
        make: Box::new(move |device, options| {
            let scan = Scan::<T>::new(device, options, shape, precision)?;
            let filtered = scan.filtered(device)?;
            Ok(vec![Box::new(scan), Box::new(filtered)])
        }),
    }
}

const X: Numbers = Numbers::unit(1);
const DT_RAW: Numbers = Numbers::wide(2);
const B: Numbers = Numbers::unit(4);
const C: Numbers = Numbers::unit(5);

/// One value a head.
fn a() -> Numbers {
    Numbers::between(6, -8.0, -0.1)
}

fn d() -> Numbers {
    Numbers::between(7, -1.0, 1.0)
}

fn dt_bias() -> Numbers {
    Numbers::between(8, -4.0, -2.0)
}

/// What a launch reads and writes.
struct Set<T> {
    x: Buffer<T>,
    dt_raw: Buffer<T>,
    b: Buffer<T>,
    c: Buffer<T>,
    y: Buffer<T>,
    state: Buffer<f32>,
}

struct Parameters {
    a: Buffer<f32>,
    d: Buffer<f32>,
    dt_bias: Buffer<f32>,
}

struct Scan<T> {
    shape: Shape,
    precision: Precision,
    /// Both cases of an entry use them.
    sets: Rc<RefCell<Sets<Set<T>>>>,
    parameters: Rc<Parameters>,
    filter: Option<(Buffer<f32>, Sums)>,
    scratch: SsdScratch,
}

impl<T: SsdElement + Element> Scan<T> {
    fn new(device: &Device, options: &Options, shape: Shape, precision: Precision) -> Result<Self> {
        let Shape { batch, len, heads, d_state, .. } = shape;
        let (rows, width) = (batch * len, shape.width());
        let parameters = Parameters {
            a: a().upload(device, heads)?,
            d: d().upload(device, heads)?,
            dt_bias: dt_bias().upload(device, heads)?,
        };
        let sets = Sets::new(options.quick, work::<T>(shape).bytes, || {
            Ok(Set {
                x: X.upload(device, rows * width)?,
                dt_raw: DT_RAW.upload(device, rows * heads)?,
                b: B.upload(device, rows * d_state)?,
                c: C.upload(device, rows * d_state)?,
                y: device.zeros(rows * width)?,
                state: device.zeros(batch * d_state * width)?,
            })
        })?;
        let (sets, parameters) = (Rc::new(RefCell::new(sets)), Rc::new(parameters));
        let (filter, scratch) = (None, SsdScratch::default());
        Ok(Scan { shape, precision, sets, parameters, filter, scratch })
    }

    /// The same inputs, with the filter on and Δ counted.
    fn filtered(&self, device: &Device) -> Result<Self> {
        let Shape { batch, heads, .. } = self.shape;
        let thresholds = filter::thresholds(&DT_RAW, &dt_bias().first(heads));
        let filter = Some((device.upload(&thresholds)?, Sums::new(device, batch * heads)?));
        let (sets, parameters) = (self.sets.clone(), self.parameters.clone());
        let (shape, precision, scratch) = (self.shape, self.precision, SsdScratch::default());
        Ok(Scan { shape, precision, sets, parameters, filter, scratch })
    }

    /// y and the final state, `[heads, d_state, head_dim]`, of the first `tokens` tokens and `heads` heads
    /// of a sequence, by the CPU.
    fn expected(
        &self,
        sequence: usize,
        tokens: usize,
        heads: usize,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let Shape { len, head_dim, d_state, .. } = self.shape;
        let rows = sequence * len..sequence * len + tokens;
        let x = X.block(rows.clone(), self.shape.width(), 0..heads * head_dim);
        let dt_raw = DT_RAW.block(rows.clone(), self.shape.heads, 0..heads);
        let [b, c] = [B, C].map(|n| n.block(rows.clone(), d_state, 0..d_state));
        let [a, d, dt_bias] = [a(), d(), dt_bias()].map(|n| n.first(heads));
        let thresholds = filter::thresholds(&DT_RAW, &dt_bias);
        let args = Ssd::new(HostInputs {
            x: View::new(&x, [1, tokens, heads, head_dim])?,
            dt_raw: View::new(&dt_raw, [1, tokens, heads])?,
            a: &a,
            b: View::new(&b, [1, tokens, 1, d_state])?,
            c: View::new(&c, [1, tokens, 1, d_state])?,
            d: Some(&d),
            dt_bias: Some(&dt_bias),
            delta_min: self.filter.as_ref().map(|_| &thresholds[..]),
            dt_limits: DtLimits::default(),
            lengths: None,
        })?;
        let mut y = vec![0.0; tokens * heads * head_dim];
        let mut state = vec![0.0; heads * d_state * head_dim];
        let states = ViewMut::new(&mut state, [1, heads, d_state, head_dim])?;
        let out = SsdOut {
            y: ViewMut::new(&mut y, [1, tokens, heads, head_dim])?,
            state: states.permute([0, 1, 3, 2])?,
            stats: None,
        };
        Cpu::new().ssd(&args, out, &mut Scratch::new())?;
        Ok((y, state))
    }

    /// Columns of some rows of y of the first set.
    fn y(&self, rows: Range<usize>, heads: usize) -> Result<Vec<f32>> {
        let columns = 0..heads * self.shape.head_dim;
        read(&self.sets.borrow().first().y, rows, self.shape.width(), columns)
    }
}

/// As the CPU's case counts operations and exponentials: those of the recurrence, also for the chunked
/// kernels, which do more. Bytes: x, dt_raw, B and C in, y out, the state both ways.
fn work<T: Element>(shape: Shape) -> Work {
    let Shape { batch, len, heads, d_state, .. } = shape;
    let tokens = (batch * len) as f64;
    let [width, heads, d_state] = [shape.width(), heads, d_state].map(|n| n as f64);
    let rows = T::DTYPE.size() as f64 * tokens * (2.0 * width + heads + 2.0 * d_state);
    Work {
        flops: 4.0 * tokens * width * d_state,
        exps: 2.0 * tokens * heads,
        bytes: rows + 8.0 * batch as f64 * width * d_state,
        ..Work::default()
    }
}

impl<T: SsdElement + Element> Case for Scan<T> {
    fn variant(&self) -> &'static str {
        if self.filter.is_some() { ", filtered" } else { "" }
    }

    fn work(&self) -> Work {
        work::<T>(self.shape)
    }

    fn arithmetic(&self) -> Arithmetic {
        match self.precision {
            Precision::Exact => Arithmetic::Single,
            Precision::Tensor => Arithmetic::Tensor,
        }
    }

    fn sets(&self) -> usize {
        self.sets.borrow().len()
    }

    /// The first tokens of all heads of the first sequence; and of the last sequence two heads through
    /// all tokens: the last y, the state after them, and how many tokens the filter kept.
    fn check(&mut self) -> Result<f64> {
        self.sets.borrow_mut().rewind().state.clear()?;
        self.launch()?;
        let Shape { batch, len, heads, head_dim, d_state } = self.shape;
        // What the tensor cores are given has 8 or 11 bits; the sums average that out.
        let computed = match self.precision {
            Precision::Exact => 1e-4,
            Precision::Tensor => 1e-2,
        };
        let (tokens, some, limit) = (len.min(160), heads.min(2), tolerance::<T>(computed));
        let (y, _) = self.expected(0, tokens, heads)?;
        let mut worst = close("y", &self.y(0..tokens, heads)?, &y, limit)?;

        let last = batch - 1;
        let (y, state) = self.expected(last, len, some)?;
        let rows = (last + 1) * len - tokens..(last + 1) * len;
        let of_end = &y[(len - tokens) * some * head_dim..];
        worst = worst.max(close("y at the end", &self.y(rows, some)?, of_end, limit)?);
        let first = last * heads * d_state;
        let rows = first..first + some * d_state;
        let found = read(&self.sets.borrow().first().state, rows, head_dim, 0..head_dim)?;
        worst = worst.max(close("the state", &found, &state, computed)?);
        if let Some((_, sums)) = &self.filter {
            let dt_raw = DT_RAW.block(last * len..batch * len, heads, 0..some);
            sums.check(&DT_RAW, &dt_raw, last * heads..last * heads + some)?;
        }
        Ok(worst)
    }

    fn launch(&mut self) -> Result<()> {
        let Shape { batch, len, heads, d_state, .. } = self.shape;
        let width = self.shape.width();
        let mut sets = self.sets.borrow_mut();
        let Set { x, dt_raw, b, c, y, state } = sets.turn();
        let Parameters { a, d, dt_bias } = &*self.parameters;
        let (delta_min, sums) = match &mut self.filter {
            Some((thresholds, sums)) => (Some(&*thresholds), Some(sums.all())),
            None => (None, None),
        };
        let device = x.device().clone();
        let inputs = SsdInputs {
            batch,
            heads,
            groups: 1,
            x: Rows::all(x, width),
            dt_raw: Rows::all(dt_raw, heads),
            b: Rows::all(b, d_state),
            c: Rows::all(c, d_state),
            a,
            d: Some(d),
            dt_bias: Some(dt_bias),
            delta_min,
            dt_limits: DtLimits::default(),
            lengths: None,
            precision: self.precision,
        };
        let y = RowsMut::all(y, width);
        Ok(device.ssd(len, inputs, y, state, sums, &mut self.scratch)?)
    }
}
