//! The norms, the gate and the residual.

use super::CHUNK;
use crate::data::{assert_close, uniform, view, view_mut};
use crate::{Case, Rate, Work};
use longmamba_core::{AlignedVec, oracle};
use longmamba_cpu::{Activation, Cpu};

#[derive(Clone, Copy)]
enum Kind {
    Rms,
    Gated,
    Gate,
    Add,
}

/// Each on a chunk, and the two norms on one token.
pub fn norm() -> Vec<Box<dyn Case>> {
    let shapes = [
        (Kind::Rms, [CHUNK, 768]),
        (Kind::Gated, [CHUNK, 1536]),
        (Kind::Gate, [CHUNK, 1536]),
        (Kind::Add, [CHUNK, 768]),
        (Kind::Rms, [1, 768]),
        (Kind::Gated, [1, 1536]),
    ];
    shapes.into_iter().map(|(kind, shape)| Box::new(Norm::new(kind, shape)) as _).collect()
}

struct Norm {
    kind: Kind,
    /// `[rows, width]`
    shape: [usize; 2],
    y: AlignedVec<f32>,
    z: AlignedVec<f32>,
    weight: AlignedVec<f32>,
    out: AlignedVec<f32>,
}

impl Norm {
    fn new(kind: Kind, shape: [usize; 2]) -> Self {
        let elements = shape[0] * shape[1];
        Norm {
            kind,
            shape,
            y: uniform(1, elements, -3.0, 3.0),
            z: uniform(2, elements, -5.0, 5.0),
            weight: uniform(3, shape[1], 0.5, 1.5),
            out: AlignedVec::zeros(elements),
        }
    }
}

impl Case for Norm {
    fn kernel(&self) -> String {
        let name = match self.kind {
            Kind::Rms => "rms_norm",
            Kind::Gated => "gated_rms_norm",
            Kind::Gate => "gate",
            Kind::Add => "add",
        };
        name.into()
    }

    fn shape(&self) -> String {
        format!("{} × {}", self.shape[0], self.shape[1])
    }

    /// An element costs a norm 4 operations (square, sum, two products), a gate 1 and an exponential,
    /// a residual 1; each input and the output are 4 bytes.
    fn work(&self) -> Work {
        let elements = (self.shape[0] * self.shape[1]) as f64;
        let (flops, exps, arrays) = match self.kind {
            Kind::Rms => (4.0, 0.0, 2.0),
            Kind::Gated => (5.0, 1.0, 3.0),
            Kind::Gate => (1.0, 1.0, 3.0),
            Kind::Add => (1.0, 0.0, 3.0),
        };
        let bytes = 4.0 * arrays * elements;
        Work {
            flops: flops * elements,
            exps: exps * elements,
            bytes,
            resident: bytes,
            ..Work::default()
        }
    }

    fn rate(&self) -> Rate {
        Rate::Bytes
    }

    /// The last row.
    fn check(&mut self) {
        self.out.fill(1.0);
        self.run();
        let [_, width] = self.shape;
        let last = self.y.len() - width..;
        let (y, z) =
            (view(&self.y[last.clone()], [1, width]), view(&self.z[last.clone()], [1, width]));
        let pairs = y.data().iter().zip(z.data()).map(|(&y, &z)| (f64::from(y), f64::from(z)));
        let expected = match self.kind {
            Kind::Rms => oracle::rms_norm(&y, &self.weight, 1e-5),
            Kind::Gated => oracle::gated_rms_norm(&y, &z, &self.weight, width, 1e-5),
            Kind::Gate => pairs.map(|(y, z)| y * oracle::silu(z)).collect(),
            Kind::Add => pairs.map(|(y, _)| y + 1.0).collect(),
        };
        assert_close(&self.kernel(), 1e-5, self.out[last].iter().copied().zip(expected));
    }

    fn run(&mut self) {
        let (cpu, shape, width) = (Cpu::new(), self.shape, self.shape[1]);
        let (y, z) = (view(&self.y, shape), view(&self.z, shape));
        let out = view_mut(&mut self.out, shape);
        match self.kind {
            Kind::Rms => cpu.rms_norm(y, &self.weight, 1e-5, out),
            Kind::Gated => cpu.gated_rms_norm(y, z, &self.weight, width, 1e-5, out),
            Kind::Gate => cpu.gate(y, z, Activation::Silu, out),
            Kind::Add => cpu.add(y, out),
        }
        .expect("shapes agree");
    }
}
