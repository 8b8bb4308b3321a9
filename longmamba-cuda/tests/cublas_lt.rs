//! Products by cuBLASLt. Without a GPU they go to the emulator's stand-in, which checks how it is called; with
//! one, to the library itself, where the machine has it.

mod common;
#[path = "common/product.rs"]
mod product;

use half::{bf16, f16};
use longmamba_core::{AnyView, DType, Error as ArgumentError, View};
use longmamba_cuda::{Buffer, CublasLt, Device, Error, Matrix, Precision, Rows, RowsMut};
use longmamba_cuda_emulator::{TestDriver, driver_for_tests, preload};
use product::{Case, Operands, cases, check_integers, check_reals};
use proptest::prelude::*;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

/// The device and the library; `None` where there is a GPU but not the library.
fn library() -> Option<(Device, CublasLt)> {
    static LIBRARY: OnceLock<Option<(Device, CublasLt)>> = OnceLock::new();
    let load = || {
        let device = common::device();
        if driver_for_tests().unwrap() == TestDriver::Emulator {
            // SAFETY: the stand-in behaves as the library.
            let stand_in = unsafe { CublasLt::load_from(&device, &preload().unwrap()) };
            return Some((device, stand_in.unwrap()));
        }
        match CublasLt::load(&device) {
            Ok(library) => Some((device, library)),
            Err(error) => {
                // Not `println!`: the harness hides that where a test passes, and a skip must be seen.
                let skipped = format!("SKIPPED: {error}\n");
                std::io::stderr().write_all(skipped.as_bytes()).unwrap();
                None
            }
        }
    };
    LIBRARY.get_or_init(load).clone()
}

/// A library's result is that of our own kernels, to the last bit where every sum is exact.
#[test]
fn every_type_and_size() {
    let Some((device, library)) = library() else { return };
    for (rows, inputs, outputs) in [
        (9, 1, 1),
        (9, 8, 16),
        (33, 31, 7),
        (64, 32, 64),
        (65, 33, 65),
        (130, 100, 5),
        (10, 700, 3),
        // Left to our own kernels.
        (8, 32, 5),
        (0, 3, 2),
        (12, 0, 2),
        (12, 2, 0),
    ] {
        for case in Case::new(rows, inputs, outputs).all_kinds() {
            for (bias, accumulate) in [(false, false), (true, false), (false, true), (true, true)] {
                let case = Case { bias, accumulate, ..case };
                check_integers(&case, &device, Some(&library));
                let operands = Operands::integers(&case, 3);
                let own = operands.product(&case, &device, None);
                assert_eq!(operands.product(&case, &device, Some(&library)), own, "{case:?}");
            }
        }
    }
}

