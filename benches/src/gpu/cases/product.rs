//! Matrix products: the linear layers of real models, for one token, a few, and a prompt.

use crate::Work;
use crate::gpu::check::{close, read};
use crate::gpu::inputs::Numbers;
use crate::gpu::sets::Sets;
use crate::gpu::{Arithmetic, Case, Entry, Options, Result};
use half::{bf16, f16};
use longmamba_core::{AlignedVec, AnyView, DType, View, ViewMut};
use longmamba_cpu::{Accumulate, Cpu, Scratch};
use longmamba_cuda::{Buffer, CublasLt, Device, Matrix, Precision, Rows, RowsMut};

/// A layer's name, and its `[inputs, outputs]`.
type Layer = (&'static str, [usize; 2]);

/// The layers of each model.
const LAYERS: [(&str, &[Layer]); 3] = [
    (
        "mamba-130m",
        &[
            ("in_proj", [768, 3072]),
            ("x_proj", [1536, 80]),
            ("dt_proj", [48, 1536]),
            ("out_proj", [1536, 768]),
            ("head", [768, 50280]),
        ],
    ),
    (
        "mamba-1.4b",
        &[
            ("in_proj", [2048, 8192]),
            ("x_proj", [4096, 160]),
            ("dt_proj", [128, 4096]),
            ("out_proj", [4096, 2048]),
            ("head", [2048, 50280]),
        ],
    ),
    (
        "mamba2-1.3b",
        &[("in_proj", [2048, 8512]), ("out_proj", [4096, 2048]), ("head", [2048, 50288])],
    ),
];

/// Up to so many rows the precision makes no difference: one kernel, which reads the weight once.
const FEW: usize = 8;

pub(super) fn entries(options: &Options) -> Vec<Entry> {
    let mut all = Vec::new();
    if options.quick {
        for (dtype, rows, precision) in [
            (DType::BF16, 1, Precision::Tensor),
            (DType::BF16, 40, Precision::Tensor),
            (DType::F32, 40, Precision::Exact),
        ] {
            all.push(entry("tiny", "in_proj", dtype, precision, [rows, 64, 72]));
        }
        return all;
    }
    for (model, layers) in LAYERS {
        for &(layer, [inputs, outputs]) in layers {
            // Of a prompt only the last row goes through the head, of a text that is scored all.
            let most = if layer == "head" { 256 } else { 2048 };
            for rows in [1, 8, 256, 2048].into_iter().filter(|&rows| rows <= most) {
                let shape = [rows, inputs, outputs];
                all.push(entry(model, layer, DType::BF16, Precision::Tensor, shape));
                if rows > FEW {
                    all.push(entry(model, layer, DType::BF16, Precision::Exact, shape));
                }
                all.push(entry(model, layer, DType::F32, Precision::Exact, shape));
            }
        }
    }
    all
}

fn entry(model: &str, layer: &str, dtype: DType, precision: Precision, shape: [usize; 3]) -> Entry {
    let [rows, inputs, outputs] = shape;
    let how = match (rows <= FEW, precision) {
        (true, _) => "",
        (false, Precision::Exact) => " exact",
        (false, Precision::Tensor) => " tensor",
    };
    Entry {
        kernel: format!("matmul{how}"),
        dtype: dtype.to_string(),
        shape: format!("{model} {layer}: {rows} × {inputs} → {outputs}"),
        make: Box::new(move |device, options| {
            let own = Product::new(device, options, dtype, precision, shape)?;
            let mut cases: Vec<Box<dyn Case>> = vec![Box::new(own)];
            // It takes no others.
            let takes = rows > FEW && (dtype == DType::F32 || precision == Precision::Tensor);
            if options.cublas_lt && takes {
                let library = Some(CublasLt::load(device)?);
                let same = Product::new(device, options, dtype, precision, shape)?;
                cases.push(Box::new(Product { library, ..same }));
            }
            Ok(cases)
        }),
    }
}

/// A weight on the host.
pub(super) enum Weight {
    F32(Vec<f32>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
}

impl Weight {
    pub(super) fn new(dtype: DType, len: usize) -> Self {
        match dtype {
            DType::F32 => Weight::F32(WEIGHT.range(0..len)),
            DType::F16 => Weight::F16(WEIGHT.range(0..len)),
            DType::BF16 => Weight::BF16(WEIGHT.range(0..len)),
        }
    }

    pub(super) fn view(&self, shape: [usize; 2]) -> longmamba_core::Result<AnyView<'_, 2>> {
        Ok(match self {
            Weight::F32(w) => AnyView::F32(View::new(w, shape)?),
            Weight::F16(w) => AnyView::F16(View::new(w, shape)?),
            Weight::BF16(w) => AnyView::BF16(View::new(w, shape)?),
        })
    }
}

const X: Numbers = Numbers::unit(1);
const WEIGHT: Numbers = Numbers::unit(2);

/// What a launch reads and writes.
struct Set {
    x: Buffer<f32>,
    weight: Matrix,
    out: Buffer<f32>,
}

pub(in crate::gpu) struct Product {
    /// `[rows, inputs, outputs]`
    shape: [usize; 3],
    dtype: DType,
    precision: Precision,
    /// Takes the product in place of our own kernel.
    library: Option<CublasLt>,
    host: Weight,
    sets: Sets<Set>,
}

impl Product {
    pub(in crate::gpu) fn new(
        device: &Device,
        options: &Options,
        dtype: DType,
        precision: Precision,
        shape: [usize; 3],
    ) -> Result<Self> {
        let [rows, inputs, outputs] = shape;
        let host = Weight::new(dtype, inputs * outputs);
        let sets = Sets::new(options.quick, work(dtype, shape).bytes, || {
            Ok(Set {
                x: X.upload(device, rows * inputs)?,
                weight: Matrix::upload(device, host.view([outputs, inputs])?)?,
                out: device.zeros(rows * outputs)?,
            })
        })?;
        Ok(Product { shape, dtype, precision, library: None, host, sets })
    }

    /// Whether tensor cores take it.
    fn tensor(&self) -> bool {
        self.shape[0] > FEW && self.precision == Precision::Tensor && self.dtype != DType::F32
    }
}

/// `2 · rows · inputs · outputs` operations; the weight, x and out.
fn work(dtype: DType, shape: [usize; 3]) -> Work {
    let [rows, inputs, outputs] = shape.map(|n| n as f64);
    let weight = inputs * outputs * dtype.size() as f64;
    let bytes = weight + 4.0 * rows * (inputs + outputs);
    Work { flops: 2.0 * rows * inputs * outputs, bytes, ..Work::default() }
}

impl Case for Product {
    fn variant(&self) -> &'static str {
        if self.library.is_some() { ", cuBLASLt" } else { "" }
    }

    fn recordable(&self) -> bool {
        self.library.is_none()
    }

    fn work(&self) -> Work {
        work(self.dtype, self.shape)
    }

    fn arithmetic(&self) -> Arithmetic {
        if self.tensor() { Arithmetic::Tensor } else { Arithmetic::Single }
    }

    fn sets(&self) -> usize {
        self.sets.len()
    }

    /// The first rows and the last, all outputs.
    fn check(&mut self) -> Result<f64> {
        self.sets.rewind();
        self.launch()?;
        let [rows, inputs, outputs] = self.shape;
        let some = rows.min(2);
        let tolerance = if self.tensor() { 1e-4 } else { 1e-5 };
        let mut worst = 0.0f64;
        for part in [0..some, rows - some..rows] {
            let x = X.range::<f32>(part.start * inputs..part.end * inputs);
            let mut expected = AlignedVec::<f32>::zeros(some * outputs);
            Cpu::new().matmul(
                View::new(&x, [some, inputs])?,
                self.host.view([outputs, inputs])?,
                ViewMut::new(&mut expected, [some, outputs])?,
                Accumulate::No,
                &mut Scratch::new(),
            )?;
            let found = read(&self.sets.first().out, part, outputs, 0..outputs)?;
            worst = worst.max(close("out", &found, &expected, tolerance)?);
        }
        Ok(worst)
    }

    fn launch(&mut self) -> Result<()> {
        let [rows, inputs, outputs] = self.shape;
        let Set { x, weight, out } = self.sets.turn();
        let (device, precision) = (x.device().clone(), self.precision);
        let (x, out) = (Rows::all(x, inputs), RowsMut::all(out, outputs));
        Ok(match &self.library {
            None => device.matmul(rows, x, weight, None, false, precision, out),
            Some(library) => library.matmul(rows, x, weight, None, false, precision, out),
        }?)
    }
}
