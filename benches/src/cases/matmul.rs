//! `matmul`: many rows (prefill) and one (decode), ours and the `gemm` crate's.

use super::CHUNK;
use crate::data::{Weights, assert_close, uniform, view, view_mut};
use crate::{Case, Rate, Work, rival};
use longmamba_core::{AlignedVec, AnyView, DType, View, oracle};
use longmamba_cpu::{Accumulate, Cpu, Scratch};

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// `[inputs, outputs]` of the layers: in_proj, out_proj and x_proj of Mamba-1, in_proj of Mamba-2,
/// in_proj of a tiny model.
const LAYERS: [[usize; 2]; 5] = [[768, 3072], [1536, 768], [1536, 80], [768, 3352], [96, 524]];

/// A chunk of tokens through each layer.
pub fn matmul() -> Vec<Box<dyn Case>> {
    let mut cases: Vec<Box<dyn Case>> = Vec::new();
    for [inputs, outputs] in LAYERS {
        let shape = [CHUNK, inputs, outputs];
        for dtype in DTYPES {
            cases.push(Box::new(Linear::new(dtype, shape, 1, By::Floats)));
        }
        cases.push(Box::new(Linear::new(DType::BF16, shape, 1, By::Pairs)));
        cases.push(Box::new(Linear::new(DType::F32, shape, 1, By::Rival)));
    }
    cases
}

/// One token through each layer. A real model's weights do not stay in the cache from one token to
/// the next, so each run takes the next of many copies; a tiny model's do.
pub fn matvec() -> Vec<Box<dyn Case>> {
    let mut cases: Vec<Box<dyn Case>> = Vec::new();
    for [inputs, outputs] in [[768, 3072], [1536, 768], [768, 3352], [96, 524]] {
        let copies = if inputs * outputs < 1 << 18 { 1 } else { (1 << 26) / (inputs * outputs) };
        for dtype in DTYPES {
            cases.push(Box::new(Linear::new(dtype, [1, inputs, outputs], copies, By::Floats)));
        }
        for (dtype, by) in [(DType::BF16, By::Pairs), (DType::F32, By::Rival)] {
            cases.push(Box::new(Linear::new(dtype, [1, inputs, outputs], copies, by)));
        }
    }
    cases
}

struct Linear {
    /// `[rows, inputs, outputs]`
    shape: [usize; 3],
    dtype: DType,
    x: AlignedVec<f32>,
    w: Vec<Weights>,
    out: AlignedVec<f32>,
    by: By,
    next: usize,
    scratch: Scratch,
}

/// What does the product.
#[derive(Clone, Copy, PartialEq)]
enum By {
    /// [`Cpu::matmul`].
    Floats,
    /// [`Cpu::matmul_bf16`].
    Pairs,
    /// The `gemm` crate.
    Rival,
}

impl Linear {
    fn new(dtype: DType, shape: [usize; 3], copies: usize, by: By) -> Self {
        let [rows, inputs, outputs] = shape;
        let w = uniform(2, inputs * outputs, -1.0, 1.0);
        Linear {
            shape,
            dtype,
            x: uniform(1, rows * inputs, -1.0, 1.0),
            w: (0..copies).map(|_| Weights::new(dtype, &w)).collect(),
            out: AlignedVec::zeros(rows * outputs),
            by,
            next: 0,
            scratch: Scratch::new(),
        }
    }
}

impl Case for Linear {
    fn kernel(&self) -> String {
        let name = if self.shape[0] == 1 { "matvec" } else { "matmul" };
        let by = match self.by {
            By::Floats => "",
            By::Pairs => " in pairs",
            By::Rival => " (gemm crate)",
        };
        format!("{name} {}{by}", self.dtype)
    }

    fn shape(&self) -> String {
        let [rows, inputs, outputs] = self.shape;
        format!("{rows} × {inputs} → {outputs}")
    }

    /// `2 · rows · inputs · outputs` operations; the weights, x and out.
    fn work(&self) -> Work {
        let [rows, inputs, outputs] = self.shape.map(|n| n as f64);
        let weights = inputs * outputs * self.dtype.size() as f64;
        let rest = 4.0 * rows * (inputs + outputs);
        let count = 2.0 * rows * inputs * outputs;
        let pairs = self.by == By::Pairs;
        Work {
            flops: if pairs { 0.0 } else { count },
            pair_flops: if pairs { count } else { 0.0 },
            bytes: weights + rest,
            resident: weights * self.w.len() as f64 + rest,
            ..Work::default()
        }
    }

    fn rate(&self) -> Rate {
        if self.shape[0] == 1 { Rate::Bytes } else { Rate::Flops }
    }

    /// The first two rows, and of these the last sixteen outputs.
    fn check(&mut self) {
        self.run();
        let [rows, inputs, outputs] = self.shape;
        let (some, last) = (rows.min(2), outputs - 16);
        let w = self.w[0].view([outputs, inputs]);
        let cut: Vec<f32> = (last * inputs..outputs * inputs)
            .filter_map(|i| w.get([i / inputs, i % inputs]))
            .collect();
        let x = view(&self.x[..some * inputs], [some, inputs]);
        let expected = oracle::linear(&x, &view(&cut, [16, inputs]));
        let found = (0..some).flat_map(|r| &self.out[r * outputs + last..(r + 1) * outputs]);
        let tolerance = if self.by == By::Pairs { 1e-2 } else { 1e-5 };
        assert_close(&self.kernel(), tolerance, found.copied().zip(expected));
    }

    fn run(&mut self) {
        let [rows, inputs, outputs] = self.shape;
        let w = self.w[self.next].view([outputs, inputs]);
        self.next = (self.next + 1) % self.w.len();
        if self.by == By::Rival {
            let AnyView::F32(w) = w else { unreachable!("the rival takes f32 only") };
            let threads = rayon::current_num_threads();
            return rival::gemm_crate(&self.x, View::data(&w), &mut self.out, self.shape, threads);
        }
        let (x, out) = (view(&self.x, [rows, inputs]), view_mut(&mut self.out, [rows, outputs]));
        let (cpu, scratch) = (Cpu::new(), &mut self.scratch);
        match w {
            AnyView::BF16(w) if self.by == By::Pairs => {
                cpu.matmul_bf16(x, w, out, Accumulate::No, scratch)
            }
            w => cpu.matmul(x, w, out, Accumulate::No, scratch),
        }
        .expect("shapes agree");
    }
}