/// Rows of `x` and `out` that begin anywhere, with gaps between them.
#[test]
fn gaps() {
    let Some((device, library)) = library() else { return };
    for (x_gaps, out_gaps) in
        [([1, 0], [0, 3]), ([4, 4], [8, 8]), ([0, 5], [3, 0]), ([7, 1], [1, 7])]
    {
        for case in Case::new(20, 24, 18).all_kinds() {
            let case = Case { x_gaps, out_gaps, bias: true, accumulate: true, ..case };
            check_integers(&case, &device, Some(&library));
            check_reals(&case, &device, Some(&library));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_product(case in cases()) {
        if let Some((device, library)) = library() {
            check_integers(&case, &device, Some(&library));
            check_reals(&case, &device, Some(&library));
        }
    }
}

/// `x · 1` for weights of 16 bits: `x` as it is rounded.
#[test]
fn activations_are_rounded_to_nearest() {
    let Some((device, library)) = library() else { return };
    let mut x =
        vec![0.0, -0.0, 1.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN];
    // Between two values of 16 bits, the exact middle, and around it; subnormals; the ends of f16.
    x.extend([1.0 + 2f32.powi(-11), 1.0 + 3.0 * 2f32.powi(-11), 1.0 + 2f32.powi(-8)]);
    x.extend([65504.0, 65519.9, 65520.0, 2f32.powi(-24), 2f32.powi(-25), 1.5 * 2f32.powi(-25)]);
    x.extend([
        3.0 * 2f32.powi(-9) + 1.0,
        f32::from_bits(1),
        f32::from_bits(0x7f80_0001),
        -1e-3,
        0.1,
    ]);
    let rows = x.len();
    let on_device = device.upload(&x).unwrap();
    let one = |view| Matrix::upload(&device, view).unwrap();
    let (f16s, bf16s) = ([f16::ONE], [bf16::ONE]);
    for (weight, round) in [
        (
            one(AnyView::F16(View::new(&f16s, [1, 1]).unwrap())),
            (|x| f16::from_f32(x).to_f32()) as fn(f32) -> f32,
        ),
        (one(AnyView::BF16(View::new(&bf16s, [1, 1]).unwrap())), |x| bf16::from_f32(x).to_f32()),
    ] {
        if weight.dtype() == DType::BF16 && device.capability() < (8, 0) {
            continue;
        }
        let mut out = device.zeros(rows).unwrap();
        let (from, to) = (Rows::all(&on_device, 1), RowsMut::all(&mut out, 1));
        library.matmul(rows, from, &weight, None, false, Precision::Tensor, to).unwrap();
        for (x, out) in x.iter().zip(out.to_vec().unwrap()) {
            let expected = round(*x);
            let same = out == expected || out.is_nan() && expected.is_nan();
            assert!(same, "{x}: {out}, not {expected}, {:?}", weight.dtype());
        }
    }
}

fn multiply(
    library: &CublasLt,
    rows: usize,
    x: &Buffer<f32>,
    weight: &Matrix,
    out: &mut Buffer<f32>,
) -> longmamba_cuda::Result<()> {
    let (x, out) = (Rows::all(x, weight.inputs()), RowsMut::all(out, weight.outputs()));
    library.matmul(rows, x, weight, None, false, Precision::Exact, out)
}

#[test]
fn what_does_not_fit_is_refused() {
    let Some((device, library)) = library() else { return };
    let ones = [1.0f32; 12];
    let upload = |device| Matrix::upload(device, AnyView::F32(View::new(&ones, [3, 4]).unwrap()));
    let weight = upload(&device).unwrap();
    let [x, mut out] = [40, 30].map(|len| device.zeros::<f32>(len).unwrap());
    multiply(&library, 10, &x, &weight, &mut out).unwrap();
    let error = multiply(&library, 11, &x, &weight, &mut out).unwrap_err();
    let past_the_end = ArgumentError::OutOfBounds { needed: Some(44), available: 40 };
    assert_eq!(error, Error::Argument(past_the_end));
    let other = upload(&Device::new(0).unwrap()).unwrap();
    assert_eq!(multiply(&library, 10, &x, &other, &mut out), Err(Error::OtherDevice));
    let recorded = device.capture(|| multiply(&library, 10, &x, &weight, &mut out)).map(drop);
    assert_eq!(recorded, Err(Error::NotRecordable { what: "a product of cuBLASLt" }));
    // Few rows are taken by our own kernel, which can be recorded.
    multiply(&library, 8, &x, &weight, &mut out).unwrap();
    device.capture(|| multiply(&library, 8, &x, &weight, &mut out)).unwrap().expect("a launch");
    // `x` may be one row for all.
    let row = Rows { buffer: &x, first: 0, width: 4, stride: 0 };
    let to = RowsMut::all(&mut out, 3);
    library.matmul(10, row, &weight, None, false, Precision::Exact, to).unwrap();
}

#[test]
fn a_library_that_is_not_there_is_an_error() {
    let device = common::device();
    // SAFETY: nothing is called, for neither has the functions.
    let load = |file| unsafe { CublasLt::load_from(&device, Path::new(file)) }.unwrap_err();
    let error = load("/no/such/libcublasLt.so.12");
    let Error::NoCublasLt { sought, .. } = &error else { panic!("{error}") };
    assert_eq!(sought, "/no/such/libcublasLt.so.12");
    assert!(error.to_string().contains("LD_LIBRARY_PATH"), "{error}");
    // One that is there, and something else.
    let error = load("libc.so.6");
    assert!(error.to_string().contains("cublasLtCreate"), "{error}");
}
