//! One instruction at a time, against plain Rust: floats, comparisons, conversions.

mod common;

use common::ops::Reg::{self, B16, B32, B64};
use common::ops::{INTS, check, floats, rows, run};
use half::{bf16, f16};

/// Not-a-number has many patterns; any will do.
fn same(got: f32, wanted: f32) -> bool {
    got.to_bits() == wanted.to_bits() || got.is_nan() && wanted.is_nan()
}

fn float(name: &str, count: usize, wanted: impl Fn(f32, f32, f32) -> f32) {
    let rows = rows(&floats(), count);
    let operands: String = (0..count).map(|i| format!(", %s{i}")).collect();
    let got = run(&format!("{name} %d{operands};"), B32, &[B32; 3][..count], &rows);
    for (row, got) in rows.iter().zip(got) {
        let at = |i: usize| f32::from_bits(row.get(i).copied().unwrap_or(0) as u32);
        let (got, wanted) = (f32::from_bits(got as u32), wanted(at(0), at(1), at(2)));
        let args = [at(0), at(1), at(2)];
        assert!(same(got, wanted), "{name} of {args:?}: {got:e} instead of {wanted:e}");
    }
}

fn flush(a: f32) -> f32 {
    if a.is_subnormal() { 0.0_f32.copysign(a) } else { a }
}

#[test]
fn arithmetic_of_f32() {
    float("add.f32", 2, |a, b, _| a + b);
    float("sub.rn.f32", 2, |a, b, _| a - b);
    float("mul.f32", 2, |a, b, _| a * b);
    float("mul.ftz.f32", 2, |a, b, _| flush(flush(a) * flush(b)));
    float("fma.rn.f32", 3, f32::mul_add);
    float("div.rn.f32", 2, |a, b, _| a / b);
    float("add.sat.f32", 2, |a, b, _| {
        let sum = a + b;
        if sum > 0.0 { sum.min(1.0) } else { 0.0 }
    });
    float("max.f32", 2, |a, b, _| if a == b && a == 0.0 { a + b } else { a.max(b) });
    float("min.NaN.f32", 2, |a, b, _| {
        if a.is_nan() || b.is_nan() {
            f32::NAN
        } else if a == b {
            if a.is_sign_negative() { a } else { b }
        } else {
            a.min(b)
        }
    });
    float("neg.f32", 1, |a, _, _| -a);
    float("abs.ftz.f32", 1, |a, _, _| flush(a.abs()));
    float("sqrt.rn.f32", 1, |a, _, _| a.sqrt());
    float("rcp.rn.f32", 1, |a, _, _| 1.0 / a);
    float("ex2.approx.f32", 1, |a, _, _| f64::from(a).exp2() as f32);
    float("ex2.approx.ftz.f32", 1, |a, _, _| flush(f64::from(flush(a)).exp2() as f32));
    float("lg2.approx.f32", 1, |a, _, _| f64::from(a).log2() as f32);
    float("rsqrt.approx.f32", 1, |a, _, _| {
        if a == 0.0 { 1.0 / a } else { (1.0 / f64::from(a).sqrt()) as f32 }
    });
    float("tanh.approx.f32", 1, |a, _, _| f64::from(a).tanh() as f32);
    float("cvt.rni.f32.f32", 1, |a, _, _| a.round_ties_even());
    float("cvt.rmi.f32.f32", 1, |a, _, _| a.floor());
    float("cvt.sat.f32.f32", 1, |a, _, _| if a > 0.0 { a.min(1.0) } else { 0.0 });
    float("copysign.f32", 2, |a, b, _| b.copysign(a));
}

/// The float next to the exact result on the side that the mode says, found by trying both.
fn directed(exact: impl Fn(f32) -> std::cmp::Ordering, near: f32, mode: &str) -> f32 {
    use std::cmp::Ordering::{Equal, Greater, Less};
    // `exact(r)` says where the exact result is as seen from `r`.
    match (exact(near), mode) {
        (Equal, _) => near,
        (Greater, "rp") => near.next_up(),
        (Less, "rm") => near.next_down(),
        (Greater, "rz") if near < 0.0 => near.next_up(),
        (Less, "rz") if near > 0.0 => near.next_down(),
        _ => near,
    }
}

