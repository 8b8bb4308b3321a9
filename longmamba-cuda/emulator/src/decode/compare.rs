//! Comparisons and selections.

use super::mods::{Mods, Ty};
use super::{Builder, Decoded, pure};
use crate::exec::regs::{Reg, Regs, Word, compare, op3};
use crate::num::{Half, flush};
use crate::ptx::{Operand, Statement};

/// A comparison of all lanes.
type Test = Box<dyn Fn(&Regs) -> u32 + Send + Sync>;

const NAMES: [&str; 18] = [
    "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu",
    "geu", "num", "nan",
];

/// Compares two of a type by a name of a comparison. Those that end in `u` hold for unordered too.
fn by_name<A: Word + PartialOrd>(name: &str, regs: [Reg; 2]) -> Option<Test> {
    Some(match name {
        "eq" => compare::<A>(regs, |a, b| a == b),
        "ne" => compare::<A>(regs, |a, b| a.partial_cmp(&b).is_some_and(|o| o.is_ne())),
        "lt" | "lo" => compare::<A>(regs, |a, b| a < b),
        "le" | "ls" => compare::<A>(regs, |a, b| a <= b),
        "gt" | "hi" => compare::<A>(regs, |a, b| a > b),
        "ge" | "hs" => compare::<A>(regs, |a, b| a >= b),
        "equ" => compare::<A>(regs, |a, b| a.partial_cmp(&b).is_none_or(|o| o.is_eq())),
        "neu" => compare::<A>(regs, |a, b| a != b),
        "ltu" => compare::<A>(regs, |a, b| a.partial_cmp(&b).is_none_or(|o| o.is_lt())),
        "leu" => compare::<A>(regs, |a, b| a.partial_cmp(&b).is_none_or(|o| o.is_le())),
        "gtu" => compare::<A>(regs, |a, b| a.partial_cmp(&b).is_none_or(|o| o.is_gt())),
        "geu" => compare::<A>(regs, |a, b| a.partial_cmp(&b).is_none_or(|o| o.is_ge())),
        "num" => compare::<A>(regs, |a, b| a.partial_cmp(&b).is_some()),
        "nan" => compare::<A>(regs, |a, b| a.partial_cmp(&b).is_none()),
        _ => return None,
    })
}

/// A number that orders as the half float does; pairs of NaN stay unordered in f32.
fn half_test(name: &str, half: Half, upper: bool, [a, b]: [Reg; 2]) -> Option<Test> {
    let f: fn(f32, f32) -> bool = match name {
        "eq" => |a, b| a == b,
        "ne" => |a, b| a.partial_cmp(&b).is_some_and(|o| o.is_ne()),
        "lt" => |a, b| a < b,
        "le" => |a, b| a <= b,
        "gt" => |a, b| a > b,
        "ge" => |a, b| a >= b,
        "equ" => |a, b| a.partial_cmp(&b).is_none_or(|o| o.is_eq()),
        "neu" => |a, b| a != b,
        "ltu" => |a, b| a.partial_cmp(&b).is_none_or(|o| o.is_lt()),
        "leu" => |a, b| a.partial_cmp(&b).is_none_or(|o| o.is_le()),
        "gtu" => |a, b| a.partial_cmp(&b).is_none_or(|o| o.is_gt()),
        "geu" => |a, b| a.partial_cmp(&b).is_none_or(|o| o.is_ge()),
        "num" => |a, b| !a.is_nan() && !b.is_nan(),
        "nan" => |a, b| a.is_nan() || b.is_nan(),
        _ => return None,
    };
    let shift = if upper { 16 } else { 0 };
    let value = move |bits: u32| half.decode((bits >> shift) as u16);
    Some(compare::<u32>([a, b], move |a, b| f(value(a), value(b))))
}

