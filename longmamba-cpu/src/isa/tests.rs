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
    const PAIRS: bool = true;
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
            let bits = isa.add(isa.splat(n), isa.splat(12_582_912.0));
            let scaled = isa.shift_exponent(isa.splat(1.25), bits);
            check(isa, "shift_exponent", scaled, |_| 1.25 * n.exp2());
        }
        let ramp: Vec<f32> = (1..=I::LANES).map(|i| i as f32).collect();
        assert_eq!(isa.reduce_sum(isa.load(&ramp)), ramp.iter().sum::<f32>());
        partial(isa);
        halves(isa);
        pairs(isa);
        rounding(isa);
        codes(isa);
        compact_steps(isa);
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

fn pairs<I: Isa>(isa: I) {
    // Whole numbers, so that every sum is exact in whatever order it is taken.
    let value = |i: usize| bf16::from_f32(((i * 7) % 23) as f32 - 11.0);
    let a: Vec<Pair> = (0..16).map(|i| [value(2 * i), value(2 * i + 1)]).collect();
    let b: Vec<Pair> = (0..16).map(|i| [value(5 * i + 3), value(3 * i)]).collect();
    let dot = |a: Pair, b: Pair| a[0].to_f32() * b[0].to_f32() + a[1].to_f32() * b[1].to_f32();
    // SAFETY: sixteen pairs are at least a vector.
    let (va, vb) = unsafe { (isa.load_pairs_ptr(a.as_ptr()), isa.load_pairs_ptr(b.as_ptr())) };
    let sum = isa.splat(100.0);
    check(isa, "dot_pairs", isa.dot_pairs(va, vb, sum), |i| dot(a[i], b[i]) + 100.0);
    let [first, second] = isa.widen(va);
    check(isa, "first of widen", first, |i| a[i][0].to_f32());
    check(isa, "second of widen", second, |i| a[i][1].to_f32());
    let same = isa.dot_pairs(isa.splat_pair(a[3]), vb, sum);
    check(isa, "splat_pair", same, |i| dot(a[3], b[i]) + 100.0);
    for n in 0..=2 * I::LANES {
        let part = isa.load_pairs_part(&a.as_flattened()[..n]);
        let value = |i: usize| if i < n { a.as_flattened()[i] } else { bf16::ZERO };
        let expected = |i: usize| dot([value(2 * i), value(2 * i + 1)], b[i]);
        check(isa, "load_pairs_part", isa.dot_pairs(part, vb, isa.zero()), expected);
    }
    let mut stored = [[bf16::ONE; 2]; 17];
    isa.store_pairs(va, &mut stored[..I::LANES]);
    assert_eq!(stored[..I::LANES], a[..I::LANES], "{} store_pairs", I::KIND);
    assert!(stored[I::LANES..].iter().all(|pair| *pair == [bf16::ONE; 2]));
}

/// Every byte, at every lane.
fn codes<I: Isa>(isa: I) {
    let bytes: Vec<u8> = (0..=u8::MAX).chain(0..32).collect();
    for start in 0..256 {
        let src = &bytes[start..];
        check(isa, "load_i8", isa.load_i8(&src[..I::LANES]), |i| f32::from(src[i] as i8));
        let low = |i: usize| (src[i] % 16) as f32 - 8.0;
        let high = |i: usize| (src[i] / 16) as f32 - 8.0;
        let nibbles = isa.load_nibbles(&src[..I::LANES]);
        check(isa, "lower nibbles", nibbles[0], low);
        check(isa, "upper nibbles", nibbles[1], high);
        let pairs = isa.load_nibble_pairs(&src[..2 * I::LANES]);
        for (name, pairs, value) in [
            ("lower nibbles in pairs", pairs[0], &low as &dyn Fn(usize) -> f32),
            ("upper nibbles in pairs", pairs[1], &high),
        ] {
            let mut found = [[bf16::ONE; 2]; 16];
            isa.store_pairs(pairs, &mut found);
            for (i, found) in found.as_flattened()[..2 * I::LANES].iter().enumerate() {
                assert_eq!(found.to_f32(), value(i), "{} {name}, {i}", I::KIND);
            }
        }
    }
}

/// Every byte, at every place of a step, and tables with every exponent: bit by bit.
fn compact_steps<I: Isa>(isa: I) {
    for start in 0..=u8::MAX {
        let step: Step = std::array::from_fn(|i| (usize::from(start) * 7 + i * 37) as u8);
        let exponents: [u8; 16] = std::array::from_fn(|i| (usize::from(start) + i * 89) as u8);
        let mut found = [[bf16::ZERO; 2]; compact::COLUMNS];
        let half = found.len() / 2;
        for part in 0..half / I::LANES {
            let at = part * I::LANES;
            let [first, second] = isa.load_compact(&step, &exponents, part);
            isa.store_pairs(first, &mut found[at..]);
            isa.store_pairs(second, &mut found[half + at..]);
        }
        let bits =
            |pairs: &[Pair]| pairs.as_flattened().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let expected = compact::pairs(&step, &exponents);
        assert_eq!(bits(&found), bits(&expected), "{} load_compact, {start}", I::KIND);
    }
}

fn rounding<I: Isa>(isa: I) {
    // Normal numbers, among them ties (0x8000 below) of both kinds, and their neighbours.
    let mut values: Vec<f32> = Vec::new();
    for high in [0x3f80_u32, 0x3f81, 0xbf80, 0x4049, 0x0080, 0x7f7e, 0x8123] {
        for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
            values.push(f32::from_bits(high << 16 | low));
        }
    }
    values.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN]);
    for start in 0..values.len() - I::LANES {
        let from = &values[start..start + I::LANES];
        for n in 0..=I::LANES {
            let mut out = [bf16::ONE; 17];
            isa.store_rounded(isa.load(from), &mut out[..n]);
            for (i, found) in out.iter().enumerate() {
                let want = if i < n { bf16::from_f32(from[i]) } else { bf16::ONE };
                let same = *found == want || (found.is_nan() && want.is_nan());
                assert!(same, "{} store_rounded of {:e}: {found:e}", I::KIND, from[i.min(n)]);
            }
        }
        let mut joined = [[bf16::ONE; 2]; 16];
        let halves = isa.neg(isa.load(from));
        isa.store_pairs(isa.join(isa.load(from), halves), &mut joined);
        for (pair, &value) in joined.iter().zip(from) {
            for (found, value) in pair.iter().zip([value, -value]) {
                // Ties go away from zero here.
                let want = bf16::from_f32(f32::from_bits(value.to_bits() | 1));
                let same = *found == want || (found.is_nan() && want.is_nan());
                let infinite = value.is_infinite() && *found == bf16::from_f32(value);
                assert!(same || infinite, "{} join of {value:e}: {found:e}", I::KIND);
            }
        }
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

/// Pairs are faster with AMX and, without it, on AMD's processors only.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn who_made_the_processor_decides_about_pairs() {
    let info = std::fs::read_to_string("/proc/cpuinfo").expect("Linux tells");
    let amd = info.lines().any(|l| l.starts_with("vendor_id") && l.ends_with("AuthenticAMD"));
    for cpu in Cpu::available() {
        let expected = match cpu.isa() {
            IsaKind::Amx => true,
            IsaKind::Avx512Bf16 => amd,
            _ => false,
        };
        assert_eq!(cpu.has_fast_bf16(), expected, "{}", cpu.isa());
    }
}