#[test]
fn directed_rounding() {
    let values: Vec<u64> = (0..40_u32)
        .map(|i| {
            let magnitude = 0.1_f32 * (i as f32 + 1.3) * 10_f32.powi(i as i32 % 5 - 2);
            if i % 3 == 0 { -magnitude } else { magnitude }
        })
        .map(|f| f.to_bits().into())
        .collect();
    for mode in ["rz", "rm", "rp"] {
        let rows = rows(&values, 2);
        let run =
            |name: &str| run(&format!("{name}.{mode}.f32 %d, %s0, %s1;"), B32, &[B32; 2], &rows);
        let (sums, products, quotients) = (run("add"), run("mul"), run("div"));
        for (i, row) in rows.iter().enumerate() {
            let [a, b] = [0, 1].map(|i| f32::from_bits(row[i] as u32));
            let [x, y] = [a, b].map(f64::from);
            // The exponents are close enough for f64 to be exact.
            let above = |exact: f64| move |r: f32| exact.total_cmp(&r.into());
            let is = |got: u64| f32::from_bits(got as u32);
            assert_eq!(is(sums[i]), directed(above(x + y), a + b, mode), "{a} + {b} {mode}");
            assert_eq!(is(products[i]), directed(above(x * y), a * b, mode), "{a} * {b} {mode}");
            // `r * b` is exact in f64, so comparing it with `a` is too.
            let quotient = |r: f32| {
                let order = x.abs().total_cmp(&(f64::from(r) * y).abs());
                if r < 0.0 { order.reverse() } else { order }
            };
            assert_eq!(is(quotients[i]), directed(quotient, a / b, mode), "{a} / {b} {mode}");
        }
    }
}

#[test]
fn comparisons() {
    let rows = rows(&floats(), 2);
    type Holds = fn(f32, f32) -> bool;
    let names: [(&str, Holds); 8] = [
        ("lt", |a, b| a < b),
        ("ge", |a, b| a >= b),
        ("ne", |a, b| a.partial_cmp(&b).is_some_and(|o| o.is_ne())),
        ("neu", |a, b| a != b),
        ("ltu", |a, b| a.partial_cmp(&b).is_none_or(|o| o.is_lt())),
        ("equ", |a, b| a.partial_cmp(&b).is_none_or(|o| o.is_eq())),
        ("num", |a, b| !a.is_nan() && !b.is_nan()),
        ("nan", |a, b| a.is_nan() || b.is_nan()),
    ];
    for (name, wanted) in names {
        let got = run(&format!("setp.{name}.f32 %d, %s0, %s1;"), Reg::Pred, &[B32; 2], &rows);
        let text = format!("setp.{name}.and.f32 %d|%p, %s0, %s1, 1;");
        let text = text.replace(", 1;", ", !%q;").replace("setp", "setp.ne.s32 %q, %u, %u;\nsetp");
        let joined = run(&text, Reg::Pred, &[B32; 2], &rows);
        for ((row, got), joined) in rows.iter().zip(got).zip(joined) {
            let [a, b] = [0, 1].map(|i| f32::from_bits(row[i] as u32));
            assert_eq!(got != 0, wanted(a, b), "{name} {a} {b}");
            assert_eq!(joined, got, "{name} {a} {b}");
        }
    }
    check("setp.lt.s32", Reg::Pred, &[B32; 2], &INTS, |a, b, _| ((a as i32) < b as i32).into());
    check("setp.hs.u64", Reg::Pred, &[B64; 2], &INTS, |a, b, _| (a >= b).into());
    check(
        "set.gt.u32.s32",
        B32,
        &[B32; 2],
        &INTS,
        |a, b, _| {
            if a as i32 > b as i32 { u64::MAX } else { 0 }
        },
    );
}

/// The nearest of all 16-bit floats, the even one of two; the crate `half` drops bits of an f64.
fn nearest(value: f64, bf: bool) -> u64 {
    if value.is_nan() {
        return 0x7fff;
    }
    let infinity = if bf { 0x7f80 } else { 0x7c00 };
    let decode = |bits: u16| match (bits == infinity, bf) {
        // Where the next number would be.
        (true, true) => 2_f64.powi(128),
        (true, false) => 65536.0,
        (false, true) => bf16::from_bits(bits).to_f64(),
        (false, false) => f16::from_bits(bits).to_f64(),
    };
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    let value = value.abs();
    let (mut low, mut high) = (0, infinity);
    if value >= decode(infinity) {
        return sign | u64::from(infinity);
    }
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if decode(middle) <= value { low = middle } else { high = middle }
    }
    let (below, above) = (value - decode(low), decode(high) - value);
    let up = above < below || above == below && high % 2 == 0;
    sign | u64::from(if up { high } else { low })
}

