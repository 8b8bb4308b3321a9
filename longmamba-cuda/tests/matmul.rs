//! Matrix products on a device against sums in f64.

mod common;
#[path = "common/product.rs"]
mod product;

use half::f16;
use longmamba_core::{AnyView, DType, Error as ArgumentError, Tensor, View};
use longmamba_cuda::{Buffer, Device, Error, Matrix, Precision, Rows, RowsMut};
use product::{Case, Operands, cases, check_integers, check_reals};
use proptest::prelude::*;

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
            .for_each(|case| check_integers(&case, &device, None));
    }
}

/// 9 rows and more go to the tensor cores; up to 32 rows, where all is f32, to the kernel of few rows.
#[test]
fn few_rows() {
    let device = common::device();
    for rows in [1, 2, 3, 4, 5, 7, 8, 9, 16, 31, 32, 33] {
        for (inputs, outputs) in [(1, 1), (3, 9), (128, 33), (516, 8), (1100, 5), (2310, 1)] {
            let case = Case::new(rows, inputs, outputs);
            case.all_kinds().for_each(|case| check_integers(&case, &device, None));
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
        check_integers(&case, &device, None);
    }
}

/// Enough tiles for the large ones, on a device of any size.
#[test]
fn large_tiles() {
    let device = common::device();
    let side = (device.multiprocessors() as usize).isqrt() + 1;
    let case = Case::new(128 * side - 1, 36, 128 * side - 3);
    case.all_kinds().for_each(|case| check_integers(&case, &device, None));
    let case = Case { accumulate: true, bias: true, x_gaps: [4, 8], out_gaps: [4, 8], ..case };
    let case = Case { dtype: DType::F16, precision: Precision::Exact, ..case };
    check_reals(&case, &device, None);
    check_reals(&Case { precision: Precision::Tensor, inputs: 132, ..case }, &device, None);
}

/// Tiles of 256 outputs: their sums are those of the small ones, to the last bit.
#[test]
fn wide_tiles() {
    let device = common::device();
    let side = (2 * device.multiprocessors() as usize).isqrt() + 1;
    for dtype in [DType::F16, DType::BF16] {
        let case = Case::new(128 * side - 1, 68, 256 * side - 3);
        let case = Case { dtype, precision: Precision::Tensor, bias: true, ..case };
        check_integers(&case, &device, None);
        let operands = Operands::reals(&case, 5);
        let wide = operands.product(&case, &device, None);
        let small = operands.product(&Case { rows: 70, ..case }, &device, None);
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
                case.all_kinds().for_each(|case| check_integers(&case, &device, None));
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
        case.all_kinds().for_each(|case| check_reals(&case, &device, None));
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
            case.all_kinds().for_each(|case| check_integers(&case, &device, None));
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
            let all = operands.product(&case, &device, None);
            for &rows in counts {
                let mut operands = Operands { x: operands.x.clone(), ..Operands::reals(&case, 3) };
                // A NaN in a row is seen in that row and nowhere else.
                operands.x[(rows - 1) * case.inputs] = f32::NAN;
                let part = operands.product(&Case { rows, ..case }, &device, None);
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
            let aligned = operands.product(&case, &device, None);
            let shifted = operands.product(&Case { x_gaps: [3, 2], ..case }, &device, None);
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_product(case in cases()) {
        let device = common::device();
        check_integers(&case, &device, None);
        check_reals(&case, &device, None);
    }
}
