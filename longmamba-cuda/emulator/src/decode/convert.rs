//! Moves and conversions.

use super::builder::Meaning;
use super::mods::{Mods, Ty};
use super::{Builder, Decoded, pure};
use crate::error::LoadError;
use crate::exec::code::Action;
use crate::exec::regs::{Class, Pure, Reg, Regs, Word, op1, op2};
use crate::exec::warp::lanes;
use crate::num::{self, Half, Round, flush, saturate};
use crate::ptx::{Operand, Statement};

pub(super) fn mov(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let ty = m.ty()?;
    b.count(&s.operands, &[2])?;
    match (&s.operands[0], &s.operands[1]) {
        (Operand::Vector(parts), source) => unpack(b, parts, source, ty, m),
        (dest, Operand::Vector(parts)) => pack(b, dest, parts, ty, m),
        (dest, Operand::Name(name, 0))
            if name.starts_with("%clock") || name.starts_with("%globaltimer") =>
        {
            let d = b.dest(dest, ty)?;
            let high = name.ends_with("_hi");
            if !matches!(
                name.as_str(),
                "%clock"
                    | "%clock_hi"
                    | "%clock64"
                    | "%globaltimer"
                    | "%globaltimer_lo"
                    | "%globaltimer_hi"
            ) {
                return Err(b.error(format!("`{name}` is not declared")));
            }
            // Time is what the warp has done so far.
            Ok(Action::Effect(Box::new(move |warp, _, mask| {
                for lane in lanes(mask) {
                    let time = if high { warp.count >> 32 } else { warp.count };
                    warp.regs.set_lane(d, lane as usize, time);
                }
                Ok(())
            })))
        }
        (dest, source) => {
            let d = b.dest(dest, ty)?;
            let a = b.source(source, ty)?;
            pure(copy(d, a))
        }
    }
}

fn copy(d: Reg, a: Reg) -> Pure {
    match d.class {
        Class::Pred => Box::new(move |regs: &mut Regs, mask| {
            let value = regs.preds[a.index as usize];
            regs.set_pred(d.index, mask, value);
        }),
        Class::Word => op1::<u32, u32>(d, a, |a| a),
        Class::Long => op1::<u64, u64>(d, a, |a| a),
    }
}

fn part(ty: Ty, parts: &[Operand], m: &Mods<'_>) -> Result<Ty, LoadError> {
    if parts.is_empty() || !matches!(ty, Ty::B(32 | 64)) {
        return Err(m.unsupported());
    }
    match ty.bits() / parts.len() as u32 {
        bits @ (16 | 32) if bits * parts.len() as u32 == ty.bits() => Ok(Ty::B(bits)),
        _ => Err(m.unsupported()),
    }
}

fn unpack(
    b: &mut Builder<'_>,
    parts: &[Operand],
    source: &Operand,
    ty: Ty,
    m: &Mods<'_>,
) -> Decoded {
    let part = part(ty, parts, m)?;
    let a = b.source(source, ty)?;
    let parts: Result<Vec<Reg>, _> = parts.iter().map(|part_| b.dest(part_, part)).collect();
    let parts = parts?;
    let width = part.bits();
    pure(Box::new(move |regs, mask| {
        for lane in lanes(mask) {
            let value = regs.lane(a, lane as usize);
            for (i, d) in parts.iter().enumerate() {
                let piece = value >> (i as u32 * width) & ((1 << width) - 1);
                regs.set_lane(*d, lane as usize, piece);
            }
        }
    }))
}

fn pack(b: &mut Builder<'_>, dest: &Operand, parts: &[Operand], ty: Ty, m: &Mods<'_>) -> Decoded {
    let part = part(ty, parts, m)?;
    let d = b.dest(dest, ty)?;
    let width = part.bits();
    let parts: Result<Vec<Reg>, _> = parts.iter().map(|p| b.source(p, part)).collect();
    let parts = parts?;
    if let ([x, y], 64) = (parts.as_slice(), ty.bits()) {
        return pure(op2::<u32, u32, u64>(d, [*x, *y], |x, y| u64::from(y) << 32 | u64::from(x)));
    }
    if let ([x, y], 32) = (parts.as_slice(), ty.bits()) {
        return pure(op2::<u32, u32, u32>(d, [*x, *y], |x, y| y << 16 | x & 0xffff));
    }
    pure(Box::new(move |regs, mask| {
        for lane in lanes(mask) {
            let lane = lane as usize;
            let value = parts.iter().enumerate().fold(0, |value, (i, part)| {
                value | (regs.lane(*part, lane) & ((1 << width) - 1)) << (i as u32 * width)
            });
            regs.set_lane(d, lane, value);
        }
    }))
}

/// A value between two types.
#[derive(Clone, Copy)]
enum Value {
    Int(i128),
    Float(f64),
}

fn is_float(ty: Ty) -> bool {
    matches!(ty, Ty::F16 | Ty::Bf16 | Ty::F32 | Ty::F64)
}

