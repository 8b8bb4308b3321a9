//! Bits: logic, shifts, fields, permutations.

use super::mods::{Mods, Ty};
use super::{Builder, Decoded, pure};
use crate::exec::regs::{op1, op2, op3};
use crate::ptx::{Operand, Statement};

pub(super) fn decode(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    match s.opcode[0].as_str() {
        "and" | "or" | "xor" | "not" => logic(b, s, m),
        "shl" | "shr" => shift(b, s, m),
        "shf" => funnel(b, s, m),
        "lop3" => lop3(b, s, m),
        "prmt" => permute(b, s, m),
        "bfe" | "bfi" => field(b, s, m),
        "brev" | "popc" | "clz" | "bfind" | "cnot" => unary(b, s, m),
        _ => Err(m.unsupported()),
    }
}

fn logic(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let op = s.opcode[0].as_str();
    let ty = m.ty()?;
    b.count(&s.operands, &[if op == "not" { 2 } else { 3 }])?;
    let d = b.dest(&s.operands[0], ty)?;
    if ty == Ty::Pred {
        let (x, nx) = b.predicate(&s.operands[1])?;
        let (y, ny) = if op == "not" { (x, nx) } else { b.predicate(&s.operands[2])? };
        let f: fn(u32, u32) -> u32 = match op {
            "and" => |a, b| a & b,
            "or" => |a, b| a | b,
            "xor" => |a, b| a ^ b,
            _ => |a, _| !a,
        };
        let flip = |negated: bool| if negated { u32::MAX } else { 0 };
        let (fx, fy) = (flip(nx), flip(ny));
        return pure(Box::new(move |regs, mask| {
            let value = f(regs.preds[x.index as usize] ^ fx, regs.preds[y.index as usize] ^ fy);
            regs.set_pred(d.index, mask, value);
        }));
    }
    if !matches!(ty, Ty::B(16 | 32 | 64)) {
        return Err(m.unsupported());
    }
    let rest = &s.operands[1..];
    if op == "not" {
        return pure(match ty.bits() {
            16 => op1::<u16, u16>(d, b.source(&rest[0], ty)?, |a| !a),
            32 => op1::<u32, u32>(d, b.source(&rest[0], ty)?, |a| !a),
            _ => op1::<u64, u64>(d, b.source(&rest[0], ty)?, |a| !a),
        });
    }
    if ty.bits() == 64 {
        let regs = b.sources::<u64, 2>(rest, ty)?;
        return pure(match op {
            "and" => op2::<u64, u64, u64>(d, regs, |a, b| a & b),
            "or" => op2::<u64, u64, u64>(d, regs, |a, b| a | b),
            _ => op2::<u64, u64, u64>(d, regs, |a, b| a ^ b),
        });
    }
    // Of 16-bit values the upper half is zero, and stays so.
    let regs = b.sources::<u32, 2>(rest, ty)?;
    pure(match op {
        "and" => op2::<u32, u32, u32>(d, regs, |a, b| a & b),
        "or" => op2::<u32, u32, u32>(d, regs, |a, b| a | b),
        _ => op2::<u32, u32, u32>(d, regs, |a, b| a ^ b),
    })
}

fn shift(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let left = s.opcode[0] == "shl";
    let ty = m.ty()?;
    b.count(&s.operands, &[3])?;
    let d = b.dest(&s.operands[0], ty)?;
    let a = b.source(&s.operands[1], ty)?;
    let n = b.source(&s.operands[2], Ty::U(32))?;
    let regs = [a, n];
    if left != matches!(ty, Ty::B(_)) && left {
        return Err(m.unsupported());
    }
    // Counts past the width shift everything out.
    pure(match (left, ty) {
        (true, Ty::B(16)) => op2::<u16, u32, u16>(d, regs, |a, n| a.checked_shl(n).unwrap_or(0)),
        (true, Ty::B(32)) => {
            op2::<u32, u32, u32>(d, regs, |a, n| if n > 31 { 0 } else { a << (n & 31) })
        }
        (true, Ty::B(64)) => {
            op2::<u64, u32, u64>(d, regs, |a, n| if n > 63 { 0 } else { a << (n & 63) })
        }
        (false, Ty::U(16) | Ty::B(16)) => {
            op2::<u16, u32, u16>(d, regs, |a, n| a.checked_shr(n).unwrap_or(0))
        }
        (false, Ty::U(32) | Ty::B(32)) => {
            op2::<u32, u32, u32>(d, regs, |a, n| if n > 31 { 0 } else { a >> (n & 31) })
        }
        (false, Ty::U(64) | Ty::B(64)) => {
            op2::<u64, u32, u64>(d, regs, |a, n| if n > 63 { 0 } else { a >> (n & 63) })
        }
        (false, Ty::S(16)) => op2::<i16, u32, i16>(d, regs, |a, n| a >> n.min(15)),
        (false, Ty::S(32)) => op2::<i32, u32, i32>(d, regs, |a, n| a >> n.min(31)),
        (false, Ty::S(64)) => op2::<i64, u32, i64>(d, regs, |a, n| a >> n.min(63)),
        _ => return Err(m.unsupported()),
    })
}

