//! The scan of Mamba-1.

use super::CHUNK;
use crate::data::{assert_close, leaked, view, view_mut};
use crate::{Case, Rate, Work};
use longmamba_core::{
    AlignedVec, DtLimits, SelectiveScan, SelectiveScanInputs, SelectiveScanOut, View, oracle,
};
use longmamba_cpu::Cpu;

/// A chunk and a token of mamba-130m, a chunk of a tiny model.
pub fn scan() -> Vec<Box<dyn Case>> {
    let shapes = [[CHUNK, 1536, 16], [1, 1536, 16], [CHUNK, 192, 16]];
    shapes.into_iter().map(|shape| Box::new(Scan::new(shape)) as _).collect()
}

struct Scan {
    /// `[len, d_inner, d_state]`
    shape: [usize; 3],
    args: SelectiveScan<'static>,
    y: AlignedVec<f32>,
    /// `[d_state, d_inner]`
    state: AlignedVec<f32>,
}

fn inputs([len, d_inner, d_state]: [usize; 3]) -> SelectiveScanInputs<'static> {
    let per_channel =
        |seed, low, high| view(leaked(seed, len * d_inner, low, high), [1, len, d_inner]);
    let per_state = |seed| view(leaked(seed, len * d_state, -1.0, 1.0), [1, len, d_state]);
    let a = view(leaked(3, d_inner * d_state, -8.0, -0.1), [d_state, d_inner]);
    SelectiveScanInputs {
        x: per_channel(1, -1.0, 1.0),
        dt_raw: per_channel(2, -2.0, 2.0),
        a: a.permute([1, 0]).expect("a permutation"),
        b: per_state(4),
        c: per_state(5),
        z: Some(per_channel(6, -3.0, 3.0)),
        d: Some(leaked(7, d_inner, -1.0, 1.0)),
        dt_bias: Some(leaked(8, d_inner, -4.0, -2.0)),
        delta_min: Some(leaked(9, d_inner, 0.0, 0.1)),
        dt_limits: DtLimits::default(),
        lengths: None,
    }
}

impl Scan {
    fn new(shape: [usize; 3]) -> Self {
        let [len, d_inner, d_state] = shape;
        Scan {
            shape,
            args: SelectiveScan::new(inputs(shape)).expect("shapes agree"),
            y: AlignedVec::zeros(len * d_inner),
            state: AlignedVec::zeros(d_state * d_inner),
        }
    }
}

impl Case for Scan {
    fn kernel(&self) -> String {
        "selective_scan".into()
    }

    fn shape(&self) -> String {
        let [len, d_inner, d_state] = self.shape;
        format!("{len} × {d_inner}, {d_state} states")
    }

    /// Per token, channel and state one exponential and 6 operations (Δ·A; decay, input; output); per
    /// token and channel three exponentials (softplus, its logarithm, the gate) and 6 operations. The
    /// tensors, and the state twice.
    fn work(&self) -> Work {
        let [len, d_inner, d_state] = self.shape.map(|n| n as f64);
        let pairs = len * d_inner;
        let bytes = 4.0 * (4.0 * pairs + 2.0 * len * d_state + 3.0 * d_inner * d_state);
        let flops = 6.0 * pairs * (d_state + 1.0);
        Work { flops, exps: pairs * (d_state + 3.0), bytes, resident: bytes, ..Work::default() }
    }

    fn rate(&self) -> Rate {
        Rate::Exps
    }

    /// The first sixteen channels, from an empty state.
    fn check(&mut self) {
        self.state.fill(0.0);
        self.run();
        let [len, d_inner, d_state] = self.shape;
        let cut = |v: View<'static, f32, 3>| v.slice(2, 0..16).expect("inside");
        let all = *self.args;
        let some = SelectiveScan::new(SelectiveScanInputs {
            x: cut(all.x),
            dt_raw: cut(all.dt_raw),
            a: all.a.slice(0, 0..16).expect("inside"),
            z: all.z.map(cut),
            d: all.d.map(|v| &v[..16]),
            dt_bias: all.dt_bias.map(|v| &v[..16]),
            delta_min: all.delta_min.map(|v| &v[..16]),
            ..all
        })
        .expect("shapes agree");
        let expected = oracle::selective_scan(&some, &vec![0.0; 16 * d_state]);
        let y = (0..len).flat_map(|t| &self.y[t * d_inner..][..16]);
        assert_close(&self.kernel(), 1e-4, y.copied().zip(expected.y));
    }

    fn run(&mut self) {
        let [len, d_inner, d_state] = self.shape;
        let state = view_mut(&mut self.state, [1, d_state, d_inner]).permute([0, 2, 1]);
        let out = SelectiveScanOut {
            y: view_mut(&mut self.y, [1, len, d_inner]),
            state: state.expect("a permutation"),
            stats: None,
        };
        Cpu::new().selective_scan(&self.args, out).expect("shapes agree");
    }
}
