//! Gate, residual, embedding and Δ against their formulas in f64.

mod common;
#[path = "common/rows.rs"]
mod rows;

use common::device;
use half::{bf16, f16};
use longmamba_core::{DtLimits, Element, oracle};
use longmamba_cuda::{Activation, Error, TableElement};
use proptest::prelude::*;
use rows::{Random, Stored, assert_close, assert_same, rounded};

/// Around a thread's four columns, a block's width, and one that goes round again.
const WIDTHS: [usize; 13] = [0, 1, 2, 3, 4, 5, 8, 31, 64, 255, 256, 1023, 1028];
const ROWS: [usize; 5] = [0, 1, 2, 7, 65];
/// Between rows: those of 4 and 0 leave everything aligned where the width is.
const GAPS: [usize; 4] = [0, 1, 3, 4];

fn every_shape(mut check: impl FnMut(usize, usize, usize)) {
    for (i, rows) in ROWS.into_iter().enumerate() {
        for (j, width) in WIDTHS.into_iter().enumerate() {
            check(rows, width, GAPS[(i + j) % GAPS.len()]);
        }
    }
}

#[test]
fn copy_and_residual() {
    let device = device();
    every_shape(|rows, width, gap| {
        let mut random = Random::new((rows * 1000 + width) as u64);
        let (x, before) =
            (random.vec(rows * width, -3.0, 3.0), random.vec(rows * width, -3.0, 3.0));
        for accumulate in [false, true] {
            let from = Stored::<f32>::new(&device, &x, width, gap);
            let mut to = Stored::<f32>::new(&device, &before, width, 4);
            device.copy(rows, from.rows(), accumulate, to.rows_mut()).unwrap();
            let sum = |(x, b): (&f32, &f32)| if accumulate { x + b } else { *x };
            let expected: Vec<f32> = x.iter().zip(&before).map(sum).collect();
            assert_same(&format!("{rows} × {width}, {gap}"), &to.values(), &expected);
        }
    });
}

#[test]
fn gates() {
    let device = device();
    every_shape(|rows, width, gap| {
        let mut random = Random::new((rows * 1000 + width) as u64);
        let y = random.vec(rows * width, -3.0, 3.0);
        let z = random.vec(rows * width, -12.0, 12.0);
        for activation in [Activation::Silu, Activation::Gelu] {
            let function = match activation {
                Activation::Silu => oracle::silu,
                Activation::Gelu => oracle::gelu,
            };
            let (a, b) = (Stored::<f32>::new(&device, &y, width, gap), &z);
            let b = Stored::<f32>::new(&device, b, width, 0);
            let mut out = Stored::<f32>::new(&device, &vec![7.0; rows * width], width, gap);
            device.gate(rows, a.rows(), b.rows(), activation, out.rows_mut()).unwrap();
            let value = |(&y, &z): (&f32, &f32)| f64::from(y) * function(f64::from(z));
            let expected: Vec<f64> = y.iter().zip(&z).map(value).collect();
            let what = format!("{activation:?} {rows} × {width}, {gap}");
            // The oracle's series for Φ cancels from -6 on.
            assert_close(&what, &out.values(), &expected, 1e-9, 1e-6);
        }
    });
}

/// NaN, and what an exponential does far out.
#[test]
fn gates_of_special_values() {
    let device = device();
    let z = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1e30, -200.0, -90.0, 90.0, 0.0];
    let (ones, z_) = (Stored::<f32>::new(&device, &[1.0; 8], 8, 0), z);
    let z = Stored::<f32>::new(&device, &z, 8, 0);
    for activation in [Activation::Silu, Activation::Gelu] {
        let mut out = Stored::<f32>::new(&device, &[7.0; 8], 8, 0);
        device.gate(1, ones.rows(), z.rows(), activation, out.rows_mut()).unwrap();
        let out = out.values();
        for (&z, &gate) in z_.iter().zip(&out) {
            let right = match z {
                z if z.is_nan() || z == f32::NEG_INFINITY => gate.is_nan(),
                z if z < 0.0 => (-1e-30..=0.0).contains(&gate),
                z => gate == z,
            };
            assert!(right, "{activation:?} of {z} is {gate}");
        }
    }
    let nan = Stored::<f32>::new(&device, &[f32::NAN; 8], 8, 0);
    let mut out = Stored::<f32>::new(&device, &[7.0; 8], 8, 0);
    device.gate(1, nan.rows(), ones.rows(), Activation::Silu, out.rows_mut()).unwrap();
    assert!(out.values().iter().all(|v| v.is_nan()));
}

#[test]
fn delta() {
    let device = device();
    let limits = [DtLimits::default(), DtLimits { min: 0.01, max: 3.0 }];
    every_shape(|rows, width, gap| {
        let mut random = Random::new((rows * 1000 + width) as u64);
        let raw = random.vec(rows * width, -30.0, 30.0);
        let bias = random.vec(width, -2.0, 2.0);
        let on_device = device.upload(&bias).unwrap();
        for limits in limits {
            for with_bias in [true, false] {
                let dt_raw = Stored::<f32>::new(&device, &raw, width, gap);
                let mut out = Stored::<f32>::new(&device, &vec![7.0; rows * width], width, 0);
                let given = with_bias.then_some(&on_device);
                device.delta(rows, dt_raw.rows(), given, limits, out.rows_mut()).unwrap();
                let value = |(i, &raw): (usize, &f32)| {
                    let bias = if with_bias { bias[i % width] } else { 0.0 };
                    let delta = oracle::softplus(f64::from(raw + bias));
                    delta.clamp(limits.min.into(), limits.max.into())
                };
                let expected: Vec<f64> = raw.iter().enumerate().map(value).collect();
                let what = format!("{limits:?} {rows} × {width}, {gap}");
                assert_close(&what, &out.values(), &expected, 0.0, 1e-6);
            }
        }
    });
    let nan = Stored::<f32>::new(&device, &[f32::NAN], 1, 0);
    let mut out = Stored::<f32>::new(&device, &[7.0], 1, 0);
    device.delta(1, nan.rows(), None, limits[1], out.rows_mut()).unwrap();
    assert!(out.values()[0].is_nan());
}

