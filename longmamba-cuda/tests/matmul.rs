//! Matrix products on a device against sums in f64.
//!
//! Two kinds of values. Small integers, for which every product and sum is exact in each type: the result
//! must be equal to the last bit, so a wrong index shows wherever it is. And values all over: the error of
//! `n` additions in f32 is at most n · 2⁻²³ of the sum of their magnitudes (2⁻²⁴ each where they are
//! rounded, twice that on tensor cores, which cut), with `x` rounded first as the kernel rounds it.

mod common;

use half::{bf16, f16};
use longmamba_core::{AnyView, DType, Error as ArgumentError, Tensor, View};
use longmamba_cuda::{Buffer, Device, Error, Matrix, Precision, Rows, RowsMut};
use proptest::prelude::*;

/// A product: its sizes, how its operands lie in their buffers, and its options.
#[derive(Clone, Copy, Debug)]
struct Case {
    rows: usize,
    inputs: usize,
    outputs: usize,
    dtype: DType,
    precision: Precision,
    /// Elements before `x` and between its rows, and the same for `out`.
    x_gaps: [usize; 2],
    out_gaps: [usize; 2],
    bias: bool,
    accumulate: bool,
}

impl Case {
    fn new(rows: usize, inputs: usize, outputs: usize) -> Self {
        let (x_gaps, out_gaps) = ([0, 0], [0, 0]);
        let (dtype, precision) = (DType::F32, Precision::Exact);
        let (bias, accumulate) = (false, false);
        Case { rows, inputs, outputs, dtype, precision, x_gaps, out_gaps, bias, accumulate }
    }

    /// Every type of weight with every precision.
    fn all_kinds(self) -> impl Iterator<Item = Case> {
        [DType::F32, DType::F16, DType::BF16].into_iter().flat_map(move |dtype| {
            [Precision::Exact, Precision::Tensor].map(|precision| Case { dtype, precision, ..self })
        })
    }

    /// Whether the kernel rounds `x` to the weight's type.
    fn rounds(&self, device: &Device) -> bool {
        let cores = match self.dtype {
            DType::F32 => false,
            DType::F16 => true,
            DType::BF16 => device.capability() >= (8, 0),
        };
        cores && self.precision == Precision::Tensor && self.rows > 8
    }
}

/// The operands of a case, without gaps.
struct Operands {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    /// What `out` holds before.
    old: Vec<f32>,
}

impl Operands {
    fn new(case: &Case, mut value: impl FnMut() -> f32) -> Self {
        let Case { rows, inputs, outputs, dtype, .. } = *case;
        let mut values = |n: usize| (0..n).map(|_| value()).collect::<Vec<f32>>();
        Operands {
            x: values(rows * inputs),
            weight: values(outputs * inputs).iter().map(|&w| round(w, dtype)).collect(),
            bias: values(outputs),
            old: values(rows * outputs),
        }
    }

    fn integers(case: &Case, seed: u64) -> Self {
        let mut random = random(seed);
        Operands::new(case, || (random() * 9.0).floor() - 4.0)
    }

    fn reals(case: &Case, seed: u64) -> Self {
        let mut random = random(seed);
        Operands::new(case, || (random() * 2.0 - 1.0) * 4.0f32.powi((random() * 4.0) as i32 - 2))
    }

