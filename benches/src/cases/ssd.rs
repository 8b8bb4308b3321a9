//! The scan of Mamba-2.

use super::CHUNK;
use crate::data::{assert_close, leaked, view, view_mut};
use crate::{Case, Rate, Work};
use longmamba_core::{AlignedVec, DtLimits, Ssd, SsdInputs, SsdOut, oracle};
use longmamba_cpu::{Cpu, Scratch};

/// A chunk and a token of mamba2-130m, a chunk of a tiny model; chunks also of values rounded to bf16.
pub fn ssd() -> Vec<Box<dyn Case>> {
    let large = [CHUNK, 24, 64, 128];
    let tiny = [CHUNK, 6, 32, 64];
    [(large, false), (large, true), ([1, 24, 64, 128], false), (tiny, false), (tiny, true)]
        .into_iter()
        .map(|(shape, rounded)| Box::new(Scan::new(shape, rounded)) as _)
        .collect()
}

struct Scan {
    /// `[len, heads, head_dim, d_state]`
    shape: [usize; 4],
    /// To bf16, what is multiplied inside a chunk.
    rounded: bool,
    args: Ssd<'static>,
    y: AlignedVec<f32>,
    /// `[heads, d_state, head_dim]`
    state: AlignedVec<f32>,
    scratch: Scratch,
}

fn inputs([len, heads, head_dim, d_state]: [usize; 4]) -> SsdInputs<'static> {
    let per_state = |seed| view(leaked(seed, len * d_state, -1.0, 1.0), [1, len, 1, d_state]);
    SsdInputs {
        x: view(leaked(1, len * heads * head_dim, -1.0, 1.0), [1, len, heads, head_dim]),
        dt_raw: view(leaked(2, len * heads, -2.0, 2.0), [1, len, heads]),
        // Some heads forget within a few tokens, as trained ones may.
        a: leaked(3, heads, -16.0, -0.1),
        b: per_state(4),
        c: per_state(5),
        d: Some(leaked(6, heads, -1.0, 1.0)),
        dt_bias: Some(leaked(7, heads, -4.0, 1.0)),
        delta_min: Some(leaked(8, heads, 0.0, 0.1)),
        dt_limits: DtLimits::default(),
        lengths: None,
    }
}

impl Scan {
    fn new(shape: [usize; 4], rounded: bool) -> Self {
        let [len, heads, head_dim, d_state] = shape;
        Scan {
            shape,
            rounded,
            args: Ssd::new(inputs(shape)).expect("shapes agree"),
            y: AlignedVec::zeros(len * heads * head_dim),
            state: AlignedVec::zeros(heads * d_state * head_dim),
            scratch: Scratch::new(),
        }
    }
}

impl Case for Scan {
    fn kernel(&self) -> String {
        if self.rounded { "ssd in pairs".into() } else { "ssd".into() }
    }

    fn shape(&self) -> String {
        let [len, heads, head_dim, d_state] = self.shape;
        format!("{len} × {heads} heads × {head_dim}, {d_state} states")
    }

    /// As [`Work::ssd`] counts; the tensors, and the state twice.
    fn work(&self) -> Work {
        let [len, heads, head_dim, d_state] = self.shape;
        let tensors = len * (heads * (2 * head_dim + 1) + 2 * d_state);
        let bytes = 4.0 * (tensors + 2 * heads * head_dim * d_state) as f64;
        let tensors = Work { bytes, resident: bytes, ..Work::default() };
        Work::ssd([len, heads, head_dim, 1, d_state], self.rounded) + tensors
    }

    fn rate(&self) -> Rate {
        Rate::Flops
    }

    /// The first two heads, from an empty state.
    fn check(&mut self) {
        self.state.fill(0.0);
        self.run();
        let [len, heads, head_dim, d_state] = self.shape;
        let all = *self.args;
        let some = Ssd::new(SsdInputs {
            x: all.x.slice(2, 0..2).expect("inside"),
            dt_raw: all.dt_raw.slice(2, 0..2).expect("inside"),
            a: &all.a[..2],
            d: all.d.map(|v| &v[..2]),
            dt_bias: all.dt_bias.map(|v| &v[..2]),
            delta_min: all.delta_min.map(|v| &v[..2]),
            ..all
        })
        .expect("shapes agree");
        let expected = oracle::ssd(&some, &vec![0.0; 2 * head_dim * d_state]);
        let y = (0..len).flat_map(|t| &self.y[t * heads * head_dim..][..2 * head_dim]);
        let tolerance = if self.rounded { 2e-2 } else { 1e-4 };
        assert_close(&self.kernel(), tolerance, y.copied().zip(expected.y));
    }

    fn run(&mut self) {
        let [len, heads, head_dim, d_state] = self.shape;
        let state = view_mut(&mut self.state, [1, heads, d_state, head_dim]).permute([0, 1, 3, 2]);
        let out = SsdOut {
            y: view_mut(&mut self.y, [1, len, heads, head_dim]),
            state: state.expect("a permutation"),
            stats: None,
        };
        let (cpu, scratch) = (Cpu::new(), &mut self.scratch);
        match self.rounded {
            true => cpu.ssd_bf16(&self.args, out, scratch),
            false => cpu.ssd(&self.args, out, scratch),
        }
        .expect("shapes agree");
    }
}