fn read(ty: Ty, bits: u64, ftz: bool) -> Value {
    match ty {
        Ty::F32 => {
            let a = f32::from_bits(bits as u32);
            Value::Float(if ftz { flush(a) } else { a }.into())
        }
        Ty::F64 => Value::Float(f64::from_bits(bits)),
        Ty::F16 => Value::Float(Half::F16.decode(bits as u16).into()),
        Ty::Bf16 => Value::Float(Half::Bf16.decode(bits as u16).into()),
        _ => {
            let unused = 64 - ty.bits();
            Value::Int(if ty.signed() {
                ((bits << unused) as i64 >> unused).into()
            } else {
                (bits << unused >> unused).into()
            })
        }
    }
}

#[derive(Clone, Copy)]
struct Conversion {
    to: Ty,
    from: Ty,
    round: Round,
    /// Rounds to an integer.
    integral: Option<Round>,
    ftz: bool,
    sat: bool,
    relu: bool,
}

impl Conversion {
    fn apply(self, bits: u64) -> u64 {
        match (read(self.from, bits, self.ftz), is_float(self.to)) {
            (Value::Int(value), false) => self.int(value),
            (Value::Int(value), true) => match self.to {
                Ty::F32 => {
                    let value = num::int_to_f32(value, self.round);
                    (if self.sat { saturate(value) } else { value }).to_bits().into()
                }
                Ty::F64 => num::int_to_f64(value, self.round).to_bits(),
                // Every such integer that a half holds is below what f64 holds.
                Ty::F16 => Half::F16.encode(sticky(value), self.round).into(),
                _ => Half::Bf16.encode(sticky(value), self.round).into(),
            },
            (Value::Float(value), false) => {
                let value = num::integral(value, self.integral.unwrap_or(Round::Zero));
                // The cast gives the nearest bound, and zero for not-a-number.
                let (least, greatest) = self.bounds();
                (value as i128).clamp(least, greatest) as u64 & self.ones()
            }
            (Value::Float(value), true) => self.float(value),
        }
    }

    fn ones(self) -> u64 {
        u64::MAX >> (64 - self.to.bits())
    }