    /// The result in f64 and the sum of the magnitudes of what it is the sum of.
    fn reference(&self, case: &Case, device: &Device) -> Vec<(f64, f64)> {
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

    fn matrix(&self, case: &Case, device: &Device) -> Matrix {
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
    fn product(&self, case: &Case, device: &Device) -> Vec<f32> {
        const UNTOUCHED: f32 = 12345.0;
        let Case { rows, inputs, outputs, .. } = *case;
        let [x_stride, out_stride] = [inputs + case.x_gaps[1], outputs + case.out_gaps[1]];
        let x = spread(&self.x, inputs, case.x_gaps, rows, f32::NAN);
        let old = spread(&self.old, outputs, case.out_gaps, rows, UNTOUCHED);
        let x = device.upload(&x).unwrap();
        let mut out = device.upload(&old).unwrap();
        let bias = case.bias.then(|| device.upload(&self.bias).unwrap());
        device
            .matmul(
                rows,
                Rows { buffer: &x, first: case.x_gaps[0], width: inputs, stride: x_stride },
                &self.matrix(case, device),
                bias.as_ref(),
                case.accumulate,
                case.precision,
                RowsMut {
                    buffer: &mut out,
                    first: case.out_gaps[0],
                    width: outputs,
                    stride: out_stride,
                },
            )
            .unwrap();
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
fn spread(values: &[f32], width: usize, gaps: [usize; 2], rows: usize, filler: f32) -> Vec<f32> {
    let mut out = vec![filler; gaps[0] + rows * (width + gaps[1])];
    for r in 0..rows {
        out[gaps[0] + r * (width + gaps[1])..][..width]
            .copy_from_slice(&values[r * width..][..width]);
    }
    out
}

/// Numbers from 0 to 1, the same for a seed.
fn random(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 24) as f32
    }
}

fn round(value: f32, dtype: DType) -> f32 {
    match dtype {
        DType::F32 => value,
        DType::F16 => f16::from_f32(value).to_f32(),
        DType::BF16 => bf16::from_f32(value).to_f32(),
    }
}

fn check_integers(case: &Case, device: &Device) {
    let operands = Operands::integers(case, 1);
    let product = operands.product(case, device);
    let reference = operands.reference(case, device);
    for (i, (&got, &(want, _))) in product.iter().zip(&reference).enumerate() {
        let [r, o] = [i / case.outputs, i % case.outputs];
        assert!(f64::from(got) == want, "row {r}, output {o}: {got}, not {want}: {case:?}");
    }
}

fn check_reals(case: &Case, device: &Device) {
    let operands = Operands::reals(case, 2);
    let product = operands.product(case, device);
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

/// Sizes around those of tiles (64 rows and outputs), steps (16 and 32 inputs) and vectors (4 inputs).
#[test]
fn sizes_around_the_tiles() {
    let device = common::device();
    for (rows, inputs, outputs) in [
        (64, 32, 64),
        (63, 31, 63),
        (65, 33, 65),
        (33, 1, 1),
        (33, 4, 130),
        (129, 36, 3),
        (40, 15, 70),
        (40, 16, 70),
        (40, 17, 70),
        (70, 64, 64),
        (70, 100, 66),
    ] {
        Case::new(rows, inputs, outputs)
            .all_kinds()
            .for_each(|case| check_integers(&case, &device));
    }
}

/// 9 rows and more go to the tensor cores; up to 32 rows, where all is f32, to the kernel of few rows.
#[test]
fn few_rows() {
    let device = common::device();
    for rows in [1, 2, 3, 4, 5, 7, 8, 9, 16, 31, 32, 33] {
        for (inputs, outputs) in [(1, 1), (3, 9), (128, 33), (516, 8), (1100, 5), (2310, 1)] {
            let case = Case::new(rows, inputs, outputs);
            case.all_kinds().for_each(|case| check_integers(&case, &device));
        }
    }
}

/// As many outputs as it takes for one warp to take whole sums, on a device of any size.
#[test]
fn few_rows_with_many_outputs() {
    let device = common::device();
    let outputs = 32 * device.multiprocessors() as usize + 3;
    for rows in [1, 3] {
        let case = Case { dtype: DType::BF16, ..Case::new(rows, 260, outputs) };
        check_integers(&case, &device);
    }
}

/// Enough tiles for the large ones, on a device of any size.
#[test]
fn large_tiles() {
    let device = common::device();
    let side = (device.multiprocessors() as usize).isqrt() + 1;
    let case = Case::new(128 * side - 1, 36, 128 * side - 3);
    case.all_kinds().for_each(|case| check_integers(&case, &device));
    let case = Case { accumulate: true, bias: true, x_gaps: [4, 8], out_gaps: [4, 8], ..case };
    let case = Case { dtype: DType::F16, precision: Precision::Exact, ..case };
    check_reals(&case, &device);
    check_reals(&Case { precision: Precision::Tensor, inputs: 132, ..case }, &device);
}

/// Tiles of 256 outputs: their sums are those of the small ones, to the last bit.
#[test]
fn wide_tiles() {
    let device = common::device();
    let side = (2 * device.multiprocessors() as usize).isqrt() + 1;
    for dtype in [DType::F16, DType::BF16] {
        let case = Case::new(128 * side - 1, 68, 256 * side - 3);
        let case = Case { dtype, precision: Precision::Tensor, bias: true, ..case };
        check_integers(&case, &device);
        let operands = Operands::reals(&case, 5);
        let wide = operands.product(&case, &device);
        let small = operands.product(&Case { rows: 70, ..case }, &device);
        assert!(small.iter().zip(&wide).all(|(a, b)| a.to_bits() == b.to_bits()), "{case:?}");
    }
}

/// Operands that begin anywhere, rows with gaps, bias and accumulation.
#[test]
fn gaps_and_options() {
    let device = common::device();
    for rows in [1, 6, 11, 66] {
        for (x_gaps, out_gaps) in
            [([0, 0], [0, 0]), ([4, 8], [4, 0]), ([1, 0], [2, 1]), ([0, 3], [3, 8])]
        {
            for (bias, accumulate) in [(true, false), (false, true), (true, true)] {
                let case = Case { x_gaps, out_gaps, bias, accumulate, ..Case::new(rows, 44, 68) };
                case.all_kinds().for_each(|case| check_integers(&case, &device));
            }
        }
    }
}

#[test]
fn values_all_over() {
    let device = common::device();
    for (rows, inputs, outputs) in
        [(1, 768, 40), (8, 1536, 24), (3, 77, 50), (48, 300, 70), (80, 129, 9)]
    {
        let case = Case { bias: true, accumulate: rows == 48, ..Case::new(rows, inputs, outputs) };
        case.all_kinds().for_each(|case| check_reals(&case, &device));
    }
}

#[test]
fn nothing_to_do_and_the_empty_sum() {
    let device = common::device();
    for (rows, inputs, outputs) in
        [(0, 5, 7), (3, 5, 0), (0, 0, 0), (1, 0, 7), (8, 0, 7), (40, 0, 70)]
    {
        for (bias, accumulate) in [(false, false), (true, false), (false, true), (true, true)] {
            let case = Case { bias, accumulate, ..Case::new(rows, inputs, outputs) };
            case.all_kinds().for_each(|case| check_integers(&case, &device));
        }
    }
}

/// The bits of a row, whatever the number and the values of the others; of few rows, and of many.
#[test]
fn a_row_depends_on_no_other() {
    let device = common::device();
    let side = (device.multiprocessors() as usize).isqrt() + 1;
    let large = 128 * side;
    for (counts, inputs, outputs) in
        [([1, 2, 4, 7, 8].as_slice(), 1100, 10), (&[33, 70, large], 36, large)]
    {
        let most = *counts.last().unwrap();
        for case in Case::new(most, inputs, outputs).all_kinds() {
            let operands = Operands::reals(&case, 3);
            let all = operands.product(&case, &device);
            for &rows in counts {
                let mut operands = Operands { x: operands.x.clone(), ..Operands::reals(&case, 3) };
                // A NaN in a row is seen in that row and nowhere else.
                operands.x[(rows - 1) * case.inputs] = f32::NAN;
                let part = operands.product(&Case { rows, ..case }, &device);
                let (clean, spoilt) = part.split_at((rows - 1) * outputs);
                assert!(
                    clean.iter().zip(&all).all(|(a, b)| a.to_bits() == b.to_bits()),
                    "{case:?}"
                );
                assert!(spoilt.iter().all(|v| v.is_nan()), "{case:?}");
            }
        }
    }
}

/// The tile and the loads are chosen by size and alignment; the sums are the same.
#[test]
fn alignment_does_not_change_the_bits() {
    let device = common::device();
    for rows in [3, 50] {
        for case in Case::new(rows, 260, 30).all_kinds() {
            let operands = Operands::reals(&case, 4);
            let aligned = operands.product(&case, &device);
            let shifted = operands.product(&Case { x_gaps: [3, 2], ..case }, &device);
            assert_eq!(aligned, shifted, "{case:?}");
        }
    }
}

#[test]
fn a_weight_keeps_type_and_shape() {
    let device = common::device();
    let tensor = Tensor::from_slice(&[f16::ONE; 21], &[3, 7]).unwrap();
    let matrix = Matrix::upload(&device, tensor.any_view().unwrap()).unwrap();
    assert_eq!((matrix.outputs(), matrix.inputs(), matrix.dtype()), (3, 7, DType::F16));
    let values = [0.0f32; 21];
    let transposed = View::new(&values, [7, 3]).unwrap().permute([1, 0]).unwrap();
    let error = Matrix::upload(&device, AnyView::F32(transposed)).unwrap_err();
    assert_eq!(error, Error::Argument(ArgumentError::NotContiguous { tensor: "weight" }));
}

/// Part of a larger weight: rows that are apart on the host.
#[test]
fn a_weight_with_gaps() {
    let device = common::device();
    let values: Vec<f32> = (0..40).map(|v| v as f32).collect();
    let part = View::new(&values, [5, 8]).unwrap().slice(1, 2..6).unwrap();
    let matrix = Matrix::upload(&device, AnyView::F32(part)).unwrap();
    let x = device.upload(&[1.0f32, 0.0, 0.0, 0.0]).unwrap();
    let mut out = device.zeros(5).unwrap();
    multiply(&device, 1, &x, &matrix, None, &mut out).unwrap();
    assert_eq!(out.to_vec().unwrap(), [2.0, 10.0, 18.0, 26.0, 34.0]);
}

/// A step is recorded once and replayed with what its buffers then hold.
#[test]
fn a_product_in_a_graph() {
    let device = common::device();
    let weight = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    let weight = AnyView::F32(View::new(&weight, [2, 3]).unwrap());
    let weight = Matrix::upload(&device, weight).unwrap();
    let mut x = device.upload(&[1.0f32, 1.0, 1.0]).unwrap();
    let mut out = device.zeros(2).unwrap();
    multiply(&device, 1, &x, &weight, None, &mut out).unwrap();
    assert_eq!(out.to_vec().unwrap(), [6.0, 15.0]);
    let step = device.capture(|| multiply(&device, 1, &x, &weight, None, &mut out));
    let mut step = step.unwrap().expect("one launch");
    x.write(&[0.0, 1.0, 2.0], 0).unwrap();
    step.launch().unwrap();
    assert_eq!(out.to_vec().unwrap(), [8.0, 17.0]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let device = common::device();
    let weight = [0.0f32; 12];
    let weight = AnyView::F32(View::new(&weight, [3, 4]).unwrap());
    let weight = Matrix::upload(&device, weight).unwrap();
    let [x, bias] = [8, 2].map(|len| device.zeros::<f32>(len).unwrap());
    let mut out = device.zeros(6).unwrap();
    multiply(&device, 2, &x, &weight, None, &mut out).unwrap();
    let error = multiply(&device, 3, &x, &weight, None, &mut out).unwrap_err();
    let past_the_end = ArgumentError::OutOfBounds { needed: Some(12), available: 8 };
    assert_eq!(error, Error::Argument(past_the_end));
    let error = multiply(&device, 2, &x, &weight, Some(&bias), &mut out).unwrap_err();
    assert!(matches!(error, Error::Argument(ArgumentError::Shape { tensor: "bias", .. })));
    let narrow = Rows::all(&x, 2);
    let wide = RowsMut::all(&mut out, 3);
    let error = device.matmul(2, narrow, &weight, None, false, Precision::Exact, wide).unwrap_err();
    assert!(matches!(error, Error::Argument(ArgumentError::Shape { tensor: "x", .. })));
}

fn multiply(
    device: &Device,
    rows: usize,
    x: &Buffer<f32>,
    weight: &Matrix,
    bias: Option<&Buffer<f32>>,
    out: &mut Buffer<f32>,
) -> longmamba_cuda::Result<()> {
    let (x, out) = (Rows::all(x, weight.inputs()), RowsMut::all(out, weight.outputs()));
    device.matmul(rows, x, weight, bias, false, Precision::Exact, out)
}

fn cases() -> impl Strategy<Value = Case> {
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_product(case in cases()) {
        let device = common::device();
        check_integers(&case, &device);
        check_reals(&case, &device);
    }
}
