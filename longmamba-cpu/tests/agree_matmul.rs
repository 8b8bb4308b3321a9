//! `Cpu::matmul` against the oracle: every instruction set, element type and edge.

mod common;

use common::{Random, Strided, assert_same, cpus, with_threads};
use half::{bf16, f16};
use longmamba_core::{AnyView, DType, Element, Error, Layout, View, ViewMut, oracle};
use longmamba_cpu::{Accumulate, Cpu, Scratch};

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// A weight matrix of any element type, rows `gap` elements apart, the gaps NaN.
enum Weights {
    F32(Vec<f32>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
}

fn narrow<T: Element>(values: &[f32], inputs: usize, gap: usize) -> Vec<T> {
    let mut out = Vec::new();
    for row in values.chunks(inputs.max(1)) {
        out.extend(row.iter().map(|&v| T::from_f32(v)));
        out.extend(std::iter::repeat_n(T::from_f32(f32::NAN), gap));
    }
    out
}

impl Weights {
    fn new(dtype: DType, values: &[f32], inputs: usize, gap: usize) -> Self {
        match dtype {
            DType::F32 => Weights::F32(narrow(values, inputs, gap)),
            DType::F16 => Weights::F16(narrow(values, inputs, gap)),
            DType::BF16 => Weights::BF16(narrow(values, inputs, gap)),
        }
    }

    fn view(&self, outputs: usize, inputs: usize, gap: usize) -> AnyView<'_, 2> {
        let layout = Layout::strided([outputs, inputs], [inputs + gap, 1]).unwrap();
        match self {
            Weights::F32(w) => AnyView::F32(View::with_layout(w, layout).unwrap()),
            Weights::F16(w) => AnyView::F16(View::with_layout(w, layout).unwrap()),
            Weights::BF16(w) => AnyView::BF16(View::with_layout(w, layout).unwrap()),
        }
    }
}

/// One product, checked element by element. A sum of n products of which each and each addition is
/// rounded is off by at most about n·2⁻²⁴·Σ|x·w|, in whatever order it was taken.
fn check(cpu: Cpu, dtype: DType, shape: [usize; 3], gap: usize, add: bool) {
    check_as(cpu, dtype, shape, gap, add, false);
    if dtype == DType::BF16 {
        check_as(cpu, dtype, shape, gap, add, true);
    }
}

/// `rounded`: by `matmul_bf16`, whose x is a `bf16` before anything is multiplied.
fn check_as(
    cpu: Cpu,
    dtype: DType,
    [rows, inputs, outputs]: [usize; 3],
    gap: usize,
    add: bool,
    rounded: bool,
) {
    let mut random = Random::new((rows * 1_000_003 + inputs * 1009 + outputs) as u64);
    let x = random.vec(rows * inputs, -1.0, 1.0);
    let w = random.vec(outputs * inputs, -1.0, 1.0);
    let before = random.vec(rows * outputs, -1.0, 1.0);
    let x_at = Strided::rows(&x, [rows, inputs], gap);
    let mut out = Strided::rows(&before, [rows, outputs], gap);
    let weights = Weights::new(dtype, &w, inputs, gap);
    let w_view = weights.view(outputs, inputs, gap);
    let accumulate = if add { Accumulate::Yes } else { Accumulate::No };
    let scratch = &mut Scratch::new();
    match w_view {
        AnyView::BF16(w) if rounded => {
            cpu.matmul_bf16(x_at.view(), w, out.view_mut(), accumulate, scratch)
        }
        w => cpu.matmul(x_at.view(), w, out.view_mut(), accumulate, scratch),
    }
    .unwrap();
    let round = |&v: &f32| if rounded { bf16::from_f32(v).to_f32() } else { v };
    let x: Vec<f32> = x.iter().map(round).collect();

    let exact: Vec<f32> =
        (0..outputs * inputs).map(|i| w_view.get([i / inputs, i % inputs]).unwrap()).collect();
    let magnitude = |values: &[f32]| values.iter().map(|v| v.abs()).collect::<Vec<_>>();
    let product = |x: &[f32], w: &[f32]| {
        let x = View::new(x, [rows, inputs]).unwrap();
        oracle::linear(&x, &View::new(w, [outputs, inputs]).unwrap())
    };
    let expected = product(&x, &exact);
    let size = product(&magnitude(&x), &magnitude(&exact));
    let mut worst = (0.0, String::new());
    for (i, found) in out.values().into_iter().enumerate() {
        let start = if add { f64::from(before[i]) } else { 0.0 };
        let expected = expected[i] + start;
        let allowed = (inputs + 2) as f64 * 2f64.powi(-24) * (size[i] + start.abs()) + 1e-37;
        let excess = (f64::from(found) - expected).abs() / allowed;
        if excess.is_nan() || excess > worst.0 {
            let excess = if excess.is_nan() { f64::INFINITY } else { excess };
            worst = (excess, format!("element {i} is {found:e}, expected {expected:e}"));
        }
    }
    let shape = format!("{rows} x {inputs} -> {outputs}, gap {gap}, add {add}, rounded {rounded}");
    assert!(worst.0 <= 1.0, "{cpu:?} {dtype} {shape}: {}, {:.2} times the bound", worst.1, worst.0);
}

