//! The scan of Mamba-1, plain and with LongMamba's filter, for prompts and for single tokens.

use super::filter::{self, Sums};
use crate::Work;
use crate::gpu::check::{close, read, tolerance};
use crate::gpu::inputs::Numbers;
use crate::gpu::sets::Sets;
use crate::gpu::{Arithmetic, Case, Entry, Options, Result};
use half::{bf16, f16};
use longmamba_core::{
    DtLimits, Element, SelectiveScan, SelectiveScanInputs as HostInputs, SelectiveScanOut, View,
    ViewMut,
};
use longmamba_cpu::Cpu;
use longmamba_cuda::{Buffer, Device, Rows, RowsMut, ScanElement, SelectiveScanInputs};
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

#[derive(Clone, Copy)]
struct Shape {
    batch: usize,
    len: usize,
    d_inner: usize,
    d_state: usize,
}

pub(super) fn entries(options: &Options) -> Vec<Entry> {
    let shape = |batch, len, d_inner| Shape { batch, len, d_inner, d_state: 16 };
    let models = match options.quick {
        true => vec![("tiny", 48, vec![[2, 70], [1, 1]])],
        false => {
            let lengths = vec![[1, 2048], [1, 16384], [1, 65536], [8, 2048], [1, 1], [8, 1]];
            vec![("mamba-130m", 1536, lengths.clone()), ("mamba-1.4b", 4096, lengths)]
        }
    };
    let mut all = Vec::new();
    for (model, d_inner, lengths) in models {
        for [batch, len] in lengths {
            let shape = shape(batch, len, d_inner);
            all.push(entry::<f32>(model, shape));
            all.push(entry::<f16>(model, shape));
            all.push(entry::<bf16>(model, shape));
        }
    }
    all
}

fn entry<T: ScanElement + Element>(model: &str, shape: Shape) -> Entry {
    let Shape { batch, len, d_inner, d_state } = shape;
    Entry {
        kernel: if len == 1 { "selective_scan step" } else { "selective_scan" }.into(),
        dtype: T::DTYPE.to_string(),
        shape: format!("{model}: {batch} × {len} × {d_inner}, {d_state} states"),
        make: Box::new(move |device, options| {
            let scan = Scan::<T>::new(device, options, shape)?;
            let filtered = scan.filtered(device)?;
            Ok(vec![Box::new(scan), Box::new(filtered)])
        }),
    }
}

const X: Numbers = Numbers::unit(1);
const DT_RAW: Numbers = Numbers::wide(2);
const Z: Numbers = Numbers::wide(3);
const B: Numbers = Numbers::unit(4);
const C: Numbers = Numbers::unit(5);

/// One value a channel, or a state of one.
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
    z: Buffer<T>,
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
    /// Both cases of an entry use them.
    sets: Rc<RefCell<Sets<Set<T>>>>,
    parameters: Rc<Parameters>,
    filter: Option<(Buffer<f32>, Sums)>,
}

impl<T: ScanElement + Element> Scan<T> {
    fn new(device: &Device, options: &Options, shape: Shape) -> Result<Self> {
        let Shape { batch, len, d_inner, d_state } = shape;
        let rows = batch * len;
        let parameters = Parameters {
            a: a().upload(device, d_state * d_inner)?,
            d: d().upload(device, d_inner)?,
            dt_bias: dt_bias().upload(device, d_inner)?,
        };
        let sets = Sets::new(options.quick, work::<T>(shape).bytes, || {
            Ok(Set {
                x: X.upload(device, rows * d_inner)?,
                dt_raw: DT_RAW.upload(device, rows * d_inner)?,
                z: Z.upload(device, rows * d_inner)?,
                b: B.upload(device, rows * d_state)?,
                c: C.upload(device, rows * d_state)?,
                y: device.zeros(rows * d_inner)?,
                state: device.zeros(batch * d_state * d_inner)?,
            })
        })?;
        let (sets, parameters) = (Rc::new(RefCell::new(sets)), Rc::new(parameters));
        Ok(Scan { shape, sets, parameters, filter: None })
    }

    /// The same inputs, with the filter on and Δ counted.
    fn filtered(&self, device: &Device) -> Result<Self> {
        let Shape { batch, d_inner, .. } = self.shape;
        let thresholds = filter::thresholds(&DT_RAW, &dt_bias().first(d_inner));
        let filter = Some((device.upload(&thresholds)?, Sums::new(device, batch * d_inner)?));
        let (sets, parameters) = (self.sets.clone(), self.parameters.clone());
        Ok(Scan { shape: self.shape, sets, parameters, filter })
    }

