//! What a layer of a decode step begins with, and ends with in Mamba-2: norm, product and convolution in one
//! launch; and, to be compared with it, the same stage by stage.

use super::product::Weight;
use crate::Work;
use crate::gpu::check::{close, read};
use crate::gpu::inputs::Numbers;
use crate::gpu::sets::Sets;
use crate::gpu::{Arithmetic, Case, Entry, Options, Result};
use longmamba_core::{AlignedVec, DType, View, ViewMut};
use longmamba_cpu::{Accumulate, Cpu, Scratch};
use longmamba_cuda::{
    Buffer, CausalConv1dInputs, Device, InputNorm, Matrix, NewInputs, Precision, Rows, RowsMut,
};
use std::cell::RefCell;
use std::rc::Rc;

/// Taps of every convolution.
const WIDTH: usize = 4;

#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    inputs: usize,
    outputs: usize,
    /// The first output that is convolved, and how many are.
    convolved: (usize, usize),
}

/// A layer's name, its inputs and outputs, and which of those are convolved.
type Layer = (&'static str, [usize; 2], (usize, usize));

const LAYERS: [Layer; 6] = [
    ("mamba-130m in_proj", [768, 3072], (0, 1536)),
    ("mamba-1.4b in_proj", [2048, 8192], (0, 4096)),
    ("mamba2-1.3b in_proj", [2048, 8512], (4096, 4352)),
    ("zamba2-1.2b in_proj", [2048, 8384], (4096, 4224)),
    ("mamba2-1.3b out_proj", [4096, 2048], (0, 0)),
    ("mamba-130m head", [768, 50280], (0, 0)),
];

pub(super) fn entries(options: &Options) -> Vec<Entry> {
    let mut all = Vec::new();
    let layers = match options.quick {
        true => &[("tiny in_proj", [64, 72], (24, 40)), ("tiny out_proj", [64, 72], (0, 0))][..],
        false => &LAYERS,
    };
    for &(layer, [inputs, outputs], convolved) in layers {
        for rows in [1, 8] {
            let shape = Shape { rows, inputs, outputs, convolved };
            all.push(entry(layer, DType::BF16, shape));
            all.push(entry(layer, DType::F32, shape));
        }
    }
    all
}

fn entry(layer: &str, dtype: DType, shape: Shape) -> Entry {
    let Shape { rows, inputs, outputs, convolved } = shape;
    Entry {
        kernel: if convolved.1 > 0 { "normed matmul conv1d" } else { "normed matmul" }.into(),
        dtype: dtype.to_string(),
        shape: format!("{layer}: {rows} × {inputs} → {outputs}"),
        make: Box::new(move |device, options| {
            let fused = Normed::new(device, options, dtype, shape)?;
            let apart = fused.stage_by_stage(device)?;
            Ok(vec![Box::new(fused), Box::new(apart)])
        }),
    }
}

const X: Numbers = Numbers::unit(1);
const NORM: Numbers = Numbers::unit(3);
const TAPS: Numbers = Numbers::unit(4);
const BIAS: Numbers = Numbers::unit(5);
const HISTORY: Numbers = Numbers::unit(6);
const EPS: f32 = 1e-5;

/// What a launch reads and writes.
struct Set {
    x: Buffer<f32>,
    weight: Matrix,
    out: Buffer<f32>,
    histories: Vec<Buffer<f32>>,
    conv_out: Buffer<f32>,
}

struct Parameters {
    norm: Buffer<f32>,
    taps: Buffer<f32>,
    bias: Buffer<f32>,
}

struct Normed {
    shape: Shape,
    dtype: DType,
    host: Rc<Weight>,
    /// Both cases of an entry use them.
    sets: Rc<RefCell<Sets<Set>>>,
    parameters: Rc<Parameters>,
    /// The normed rows, where they are made apart.
    apart: Option<Buffer<f32>>,
}

impl Normed {
    fn new(device: &Device, options: &Options, dtype: DType, shape: Shape) -> Result<Self> {
        let Shape { rows, inputs, outputs, convolved: (_, channels) } = shape;
        let host = Weight::new(dtype, inputs * outputs);
        let parameters = Parameters {
            norm: NORM.upload(device, inputs)?,
            taps: TAPS.upload(device, WIDTH * channels)?,
            bias: BIAS.upload(device, channels)?,
        };
        let sets = Sets::new(options.quick, work(dtype, shape).bytes, || {
            let history = |_| HISTORY.upload(device, (WIDTH - 1) * channels);
            Ok(Set {
                x: X.upload(device, rows * inputs)?,
                weight: Matrix::upload(device, host.view([outputs, inputs])?)?,
                out: device.zeros(rows * outputs)?,
                histories: (0..rows).map(history).collect::<Result<_>>()?,
                conv_out: device.zeros(rows * channels)?,
            })
        })?;
        let (host, parameters) = (Rc::new(host), Rc::new(parameters));
        Ok(Normed {
            shape,
            dtype,
            host,
            sets: Rc::new(RefCell::new(sets)),
            parameters,
            apart: None,
        })
    }

    /// The same work, in as many launches as it takes without the fused kernel.
    fn stage_by_stage(&self, device: &Device) -> Result<Self> {
        let apart = Some(device.zeros(self.shape.rows * self.shape.inputs)?);
        let Normed { shape, dtype, .. } = *self;
        let (host, sets) = (self.host.clone(), self.sets.clone());
        Ok(Normed { shape, dtype, host, sets, parameters: self.parameters.clone(), apart })
    }

    /// The product of the first row's norm, and the convolution of its channels, by the CPU.
    fn expected(&self) -> Result<(Vec<f32>, Vec<f32>)> {
        let Shape { inputs, outputs, convolved: (first, channels), .. } = self.shape;
        let (cpu, x, norm) = (Cpu::new(), X.first(inputs), NORM.first(inputs));
        let (mut normed, mut out) = (vec![0.0; inputs], AlignedVec::<f32>::zeros(outputs));
        let shape = [1, inputs];
        cpu.rms_norm(View::new(&x, shape)?, &norm, EPS, ViewMut::new(&mut normed, shape)?)?;
        cpu.matmul(
            View::new(&normed, shape)?,
            self.host.view([outputs, inputs])?,
            ViewMut::new(&mut out, [1, outputs])?,
            Accumulate::No,
            &mut Scratch::new(),
        )?;
        let (taps, bias) = (TAPS.first(WIDTH * channels), BIAS.first(channels));
        let mut history = HISTORY.first((WIDTH - 1) * channels);
        let (mut convolved, shape) = (vec![0.0; channels], [1, 1, channels]);
        if channels > 0 {
            cpu.causal_conv1d(
                View::new(&out[first..first + channels], shape)?,
                View::new(&taps, [WIDTH, channels])?.permute([1, 0])?,
                Some(&bias),
                ViewMut::new(&mut history, [1, WIDTH - 1, channels])?,
                ViewMut::new(&mut convolved, shape)?,
                None,
            )?;
        }
        Ok((out.to_vec(), convolved))
    }
}

/// `2 · rows · inputs · outputs` operations, and those of the taps; the weight, the norm's, x and out, the taps,
/// and the histories both ways.
fn work(dtype: DType, shape: Shape) -> Work {
    let [rows, inputs, outputs, channels] =
        [shape.rows, shape.inputs, shape.outputs, shape.convolved.1].map(|n| n as f64);
    let width = WIDTH as f64;
    let weight = inputs * outputs * dtype.size() as f64;
    let taps = 4.0 * channels * (width + 1.0 + 2.0 * rows * (width - 1.0));
    Work {
        flops: 2.0 * rows * (inputs * outputs + width * channels),
        exps: rows * channels,
        bytes: weight + 4.0 * (inputs + rows * (inputs + outputs)) + taps,
        ..Work::default()
    }
}

impl Case for Normed {
    fn variant(&self) -> &'static str {
        if self.apart.is_some() { ", stage by stage" } else { "" }
    }

    fn work(&self) -> Work {
        work(self.dtype, self.shape)
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Single
    }

    fn sets(&self) -> usize {
        self.sets.borrow().len()
    }

    /// The first row: the outputs that are not convolved, and those that are.
    fn check(&mut self) -> Result<f64> {
        let Shape { outputs, convolved: (first, channels), .. } = self.shape;
        let before = HISTORY.first((WIDTH - 1) * channels);
        for history in &mut self.sets.borrow_mut().rewind().histories {
            history.write(&before, 0)?;
        }
        self.launch()?;
        let (expected, expected_channels) = self.expected()?;
        let sets = self.sets.borrow();
        let Set { out, conv_out, .. } = sets.first();
        let mut worst = 0.0f64;
        for part in [0..first, first + channels..outputs] {
            if !part.is_empty() {
                let found = read(out, 0..1, outputs, part.clone())?;
                worst = worst.max(close("out", &found, &expected[part], 2e-5)?);
            }
        }
        if channels > 0 {
            let found = read(conv_out, 0..1, channels, 0..channels)?;
            worst = worst.max(close("channels", &found, &expected_channels, 2e-5)?);
        }
        Ok(worst)
    }

    fn launch(&mut self) -> Result<()> {
        let Shape { rows, inputs, outputs, convolved: (first, channels) } = self.shape;
        let mut sets = self.sets.borrow_mut();
        let Set { x, weight, out, histories, conv_out } = sets.turn();
        let Parameters { norm, taps, bias } = &*self.parameters;
        let device = x.device().clone();
        let x = Rows::all(x, inputs);
        if let Some(normed) = &mut self.apart {
            device.rms_norm(rows, x, norm, EPS, RowsMut::all(normed, inputs))?;
            let (x, to) = (Rows::all(normed, inputs), RowsMut::all(&mut *out, outputs));
            device.matmul(rows, x, weight, None, false, Precision::Exact, to)?;
            for (row, history) in histories.iter_mut().enumerate().filter(|_| channels > 0) {
                let stride = outputs;
                let x =
                    Rows { buffer: &*out, first: row * outputs + first, width: channels, stride };
                let inputs = CausalConv1dInputs {
                    batch: 1,
                    x,
                    width: WIDTH,
                    weight: taps,
                    bias: Some(bias),
                    silu: true,
                    lengths: None,
                };
                let (first, width, stride) = (row * channels, channels, channels);
                let to = RowsMut { buffer: &mut *conv_out, first, width, stride };
                device.causal_conv1d(1, inputs, history, to)?;
            }
            return Ok(());
        }
        let norm = InputNorm { weight: norm, group: inputs, eps: EPS };
        let to = RowsMut::all(out, outputs);
        if channels == 0 {
            return Ok(device.normed_matmul(rows, x, norm, weight, None, false, to)?);
        }
        let conv = NewInputs {
            first,
            width: WIDTH,
            weight: taps,
            bias: Some(bias),
            silu: true,
            out: RowsMut::all(conv_out, channels),
        };
        let histories = histories.iter_mut();
        Ok(device.normed_matmul_conv1d(rows, x, norm, weight, None, to, conv, histories)?)
    }
}
