//! Arithmetic of 16-bit floats, single and in pairs.

use super::mods::{Mods, Ty};
use super::{Builder, Decoded, pure};
use crate::exec::regs::{op1, op2, op3};
use crate::num::{Half, Round};
use crate::ptx::Statement;

fn format(ty: Ty) -> Half {
    if matches!(ty, Ty::F16 | Ty::F16x2) { Half::F16 } else { Half::Bf16 }
}

/// Applies a function of one to both of a pair.
fn pairwise<const N: usize>(pair: bool, values: [u32; N], f: impl Fn([u16; N]) -> u16) -> u32 {
    let low = f(values.map(|value| value as u16)).into();
    if !pair {
        return low;
    }
    low | u32::from(f(values.map(|value| (value >> 16) as u16))) << 16
}

pub(super) fn decode(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let op = s.opcode[0].as_str();
    let (ftz, sat, relu, nan) = (m.take("ftz"), m.take("sat"), m.take("relu"), m.take("NaN"));
    let near = matches!(m.round(), None | Some(Round::Near));
    let ty = m.ty()?;
    let half = format(ty);
    let pair = ty.bits() == 32;
    if !near || relu && op != "fma" || nan && !matches!(op, "min" | "max") {
        return Err(m.unsupported());
    }
    let source = move |a: u16| if ftz { half.flush(a) } else { a };
    let result = move |a: u16| {
        let a = if ftz { half.flush(a) } else { a };
        let a = if sat { half.saturate(a) } else { a };
        if relu && (a & 0x8000 != 0) && !half.decode(a).is_nan() { 0 } else { a }
    };
    let operands = match op {
        "abs" | "neg" => 2,
        "fma" => 4,
        "add" | "sub" | "mul" | "min" | "max" => 3,
        _ => return Err(m.unsupported()),
    };
    b.count(&s.operands, &[operands])?;
    // Single and paired values live in the same file, of 32 bits.
    let d = b.dest(&s.operands[0], ty)?;
    match operands {
        2 => {
            let [a] = b.sources::<u32, 1>(&s.operands[1..], ty)?;
            let neg = op == "neg";
            pure(op1::<u32, u32>(d, a, move |a| {
                pairwise(pair, [a], |[a]| source(if neg { a ^ 0x8000 } else { a & 0x7fff }))
            }))
        }
        3 => {
            let regs = b.sources::<u32, 2>(&s.operands[1..], ty)?;
            let f: fn(Half, u16, u16, bool) -> u16 = match op {
                "add" => |half, a, b, _| half.add(a, b),
                "sub" => |half, a, b, _| half.add(a, b ^ 0x8000),
                "mul" => |half, a, b, _| half.mul(a, b),
                "min" => |half, a, b, nan| half.choose(a, b, false, nan),
                _ => |half, a, b, nan| half.choose(a, b, true, nan),
            };
            pure(op2::<u32, u32, u32>(d, regs, move |a, b| {
                pairwise(pair, [a, b], |[a, b]| result(f(half, source(a), source(b), nan)))
            }))
        }
        _ => {
            let regs = b.sources::<u32, 3>(&s.operands[1..], ty)?;
            pure(op3::<u32, u32, u32, u32>(d, regs, move |a, b, c| {
                pairwise(pair, [a, b, c], |[a, b, c]| {
                    result(half.fma(source(a), source(b), source(c)))
                })
            }))
        }
    }
}

/// `ex2` and `tanh`.
pub(super) fn function(b: &mut Builder<'_>, s: &Statement, ty: Ty, f: fn(f64) -> f64) -> Decoded {
    let half = format(ty);
    let pair = ty.bits() == 32;
    let d = b.dest(&s.operands[0], ty)?;
    let [a] = b.sources::<u32, 1>(&s.operands[1..], ty)?;
    pure(op1::<u32, u32>(d, a, move |a| {
        pairwise(pair, [a], |[a]| half.encode(f(half.decode(a).into()), Round::Near))
    }))
}
