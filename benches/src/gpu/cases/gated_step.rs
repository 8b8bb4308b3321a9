//! Mamba-2's scan of a decode step with the gate behind, in one launch; and the same stage by stage.

use super::filter::Sums;
use crate::Work;
use crate::gpu::check::{close, read};
use crate::gpu::inputs::Numbers;
use crate::gpu::sets::Sets;
use crate::gpu::{Arithmetic, Case, Entry, Options, Result};
use longmamba_core::{DtLimits, Ssd, SsdInputs as HostInputs, SsdOut, View, ViewMut, oracle};
use longmamba_cpu::{Cpu, Scratch};
use longmamba_cuda::{
    Activation, Buffer, Device, Precision, Rows, RowsMut, SsdInputs, SsdScratch, StepSequence,
};
use std::cell::RefCell;
use std::rc::Rc;

/// One group.
#[derive(Clone, Copy)]
struct Shape {
    sequences: usize,
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
    let models = match options.quick {
        true => vec![("tiny", [3, 40, 24])],
        false => vec![("mamba2-1.3b", [64, 64, 128]), ("zamba2-1.2b", [64, 64, 64])],
    };
    let mut all = Vec::new();
    for (model, [heads, head_dim, d_state]) in models {
        for sequences in [1, 8] {
            all.push(entry(model, Shape { sequences, heads, head_dim, d_state }));
        }
    }
    all
}

fn entry(model: &str, shape: Shape) -> Entry {
    let Shape { sequences, heads, head_dim, d_state } = shape;
    Entry {
        kernel: "ssd step, gated".into(),
        dtype: "f32".into(),
        shape: format!("{model}: {sequences} × {heads} heads × {head_dim}, {d_state} states"),
        make: Box::new(move |device, options| {
            let fused = Step::new(device, options, shape)?;
            let apart = fused.stage_by_stage(device)?;
            Ok(vec![Box::new(fused), Box::new(apart)])
        }),
    }
}

const X: Numbers = Numbers::unit(1);
const DT_RAW: Numbers = Numbers::wide(2);
const Z: Numbers = Numbers::wide(3);
const B: Numbers = Numbers::unit(4);
const C: Numbers = Numbers::unit(5);

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
struct Set {
    x: Buffer<f32>,
    z: Buffer<f32>,
    dt_raw: Buffer<f32>,
    b: Buffer<f32>,
    c: Buffer<f32>,
    y: Buffer<f32>,
    /// Of each sequence.
    memories: Vec<(Buffer<f32>, Sums)>,
}

struct Parameters {
    a: Buffer<f32>,
    d: Buffer<f32>,
    dt_bias: Buffer<f32>,
}

struct Step {
    shape: Shape,
    /// Both cases of an entry use them.
    sets: Rc<RefCell<Sets<Set>>>,
    parameters: Rc<Parameters>,
    /// y before the gate, where that is apart.
    apart: Option<Buffer<f32>>,
}

impl Step {
    fn new(device: &Device, options: &Options, shape: Shape) -> Result<Self> {
        let Shape { sequences, heads, d_state, .. } = shape;
        let width = shape.width();
        let parameters = Parameters {
            a: a().upload(device, heads)?,
            d: d().upload(device, heads)?,
            dt_bias: dt_bias().upload(device, heads)?,
        };
        let sets = Sets::new(options.quick, work(shape).bytes, || {
            let memory = |_| Ok((device.zeros(d_state * width)?, Sums::new(device, heads)?));
            Ok(Set {
                x: X.upload(device, sequences * width)?,
                z: Z.upload(device, sequences * width)?,
                dt_raw: DT_RAW.upload(device, sequences * heads)?,
                b: B.upload(device, sequences * d_state)?,
                c: C.upload(device, sequences * d_state)?,
                y: device.zeros(sequences * width)?,
                memories: (0..sequences).map(memory).collect::<Result<_>>()?,
            })
        })?;
        let (sets, parameters) = (Rc::new(RefCell::new(sets)), Rc::new(parameters));
        Ok(Step { shape, sets, parameters, apart: None })
    }

    /// The same work, in as many launches as it takes without the fused kernel.
    fn stage_by_stage(&self, device: &Device) -> Result<Self> {
        let apart = Some(device.zeros(self.shape.sequences * self.shape.width())?);
        let (sets, parameters) = (self.sets.clone(), self.parameters.clone());
        Ok(Step { shape: self.shape, sets, parameters, apart })
    }

