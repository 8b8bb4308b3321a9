//! Norms, gates, the residual and the rotary embedding: what goes over rows of activations once.

use crate::Work;
use crate::gpu::check::{close, read};
use crate::gpu::inputs::Numbers;
use crate::gpu::sets::Sets;
use crate::gpu::{Arithmetic, Case, Entry, Options, Result};
use longmamba_core::{View, ViewMut};
use longmamba_cpu::{Cpu, Rotation as HostRotation};
use longmamba_cuda::{Activation, Buffer, Device, Position, Rotation, Rows, RowsMut};
use std::ops::Range;

#[derive(Clone, Copy)]
enum Kind {
    RmsNorm,
    /// Over groups of so many columns.
    GatedRmsNorm(usize),
    Gate(Activation),
    Add,
    /// Heads of `head_dim`, from `position` on.
    Rope {
        head_dim: usize,
        position: usize,
    },
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::RmsNorm => "rms_norm",
            Kind::GatedRmsNorm(_) => "gated_rms_norm",
            Kind::Gate(Activation::Silu) => "gate silu",
            Kind::Gate(Activation::Gelu) => "gate gelu",
            Kind::Add => "add",
            Kind::Rope { .. } => "rope",
        }
    }

    /// Tensors that are read and written, and exponentials of an element.
    fn traffic(self) -> (f64, f64) {
        match self {
            Kind::RmsNorm | Kind::Rope { .. } => (2.0, 0.0),
            Kind::GatedRmsNorm(_) | Kind::Gate(_) => (3.0, 1.0),
            Kind::Add => (3.0, 0.0),
        }
    }
}

pub(super) fn entries(options: &Options) -> Vec<Entry> {
    let rope = |position| Kind::Rope { head_dim: 128, position };
    if options.quick {
        let rope = Kind::Rope { head_dim: 16, position: 5 };
        let kinds = [Kind::RmsNorm, Kind::GatedRmsNorm(32), Kind::Gate(Activation::Gelu), rope];
        return kinds.into_iter().map(|kind| entry("tiny", kind, 5, 64)).collect();
    }
    let mut all = Vec::new();
    for rows in [1, 8, 2048] {
        for (model, kind, width) in [
            ("mamba-130m", Kind::RmsNorm, 768),
            ("mamba-1.4b", Kind::RmsNorm, 2048),
            ("mamba-1.4b", Kind::Add, 2048),
            ("mamba2-1.3b", Kind::GatedRmsNorm(4096), 4096),
            ("mamba2-1.3b", Kind::Gate(Activation::Silu), 4096),
            ("zamba2-1.2b", Kind::Gate(Activation::Gelu), 8192),
        ] {
            all.push(entry(model, kind, rows, width));
        }
    }
    all.push(entry("zamba2-1.2b", rope(4096), 256, 4096));
    all.push(entry("zamba2-1.2b", rope(16383), 1, 4096));
    all
}

fn entry(model: &str, kind: Kind, rows: usize, width: usize) -> Entry {
    Entry {
        kernel: kind.name().into(),
        dtype: "f32".into(),
        shape: format!("{model}: {rows} × {width}"),
        make: Box::new(move |device, options| {
            Ok(vec![Box::new(OverRows::new(device, options, kind, rows, width)?)])
        }),
    }
}

const X: Numbers = Numbers::wide(1);
const Z: Numbers = Numbers::wide(2);
const WEIGHT: Numbers = Numbers::unit(3);
const EPS: f32 = 1e-5;

/// What a launch reads and writes.
struct Set {
    x: Buffer<f32>,
    z: Buffer<f32>,
    /// What is changed in place begins as x.
    out: Buffer<f32>,
}

struct OverRows {
    kind: Kind,
    rows: usize,
    width: usize,
    weight: Buffer<f32>,
    sets: Sets<Set>,
}

