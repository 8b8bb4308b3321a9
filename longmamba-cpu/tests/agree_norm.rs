//! Norms, gate, residual and embedding against the oracle, on every instruction set.

mod common;

use common::{Random, Strided, assert_close, assert_same, cpus, with_threads};
use half::{bf16, f16};
use longmamba_core::{AnyView, Element, Error, Layout, View, ViewMut, oracle};
use longmamba_cpu::{Activation, Cpu};

/// Around vectors of 4, 8 and 16 lanes and blocks of four of them.
const WIDTHS: [usize; 16] = [0, 1, 3, 4, 5, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 193];

/// A norm's relative error: the sum (some roundings, all of one sign), a square root, a division, two
/// products. The gate adds its 4 ULP.
const TOLERANCE: f64 = 2e-6;

#[test]
fn rms_norm() {
    for cpu in cpus() {
        for width in WIDTHS {
            for (rows, gap) in [(0, 0), (1, 0), (3, 0), (3, 5)] {
                let mut random = Random::new(width as u64);
                let x = Strided::rows(&random.vec(rows * width, -3.0, 3.0), [rows, width], gap);
                let weight = random.vec(width, 0.5, 1.5);
                let mut out = Strided::rows(&vec![f32::NAN; rows * width], [rows, width], gap);
                cpu.rms_norm(x.view(), &weight, 1e-5, out.view_mut()).unwrap();
                let what = format!("{cpu:?} {rows} x {width}, gap {gap}");
                // The mean over nothing is left to the kernel: it must only not fail.
                let expected = match width {
                    0 => Vec::new(),
                    _ => oracle::rms_norm(&x.view(), &weight, 1e-5),
                };
                assert_close(&what, &out.values(), &expected, 1e-30, TOLERANCE);
            }
        }
    }
}

#[test]
fn gated_rms_norm() {
    for cpu in cpus() {
        for group in WIDTHS.into_iter().filter(|&g| g > 0) {
            for (rows, groups, gap) in [(0, 1, 0), (1, 1, 0), (2, 3, 0), (3, 2, 7)] {
                let (width, mut random) = (group * groups, Random::new(group as u64));
                let mut input = |low, high| {
                    Strided::rows(&random.vec(rows * width, low, high), [rows, width], gap)
                };
                let (y, z) = (input(-3.0, 3.0), input(-20.0, 20.0));
                let weight = random.vec(width, 0.5, 1.5);
                let mut out = Strided::rows(&vec![f32::NAN; rows * width], [rows, width], gap);
                cpu.gated_rms_norm(y.view(), z.view(), &weight, group, 1e-5, out.view_mut())
                    .unwrap();
                let what = format!("{cpu:?} {rows} x {groups} groups of {group}, gap {gap}");
                let expected = oracle::gated_rms_norm(&y.view(), &z.view(), &weight, group, 1e-5);
                assert_close(&what, &out.values(), &expected, 1e-30, TOLERANCE);
            }
        }
    }
}

/// The mean is rounded to its own size, which then weighs against the deviations: so does the tolerance.
#[test]
fn layer_norm() {
    for cpu in cpus() {
        for width in WIDTHS {
            for (rows, gap) in [(0, 0), (1, 0), (3, 5)] {
                for (centre, spread) in [(0.0, 3.0), (-1.0, 0.5), (1000.0, 1.0), (0.0, 1e-4)] {
                    let (shape, mut random) = ([rows, width], Random::new(width as u64));
                    let values = random.vec(rows * width, centre - spread, centre + spread);
                    let x = Strided::rows(&values, shape, gap);
                    let (weight, bias) = (random.vec(width, 0.5, 1.5), random.vec(width, -1., 1.));
                    let mut out = Strided::rows(&vec![f32::NAN; rows * width], shape, gap);
                    cpu.layer_norm(x.view(), &weight, &bias, 1e-5, out.view_mut()).unwrap();
                    let out = out.values();
                    for r in 0..if width == 0 { 0 } else { rows } {
                        let row = r * width..(r + 1) * width;
                        let (expected, centre) =
                            layer_norm_reference(&values[row.clone()], &weight, &bias, 1e-5);
                        let what = format!("{cpu:?} {rows} x {width} around {centre}, gap {gap}");
                        let atol = TOLERANCE + 6e-7 * centre.abs();
                        assert_close(&what, &out[row], &expected, atol, TOLERANCE);
                    }
                }
            }
        }
        // No deviation: the bias is left, to within rounding times 1 / sqrt(eps).
        let (x, ones, bias) = ([0.7; 33], [1.0; 33], Random::new(1).vec(33, -1.0, 1.0));
        let mut out = [f32::NAN; 33];
        let to = ViewMut::new(&mut out, [1, 33]).unwrap();
        cpu.layer_norm(View::new(&x, [1, 33]).unwrap(), &ones, &bias, 1e-5, to).unwrap();
        let expected: Vec<f64> = bias.iter().map(|&b| b.into()).collect();
        assert_close(&format!("{cpu:?} constant"), &out, &expected, 1e-4, 0.0);
    }
}

