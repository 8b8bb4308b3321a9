//! One instruction at a time, against plain Rust: integers. Sources are all pairs or triples of values
//! that are likely to go wrong.

mod common;

use common::ops::Reg::{B16, B32, B64};
use common::ops::{INTS, check, rows, run};

fn int(name: &str, wanted: impl Fn(u32, u32, u32) -> u32) {
    let count = if name.starts_with("mad") || name.starts_with("shf") || name.starts_with("prmt") {
        3
    } else {
        2
    };
    check(name, B32, &[B32; 3][..count], &INTS, |a, b, c| {
        wanted(a as u32, b as u32, c as u32).into()
    });
}

#[test]
fn integers_of_32_bits() {
    int("add.s32", |a, b, _| a.wrapping_add(b));
    int("sub.u32", |a, b, _| a.wrapping_sub(b));
    int("add.sat.s32", |a, b, _| (a as i32).saturating_add(b as i32) as u32);
    int("mul.lo.s32", |a, b, _| a.wrapping_mul(b));
    int("mul.hi.u32", |a, b, _| ((u64::from(a) * u64::from(b)) >> 32) as u32);
    int("mul.hi.s32", |a, b, _| ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32);
    int("mad.lo.s32", |a, b, c| a.wrapping_mul(b).wrapping_add(c));
    int("mad.hi.u32", |a, b, c| (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(c));
    int("div.u32", |a, b, _| a.checked_div(b).unwrap_or(u32::MAX));
    int("rem.u32", |a, b, _| a.checked_rem(b).unwrap_or(a));
    int(
        "div.s32",
        |a, b, _| {
            if b == 0 { u32::MAX } else { (a as i32).wrapping_div(b as i32) as u32 }
        },
    );
    int("rem.s32", |a, b, _| if b == 0 { a } else { (a as i32).wrapping_rem(b as i32) as u32 });
    int("min.s32", |a, b, _| (a as i32).min(b as i32) as u32);
    int("max.u32", |a, b, _| a.max(b));
    int("and.b32", |a, b, _| a & b);
    int("or.b32", |a, b, _| a | b);
    int("xor.b32", |a, b, _| a ^ b);
    int("shl.b32", |a, b, _| a.checked_shl(b).unwrap_or(0));
    int("shr.u32", |a, b, _| a.checked_shr(b).unwrap_or(0));
    int("shr.s32", |a, b, _| ((a as i32) >> b.min(31)) as u32);
    int("shf.l.wrap.b32", |a, b, c| ((u64::from(b) << 32 | u64::from(a)) << (c & 31) >> 32) as u32);
    int("shf.r.clamp.b32", |a, b, c| ((u64::from(b) << 32 | u64::from(a)) >> c.min(32)) as u32);
    int("prmt.b32", |a, b, c| {
        let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
        u32::from_le_bytes(std::array::from_fn(|i| {
            let pick = c >> (4 * i);
            let byte = bytes[(pick & 7) as usize];
            if pick & 8 == 0 { byte } else { ((byte as i8) >> 7) as u8 }
        }))
    });
    let one = |name: &str, wanted: fn(u32) -> u32| {
        check(name, B32, &[B32], &INTS, |a, _, _| wanted(a as u32).into());
    };
    one("neg.s32", u32::wrapping_neg);
    one("abs.s32", |a| (a as i32).wrapping_abs() as u32);
    one("not.b32", |a| !a);
    one("popc.b32", u32::count_ones);
    one("clz.b32", u32::leading_zeros);
    one("brev.b32", u32::reverse_bits);
    one("bfind.u32", |a| 31_u32.wrapping_sub(a.leading_zeros()));
    one("cnot.b32", |a| (a == 0).into());
}

#[test]
fn integers_of_other_widths() {
    let wide = |name: &str, wanted: fn(u64, u64) -> u64| {
        check(name, B64, &[B64, B64], &INTS, |a, b, _| wanted(a, b));
    };
    wide("add.u64", u64::wrapping_add);
    wide("sub.s64", u64::wrapping_sub);
    wide("mul.lo.s64", u64::wrapping_mul);
    wide("mul.hi.u64", |a, b| ((u128::from(a) * u128::from(b)) >> 64) as u64);
    wide("mul.hi.s64", |a, b| ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64);
    wide("div.u64", |a, b| a.checked_div(b).unwrap_or(u64::MAX));
    wide("max.s64", |a, b| (a as i64).max(b as i64) as u64);
    wide("xor.b64", |a, b| a ^ b);
    check("shl.b64", B64, &[B64, B32], &INTS, |a, b, _| a.checked_shl(b as u32).unwrap_or(0));
    check("shr.s64", B64, &[B64, B32], &INTS, |a, b, _| ((a as i64) >> b.min(63)) as u64);
    check("mul.wide.u32", B64, &[B32, B32], &INTS, |a, b, _| a * b);
    check("mul.wide.s32", B64, &[B32, B32], &INTS, |a, b, _| {
        (i64::from(a as i32) * i64::from(b as i32)) as u64
    });
    check("mad.wide.u32", B64, &[B32, B32, B64], &INTS, |a, b, c| (a * b).wrapping_add(c));
    check("mul.wide.s16", B32, &[B16, B16], &INTS, |a, b, _| {
        (i32::from(a as i16) * i32::from(b as i16)) as u32 as u64
    });
    check("add.s16", B16, &[B16, B16], &INTS, |a, b, _| a + b);
    check("shr.s16", B16, &[B16, B32], &INTS, |a, b, _| ((a as i16) >> b.min(15)) as u16 as u64);
    check("min.s16", B16, &[B16, B16], &INTS, |a, b, _| (a as i16).min(b as i16) as u16 as u64);
    check("clz.b64", B32, &[B64], &INTS, |a, _, _| a.leading_zeros().into());
    check("popc.b64", B32, &[B64], &INTS, |a, _, _| a.count_ones().into());
}

#[test]
fn fields_and_tables() {
    check("bfe.u32", B32, &[B32; 3], &INTS[..9], |a, at, len| {
        let (at, len) = (at & 255, len & 255);
        (0..len.min(32)).filter(|i| at + i < 32 && a >> (at + i) & 1 == 1).map(|i| 1 << i).sum()
    });
    check("bfe.s32", B32, &[B32; 3], &INTS[..9], |a, at, len| {
        let (at, len) = (at & 255, len & 255);
        if len == 0 {
            return 0;
        }
        let sign = a >> (at + len - 1).min(31) & 1;
        let bit = |i: u64| if i < len && at + i < 32 { a >> (at + i) & 1 } else { sign };
        (0..32).map(|i| bit(i) << i).sum()
    });
    for table in [0x80_u32, 0x96, 0xe8, 0x6a, 0x01, 0xff] {
        let rows = rows(&INTS[..9], 3);
        let text = format!("lop3.b32 %d, %s0, %s1, %s2, {table:#x};");
        let got = run(&text, B32, &[B32; 3], &rows);
        for (row, got) in rows.iter().zip(got) {
            let wanted: u64 = (0..32)
                .map(|i| {
                    let index = (row[0] >> i & 1) * 4 + (row[1] >> i & 1) * 2 + (row[2] >> i & 1);
                    u64::from(table >> index & 1) << i
                })
                .sum();
            assert_eq!(got, wanted, "{table:x} {row:x?}");
        }
    }
    let rows = rows(&INTS[..9], 2);
    let got = run("bfi.b32 %d, %s0, %s1, 5, 9;", B32, &[B32; 2], &rows);
    for (row, got) in rows.iter().zip(got) {
        assert_eq!(got, row[1] & !(0x1ff << 5) | (row[0] & 0x1ff) << 5);
    }
}

#[test]
fn long_arithmetic() {
    let rows = rows(&INTS, 2);
    let text = "{ .reg .b32 %a, %b, %c, %e, %lo, %hi;\n\
                mov.b64 {%a, %b}, %s0; mov.b64 {%c, %e}, %s1;\n\
                OP.cc.u32 %lo, %a, %c; OPc.u32 %hi, %b, %e; mov.b64 %d, {%lo, %hi}; }";
    let sums = run(&text.replace("OP", "add"), B64, &[B64; 2], &rows);
    let differences = run(&text.replace("OP", "sub"), B64, &[B64; 2], &rows);
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(sums[i], row[0].wrapping_add(row[1]), "{row:x?}");
        assert_eq!(differences[i], row[0].wrapping_sub(row[1]), "{row:x?}");
    }
}