impl OverRows {
    fn new(
        device: &Device,
        options: &Options,
        kind: Kind,
        rows: usize,
        width: usize,
    ) -> Result<Self> {
        let sets = Sets::new(options.quick, work(kind, rows, width).bytes, || {
            Ok(Set {
                x: X.upload(device, rows * width)?,
                z: Z.upload(device, rows * width)?,
                out: X.upload(device, rows * width)?,
            })
        })?;
        Ok(OverRows { kind, rows, width, weight: WEIGHT.upload(device, width)?, sets })
    }

    /// Some rows, by the CPU.
    fn expected(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        let (cpu, shape) = (Cpu::new(), [rows.len(), self.width]);
        let [x, z] = [X, Z].map(|n| n.block(rows.clone(), self.width, 0..self.width));
        let (mut result, weight) = (x.clone(), WEIGHT.first(self.width));
        let (x, z) = (View::new(&x, shape)?, View::new(&z, shape)?);
        let out = ViewMut::new(&mut result, shape)?;
        match self.kind {
            Kind::RmsNorm => cpu.rms_norm(x, &weight, EPS, out)?,
            Kind::GatedRmsNorm(group) => cpu.gated_rms_norm(x, z, &weight, group, EPS, out)?,
            Kind::Gate(Activation::Silu) => {
                cpu.gate(x, z, longmamba_cpu::Activation::Silu, out)?;
            }
            Kind::Gate(Activation::Gelu) => {
                cpu.gate(x, z, longmamba_cpu::Activation::Gelu, out)?;
            }
            Kind::Add => cpu.add(x, out)?,
            Kind::Rope { head_dim, position } => {
                let position = position + rows.start;
                let (base, interleaved, width) = (10_000.0, false, head_dim);
                cpu.rope(out, HostRotation { head_dim, width, base, interleaved, position })?;
            }
        }
        Ok(result)
    }
}

/// Every tensor once; the operations are few.
fn work(kind: Kind, rows: usize, width: usize) -> Work {
    let (tensors, exps) = kind.traffic();
    let elements = (rows * width) as f64;
    Work { bytes: 4.0 * tensors * elements, exps: exps * elements, ..Work::default() }
}

impl Case for OverRows {
    fn work(&self) -> Work {
        work(self.kind, self.rows, self.width)
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::None
    }

    fn sets(&self) -> usize {
        self.sets.len()
    }

    /// The first rows and the last.
    fn check(&mut self) -> Result<f64> {
        self.sets.rewind();
        self.launch()?;
        let (some, mut worst) = (self.rows.min(4), 0.0f64);
        for rows in [0..some, self.rows - some..self.rows] {
            let found = read(&self.sets.first().out, rows.clone(), self.width, 0..self.width)?;
            worst = worst.max(close("out", &found, &self.expected(rows)?, 1e-5)?);
        }
        Ok(worst)
    }

    fn launch(&mut self) -> Result<()> {
        let OverRows { kind, rows, width, weight, sets } = self;
        let (rows, width) = (*rows, *width);
        let Set { x, z, out } = sets.turn();
        let device = x.device().clone();
        let (x, z, out) = (Rows::all(x, width), Rows::all(z, width), RowsMut::all(out, width));
        match *kind {
            Kind::RmsNorm => device.rms_norm(rows, x, weight, EPS, out)?,
            Kind::GatedRmsNorm(group) => {
                device.gated_rms_norm(rows, x, z, weight, group, EPS, out)?;
            }
            Kind::Gate(activation) => device.gate(rows, x, z, activation, out)?,
            Kind::Add => device.copy(rows, x, true, out)?,
            Kind::Rope { head_dim, position } => {
                let (base, interleaved, width) = (10_000.0, false, head_dim);
                device.rope(
                    rows,
                    out,
                    Rotation { head_dim, width, base, interleaved },
                    Position::Fixed(position),
                )?;
            }
        }
        Ok(())
    }
}
