//! Arithmetic of numbers longer than a register: with carry out (`.cc`) and carry in (`addc`).

use super::mods::{Mods, Ty};
use super::{Builder, Decoded, pure};
use crate::exec::warp::lanes;
use crate::ptx::Statement;

pub(super) fn decode(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let (op, takes) = match s.opcode[0].as_str() {
        "addc" => ("add", true),
        "subc" => ("sub", true),
        "madc" => ("mad", true),
        other => (other, false),
    };
    let part = m.any(&["lo", "hi"]);
    let gives = m.take("cc");
    let ty = m.ty()?;
    let bits = ty.bits();
    if !matches!(op, "add" | "sub" | "mad")
        || !matches!(ty, Ty::U(32 | 64) | Ty::S(32 | 64))
        || part.is_some() != (op == "mad")
    {
        return Err(m.unsupported());
    }
    b.count(&s.operands, &[if op == "mad" { 4 } else { 3 }])?;
    let carry = b.carry();
    let d = b.dest(&s.operands[0], ty)?;
    let x = b.source(&s.operands[1], ty)?;
    let y = b.source(&s.operands[2], ty)?;
    let z = if op == "mad" { b.source(&s.operands[3], ty)? } else { y };
    let signed = ty.signed();
    let high = part == Some("hi");
    let subtract = op == "sub";
    let multiply = op == "mad";
    let ones = u64::MAX >> (64 - bits);
    let product = move |x: u64, y: u64| {
        let widen = |a: u64| {
            if signed { i128::from((a << (64 - bits)) as i64 >> (64 - bits)) } else { a.into() }
        };
        let product =
            if signed { (widen(x) * widen(y)) as u128 } else { u128::from(x) * u128::from(y) };
        (if high { product >> bits } else { product }) as u64 & ones
    };
    pure(Box::new(move |regs, mask| {
        let flags = regs.preds[carry.index as usize];
        let mut out = 0;
        for lane in lanes(mask) {
            let at = lane as usize;
            let [x, y, z] = [x, y, z].map(|reg| regs.lane(reg, at));
            let (left, right) = if multiply { (product(x, y), z) } else { (x, y) };
            let flag = u128::from(takes && flags >> lane & 1 != 0);
            let (left, right) = (u128::from(left), u128::from(right) + flag);
            let (value, flag) = if subtract {
                (left.wrapping_sub(right), left < right)
            } else {
                (left + right, left + right > ones.into())
            };
            regs.set_lane(d, at, value as u64 & ones);
            out |= u32::from(flag) << lane;
        }
        if gives {
            regs.set_pred(carry.index, mask, out);
        }
    }))
}