/// One row, and its mean in units of the deviation.
fn layer_norm_reference(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> (Vec<f64>, f64) {
    let width = x.len() as f64;
    let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / width;
    let variance = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / width;
    let scale = 1.0 / (variance + f64::from(eps)).sqrt();
    let affine =
        |i: usize| (f64::from(x[i]) - mean) * scale * f64::from(weight[i]) + f64::from(bias[i]);
    ((0..x.len()).map(affine).collect(), mean * scale)
}

#[test]
fn gate_and_add() {
    for cpu in cpus() {
        for width in WIDTHS {
            for (rows, gap) in [(0, 0), (1, 0), (3, 5)] {
                let (shape, mut random) = ([rows, width], Random::new(width as u64));
                let y = Strided::rows(&random.vec(rows * width, -3.0, 3.0), shape, gap);
                let z = Strided::rows(&random.vec(rows * width, -20.0, 20.0), shape, gap);
                let what = format!("{cpu:?} {rows} x {width}, gap {gap}");
                let pairs: Vec<_> = y.values().into_iter().zip(z.values()).collect();

                let mut out = Strided::rows(&vec![f32::NAN; rows * width], shape, gap);
                cpu.gate(y.view(), z.view(), Activation::Silu, out.view_mut()).unwrap();
                let gated = |&(y, z): &(f32, f32)| f64::from(y) * oracle::silu(z.into());
                let expected: Vec<f64> = pairs.iter().map(gated).collect();
                assert_close(&what, &out.values(), &expected, 1e-30, TOLERANCE);

                // Φ is a formula within 1.5e-7, absolutely: see `gelu`.
                let mut out = Strided::rows(&vec![f32::NAN; rows * width], shape, gap);
                cpu.gate(y.view(), z.view(), Activation::Gelu, out.view_mut()).unwrap();
                let gated = |&(y, z): &(f32, f32)| f64::from(y) * oracle::gelu(z.into());
                let expected: Vec<f64> = pairs.iter().map(gated).collect();
                assert_close(&what, &out.values(), &expected, 3.0 * 20.0 * 2e-7, TOLERANCE);

                let mut out = Strided::rows(&vec![f32::NAN; rows * width], shape, gap);
                cpu.copy(z.view(), out.view_mut()).unwrap();
                assert_same(&what, &out.values(), &z.values());

                let mut out = y.clone();
                cpu.add(z.view(), out.view_mut()).unwrap();
                let expected: Vec<f32> = pairs.iter().map(|(y, z)| y + z).collect();
                assert_same(&what, &out.values(), &expected);
            }
        }
    }
}

/// A table with gaps of 3 between its rows.
fn table<T: Element>(values: &[f32], [entries, width]: [usize; 2]) -> (Vec<T>, Layout<2>) {
    let layout = Layout::strided([entries, width], [width + 3, 1]).unwrap();
    let mut data = vec![T::from_f32(f32::NAN); layout.span()];
    for (i, &v) in values.iter().enumerate() {
        data[layout.offset([i / width, i % width]).unwrap()] = T::from_f32(v);
    }
    (data, layout)
}

#[test]
#[expect(clippy::redundant_closure, reason = "the variants are not general over lifetimes")]
fn gathered_rows_are_exact() {
    fn check<T: Element>(cpu: Cpu, any: for<'a> fn(View<'a, T, 2>) -> AnyView<'a, 2>) {
        for width in WIDTHS {
            let values = Random::new(width as u64).vec(5 * width, -2.0, 2.0);
            let (data, layout) = table::<T>(&values, [5, width]);
            let view = any(View::with_layout(&data, layout).unwrap());
            for indexes in [&[][..], &[4], &[0, 3, 3, 1]] {
                let shape = [indexes.len(), width];
                let mut out = Strided::rows(&vec![9.0; indexes.len() * width], shape, 2);
                cpu.gather_rows(view, indexes, out.view_mut()).unwrap();
                let row = |&i: &u32| &values[i as usize * width..][..width];
                let expected: Vec<f32> =
                    indexes.iter().flat_map(row).map(|&v| T::from_f32(v).to_f32()).collect();
                assert_same(&format!("{cpu:?} width {width}"), &out.values(), &expected);
            }
        }
    }
    for cpu in cpus() {
        check::<f32>(cpu, |v| AnyView::F32(v));
        check::<f16>(cpu, |v| AnyView::F16(v));
        check::<bf16>(cpu, |v| AnyView::BF16(v));
    }
}