fn test(name: &str, ty: Ty, ftz: bool, upper: bool, regs: [Reg; 2]) -> Option<Test> {
    match ty {
        Ty::U(16) | Ty::B(16) => by_name::<u16>(name, regs),
        Ty::S(16) => by_name::<i16>(name, regs),
        Ty::U(32) | Ty::B(32) => by_name::<u32>(name, regs),
        Ty::S(32) => by_name::<i32>(name, regs),
        Ty::U(64) | Ty::B(64) => by_name::<u64>(name, regs),
        Ty::S(64) => by_name::<i64>(name, regs),
        Ty::F32 if ftz => {
            // Flushing maps subnormals to zero, which orders like comparing flushed values.
            let name = name.to_owned();
            let [a, b] = regs;
            let slow = move |x: f32, y: f32| ordering(&name, flush(x), flush(y));
            Some(compare::<f32>([a, b], slow))
        }
        Ty::F32 => by_name::<f32>(name, regs),
        Ty::F64 => by_name::<f64>(name, regs),
        Ty::F16 | Ty::F16x2 => half_test(name, Half::F16, upper, regs),
        Ty::Bf16 | Ty::Bf16x2 => half_test(name, Half::Bf16, upper, regs),
        _ => None,
    }
}

fn ordering(name: &str, a: f32, b: f32) -> bool {
    let order = a.partial_cmp(&b);
    let unordered = order.is_none();
    match name {
        "eq" => a == b,
        "ne" => !unordered && a != b,
        "lt" => a < b,
        "le" => a <= b,
        "gt" => a > b,
        "ge" => a >= b,
        "equ" => unordered || a == b,
        "neu" => a != b,
        "ltu" => unordered || a < b,
        "leu" => unordered || a <= b,
        "gtu" => unordered || a > b,
        "geu" => unordered || a >= b,
        "num" => !unordered,
        _ => unordered,
    }
}

/// How a third, Boolean operand joins in.
fn joined(name: &str) -> fn(u32, u32) -> u32 {
    match name {
        "and" => |a, b| a & b,
        "or" => |a, b| a | b,
        _ => |a, b| a ^ b,
    }
}

pub(super) fn setp(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let ftz = m.take("ftz");
    let join = m.any(&["and", "or", "xor"]);
    let Some(name) = m.any(&NAMES) else { return Err(m.unsupported()) };
    let ty = m.ty()?;
    b.count(&s.operands, &[if join.is_some() { 4 } else { 3 }])?;
    let (p, q) = match &s.operands[0] {
        Operand::Pair(p, q) => (Operand::Name(p.clone(), 0), Some(Operand::Name(q.clone(), 0))),
        other => (other.clone(), None),
    };
    let p = b.dest(&p, Ty::Pred)?;
    let q = q.map(|q| b.dest(&q, Ty::Pred)).transpose()?;
    let x = b.source(&s.operands[1], ty)?;
    let y = b.source(&s.operands[2], ty)?;
    let Some(low) = test(name, ty, ftz, false, [x, y]) else { return Err(m.unsupported()) };
    let pair = matches!(ty, Ty::F16x2 | Ty::Bf16x2);
    if !pair && join.is_none() && q.is_none() {
        return pure(Box::new(move |regs, mask| {
            let value = low(regs);
            regs.set_pred(p.index, mask, value);
        }));
    }
    // Of a pair the second destination is the upper half's result; of one value it is the negation.
    let high = if pair { test(name, ty, ftz, true, [x, y]) } else { None };
    let other = match join {
        Some(join) => Some((joined(join), b.predicate(&s.operands[3])?)),
        None => None,
    };
    pure(Box::new(move |regs, mask| {
        let low = low(regs);
        let second = high.as_ref().map_or(!low, |high| high(regs));
        let apply = |value: u32| match &other {
            None => value,
            Some((join, (reg, negated))) => {
                let c = regs.preds[reg.index as usize];
                join(value, if *negated { !c } else { c })
            }
        };
        let (low, second) = (apply(low), apply(second));
        regs.set_pred(p.index, mask, low);
        if let Some(q) = q {
            regs.set_pred(q.index, mask, second);
        }
    }))
}