    fn bounds(self) -> (i128, i128) {
        let bits = self.to.bits();
        if self.to.signed() {
            (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        } else {
            (0, (1 << bits) - 1)
        }
    }

    fn int(self, value: i128) -> u64 {
        let (least, greatest) = self.bounds();
        let value = if self.sat { value.clamp(least, greatest) } else { value };
        value as u64 & self.ones()
    }

    fn float(self, value: f64) -> u64 {
        let mut value = value;
        if let Some(round) = self.integral {
            value = num::integral(value, round);
        }
        if self.sat {
            value = if value > 0.0 { value.min(1.0) } else { 0.0 };
        }
        if self.relu && value < 0.0 {
            value = 0.0;
        }
        match self.to {
            Ty::F64 => value.to_bits(),
            Ty::F32 => {
                let value = num::narrow(value, self.round);
                (if self.ftz { flush(value) } else { value }).to_bits().into()
            }
            Ty::F16 => Half::F16.encode(value, self.round).into(),
            _ => Half::Bf16.encode(value, self.round).into(),
        }
    }
}

/// A large integer as an f64 that rounds to a half as the integer would.
fn sticky(value: i128) -> f64 {
    let r = value as f64;
    let back = r as i128;
    if back == value || r.to_bits() & 1 == 1 {
        r
    } else if back < value {
        r.next_up()
    } else {
        r.next_down()
    }
}

pub(super) fn cvt(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let (ftz, sat, relu) = (m.take("ftz"), m.take("sat"), m.take("relu"));
    let integral = m.round_int();
    let round = m.round();
    let [to, from] = m.types::<2>()?;
    let near = round.unwrap_or(Round::Near);
    if let Ty::F16x2 | Ty::Bf16x2 = to {
        if from != Ty::F32 || round.is_none() || integral.is_some() || sat || ftz {
            return Err(m.unsupported());
        }
        b.count(&s.operands, &[3])?;
        let half = if to == Ty::F16x2 { Half::F16 } else { Half::Bf16 };
        let d = b.dest(&s.operands[0], to)?;
        let [high, low] = b.sources::<f32, 2>(&s.operands[1..], from)?;
        let narrow = move |a: f32| {
            let a = if relu && a < 0.0 { 0.0 } else { a };
            let half =
                if near == Round::Near { half.nearest(a) } else { half.encode(a.into(), near) };
            u32::from(half)
        };
        return pure(op2::<f32, f32, u32>(d, [high, low], move |high, low| {
            narrow(high) << 16 | narrow(low)
        }));
    }
    b.count(&s.operands, &[2])?;
    if to == Ty::Pred || from == Ty::Pred || matches!(from, Ty::F16x2 | Ty::Bf16x2) {
        return Err(m.unsupported());
    }
    let (float_to, float_from) = (is_float(to), is_float(from));
    // Where a result may be inexact, how it rounds must be said.
    let halves = matches!((to, from), (Ty::F16, Ty::Bf16) | (Ty::Bf16, Ty::F16));
    let narrows = float_to && (!float_from || to.bits() < from.bits() || halves);
    if narrows != round.is_some()
        || (float_from && !float_to) != integral.is_some() && !(float_to && to == from)
        || relu && !matches!(to, Ty::F16 | Ty::Bf16)
        || ftz && to != Ty::F32 && from != Ty::F32
    {
        return Err(m.unsupported());
    }
    let d = register(b, &s.operands[0], to, true)?;
    let a = register(b, &s.operands[1], from, false)?;
    let plain = !ftz && !sat && !relu && near == Round::Near && integral.is_none();
    if plain && let Some(fast) = fast(d, a, to, from) {
        return pure(fast);
    }
    let conversion = Conversion { to, from, round: near, integral, ftz, sat, relu };
    // A destination wider than the type is filled with the sign, or zeros.
    let extend = move |bits: u64| {
        let unused = 64 - to.bits();
        if to.signed() { ((bits << unused) as i64 >> unused) as u64 } else { bits }
    };
    fn with<A: Word + Into<u64>, D: Word>(
        d: Reg,
        a: Reg,
        f: impl Fn(u64) -> u64 + Send + Sync + 'static,
        cut: fn(u64) -> D,
    ) -> Pure {
        op1::<A, D>(d, a, move |a| cut(f(a.into())))
    }
    let f = move |bits| extend(conversion.apply(bits));
    pure(match (a.class, d.class, d.bits) {
        (Class::Long, Class::Long, _) => with::<u64, u64>(d, a, f, |x| x),
        (Class::Long, _, 16) => with::<u64, u16>(d, a, f, |x| x as u16),
        (Class::Long, _, _) => with::<u64, u32>(d, a, f, |x| x as u32),
        (_, Class::Long, _) => with::<u32, u64>(d, a, f, |x| x),
        (_, _, 16) => with::<u32, u16>(d, a, f, |x| x as u16),
        _ => with::<u32, u32>(d, a, f, |x| x as u32),
    })
}

/// Operands of `cvt`, `ld` and `st` may be wider than the type.
pub(super) fn register(
    b: &mut Builder<'_>,
    operand: &Operand,
    ty: Ty,
    dest: bool,
) -> Result<Reg, LoadError> {
    if let Operand::Name(name, 0) = operand {
        if name == "_" && dest {
            return Ok(b.register(ty.bits().max(16)));
        }
        if let Some(reg) = b.any_register(name)? {
            if reg.bits >= ty.bits() && reg.class != Class::Pred {
                return Ok(reg);
            }
            return Err(b.error(format!("`{name}` is narrower than the {} bits", ty.bits())));
        }
        if let Meaning::Reg(_) = b.lookup(name)? {
            return Err(b.error("a register with an offset"));
        }
    }
    if dest {
        return Err(b.error(format!("{operand:?} is no destination")));
    }
    let ty = if ty.bits() == 8 { Ty::B(16) } else { ty };
    b.source(operand, ty)
}

/// The conversions that kernels are full of.
fn fast(d: Reg, a: Reg, to: Ty, from: Ty) -> Option<Pure> {
    if d.bits != to.bits() || a.bits != from.bits() {
        return None;
    }
    Some(match (to, from) {
        (Ty::U(64) | Ty::S(64), Ty::U(32)) => op1::<u32, u64>(d, a, u64::from),
        (Ty::S(64) | Ty::U(64), Ty::S(32)) => op1::<i32, i64>(d, a, i64::from),
        (Ty::U(32) | Ty::S(32), Ty::U(64) | Ty::S(64)) => op1::<u64, u32>(d, a, |a| a as u32),
        (Ty::U(32) | Ty::S(32), Ty::U(16)) => op1::<u16, u32>(d, a, u32::from),
        (Ty::U(16) | Ty::S(16), Ty::U(32) | Ty::S(32)) => op1::<u32, u16>(d, a, |a| a as u16),
        (Ty::F32, Ty::S(32)) => op1::<i32, f32>(d, a, |a| a as f32),
        (Ty::F32, Ty::U(32)) => op1::<u32, f32>(d, a, |a| a as f32),
        (Ty::F32, Ty::F16) => op1::<u16, f32>(d, a, |a| Half::F16.decode(a)),
        (Ty::F32, Ty::Bf16) => op1::<u16, f32>(d, a, |a| Half::Bf16.decode(a)),
        (Ty::F16, Ty::F32) => op1::<f32, u16>(d, a, |a| Half::F16.nearest(a)),
        (Ty::Bf16, Ty::F32) => op1::<f32, u16>(d, a, |a| Half::Bf16.nearest(a)),
        (Ty::F64, Ty::F32) => op1::<f32, f64>(d, a, f64::from),
        (Ty::F32, Ty::F64) => op1::<f64, f32>(d, a, |a| a as f32),
        _ => return None,
    })
}