#[test]
fn half_floats() {
    let values: Vec<u64> = [
        0x0000_u64, 0x8000, 0x3c00, 0xbc00, 0x3e66, 0x0001, 0x83ff, 0x7bff, 0x5640, 0x7c00, 0xfc00,
        0x3f80, 0x4049, 0xc2c8, 0x7f80, 0x0400,
    ]
    .into();
    let f = |bits: u64| f16::from_bits(bits as u16).to_f64();
    let g = |bits: u64| bf16::from_bits(bits as u16).to_f64();
    let check16 = |name: &str, bf: bool, count: usize, wanted: &dyn Fn(f64, f64, f64) -> f64| {
        check(name, B16, &[B16; 3][..count], &values, |a, b, c| {
            let read = |x| if bf { g(x) } else { f(x) };
            nearest(wanted(read(a), read(b), read(c)), bf)
        });
    };
    check16("add.f16", false, 2, &|a, b, _| a + b);
    check16("mul.rn.f16", false, 2, &|a, b, _| a * b);
    check16("sub.f16", false, 2, &|a, b, _| a - b);
    check16("fma.rn.bf16", true, 3, &|a, b, c| {
        // What the sum loses in f64 must not be lost when it is rounded again.
        let product = a * b;
        let sum = product + c;
        let lost = (product - (sum - (sum - product))) + (c - (sum - product));
        if lost == 0.0 || !sum.is_finite() || sum.to_bits() & 1 == 1 {
            sum
        } else if lost > 0.0 {
            sum.next_up()
        } else {
            sum.next_down()
        }
    });
    check("cvt.f32.f16", B32, &[B16], &values, |a, _, _| {
        let value = f16::from_bits(a as u16).to_f32();
        value.to_bits().into()
    });
    check("cvt.f32.bf16", B32, &[B16], &values, |a, _, _| a << 16);
    let pairs: Vec<u64> =
        values.iter().flat_map(|a| values.iter().map(move |b| a << 16 | b)).collect();
    check("add.f16x2", B32, &[B32; 2], &pairs[..64], |a, b, _| {
        let add = |a: u64, b: u64| nearest(f(a & 0xffff) + f(b & 0xffff), false);
        add(a, b) | add(a >> 16, b >> 16) << 16
    });
}

#[test]
fn conversions() {
    let mut values = floats();
    values.extend((0..200_u64).map(|i| (i * 0x0123_4567) & 0xffff_ffff));
    let f = |bits: u64| f32::from_bits(bits as u32);
    check("cvt.rn.bf16.f32", B16, &[B32], &values, |a, _, _| {
        if f(a).is_nan() { 0x7fff } else { bf16::from_f32(f(a)).to_bits().into() }
    });
    check("cvt.rn.f16.f32", B16, &[B32], &values, |a, _, _| {
        if f(a).is_nan() { 0x7fff } else { f16::from_f32(f(a)).to_bits().into() }
    });
    check(
        "cvt.rz.bf16.f32",
        B16,
        &[B32],
        &values,
        |a, _, _| {
            if f(a).is_nan() { 0x7fff } else { a >> 16 }
        },
    );
    check("cvt.rzi.s32.f32", B32, &[B32], &values, |a, _, _| f(a) as i32 as u32 as u64);
    check("cvt.rni.u32.f32", B32, &[B32], &values, |a, _, _| {
        (f(a).round_ties_even() as u32).into()
    });
    check("cvt.rmi.s64.f32", B64, &[B32], &values, |a, _, _| f(a).floor() as i64 as u64);
    check("cvt.rpi.s32.f32", B32, &[B32], &values, |a, _, _| f(a).ceil() as i32 as u32 as u64);
    check("cvt.rn.f32.s32", B32, &[B32], &INTS, |a, _, _| (a as i32 as f32).to_bits().into());
    check("cvt.rn.f32.u64", B32, &[B64], &INTS, |a, _, _| (a as f32).to_bits().into());
    check("cvt.rn.f64.s64", B64, &[B64], &INTS, |a, _, _| (a as i64 as f64).to_bits());
    check("cvt.u64.u32", B64, &[B32], &INTS, |a, _, _| a);
    check("cvt.s64.s32", B64, &[B32], &INTS, |a, _, _| a as i32 as i64 as u64);
    check("cvt.s32.s8", B32, &[B32], &INTS, |a, _, _| a as i8 as i32 as u32 as u64);
    check("cvt.u16.u32", B16, &[B32], &INTS, |a, _, _| a);
    check("cvt.sat.u8.s32", B32, &[B32], &INTS, |a, _, _| (a as i32).clamp(0, 255) as u64);
    check("cvt.sat.s16.s32", B16, &[B32], &INTS, |a, _, _| {
        (a as i32).clamp(-32768, 32767) as u16 as u64
    });
    let rows = rows(&floats(), 2);
    let got = run("cvt.rn.bf16x2.f32 %d, %s0, %s1;", B32, &[B32; 2], &rows);
    for (row, got) in rows.iter().zip(got) {
        let narrow = |bits: u64| {
            if f(bits).is_nan() { 0x7fff } else { u64::from(bf16::from_f32(f(bits)).to_bits()) }
        };
        assert_eq!(got, narrow(row[0]) << 16 | narrow(row[1]), "{row:x?}");
    }
}