pub(super) fn set(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let ftz = m.take("ftz");
    let join = m.any(&["and", "or", "xor"]);
    let Some(name) = m.any(&NAMES) else { return Err(m.unsupported()) };
    let [to, from] = m.types::<2>()?;
    b.count(&s.operands, &[if join.is_some() { 4 } else { 3 }])?;
    let d = b.dest(&s.operands[0], to)?;
    let x = b.source(&s.operands[1], from)?;
    let y = b.source(&s.operands[2], from)?;
    let Some(low) = test(name, from, ftz, false, [x, y]) else { return Err(m.unsupported()) };
    let pair = matches!(from, Ty::F16x2 | Ty::Bf16x2);
    let high = if pair { test(name, from, ftz, true, [x, y]) } else { None };
    let other = match join {
        Some(join) => Some((joined(join), b.predicate(&s.operands[3])?)),
        None => None,
    };
    // True is one for floats, all ones for integers.
    let (yes, yes_high) = match to {
        Ty::F32 => (0x3f80_0000, 0),
        Ty::F16 => (0x3c00, 0),
        Ty::Bf16 => (0x3f80, 0),
        Ty::F16x2 => (0x3c00, 0x3c00_0000),
        Ty::Bf16x2 => (0x3f80, 0x3f80_0000),
        Ty::U(32) | Ty::S(32) if pair => (0xffff, 0xffff_0000),
        Ty::U(16) | Ty::S(16) => (0xffff, 0),
        Ty::U(32) | Ty::S(32) => (u32::MAX, 0),
        _ => return Err(m.unsupported()),
    };
    pure(Box::new(move |regs, mask| {
        let join = |value: u32| match &other {
            None => value,
            Some((join, (reg, negated))) => {
                let c = regs.preds[reg.index as usize];
                join(value, if *negated { !c } else { c })
            }
        };
        let low = join(low(regs));
        let high = high.as_ref().map_or(0, |high| join(high(regs)));
        for lane in crate::exec::warp::lanes(mask) {
            let mut value = if low >> lane & 1 != 0 { yes } else { 0 };
            if high >> lane & 1 != 0 {
                value |= yes_high;
            }
            regs.set_lane(d, lane as usize, value.into());
        }
    }))
}

pub(super) fn selp(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let ty = m.ty()?;
    b.count(&s.operands, &[4])?;
    let d = b.dest(&s.operands[0], ty)?;
    let x = b.source(&s.operands[1], ty)?;
    let y = b.source(&s.operands[2], ty)?;
    let (p, negated) = b.predicate(&s.operands[3])?;
    fn select<A: Word>([d, x, y, p]: [Reg; 4], negated: bool) -> crate::exec::regs::Pure {
        Box::new(move |regs, mask| {
            let mut pick = regs.preds[p.index as usize];
            if negated {
                pick = !pick;
            }
            let (x, y) = (A::get(regs, x.index), A::get(regs, y.index));
            let out =
                std::array::from_fn(|lane| if pick >> lane & 1 != 0 { x[lane] } else { y[lane] });
            A::put(regs, d.index, mask, &out);
        })
    }
    if ty.bits() < 16 {
        return Err(m.unsupported());
    }
    pure(if ty.bits() == 64 {
        select::<u64>([d, x, y, p], negated)
    } else {
        select::<u32>([d, x, y, p], negated)
    })
}

/// Selects by the sign of the third source.
pub(super) fn slct(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let ftz = m.take("ftz");
    let [ty, by] = m.types::<2>()?;
    b.count(&s.operands, &[4])?;
    let d = b.dest(&s.operands[0], ty)?;
    let x = b.source(&s.operands[1], ty)?;
    let y = b.source(&s.operands[2], ty)?;
    let c = b.source(&s.operands[3], by)?;
    let first = move |c: f32| if ftz { flush(c) >= 0.0 } else { c >= 0.0 };
    pure(match (ty.bits(), by) {
        (16 | 32, Ty::S(32)) => {
            op3::<u32, u32, i32, u32>(d, [x, y, c], |x, y, c| if c >= 0 { x } else { y })
        }
        (64, Ty::S(32)) => {
            op3::<u64, u64, i32, u64>(d, [x, y, c], |x, y, c| if c >= 0 { x } else { y })
        }
        (16 | 32, Ty::F32) => {
            op3::<u32, u32, f32, u32>(d, [x, y, c], move |x, y, c| if first(c) { x } else { y })
        }
        (64, Ty::F32) => {
            op3::<u64, u64, f32, u64>(d, [x, y, c], move |x, y, c| if first(c) { x } else { y })
        }
        _ => return Err(m.unsupported()),
    })
}