/// A NaN reaches its own row or group, and no other.
#[test]
fn nan_stays_in_its_group() {
    for cpu in cpus() {
        let (rows, width, group) = (3, 34, 17);
        let mut x = vec![1.0; rows * width];
        x[width + 20] = f32::NAN;
        let ones = vec![1.0; rows * width];
        let mut out = vec![0.0; rows * width];
        let view = |v| View::new(v, [rows, width]).unwrap();
        let weight = vec![1.0; width];
        cpu.rms_norm(view(&x), &weight, 1e-5, ViewMut::new(&mut out, [rows, width]).unwrap())
            .unwrap();
        assert!((0..rows * width).all(|i| out[i].is_nan() == (i / width == 1)), "{cpu:?} rms_norm");
        let to = ViewMut::new(&mut out, [rows, width]).unwrap();
        cpu.layer_norm(view(&x), &weight, &weight, 1e-5, to).unwrap();
        assert!(
            (0..rows * width).all(|i| out[i].is_nan() == (i / width == 1)),
            "{cpu:?} layer_norm"
        );
        for (y, z) in [(&x, &ones), (&ones, &x)] {
            let to = ViewMut::new(&mut out, [rows, width]).unwrap();
            cpu.gated_rms_norm(view(y), view(z), &weight, group, 1e-5, to).unwrap();
            assert!(
                (0..rows * width).all(|i| out[i].is_nan() == (i / group == 3)),
                "{cpu:?} gated"
            );
        }
    }
}

#[test]
fn threads_change_nothing() {
    for cpu in cpus() {
        let (rows, width) = (301, 770);
        let mut random = Random::new(5);
        let (y, z) = (random.vec(rows * width, -3.0, 3.0), random.vec(rows * width, -9.0, 9.0));
        let weight = random.vec(width, 0.5, 1.5);
        let indexes: Vec<u32> = (0..rows as u32).rev().collect();
        let run = |threads| {
            let view = |v| View::new(v, [rows, width]).unwrap();
            let mut all = Vec::new();
            let mut call = |f: &mut (dyn FnMut(ViewMut<'_, f32, 2>) + Send)| {
                let mut out = z.clone();
                with_threads(threads, || f(ViewMut::new(&mut out, [rows, width]).unwrap()));
                all.extend(out);
            };
            call(&mut |out| cpu.rms_norm(view(&y), &weight, 1e-5, out).unwrap());
            call(&mut |out| {
                cpu.gated_rms_norm(view(&y), view(&z), &weight, 110, 1e-5, out).unwrap()
            });
            call(&mut |out| cpu.layer_norm(view(&y), &weight, &weight, 1e-5, out).unwrap());
            call(&mut |out| cpu.gate(view(&y), view(&z), Activation::Silu, out).unwrap());
            call(&mut |out| cpu.gate(view(&y), view(&z), Activation::Gelu, out).unwrap());
            call(&mut |out| cpu.copy(view(&y), out).unwrap());
            call(&mut |out| cpu.add(view(&y), out).unwrap());
            call(&mut |out| cpu.gather_rows(AnyView::F32(view(&y)), &indexes, out).unwrap());
            all
        };
        let one = run(1);
        for threads in [2, 5] {
            assert_same(&format!("{cpu:?}, {threads} threads"), &run(threads), &one);
        }
    }
}

#[test]
fn arguments_are_checked_by_name() {
    let (cpu, data, mut out) = (Cpu::new(), [0.0; 12], [7.0; 12]);
    let x = View::new(&data, [2, 6]).unwrap();
    let mut to = ViewMut::new(&mut out, [2, 6]).unwrap();
    let error = cpu.rms_norm(x, &data[..5], 1e-5, to.reborrow()).unwrap_err();
    assert_eq!(error.to_string(), "weight has shape [5], expected [6]");
    let error = cpu.rms_norm(x, &data[..6], f32::NAN, to.reborrow()).unwrap_err();
    assert!(matches!(error, Error::Value { tensor: "eps", .. }));
    let error = cpu.layer_norm(x, &data[..5], &data[..6], 1e-5, to.reborrow()).unwrap_err();
    assert_eq!(error.to_string(), "weight has shape [5], expected [6]");
    let error = cpu.layer_norm(x, &data[..6], &data[..7], 1e-5, to.reborrow()).unwrap_err();
    assert_eq!(error.to_string(), "bias has shape [7], expected [6]");
    let error = cpu.layer_norm(x, &data[..6], &data[..6], -1.0, to.reborrow()).unwrap_err();
    assert!(matches!(error, Error::Value { tensor: "eps", .. }));
    let narrow = View::new(&data[..10], [2, 5]).unwrap();
    let error = cpu.copy(narrow, to.reborrow()).unwrap_err();
    assert_eq!(error.to_string(), "out has shape [2, 6], expected [2, 5]");
    for group in [0, 4, 12] {
        let error = cpu.gated_rms_norm(x, x, &data[..6], group, 1e-5, to.reborrow()).unwrap_err();
        assert!(matches!(error, Error::Value { tensor: "group", .. }), "{group}");
    }
    let error = cpu.gather_rows(AnyView::F32(x), &[1, 2], to.reborrow()).unwrap_err();
    assert!(matches!(error, Error::Value { tensor: "indexes", index: 1, value: 2.0, .. }));
    let turned = View::new(&data, [6, 2]).unwrap().permute([1, 0]).unwrap();
    assert_eq!(cpu.add(turned, to.reborrow()), Err(Error::NotContiguous { tensor: "x" }));
    assert!(out.iter().all(|&v| v == 7.0), "an error must write nothing");
}
