//! Every operation of every instruction set of this processor, lane by lane against plain Rust.

use super::*;
use crate::dispatch::{Cpu, Kernel};

/// Ordinary values, halves (ties), both zeros, infinities and NaN.
const VALUES: [f32; 16] = [
    1.5,
    -2.5,
    0.5,
    -0.0,
    0.0,
    3.25e7,
    -1e-30,
    7.0,
    f32::NAN,
    f32::INFINITY,
    -123.456,
    2.5,
    1e30,
    -0.5,
    -1.0,
    f32::NEG_INFINITY,
];

struct Ops;

impl Kernel for Ops {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for shift in 0..16 {
            let value = |i: usize| VALUES[i % 16];
            let a: Vec<f32> = (0..I::LANES).map(value).collect();
            let b: Vec<f32> = (0..I::LANES).map(|i| value(i + shift)).collect();
            let c: Vec<f32> = (0..I::LANES).map(|i| value(i * 3 + 1)).collect();
            let (va, vb, vc) = (isa.load(&a), isa.load(&b), isa.load(&c));
            check(isa, "add", isa.add(va, vb), |i| a[i] + b[i]);
            check(isa, "sub", isa.sub(va, vb), |i| a[i] - b[i]);
            check(isa, "mul", isa.mul(va, vb), |i| a[i] * b[i]);
            check(isa, "div", isa.div(va, vb), |i| a[i] / b[i]);
            if I::KIND == IsaKind::Scalar {
                check(isa, "fma", isa.fma(va, vb, vc), |i| a[i] * b[i] + c[i]);
                check(isa, "nfma", isa.nfma(va, vb, vc), |i| c[i] - a[i] * b[i]);
            } else {
                check(isa, "fma", isa.fma(va, vb, vc), |i| a[i].mul_add(b[i], c[i]));
                check(isa, "nfma", isa.nfma(va, vb, vc), |i| (-a[i]).mul_add(b[i], c[i]));
            }
            // A NaN in `a` may be lost; only the rest is promised.
            let larger = |i: usize| if a[i] > b[i] { a[i] } else { b[i] };
            let smaller = |i: usize| if a[i] < b[i] { a[i] } else { b[i] };
            let clean: Vec<f32> = a.iter().map(|v| if v.is_nan() { 4.0 } else { *v }).collect();
            if a == clean {
                check(isa, "max", isa.max(va, vb), larger);
                check(isa, "min", isa.min(va, vb), smaller);
            }
            check(isa, "abs", isa.abs(va), |i| a[i].abs());
            check(isa, "neg", isa.neg(va), |i| -a[i]);
            check(isa, "sqrt", isa.sqrt(va), |i| a[i].sqrt());
            check(isa, "round", isa.round(va), |i| a[i].round_ties_even());
            check(
                isa,
                "gt",
                isa.select_gt(va, vb, va, vc),
                |i| if a[i] > b[i] { a[i] } else { c[i] },
            );
            let cleared = isa.zero_where_gt(va, vb, vc);
            check(isa, "zero_where_gt", cleared, |i| if a[i] > b[i] { 0.0 } else { c[i] });
            check(
                isa,
                "le",
                isa.select_le(va, vb, va, vc),
                |i| if a[i] <= b[i] { a[i] } else { c[i] },
            );
        }
        for n in [-126.0f32, -3.0, 0.0, 5.0] {
            let scaled = isa.scale_pow2(isa.splat(1.25), isa.splat(n));
            check(isa, "scale_pow2", scaled, |_| 1.25 * n.exp2());
        }
        let nan = isa.splat(f32::NAN);
        check(isa, "scale_pow2", isa.scale_pow2(nan, nan), |_| f32::NAN);
        let ramp: Vec<f32> = (1..=I::LANES).map(|i| i as f32).collect();
        assert_eq!(isa.reduce_sum(isa.load(&ramp)), ramp.iter().sum::<f32>());
        partial(isa);
        halves(isa);
    }
}

/// Equal as floats (so both zeros are one), or both NaN.
fn check<I: Isa>(isa: I, name: &str, actual: I::V, expected: impl Fn(usize) -> f32) {
    let mut lanes = [0.0; 16];
    isa.store(actual, &mut lanes);
    for (i, &lane) in lanes[..I::LANES].iter().enumerate() {
        let want = expected(i);
        let same = lane == want || (lane.is_nan() && want.is_nan());
        assert!(same, "{} {name}, lane {i}: {lane:e}, expected {want:e}", I::KIND);
    }
}

fn partial<I: Isa>(isa: I) {
    let src: Vec<f32> = (1..=16).map(|i| i as f32).collect();
    for n in 0..=I::LANES {
        let v = isa.load_part(&src[..n]);
        check(isa, "load_part", v, |i| if i < n { src[i] } else { 0.0 });
        let mut dst = [-1.0f32; 16];
        isa.store_part(isa.splat(7.0), &mut dst[..n]);
        assert!((0..16).all(|i| dst[i] == if i < n { 7.0 } else { -1.0 }));
    }
}

fn halves<I: Isa>(isa: I) {
    // Subnormal, ordinary and special values of both types.
    let bits: Vec<u16> = (0..=u16::MAX).step_by(7).collect();
    let f16s: Vec<f16> = bits.iter().map(|&b| f16::from_bits(b)).collect();
    let bf16s: Vec<bf16> = bits.iter().map(|&b| bf16::from_bits(b)).collect();
    for start in (0..bits.len() - 16).step_by(I::LANES) {
        check(isa, "load_f16", isa.load_f16(&f16s[start..]), |i| f16s[start + i].to_f32());
        check(isa, "load_bf16", isa.load_bf16(&bf16s[start..]), |i| bf16s[start + i].to_f32());
    }
    for n in 0..=I::LANES {
        let (a, b) = (&f16s[2000..2000 + n], &bf16s[2000..2000 + n]);
        let part = isa.load_f16_part(a);
        check(isa, "load_f16_part", part, |i| if i < n { a[i].to_f32() } else { 0.0 });
        let part = isa.load_bf16_part(b);
        check(isa, "load_bf16_part", part, |i| if i < n { b[i].to_f32() } else { 0.0 });
    }
}

#[test]
fn operations_agree_with_plain_rust() {
    for cpu in Cpu::available() {
        println!("ran {}", cpu.isa());
        cpu.call(Ops);
    }
}

/// A processor without AVX2 would skip most tests here without a word.
#[test]
fn continuous_integration_has_avx2() {
    if std::env::var_os("CI").is_some() && cfg!(target_arch = "x86_64") {
        assert!(Cpu::with_isa(IsaKind::Avx2).is_some(), "AVX2 did not run");
    }
}