fn gather_one<T: Element + TableElement>(rows: usize, width: usize, gap: usize) {
    let device = device();
    let (entries, mut random) = (50, Random::new(width as u64));
    let table = rounded::<T>(&random.vec(entries * width, -3.0, 3.0));
    let tokens: Vec<u32> = (0..rows).map(|_| random.uniform(0.0, 49.99) as u32).collect();
    let on_device = Stored::<T>::new(&device, &table, width, gap);
    let ids = device.upload(&tokens).unwrap();
    let mut out = Stored::<f32>::new(&device, &vec![7.0; rows * width], width, 4);
    device.gather_rows(on_device.rows(), entries, &ids, rows, out.rows_mut()).unwrap();
    let expected: Vec<f32> =
        tokens.iter().flat_map(|&t| &table[t as usize * width..][..width]).copied().collect();
    assert_same(&format!("{} {rows} × {width}, {gap}", T::DTYPE), &out.values(), &expected);
}

#[test]
fn embedding() {
    every_shape(|rows, width, gap| {
        if width > 0 {
            gather_one::<f32>(rows, width, gap);
            gather_one::<f16>(rows, width, gap);
            gather_one::<bf16>(rows, width, gap);
        }
    });
}

/// The mark of a failed draw, and the first that the table does not have.
#[test]
fn a_token_that_is_not_in_the_table_gives_nan() {
    let device = device();
    let table = Stored::<f16>::new(&device, &[1.0; 24], 8, 0);
    let tokens = device.upload(&[2, 3, u32::MAX]).unwrap();
    let mut out = Stored::<f32>::new(&device, &[7.0; 24], 8, 1);
    device.gather_rows(table.rows(), 3, &tokens, 3, out.rows_mut()).unwrap();
    let out = out.values();
    assert!(out[..8].iter().all(|&v| v == 1.0) && out[8..].iter().all(|v| v.is_nan()), "{out:?}");
}

#[test]
fn arguments_are_checked() {
    let device = device();
    let x = Stored::<f32>::new(&device, &[1.0; 12], 4, 0);
    let argument = |result: Result<(), Error>| assert!(matches!(result, Err(Error::Argument(_))));
    let mut out = Stored::<f32>::new(&device, &[7.0; 12], 4, 0);
    argument(device.copy(4, x.rows(), false, out.rows_mut()));
    argument(device.copy(3, x.rows().part(0, 3), false, out.rows_mut()));
    argument(device.gate(3, x.rows(), x.rows().part(1, 4), Activation::Silu, out.rows_mut()));
    let bias = device.upload(&[0.0; 3]).unwrap();
    let limits = DtLimits { min: 2.0, max: 1.0 };
    argument(device.delta(3, x.rows(), Some(&bias), DtLimits::default(), out.rows_mut()));
    argument(device.delta(3, x.rows(), None, limits, out.rows_mut()));
    let tokens = device.upload(&[0; 2]).unwrap();
    argument(device.gather_rows(x.rows(), 3, &tokens, 3, out.rows_mut()));
    argument(device.gather_rows(x.rows(), 4, &tokens, 2, out.rows_mut()));
    assert_same("untouched", &out.values(), &[7.0; 12]);
}

/// Random numbers are 0 once in a while, and then nothing at all is allowed.
#[test]
fn zero_is_close_to_zero_only() {
    assert_close("zero", &[-0.0], &[0.0], 0.0, 1e-6);
    for value in [f32::MIN_POSITIVE, f32::NAN] {
        let compared = std::panic::catch_unwind(|| assert_close("", &[value], &[0.0], 0.0, 1e-6));
        assert!(compared.is_err(), "{value:e} is not 0");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_shape(rows in 0usize..40, width in 1usize..700, gap in 0usize..9, seed: u64) {
        let device = device();
        let mut random = Random::new(seed);
        let y = random.vec(rows * width, -3.0, 3.0);
        let z = random.vec(rows * width, -6.0, 6.0);
        let a = Stored::<f32>::new(&device, &y, width, gap);
        let b = Stored::<f32>::new(&device, &z, width, 0);
        let mut out = Stored::<f32>::new(&device, &vec![7.0; rows * width], width, gap);
        device.gate(rows, a.rows(), b.rows(), Activation::Silu, out.rows_mut()).unwrap();
        let value = |(&y, &z): (&f32, &f32)| f64::from(y) * oracle::silu(f64::from(z));
        let expected: Vec<f64> = y.iter().zip(&z).map(value).collect();
        assert_close("gate", &out.values(), &expected, 0.0, 1e-6);
    }
}