    /// y and the final state of the first `tokens` tokens and `channels` channels of a sequence, by the
    /// CPU.
    fn expected(
        &self,
        sequence: usize,
        tokens: usize,
        channels: usize,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let Shape { len, d_inner, d_state, .. } = self.shape;
        let rows = sequence * len..sequence * len + tokens;
        let [x, dt_raw, z] = [X, DT_RAW, Z].map(|n| n.block(rows.clone(), d_inner, 0..channels));
        let [b, c] = [B, C].map(|n| n.block(rows.clone(), d_state, 0..d_state));
        let (a, d) = (a().block(0..d_state, d_inner, 0..channels), d().first(channels));
        let dt_bias = dt_bias().first(channels);
        let thresholds = filter::thresholds(&DT_RAW, &dt_bias);
        let per_channel = [1, tokens, channels];
        let args = SelectiveScan::new(HostInputs {
            x: View::new(&x, per_channel)?,
            dt_raw: View::new(&dt_raw, per_channel)?,
            a: View::new(&a, [d_state, channels])?.permute([1, 0])?,
            b: View::new(&b, [1, tokens, d_state])?,
            c: View::new(&c, [1, tokens, d_state])?,
            z: Some(View::new(&z, per_channel)?),
            d: Some(&d),
            dt_bias: Some(&dt_bias),
            delta_min: self.filter.as_ref().map(|_| &thresholds[..]),
            dt_limits: DtLimits::default(),
            lengths: None,
        })?;
        let (mut y, mut state) = (vec![0.0; tokens * channels], vec![0.0; d_state * channels]);
        let out = SelectiveScanOut {
            y: ViewMut::new(&mut y, per_channel)?,
            state: ViewMut::new(&mut state, [1, d_state, channels])?.permute([0, 2, 1])?,
            stats: None,
        };
        Cpu::new().selective_scan(&args, out)?;
        Ok((y, state))
    }

    /// Columns of some rows of y of the first set.
    fn y(&self, rows: Range<usize>, channels: usize) -> Result<Vec<f32>> {
        read(&self.sets.borrow().first().y, rows, self.shape.d_inner, 0..channels)
    }
}

/// As the CPU's case counts operations and exponentials. Bytes: x, dt_raw, z, B and C in, y out, the
/// state both ways, and A.
fn work<T: Element>(shape: Shape) -> Work {
    let Shape { batch, len, d_inner, d_state } = shape;
    let [pairs, states] = [d_inner, d_state].map(|width| (batch * len * width) as f64);
    let state = (d_inner * d_state) as f64;
    let rows = T::DTYPE.size() as f64 * (4.0 * pairs + 2.0 * states);
    Work {
        flops: 6.0 * pairs * (d_state as f64 + 1.0),
        exps: pairs * (d_state as f64 + 3.0),
        bytes: rows + 4.0 * state * (2.0 * batch as f64 + 1.0),
        ..Work::default()
    }
}

impl<T: ScanElement + Element> Case for Scan<T> {
    fn variant(&self) -> &'static str {
        if self.filter.is_some() { ", filtered" } else { "" }
    }

    fn work(&self) -> Work {
        work::<T>(self.shape)
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::None
    }

    fn sets(&self) -> usize {
        self.sets.borrow().len()
    }

    /// The first tokens of all channels of the first sequence; and of the last sequence some channels
    /// through all tokens: the last y, the state after them, and how many tokens the filter kept.
    fn check(&mut self) -> Result<f64> {
        self.sets.borrow_mut().rewind().state.clear()?;
        self.launch()?;
        let Shape { batch, len, d_inner, d_state } = self.shape;
        let (tokens, channels, limit) = (len.min(64), d_inner.min(32), tolerance::<T>(1e-4));
        let (y, _) = self.expected(0, tokens, d_inner)?;
        let mut worst = close("y", &self.y(0..tokens, d_inner)?, &y, limit)?;

        let last = batch - 1;
        let (y, state) = self.expected(last, len, channels)?;
        let rows = (last + 1) * len - tokens..(last + 1) * len;
        let of_end = &y[(len - tokens) * channels..];
        worst = worst.max(close("y at the end", &self.y(rows, channels)?, of_end, limit)?);
        let rows = last * d_state..batch * d_state;
        let found = read(&self.sets.borrow().first().state, rows, d_inner, 0..channels)?;
        worst = worst.max(close("the state", &found, &state, 1e-4)?);
        if let Some((_, sums)) = &self.filter {
            let dt_raw = DT_RAW.block(last * len..batch * len, d_inner, 0..channels);
            sums.check(&DT_RAW, &dt_raw, last * d_inner..last * d_inner + channels)?;
        }
        Ok(worst)
    }

    fn launch(&mut self) -> Result<()> {
        let Shape { batch, len, d_inner, d_state } = self.shape;
        let mut sets = self.sets.borrow_mut();
        let Set { x, dt_raw, z, b, c, y, state } = sets.turn();
        let Parameters { a, d, dt_bias } = &*self.parameters;
        let (delta_min, sums) = match &mut self.filter {
            Some((thresholds, sums)) => (Some(&*thresholds), Some(sums.all())),
            None => (None, None),
        };
        let device = x.device().clone();
        let inputs = SelectiveScanInputs {
            batch,
            x: Rows::all(x, d_inner),
            dt_raw: Rows::all(dt_raw, d_inner),
            b: Rows::all(b, d_state),
            c: Rows::all(c, d_state),
            z: Some(Rows::all(z, d_inner)),
            a,
            d: Some(d),
            dt_bias: Some(dt_bias),
            delta_min,
            dt_limits: DtLimits::default(),
            lengths: None,
        };
        Ok(device.selective_scan(len, inputs, RowsMut::all(y, d_inner), state, sums)?)
    }
}