fn funnel(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let Some(way) = m.any(&["l", "r"]) else { return Err(m.unsupported()) };
    let Some(mode) = m.any(&["clamp", "wrap"]) else { return Err(m.unsupported()) };
    if m.ty()? != Ty::B(32) {
        return Err(m.unsupported());
    }
    b.count(&s.operands, &[4])?;
    let d = b.dest(&s.operands[0], Ty::B(32))?;
    let regs = b.sources::<u32, 3>(&s.operands[1..], Ty::B(32))?;
    let (left, clamp) = (way == "l", mode == "clamp");
    pure(op3::<u32, u32, u32, u32>(d, regs, move |low, high, n| {
        let n = if clamp { n.min(32) } else { n & 31 };
        let both = u64::from(high) << 32 | u64::from(low);
        if left { (both << n >> 32) as u32 } else { (both >> n) as u32 }
    }))
}

fn lop3(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    if m.ty()? != Ty::B(32) {
        return Err(m.unsupported());
    }
    b.count(&s.operands, &[5])?;
    let Operand::Int(table) = s.operands[4] else {
        return Err(b.error("the table of lop3 is a constant"));
    };
    let table = table as u8;
    let d = b.dest(&s.operands[0], Ty::B(32))?;
    let regs = b.sources::<u32, 3>(&s.operands[1..4], Ty::B(32))?;
    pure(op3::<u32, u32, u32, u32>(d, regs, move |a, b, c| {
        let mut out = 0;
        for (index, term) in [
            !a & !b & !c,
            !a & !b & c,
            !a & b & !c,
            !a & b & c,
            a & !b & !c,
            a & !b & c,
            a & b & !c,
            a & b & c,
        ]
        .into_iter()
        .enumerate()
        {
            out |= if table >> index & 1 != 0 { term } else { 0 };
        }
        out
    }))
}

fn permute(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let mode = m.any(&["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"]);
    if m.ty()? != Ty::B(32) {
        return Err(m.unsupported());
    }
    b.count(&s.operands, &[4])?;
    let d = b.dest(&s.operands[0], Ty::B(32))?;
    let regs = b.sources::<u32, 3>(&s.operands[1..], Ty::B(32))?;
    pure(op3::<u32, u32, u32, u32>(d, regs, move |a, b, c| {
        let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
        let n = c & 3;
        let picks: [u32; 4] = match mode {
            None => std::array::from_fn(|i| c >> (i * 4) & 0xf),
            Some("f4e") => std::array::from_fn(|i| n + i as u32),
            Some("b4e") => std::array::from_fn(|i| n.wrapping_sub(i as u32) & 7),
            Some("rc8") => [n; 4],
            Some("ecl") => std::array::from_fn(|i| n.max(i as u32)),
            Some("ecr") => std::array::from_fn(|i| n.min(i as u32)),
            _ => std::array::from_fn(|i| (n & 1) * 2 + (i as u32 & 1)),
        };
        u32::from_le_bytes(picks.map(|pick| {
            let byte = bytes[(pick & 7) as usize];
            // The top bit of a selector asks for copies of the sign.
            if pick & 8 != 0 { if byte & 0x80 != 0 { 0xff } else { 0 } } else { byte }
        }))
    }))
}

