//! The causal convolution.

use super::CHUNK;
use crate::data::{assert_close, leaked, uniform, view, view_mut};
use crate::{Case, Rate, Work};
use longmamba_core::{AlignedVec, View, oracle};
use longmamba_cpu::Cpu;

/// Taps, in all published models.
const WIDTH: usize = 4;

/// The channels of Mamba-1, of Mamba-2 (x, B and C together), and of a tiny model.
pub fn conv1d() -> Vec<Box<dyn Case>> {
    let shapes = [[CHUNK, 1536], [CHUNK, 1792], [CHUNK, 192], [1, 1536]];
    shapes.into_iter().map(|shape| Box::new(Conv::new(shape)) as _).collect()
}

struct Conv {
    /// `[len, channels]`
    shape: [usize; 2],
    x: &'static [f32],
    /// `[WIDTH, channels]`: neighbouring channels contiguous.
    weight: &'static [f32],
    bias: &'static [f32],
    history: AlignedVec<f32>,
    out: AlignedVec<f32>,
}

impl Conv {
    fn new(shape: [usize; 2]) -> Self {
        let [len, channels] = shape;
        Conv {
            shape,
            x: leaked(1, len * channels, -2.0, 2.0),
            weight: leaked(2, WIDTH * channels, -1.0, 1.0),
            bias: leaked(3, channels, -1.0, 1.0),
            history: AlignedVec::zeros((WIDTH - 1) * channels),
            out: AlignedVec::zeros(len * channels),
        }
    }

    fn weight(&self) -> View<'static, f32, 2> {
        view(self.weight, [WIDTH, self.shape[1]]).permute([1, 0]).expect("a permutation")
    }
}

impl Case for Conv {
    fn kernel(&self) -> String {
        "causal_conv1d".into()
    }

    fn shape(&self) -> String {
        format!("{} × {}, {WIDTH} taps", self.shape[0], self.shape[1])
    }

    /// `2 · taps` operations and one exponential an element; x and out, weights and history.
    fn work(&self) -> Work {
        let [len, channels] = self.shape.map(|n| n as f64);
        let width = WIDTH as f64;
        let bytes = 4.0 * channels * (2.0 * len + width + 1.0 + 2.0 * (width - 1.0));
        let elements = len * channels;
        Work {
            flops: 2.0 * width * elements,
            exps: elements,
            bytes,
            resident: bytes,
            ..Work::default()
        }
    }

    fn rate(&self) -> Rate {
        Rate::Bytes
    }

    /// The last sixteen channels.
    fn check(&mut self) {
        let [len, channels] = self.shape;
        let history = uniform(4, (WIDTH - 1) * channels, -2.0, 2.0);
        self.history.copy_from_slice(&history);
        self.run();
        let last = channels - 16..channels;
        let x = view(self.x, self.shape).slice(1, last.clone()).expect("inside");
        let weight = self.weight().slice(0, last.clone()).expect("inside");
        let before: Vec<f64> = (0..WIDTH - 1)
            .flat_map(|t| &history[t * channels..][last.clone()])
            .map(|&v| v.into())
            .collect();
        let (y, _) = oracle::causal_conv1d(&x, &weight, Some(&self.bias[last.clone()]), &before);
        let found = (0..len).flat_map(|t| &self.out[t * channels..][last.clone()]);
        assert_close(&self.kernel(), 1e-5, found.copied().zip(y));
    }

    fn run(&mut self) {
        let [len, channels] = self.shape;
        let weight = self.weight();
        let history = view_mut(&mut self.history, [1, WIDTH - 1, channels]);
        let out = view_mut(&mut self.out, [1, len, channels]);
        let x = view(self.x, [1, len, channels]);
        let done = Cpu::new().causal_conv1d(x, weight, Some(self.bias), history, out, None);
        done.expect("shapes agree");
    }
}
