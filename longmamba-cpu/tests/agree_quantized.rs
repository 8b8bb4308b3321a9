//! Quantised weights: what they are made of, and their products against the oracle.

mod common;

use common::{Random, Strided, assert_same, cpus, with_threads};
use half::{bf16, f16};
use longmamba_core::{AnyView, Error, View, ViewMut, oracle};
use longmamba_cpu::{Accumulate, Cpu, Quantization, Quantized, Scratch};
use proptest::prelude::*;

const KINDS: [Quantization; 2] = [Quantization::Int8, Quantization::Int4];

fn quantized(kind: Quantization, w: &[f32], shape: [usize; 2]) -> Quantized {
    Quantized::new(kind, AnyView::F32(View::new(w, shape).unwrap())).unwrap()
}

/// All weights, `scale · q`.
fn rows(w: &Quantized) -> Vec<f32> {
    let [outputs, inputs] = w.shape();
    let mut all = vec![f32::NAN; outputs * inputs];
    for (output, row) in all.chunks_exact_mut(inputs.max(1)).enumerate() {
        w.row(output, row);
    }
    all
}

fn multiply(
    cpu: Cpu,
    rounded: bool,
    x: View<'_, f32, 2>,
    w: &Quantized,
    out: ViewMut<'_, f32, 2>,
    accumulate: Accumulate,
) {
    let scratch = &mut Scratch::new();
    match rounded {
        true => cpu.matmul_quantized_bf16(x, w, out, accumulate, scratch),
        false => cpu.matmul_quantized(x, w, out, accumulate, scratch),
    }
    .unwrap();
}

/// From so many rows on x and the weights are rounded, where rounding is asked for; below, x alone, for 4 bits.
const ROUNDED_ROWS: usize = 12;

/// One product, element by element. As in the test of `matmul`: a sum of n products is off by at most about
/// n·2⁻²⁴·Σ|x·w|; the scale adds a rounding to each block.
fn check(cpu: Cpu, kind: Quantization, [rows_, inputs, outputs]: [usize; 3], rounded: bool) {
    let mut random = Random::new((rows_ * 1_000_003 + inputs * 1009 + outputs) as u64);
    let x = random.vec(rows_ * inputs, -1.0, 1.0);
    // Blocks of very different sizes.
    let mut w = random.vec(outputs * inputs, -1.0, 1.0);
    w.iter_mut().enumerate().for_each(|(i, v)| *v *= (((i / 32) % 7) as f32 - 3.0).exp2());
    let before = random.vec(rows_ * outputs, -1.0, 1.0);
    let w = quantized(kind, &w, [outputs, inputs]);
    let gap = (inputs + outputs) % 3;
    let add = (inputs + rows_) % 2 == 1;
    let x_at = Strided::rows(&x, [rows_, inputs], gap);
    let mut out = Strided::rows(&before, [rows_, outputs], gap);
    let accumulate = if add { Accumulate::Yes } else { Accumulate::No };
    multiply(cpu, rounded, x_at.view(), &w, out.view_mut(), accumulate);

    let many = rows_ >= ROUNDED_ROWS;
    let narrow = |values: &[f32], rounds: bool| -> Vec<f32> {
        values.iter().map(|&v| if rounds { bf16::from_f32(v).to_f32() } else { v }).collect()
    };
    let x = narrow(&x, rounded && (many || kind == Quantization::Int4));
    let w = narrow(&rows(&w), rounded && many);
    let magnitude = |values: &[f32]| values.iter().map(|v| v.abs()).collect::<Vec<_>>();
    let product = |x: &[f32], w: &[f32]| {
        let x = View::new(x, [rows_, inputs]).unwrap();
        oracle::linear(&x, &View::new(w, [outputs, inputs]).unwrap())
    };
    let (expected, size) = (product(&x, &w), product(&magnitude(&x), &magnitude(&w)));
    for (i, found) in out.values().into_iter().enumerate() {
        let start = if add { f64::from(before[i]) } else { 0.0 };
        let allowed = (inputs + 3) as f64 * 2f64.powi(-24) * (size[i] + start.abs()) + 1e-37;
        let excess = (f64::from(found) - expected[i] - start).abs() / allowed;
        let shape = format!("{rows_} x {inputs} -> {outputs}, rounded {rounded}");
        assert!(
            excess <= 1.0,
            "{cpu:?} {kind:?} {shape}: element {i} is {found:e}, expected {:e}",
            expected[i] + start
        );
    }
}

