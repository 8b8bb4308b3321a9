//! The elementary functions, on values in the nearest cache.

use crate::data::{assert_close, uniform};
use crate::{Case, Rate, Work};
use longmamba_core::{AlignedVec, oracle};
use longmamba_cpu::Cpu;

#[derive(Clone, Copy)]
enum Kind {
    Exp,
    Softplus,
    Silu,
}

/// 4096 values each.
pub fn exp() -> Vec<Box<dyn Case>> {
    let cases = [Kind::Exp, Kind::Softplus, Kind::Silu];
    cases.into_iter().map(|kind| Box::new(Map::new(kind)) as _).collect()
}

struct Map {
    kind: Kind,
    from: AlignedVec<f32>,
    values: AlignedVec<f32>,
}

impl Map {
    fn new(kind: Kind) -> Self {
        let from = uniform(1, 4096, -20.0, 0.0);
        Map { kind, values: from.clone(), from }
    }
}

impl Case for Map {
    fn kernel(&self) -> String {
        let name = match self.kind {
            Kind::Exp => "exp_nonpositive",
            Kind::Softplus => "softplus",
            Kind::Silu => "silu",
        };
        name.into()
    }

    fn shape(&self) -> String {
        self.from.len().to_string()
    }

    /// One exponential a value; the values are copied in, so they move twice.
    fn work(&self) -> Work {
        let n = self.from.len() as f64;
        Work { flops: 0.0, exps: n, bytes: 16.0 * n, resident: 8.0 * n, ..Work::default() }
    }

    fn rate(&self) -> Rate {
        Rate::Exps
    }

    fn check(&mut self) {
        self.run();
        let exact: fn(f64) -> f64 = match self.kind {
            Kind::Exp => f64::exp,
            Kind::Softplus => oracle::softplus,
            Kind::Silu => oracle::silu,
        };
        let expected = self.from.iter().map(|&v| exact(v.into()));
        assert_close(&self.kernel(), 1e-6, self.values.iter().copied().zip(expected));
    }

    fn run(&mut self) {
        // Applied again and again in place, the values would run into a corner.
        self.values.copy_from_slice(&self.from);
        let cpu = Cpu::new();
        match self.kind {
            Kind::Exp => cpu.exp_nonpositive(&mut self.values),
            Kind::Softplus => cpu.softplus(&mut self.values),
            Kind::Silu => cpu.silu(&mut self.values),
        }
    }
}