    /// y and the state, `[heads, d_state, head_dim]`, of the first sequence, by the CPU.
    fn expected(&self) -> Result<(Vec<f32>, Vec<f32>)> {
        let Shape { heads, head_dim, d_state, .. } = self.shape;
        let width = self.shape.width();
        let (x, dt_raw, z) = (X.first(width), DT_RAW.first(heads), Z.first(width));
        let (b, c) = (B.first(d_state), C.first(d_state));
        let [a, d, dt_bias] = [a(), d(), dt_bias()].map(|n| n.first(heads));
        let args = Ssd::new(HostInputs {
            x: View::new(&x, [1, 1, heads, head_dim])?,
            dt_raw: View::new(&dt_raw, [1, 1, heads])?,
            a: &a,
            b: View::new(&b, [1, 1, 1, d_state])?,
            c: View::new(&c, [1, 1, 1, d_state])?,
            d: Some(&d),
            dt_bias: Some(&dt_bias),
            delta_min: None,
            dt_limits: DtLimits::default(),
            lengths: None,
        })?;
        let (mut y, mut state) = (vec![0.0; width], vec![0.0; width * d_state]);
        let states = ViewMut::new(&mut state, [1, heads, d_state, head_dim])?;
        let out = SsdOut {
            y: ViewMut::new(&mut y, [1, 1, heads, head_dim])?,
            state: states.permute([0, 1, 3, 2])?,
            stats: None,
        };
        Cpu::new().ssd(&args, out, &mut Scratch::new())?;
        for (y, z) in y.iter_mut().zip(z) {
            *y *= oracle::silu(z.into()) as f32;
        }
        Ok((y, state))
    }
}

/// Operations and exponentials as the scan counts them, and those of the gate. Bytes: x, z, dt_raw, B and C in, y
/// out, the states both ways.
fn work(shape: Shape) -> Work {
    let [sequences, width, heads, d_state] =
        [shape.sequences, shape.width(), shape.heads, shape.d_state].map(|n| n as f64);
    Work {
        flops: 4.0 * sequences * width * d_state,
        exps: sequences * (2.0 * heads + width),
        bytes: 4.0 * sequences * (3.0 * width + heads + 2.0 * d_state + 2.0 * width * d_state),
        ..Work::default()
    }
}

impl Case for Step {
    fn variant(&self) -> &'static str {
        if self.apart.is_some() { ", stage by stage" } else { "" }
    }

    fn work(&self) -> Work {
        work(self.shape)
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Single
    }

    fn sets(&self) -> usize {
        self.sets.borrow().len()
    }

    /// The first sequence, from a state of zero.
    fn check(&mut self) -> Result<f64> {
        self.sets.borrow_mut().rewind().memories[0].0.clear()?;
        self.launch()?;
        let (width, rows) = (self.shape.width(), self.shape.d_state);
        let (y, state) = self.expected()?;
        let sets = self.sets.borrow();
        let set = sets.first();
        let found = read(&set.y, 0..1, width, 0..width)?;
        let worst = close("y", &found, &y, 1e-4)?;
        let found = read(&set.memories[0].0, 0..rows, width, 0..width)?;
        Ok(worst.max(close("the state", &found, &state, 1e-4)?))
    }

    fn launch(&mut self) -> Result<()> {
        let Shape { sequences, heads, d_state, .. } = self.shape;
        let width = self.shape.width();
        let mut sets = self.sets.borrow_mut();
        let Set { x, z, dt_raw, b, c, y, memories } = sets.turn();
        let Parameters { a, d, dt_bias } = &*self.parameters;
        let device = x.device().clone();
        // Of sequences from `first` on.
        let inputs = |first: usize, batch: usize| {
            let rows = |buffer, width| Rows { first: first * width, ..Rows::all(buffer, width) };
            SsdInputs {
                batch,
                heads,
                groups: 1,
                x: rows(&*x, width),
                dt_raw: rows(&*dt_raw, heads),
                b: rows(&*b, d_state),
                c: rows(&*c, d_state),
                a,
                d: Some(d),
                dt_bias: Some(dt_bias),
                delta_min: None,
                dt_limits: DtLimits::default(),
                lengths: None,
                precision: Precision::Exact,
            }
        };
        let z = Rows::all(z, width);
        if let Some(scanned) = &mut self.apart {
            for (s, (state, sums)) in memories.iter_mut().enumerate() {
                let (first, stride) = (s * width, width);
                let to = RowsMut { buffer: &mut *scanned, first, width, stride };
                let scratch = &mut SsdScratch::default();
                device.ssd(1, inputs(s, 1), to, state, Some(sums.all()), scratch)?;
            }
            let (scanned, to) = (Rows::all(scanned, width), RowsMut::all(y, width));
            return Ok(device.gate(sequences, scanned, z, Activation::Silu, to)?);
        }
        let all = memories.iter_mut().map(|(state, sums)| StepSequence {
            state,
            delta_min: None,
            sums: Some(sums.all()),
        });
        Ok(device.ssd_step(inputs(0, sequences), z, RowsMut::all(y, width), all)?)
    }
}
