//! Products and what they should be.
//!
//! Two kinds of values. Small integers, for which every product and sum is exact in each type: the result
//! must be equal to the last bit, so a wrong index shows wherever it is. And values all over: the error of
//! `n` additions in f32 is at most n · 2⁻²³ of the sum of their magnitudes (2⁻²⁴ each where they are
//! rounded, twice that on tensor cores, which cut), with `x` rounded first as the kernel rounds it.

use half::{bf16, f16};
use longmamba_core::{AnyView, DType, View};
use longmamba_cuda::{CublasLt, Device, Matrix, Precision, Rows, RowsMut};
use proptest::prelude::*;

/// A product: its sizes, how its operands lie in their buffers, and its options.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub rows: usize,
    pub inputs: usize,
    pub outputs: usize,
    pub dtype: DType,
    pub precision: Precision,
    /// Elements before `x` and between its rows, and the same for `out`.
    pub x_gaps: [usize; 2],
    pub out_gaps: [usize; 2],
    pub bias: bool,
    pub accumulate: bool,
}

impl Case {
    pub fn new(rows: usize, inputs: usize, outputs: usize) -> Self {
        let (x_gaps, out_gaps) = ([0, 0], [0, 0]);
        let (dtype, precision) = (DType::F32, Precision::Exact);
        let (bias, accumulate) = (false, false);
        Case { rows, inputs, outputs, dtype, precision, x_gaps, out_gaps, bias, accumulate }
    }

    /// Every type of weight with every precision.
    pub fn all_kinds(self) -> impl Iterator<Item = Case> {
        [DType::F32, DType::F16, DType::BF16].into_iter().flat_map(move |dtype| {
            [Precision::Exact, Precision::Tensor].map(|precision| Case { dtype, precision, ..self })
        })
    }

    /// Whether the kernel rounds `x` to the weight's type.
    pub fn rounds(&self, device: &Device) -> bool {
        let cores = match self.dtype {
            DType::F32 => false,
            DType::F16 => true,
            DType::BF16 => device.capability() >= (8, 0),
        };
        cores && self.precision == Precision::Tensor && self.rows > 8
    }
}

/// What takes the product: the device itself, or a library.
pub type By<'a> = Option<&'a CublasLt>;

/// The operands of a case, without gaps.
pub struct Operands {
    pub x: Vec<f32>,
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    /// What `out` holds before.
    pub old: Vec<f32>,
}

impl Operands {
    pub fn new(case: &Case, mut value: impl FnMut() -> f32) -> Self {
        let Case { rows, inputs, outputs, dtype, .. } = *case;
        let mut values = |n: usize| (0..n).map(|_| value()).collect::<Vec<f32>>();
        Operands {
            x: values(rows * inputs),
            weight: values(outputs * inputs).iter().map(|&w| round(w, dtype)).collect(),
            bias: values(outputs),
            old: values(rows * outputs),
        }
    }

    pub fn integers(case: &Case, seed: u64) -> Self {
        let mut random = random(seed);
        Operands::new(case, || (random() * 9.0).floor() - 4.0)
    }

    pub fn reals(case: &Case, seed: u64) -> Self {
        let mut random = random(seed);
        Operands::new(case, || (random() * 2.0 - 1.0) * 4.0f32.powi((random() * 4.0) as i32 - 2))
    }

    /// The result in f64 and the sum of the magnitudes of what it is the sum of.
    pub fn reference(&self, case: &Case, device: &Device) -> Vec<(f64, f64)> {
        let Case { rows, inputs, outputs, dtype, .. } = *case;
        let rounds = case.rounds(device);
        let mut out = Vec::with_capacity(rows * outputs);
        for r in 0..rows {
            let x = &self.x[r * inputs..][..inputs];
            let x: Vec<f64> =
                x.iter().map(|&x| if rounds { round(x, dtype) } else { x }.into()).collect();
            for o in 0..outputs {
                let mut sum = 0.0;
                let mut magnitude = 0.0;
                for (x, &w) in x.iter().zip(&self.weight[o * inputs..][..inputs]) {
                    sum += x * f64::from(w);
                    magnitude += (x * f64::from(w)).abs();
                }
                let bias = if case.bias { self.bias[o] } else { 0.0 };
                let old = if case.accumulate { self.old[r * outputs + o] } else { 0.0 };
                out.push((
                    sum + f64::from(bias) + f64::from(old),
                    magnitude + f64::from(bias.abs() + old.abs()),
                ));
            }
        }
        out
    }

    pub fn matrix(&self, case: &Case, device: &Device) -> Matrix {
        let shape = [case.outputs, case.inputs];
        let upload = |view| Matrix::upload(device, view).unwrap();
        match case.dtype {
            DType::F32 => upload(AnyView::F32(View::new(&self.weight, shape).unwrap())),
            DType::F16 => {
                let weight: Vec<f16> = self.weight.iter().map(|&w| f16::from_f32(w)).collect();
                upload(AnyView::F16(View::new(&weight, shape).unwrap()))
            }
            DType::BF16 => {
                let weight: Vec<bf16> = self.weight.iter().map(|&w| bf16::from_f32(w)).collect();
                upload(AnyView::BF16(View::new(&weight, shape).unwrap()))
            }
        }
    }

