//! The causal convolution in front of both scans.

use crate::Work;
use crate::gpu::check::{close, read, tolerance};
use crate::gpu::inputs::Numbers;
use crate::gpu::sets::Sets;
use crate::gpu::{Arithmetic, Case, Entry, Options, Result};
use half::{bf16, f16};
use longmamba_core::{Element, View, ViewMut};
use longmamba_cpu::Cpu;
use longmamba_cuda::{Buffer, CausalConv1dInputs, Device, Rows, RowsMut, ScanElement};
use std::ops::Range;

/// Taps of every published model.
const WIDTH: usize = 4;

pub(super) fn entries(options: &Options) -> Vec<Entry> {
    let shapes = match options.quick {
        true => vec![("tiny", [2, 150, 70]), ("tiny", [1, 1, 70])],
        false => {
            let mut shapes = Vec::new();
            for (model, channels) in
                [("mamba-130m", 1536), ("mamba-1.4b", 4096), ("mamba2-1.3b", 4352)]
            {
                for [batch, len] in [[1, 2048], [1, 16384], [8, 2048], [1, 1], [8, 1]] {
                    shapes.push((model, [batch, len, channels]));
                }
            }
            shapes
        }
    };
    let of = |(model, shape)| {
        [entry::<f32>(model, shape), entry::<f16>(model, shape), entry::<bf16>(model, shape)]
    };
    shapes.into_iter().flat_map(of).collect()
}

fn entry<T: ScanElement + Element>(model: &str, shape: [usize; 3]) -> Entry {
    let [batch, len, channels] = shape;
    Entry {
        kernel: "causal_conv1d".into(),
        dtype: T::DTYPE.to_string(),
        shape: format!("{model}: {batch} × {len} × {channels}, {WIDTH} taps"),
        make: Box::new(move |device, options| {
            Ok(vec![Box::new(Convolution::<T>::new(device, options, shape)?)])
        }),
    }
}

const X: Numbers = Numbers::wide(1);
const WEIGHT: Numbers = Numbers::unit(2);
const BIAS: Numbers = Numbers::unit(3);
const HISTORY: Numbers = Numbers::unit(4);

/// What a launch reads and writes.
struct Set<T> {
    x: Buffer<T>,
    history: Buffer<f32>,
    out: Buffer<T>,
}

struct Convolution<T> {
    /// `[batch, len, channels]`
    shape: [usize; 3],
    weight: Buffer<f32>,
    bias: Buffer<f32>,
    sets: Sets<Set<T>>,
}

impl<T: ScanElement + Element> Convolution<T> {
    fn new(device: &Device, options: &Options, shape: [usize; 3]) -> Result<Self> {
        let [batch, len, channels] = shape;
        let sets = Sets::new(options.quick, work::<T>(shape).bytes, || {
            Ok(Set {
                x: X.upload(device, batch * len * channels)?,
                history: HISTORY.upload(device, batch * (WIDTH - 1) * channels)?,
                out: device.zeros(batch * len * channels)?,
            })
        })?;
        let weight = WEIGHT.upload(device, WIDTH * channels)?;
        Ok(Convolution { shape, weight, bias: BIAS.upload(device, channels)?, sets })
    }
}

/// `2 · taps` operations and one exponential an element; x and out, the weights, and the history both ways.
fn work<T: Element>(shape: [usize; 3]) -> Work {
    let [batch, len, channels] = shape.map(|n| n as f64);
    let (elements, width) = (batch * len * channels, WIDTH as f64);
    let parameters = channels * (width + 1.0 + 2.0 * batch * (width - 1.0));
    Work {
        flops: 2.0 * width * elements,
        exps: elements,
        bytes: 2.0 * T::DTYPE.size() as f64 * elements + 4.0 * parameters,
        ..Work::default()
    }
}

impl<T: ScanElement + Element> Convolution<T> {
    /// The CPU's answer for some tokens of a sequence, after the history.
    fn expected(&self, sequence: usize, tokens: Range<usize>) -> Result<Vec<f32>> {
        let [_, len, channels] = self.shape;
        let (weight, bias) = (WEIGHT.first(WIDTH * channels), BIAS.first(channels));
        let rows = |n: &Range<usize>, len: usize| sequence * len + n.start..sequence * len + n.end;
        let x = X.block(rows(&tokens, len), channels, 0..channels);
        let before = rows(&(0..WIDTH - 1), WIDTH - 1);
        let mut history = HISTORY.block(before, channels, 0..channels);
        let (mut out, shape) = (vec![0.0; x.len()], [1, tokens.len(), channels]);
        Cpu::new().causal_conv1d(
            View::new(&x, shape)?,
            View::new(&weight, [WIDTH, channels])?.permute([1, 0])?,
            Some(&bias),
            ViewMut::new(&mut history, [1, WIDTH - 1, channels])?,
            ViewMut::new(&mut out, shape)?,
            None,
        )?;
        Ok(out)
    }
}

impl<T: ScanElement + Element> Case for Convolution<T> {
    fn work(&self) -> Work {
        work::<T>(self.shape)
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Single
    }

    fn sets(&self) -> usize {
        self.sets.len()
    }

    /// The first and the last sequence, the first tokens and the last of each.
    fn check(&mut self) -> Result<f64> {
        let [batch, len, channels] = self.shape;
        let before = HISTORY.first(batch * (WIDTH - 1) * channels);
        self.sets.rewind().history.write(&before, 0)?;
        self.launch()?;
        let (tokens, mut worst) = (len.min(160), 0.0f64);
        for sequence in [0, batch - 1] {
            for first in [0, len - tokens] {
                // The end of a sequence has tokens in front of it in the place of the history.
                let start = first.saturating_sub(WIDTH - 1);
                let expected = self.expected(sequence, start..first + tokens)?;
                let rows = sequence * len + first..sequence * len + first + tokens;
                let found = read(&self.sets.first().out, rows, channels, 0..channels)?;
                let expected = &expected[(first - start) * channels..];
                worst = worst.max(close("out", &found, expected, tolerance::<T>(1e-5))?);
            }
        }
        Ok(worst)
    }

    fn launch(&mut self) -> Result<()> {
        let [batch, len, channels] = self.shape;
        let Set { x, history, out } = self.sets.turn();
        let device = x.device().clone();
        let inputs = CausalConv1dInputs {
            batch,
            x: Rows::all(x, channels),
            width: WIDTH,
            weight: &self.weight,
            bias: Some(&self.bias),
            silu: true,
            lengths: None,
        };
        Ok(device.causal_conv1d(len, inputs, history, RowsMut::all(out, channels))?)
    }
}