#[test]
fn products_agree_with_the_oracle() {
    for cpu in cpus() {
        for kind in KINDS {
            for inputs in [0, 1, 31, 32, 33, 63, 64, 65, 129] {
                for outputs in [0, 1, 15, 16, 17, 33] {
                    for rows in [0, 1, 2, 3, 5, 11, 12, 13, 25] {
                        check(cpu, kind, [rows, inputs, outputs], false);
                        check(cpu, kind, [rows, inputs, outputs], true);
                    }
                }
            }
            // Around panels and row blocks.
            for shape in [
                [1, 768, 17],
                [3, 768, 33],
                [12, 1025, 17],
                [13, 2049, 34],
                [12, 4100, 3],
                [530, 33, 65],
            ] {
                check(cpu, kind, shape, false);
                check(cpu, kind, shape, true);
            }
        }
    }
}

fn product(cpu: Cpu, rounded: bool, x: &[f32], w: &Quantized) -> Vec<f32> {
    let [outputs, inputs] = w.shape();
    let mut out = vec![f32::NAN; x.len() / inputs * outputs];
    let x = View::new(x, [x.len() / inputs, inputs]).unwrap();
    let view = ViewMut::new(&mut out, [x.shape()[0], outputs]).unwrap();
    multiply(cpu, rounded, x, w, view, Accumulate::No);
    out
}

#[test]
fn threads_and_other_rows_change_nothing() {
    for cpu in cpus() {
        for kind in KINDS {
            for [rows, inputs, outputs] in
                [[64, 96, 524], [600, 200, 40], [1, 500, 2003], [5, 768, 700]]
            {
                let mut random = Random::new(7);
                let x = random.vec(rows * inputs, -1.0, 1.0);
                let w = random.vec(outputs * inputs, -1.0, 1.0);
                let w = quantized(kind, &w, [outputs, inputs]);
                for rounded in [false, true] {
                    let run = |threads| with_threads(threads, || product(cpu, rounded, &x, &w));
                    let one = run(1);
                    for threads in [2, 3, 7] {
                        assert_same(
                            &format!("{cpu:?} {kind:?}, {threads} threads"),
                            &run(threads),
                            &one,
                        );
                    }
                    if rows < ROUNDED_ROWS {
                        let last = product(cpu, rounded, &x[(rows - 1) * inputs..], &w);
                        assert_same("the last row", &last, &one[(rows - 1) * outputs..]);
                    }
                }
            }
        }
    }
}

#[test]
fn nan_stays_in_its_row() {
    for cpu in cpus() {
        for kind in KINDS {
            for (rows, inputs, outputs) in [(3, 65, 19), (13, 65, 19), (13, 600, 35)] {
                let w = quantized(kind, &vec![1.0; outputs * inputs], [outputs, inputs]);
                for k in [0, inputs / 2, inputs - 1] {
                    let mut x = vec![1.0; rows * inputs];
                    x[(rows - 2) * inputs + k] = f32::NAN;
                    for rounded in [false, true] {
                        for (i, v) in product(cpu, rounded, &x, &w).iter().enumerate() {
                            assert_eq!(v.is_nan(), i / outputs == rows - 2, "{cpu:?} {kind:?} {i}");
                        }
                    }
                }
            }
        }
    }
}

/// What a weight may differ by: half of its block's scale, and in 4 bits the whole of it at one end. Scales
/// are less than 1/126 and 1/6.9 of the largest weight; below 2⁻¹³³ · 127 they are whole multiples of that.
fn assert_near(kind: Quantization, w: &[f32], found: &[f32]) {
    for (w, found) in w.chunks(32).zip(found.chunks(32)) {
        let largest = w.iter().fold(0.0f64, |most, v| most.max(f64::from(*v).abs()));
        for (w, found) in w.iter().zip(found) {
            let off = (f64::from(*w) - f64::from(*found)).abs();
            let tiny = 2f64.powi(-133);
            let allowed = match kind {
                Quantization::Int8 => 0.5 * (largest / 126.0 + tiny),
                Quantization::Int4 if f64::from(*w).abs() <= largest * 7.4 / 8.0 => {
                    0.5 * (largest / 6.9 + tiny)
                }
                Quantization::Int4 => largest / 7.9 + tiny,
            };
            assert!(off <= allowed, "{kind:?} {w:e} became {found:e}, largest {largest:e}");
        }
    }
}