    /// The product on the device, without gaps. What lies between the rows of `x` is NaN, and what lies
    /// between those of `out` must stay.
    pub fn product(&self, case: &Case, device: &Device, by: By<'_>) -> Vec<f32> {
        const UNTOUCHED: f32 = 12345.0;
        let Case { rows, inputs, outputs, .. } = *case;
        let [x_stride, out_stride] = [inputs + case.x_gaps[1], outputs + case.out_gaps[1]];
        let x = spread(&self.x, inputs, case.x_gaps, rows, f32::NAN);
        let old = spread(&self.old, outputs, case.out_gaps, rows, UNTOUCHED);
        let x = device.upload(&x).unwrap();
        let mut out = device.upload(&old).unwrap();
        let bias = case.bias.then(|| device.upload(&self.bias).unwrap());
        let (weight, bias) = (self.matrix(case, device), bias.as_ref());
        let x = Rows { buffer: &x, first: case.x_gaps[0], width: inputs, stride: x_stride };
        let to = RowsMut {
            buffer: &mut out,
            first: case.out_gaps[0],
            width: outputs,
            stride: out_stride,
        };
        let (accumulate, precision) = (case.accumulate, case.precision);
        match by {
            None => device.matmul(rows, x, &weight, bias, accumulate, precision, to).unwrap(),
            Some(blas) => blas.matmul(rows, x, &weight, bias, accumulate, precision, to).unwrap(),
        }
        let all = out.to_vec().unwrap();
        let mut kept = all.clone();
        let mut product = Vec::with_capacity(rows * outputs);
        for r in 0..rows {
            let row = &mut kept[case.out_gaps[0] + r * out_stride..][..outputs];
            product.extend_from_slice(row);
            row.fill(UNTOUCHED);
        }
        assert!(kept.iter().all(|&v| v == UNTOUCHED), "written outside the rows: {case:?}");
        product
    }
}

/// Rows with gaps before the first and after each, filled with `filler`.
pub fn spread(
    values: &[f32],
    width: usize,
    gaps: [usize; 2],
    rows: usize,
    filler: f32,
) -> Vec<f32> {
    let mut out = vec![filler; gaps[0] + rows * (width + gaps[1])];
    for r in 0..rows {
        out[gaps[0] + r * (width + gaps[1])..][..width]
            .copy_from_slice(&values[r * width..][..width]);
    }
    out
}

/// Numbers from 0 to 1, the same for a seed.
pub fn random(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 24) as f32
    }
}

pub fn round(value: f32, dtype: DType) -> f32 {
    match dtype {
        DType::F32 => value,
        DType::F16 => f16::from_f32(value).to_f32(),
        DType::BF16 => bf16::from_f32(value).to_f32(),
    }
}

pub fn check_integers(case: &Case, device: &Device, by: By<'_>) {
    let operands = Operands::integers(case, 1);
    let product = operands.product(case, device, by);
    let reference = operands.reference(case, device);
    for (i, (&got, &(want, _))) in product.iter().zip(&reference).enumerate() {
        let [r, o] = [i / case.outputs, i % case.outputs];
        assert!(f64::from(got) == want, "row {r}, output {o}: {got}, not {want}: {case:?}");
    }
}

pub fn check_reals(case: &Case, device: &Device, by: By<'_>) {
    let operands = Operands::reals(case, 2);
    let product = operands.product(case, device, by);
    let reference = operands.reference(case, device);
    let additions = (case.inputs + 2) as f64;
    for (i, (&got, &(want, magnitude))) in product.iter().zip(&reference).enumerate() {
        let [r, o] = [i / case.outputs, i % case.outputs];
        let most = additions * 2f64.powi(-23) * magnitude;
        let error = (f64::from(got) - want).abs();
        // Not "error > most": a NaN is to fail.
        assert!(error <= most, "row {r}, output {o}: {got}, not {want} ± {most}: {case:?}");
    }
}

/// Any product, with gaps and options.
pub fn cases() -> impl Strategy<Value = Case> {
    let dtype = prop::sample::select(vec![DType::F32, DType::F16, DType::BF16]);
    let precision = prop::sample::select(vec![Precision::Exact, Precision::Tensor]);
    let gaps = || prop::array::uniform2(0usize..9);
    let options = (any::<bool>(), any::<bool>());
    (0usize..100, 0usize..100, 0usize..100, dtype, precision, gaps(), gaps(), options).prop_map(
        |(rows, inputs, outputs, dtype, precision, x_gaps, out_gaps, (bias, accumulate))| Case {
            dtype,
            precision,
            x_gaps,
            out_gaps,
            bias,
            accumulate,
            ..Case::new(rows, inputs, outputs)
        },
    )
}