fn field(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let ty = m.ty()?;
    let insert = s.opcode[0] == "bfi";
    if !matches!(ty.bits(), 32 | 64) || insert != matches!(ty, Ty::B(_)) {
        return Err(m.unsupported());
    }
    let width = ty.bits();
    let d = b.dest(&s.operands[0], ty)?;
    if insert {
        b.count(&s.operands, &[5])?;
        let from = b.source(&s.operands[1], ty)?;
        let into = b.source(&s.operands[2], ty)?;
        let at = b.source(&s.operands[3], Ty::U(32))?;
        let len = b.source(&s.operands[4], Ty::U(32))?;
        return pure(Box::new(move |regs, mask| {
            for lane in crate::exec::warp::lanes(mask) {
                let lane = lane as usize;
                let [from, into, at, len] = [from, into, at, len].map(|r| regs.lane(r, lane));
                let (at, len) = (at & 0xff, len & 0xff);
                let ones = if len >= 64 { u64::MAX } else { (1 << len) - 1 };
                let field = if at >= 64 { 0 } else { ones << at };
                let moved = if at >= 64 { 0 } else { from << at };
                regs.set_lane(d, lane, into & !field | moved & field);
            }
        }));
    }
    b.count(&s.operands, &[4])?;
    let a = b.source(&s.operands[1], ty)?;
    let at = b.source(&s.operands[2], Ty::U(32))?;
    let len = b.source(&s.operands[3], Ty::U(32))?;
    let signed = ty.signed();
    pure(Box::new(move |regs, mask| {
        for lane in crate::exec::warp::lanes(mask) {
            let lane = lane as usize;
            let [a, at, len] = [a, at, len].map(|r| regs.lane(r, lane));
            let (at, len) = ((at & 0xff) as u32, (len & 0xff) as u32);
            // The sign is the top bit of the field, or of the number where the field sticks out.
            let top = (at + len).saturating_sub(1).min(width - 1);
            let sign = signed && len > 0 && a >> top & 1 != 0;
            let mut out = if sign { u64::MAX } else { 0 };
            for bit in 0..len.min(width) {
                let from = at + bit;
                let value = if from < width { a >> from & 1 != 0 } else { sign };
                out = out & !(1 << bit) | u64::from(value) << bit;
            }
            regs.set_lane(d, lane, out);
        }
    }))
}

fn unary(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let op = s.opcode[0].as_str();
    let amount = m.take("shiftamt");
    let ty = m.ty()?;
    b.count(&s.operands, &[2])?;
    let counts = matches!(op, "popc" | "clz" | "bfind");
    let d = b.dest(&s.operands[0], if counts { Ty::U(32) } else { ty })?;
    let a = b.source(&s.operands[1], ty)?;
    let signed = ty.signed();
    // The place of the highest bit that matters: of a negative number the highest zero.
    let find = move |bits: u32, zeros: u32| {
        if zeros == bits {
            u32::MAX
        } else if amount {
            zeros
        } else {
            bits - 1 - zeros
        }
    };
    pure(match (op, ty.bits()) {
        ("brev", 32) => op1::<u32, u32>(d, a, u32::reverse_bits),
        ("brev", 64) => op1::<u64, u64>(d, a, u64::reverse_bits),
        ("popc", 32) => op1::<u32, u32>(d, a, u32::count_ones),
        ("popc", 64) => op1::<u64, u32>(d, a, u64::count_ones),
        ("clz", 32) => op1::<u32, u32>(d, a, u32::leading_zeros),
        ("clz", 64) => op1::<u64, u32>(d, a, u64::leading_zeros),
        ("cnot", 16) => op1::<u16, u16>(d, a, |a| (a == 0).into()),
        ("cnot", 32) => op1::<u32, u32>(d, a, |a| (a == 0).into()),
        ("cnot", 64) => op1::<u64, u64>(d, a, |a| (a == 0).into()),
        ("bfind", 32) => op1::<u32, u32>(d, a, move |a| {
            let a = if signed && (a as i32) < 0 { !a } else { a };
            find(32, a.leading_zeros())
        }),
        ("bfind", 64) => op1::<u64, u32>(d, a, move |a| {
            let a = if signed && (a as i64) < 0 { !a } else { a };
            find(64, a.leading_zeros())
        }),
        _ => return Err(m.unsupported()),
    })
}