proptest! {
    #[test]
    fn weights_stay_near(
        values in prop::collection::vec(-1.0f32..1.0, 1..200),
        exponent in -126i32..126,
        outputs in 1usize..4,
    ) {
        let inputs = values.len().div_ceil(outputs);
        let w: Vec<f32> =
            (0..outputs * inputs).map(|i| values[i % values.len()] * (exponent as f32).exp2()).collect();
        for kind in KINDS {
            let found = rows(&quantized(kind, &w, [outputs, inputs]));
            for (w, found) in w.chunks(inputs).zip(found.chunks(inputs)) {
                assert_near(kind, w, found);
            }
        }
    }
}

/// Blocks of zeros, subnormal and largest numbers, one value, and weights that codes give exactly.
#[test]
fn blocks_at_the_ends() {
    for kind in KINDS {
        let row = |w: &[f32]| rows(&quantized(kind, w, [1, w.len()]));
        assert_same("zeros", &row(&[0.0; 40]), &[0.0; 40]);
        for value in [1e-45, -3e-42, 1e-38, 1.7e38, -1.7e38, 1.0, -0.7] {
            let mut w = [0.0; 70];
            (w[3], w[69]) = (value, -value);
            assert_near(kind, &w, &row(&w));
        }
        let (most, step) = if kind == Quantization::Int8 { (127, 0.25) } else { (7, -0.5) };
        let exact: Vec<f32> =
            (0..64).map(|i| ((i * 5) % (2 * most + 1) - most) as f32 * step).collect();
        let exact = if kind == Quantization::Int8 { &exact[..32] } else { &exact[..] };
        let mut exact = exact.to_vec();
        exact.chunks_mut(32).for_each(|block| block[7] = most as f32 * step);
        assert_eq!(row(&exact), exact);
        assert_eq!(
            quantized(kind, &[1.0; 768 * 3], [3, 768]).bytes() * 8,
            match kind {
                Quantization::Int8 => 3 * 768 * 17 / 2,
                Quantization::Int4 => 3 * 768 * 9 / 2,
            }
        );
    }
}

#[test]
fn every_type_of_weights_is_read() {
    let values: Vec<f32> = (0..130).map(|i| (i as f32 - 60.0) / 64.0).collect();
    let f16s: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
    let bf16s: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
    for kind in KINDS {
        let expected = rows(&quantized(kind, &values, [2, 65]));
        for w in [
            AnyView::F16(View::new(&f16s, [2, 65]).unwrap()),
            AnyView::BF16(View::new(&bf16s, [2, 65]).unwrap()),
        ] {
            assert_same("halves", &rows(&Quantized::new(kind, w).unwrap()), &expected);
        }
    }
}

#[test]
fn what_is_not_finite_is_named() {
    for kind in KINDS {
        for value in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.8e38] {
            for index in [0, 64, 69, 70, 139] {
                let mut w = [0.5; 140];
                w[index] = value;
                let error = Quantized::new(kind, AnyView::F32(View::new(&w, [2, 70]).unwrap()));
                let Err(Error::Value { tensor: "w", index: found, .. }) = error else {
                    panic!("{error:?}")
                };
                assert_eq!(found, index);
            }
        }
    }
}

#[test]
fn arguments_are_checked_by_name() {
    let (x, mut out) = ([0.0; 6], [0.0; 8]);
    let mut run = |x_shape, w_shape: [usize; 2], out_shape| {
        let x: View<'_, f32, 2> = View::new(&x, x_shape).unwrap();
        let w = quantized(Quantization::Int4, &[0.0; 12], w_shape);
        let out = ViewMut::new(&mut out, out_shape).unwrap();
        let result = Cpu::new().matmul_quantized(x, &w, out, Accumulate::No, &mut Scratch::new());
        result.map_err(|e| e.to_string())
    };
    assert_eq!(run([2, 3], [4, 3], [2, 4]), Ok(()));
    assert_eq!(run([2, 3], [6, 2], [2, 4]).unwrap_err(), "w has shape [6, 2], expected [6, 3]");
    assert_eq!(run([2, 3], [4, 3], [4, 2]).unwrap_err(), "out has shape [4, 2], expected [2, 4]");
}