/// Every small combination, with gaps and without, overwriting and adding.
#[test]
fn small_shapes() {
    for cpu in cpus() {
        for dtype in DTYPES {
            for rows in [0, 1, 2, 3, 11, 12, 13, 18] {
                for inputs in [0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33] {
                    for (i, outputs) in [0, 1, 4, 7, 8, 9, 16, 17, 33].into_iter().enumerate() {
                        check(
                            cpu,
                            dtype,
                            [rows, inputs, outputs],
                            i % 2 * 3,
                            (i + inputs) % 2 == 1,
                        );
                    }
                }
            }
        }
    }
}

/// Around the tiles, panels and row blocks of the prefill, and the groups of the decode.
#[test]
fn large_shapes() {
    for cpu in cpus() {
        for dtype in DTYPES {
            for shape in [
                [1, 768, 130],
                [7, 513, 41],
                [11, 96, 67],
                [12, 255, 31],
                [13, 257, 65],
                [14, 511, 48],
                [15, 512, 15],
                [16, 513, 33],
                [25, 1025, 17],
                [24, 96, 524],
                [264, 40, 20],
                [265, 33, 9],
                [530, 17, 33],
                [13, 2049, 34],
                [12, 4100, 3],
            ] {
                check(cpu, dtype, shape, 0, false);
                check(cpu, dtype, shape, 5, true);
            }
        }
    }
}

fn product(
    cpu: Cpu,
    x: &[f32],
    w: AnyView<'_, 2>,
    [rows, inputs, outputs]: [usize; 3],
) -> Vec<f32> {
    let mut out = vec![f32::NAN; rows * outputs];
    let x = View::new(x, [rows, inputs]).unwrap();
    let view = ViewMut::new(&mut out, [rows, outputs]).unwrap();
    cpu.matmul(x, w, view, Accumulate::No, &mut Scratch::new()).unwrap();
    out
}

/// As [`product`], rounded.
fn rounded(cpu: Cpu, x: &[f32], w: &Weights, [rows, inputs, outputs]: [usize; 3]) -> Vec<f32> {
    let mut out = vec![f32::NAN; rows * outputs];
    let x = View::new(x, [rows, inputs]).unwrap();
    let view = ViewMut::new(&mut out, [rows, outputs]).unwrap();
    let AnyView::BF16(w) = w.view(outputs, inputs, 0) else { panic!("bf16 weights only") };
    cpu.matmul_bf16(x, w, view, Accumulate::No, &mut Scratch::new()).unwrap();
    out
}

/// Shapes that are cut along outputs, along rows, and along the groups of the decode.
#[test]
fn threads_change_nothing() {
    for cpu in cpus() {
        for shape in [[64, 96, 524], [600, 200, 40], [1, 500, 2003], [5, 768, 700]] {
            let [rows, inputs, outputs] = shape;
            let mut random = Random::new(7);
            let x = random.vec(rows * inputs, -1.0, 1.0);
            let w = Weights::new(DType::BF16, &random.vec(outputs * inputs, -1.0, 1.0), inputs, 0);
            let run = |threads| {
                let view = w.view(outputs, inputs, 0);
                with_threads(threads, || product(cpu, &x, view, shape))
            };
            let run_rounded = |threads| with_threads(threads, || rounded(cpu, &x, &w, shape));
            let (one, one_rounded) = (run(1), run_rounded(1));
            for threads in [2, 3, 7] {
                let what = format!("{cpu:?} {shape:?}, {threads} threads");
                assert_same(&what, &run(threads), &one);
                assert_same(&what, &run_rounded(threads), &one_rounded);
            }
        }
    }
}

/// A row's result does not depend on the rows around it, as long as the method is the same.
#[test]
fn rows_are_independent() {
    for cpu in cpus() {
        let (inputs, outputs) = (77, 45);
        let mut random = Random::new(8);
        let x = random.vec(31 * inputs, -1.0, 1.0);
        let w = Weights::new(DType::F16, &random.vec(outputs * inputs, -1.0, 1.0), inputs, 0);
        let run = |from: usize, to: usize| {
            let x = &x[from * inputs..to * inputs];
            product(cpu, x, w.view(outputs, inputs, 0), [to - from, inputs, outputs])
        };
        for (from, to) in [(0, 12), (7, 20), (18, 31)] {
            let whole = run(0, 31);
            assert_same("prefill", &run(from, to), &whole[from * outputs..to * outputs]);
        }
        for (from, to) in [(0, 11), (3, 8), (4, 6)] {
            for row in from..to {
                let at = (row - from) * outputs;
                assert_same("decode", &run(from, to)[at..at + outputs], &run(row, row + 1));
            }
        }
    }
}

/// A NaN in x shows in its row and nowhere else, one in w in its output and nowhere else.
#[test]
fn nan_stays_where_it_belongs() {
    for cpu in cpus() {
        for (rows, inputs, outputs) in [(3, 21, 19), (13, 21, 19), (13, 600, 35)] {
            for k in [0, inputs / 2, inputs - 1] {
                let (row, output) = (rows - 2, outputs - 2);
                let mut x = vec![1.0; rows * inputs];
                let mut w = vec![1.0; outputs * inputs];
                x[row * inputs + k] = f32::NAN;
                w[output * inputs + k] = f32::NAN;
                for (dtype, round) in
                    DTYPES.map(|d| (d, false)).into_iter().chain([(DType::BF16, true)])
                {
                    let weights = Weights::new(dtype, &w, inputs, 0);
                    let shape = [rows, inputs, outputs];
                    let out = match round {
                        true => rounded(cpu, &x, &weights, shape),
                        false => product(cpu, &x, weights.view(outputs, inputs, 0), shape),
                    };
                    for (i, v) in out.iter().enumerate() {
                        let tainted = i / outputs == row || i % outputs == output;
                        assert_eq!(v.is_nan(), tainted, "{cpu:?} {dtype} {shape:?} element {i}");
                    }
                }
            }
        }
    }
}

#[test]
fn arguments_are_checked_by_name() {
    let (x, w, mut out) = ([0.0; 6], [0.0; 12], [0.0; 8]);
    let mut run = |x_shape, w_shape, out_shape| {
        let x: View<'_, f32, 2> = View::new(&x, x_shape).unwrap();
        let w = AnyView::F32(View::new(&w, w_shape).unwrap());
        let out = ViewMut::new(&mut out, out_shape).unwrap();
        Cpu::new().matmul(x, w, out, Accumulate::No, &mut Scratch::new()).map_err(|e| e.to_string())
    };
    assert_eq!(run([2, 3], [4, 3], [2, 4]), Ok(()));
    assert_eq!(run([2, 3], [6, 2], [2, 4]).unwrap_err(), "w has shape [6, 2], expected [6, 3]");
    assert_eq!(run([2, 3], [4, 3], [4, 2]).unwrap_err(), "out has shape [4, 2], expected [2, 4]");
    let turned = View::new(&x, [3, 2]).unwrap().permute([1, 0]).unwrap();
    let w = AnyView::F32(View::new(&w, [4, 3]).unwrap());
    let out = ViewMut::new(&mut out, [2, 4]).unwrap();
    let result = Cpu::new().matmul(turned, w, out, Accumulate::No, &mut Scratch::new());
    assert_eq!(result, Err(Error::NotContiguous { tensor: "x" }));
}
