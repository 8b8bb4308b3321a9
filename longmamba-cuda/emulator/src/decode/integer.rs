//! Arithmetic of integers.

use super::mods::{Mods, Ty};
use super::{Builder, Decoded, pure};
use crate::exec::regs::{Pure, Reg, Word, op1, op2, op3};
use crate::ptx::Statement;

/// What the decoder needs of an integer type; 64 bits hold every intermediate but the products of
/// two 64-bit numbers, which take 128.
trait Int: Word {
    type Wide: Word;
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn high(self, b: Self) -> Self;
    fn wide(self, b: Self) -> Self::Wide;
    fn add_wide(a: Self::Wide, b: Self::Wide) -> Self::Wide;
    fn div(self, b: Self) -> Self;
    fn rem(self, b: Self) -> Self;
    fn less(self, b: Self) -> bool;
    fn neg(self) -> Self;
    fn abs(self) -> Self;
}

macro_rules! int {
    ($type:ty, $product:ty, $wide:ty, $abs:expr) => {
        impl Int for $type {
            type Wide = $wide;

            #[inline(always)]
            fn add(self, b: Self) -> Self {
                self.wrapping_add(b)
            }

            #[inline(always)]
            fn sub(self, b: Self) -> Self {
                self.wrapping_sub(b)
            }

            #[inline(always)]
            fn mul(self, b: Self) -> Self {
                self.wrapping_mul(b)
            }

            #[inline(always)]
            fn high(self, b: Self) -> Self {
                (<$product>::from(self) * <$product>::from(b) >> Self::BITS) as Self
            }

            #[inline(always)]
            fn wide(self, b: Self) -> $wide {
                (<$product>::from(self) * <$product>::from(b)) as $wide
            }

            #[inline(always)]
            fn add_wide(a: $wide, b: $wide) -> $wide {
                a.wrapping_add(b)
            }

            // What a division by zero yields is not specified; devices give all ones, and for the
            // remainder the dividend. It must not stop the interpreter, which computes idle lanes.
            #[inline(always)]
            fn div(self, b: Self) -> Self {
                if b == 0 { !0 } else { self.wrapping_div(b) }
            }

            #[inline(always)]
            fn rem(self, b: Self) -> Self {
                if b == 0 { self } else { self.wrapping_rem(b) }
            }

            #[inline(always)]
            fn less(self, b: Self) -> bool {
                self < b
            }

            #[inline(always)]
            fn neg(self) -> Self {
                self.wrapping_neg()
            }

            #[inline(always)]
            fn abs(self) -> Self {
                $abs(self)
            }
        }
    };
}

int!(u16, u32, u32, |a| a);
int!(i16, i32, i32, i16::wrapping_abs);
int!(u32, u64, u64, |a| a);
int!(i32, i64, i64, i32::wrapping_abs);
// There is no wider product than 64 bits; `mul.wide` of 64-bit numbers is refused before.
int!(u64, u128, u64, |a| a);
int!(i64, i128, i64, i64::wrapping_abs);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Low,
    High,
    Wide,
}

pub(super) fn decode(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let op = s.opcode[0].as_str();
    let sat = m.take("sat");
    let part = match m.any(&["lo", "hi", "wide"]) {
        Some("lo") => Some(Part::Low),
        Some("hi") => Some(Part::High),
        Some(_) => Some(Part::Wide),
        None => None,
    };
    let ty = m.ty()?;
    if part.is_some() != matches!(op, "mul" | "mad") || op == "fma" {
        return Err(m.unsupported());
    }
    if sat {
        if ty != Ty::S(32) || !matches!(op, "add" | "sub") {
            return Err(m.unsupported());
        }
        b.count(&s.operands, &[3])?;
        let d = b.dest(&s.operands[0], ty)?;
        let regs = b.sources::<i32, 2>(&s.operands[1..], ty)?;
        return pure(match op {
            "add" => op2::<i32, i32, i32>(d, regs, i32::saturating_add),
            _ => op2::<i32, i32, i32>(d, regs, i32::saturating_sub),
        });
    }
    if part == Some(Part::Wide) && ty.bits() == 64 {
        return Err(m.unsupported());
    }
    let part = part.unwrap_or(Part::Low);
    match ty {
        Ty::U(16) | Ty::B(16) => make::<u16>(b, s, op, ty, part),
        Ty::S(16) => make::<i16>(b, s, op, ty, part),
        Ty::U(32) | Ty::B(32) => make::<u32>(b, s, op, ty, part),
        Ty::S(32) => make::<i32>(b, s, op, ty, part),
        Ty::U(64) | Ty::B(64) => make::<u64>(b, s, op, ty, part),
        Ty::S(64) => make::<i64>(b, s, op, ty, part),
        _ => Err(m.unsupported()),
    }
}

fn make<I: Int>(b: &mut Builder<'_>, s: &Statement, op: &str, ty: Ty, part: Part) -> Decoded {
    let unary = matches!(op, "neg" | "abs");
    let ternary = op == "mad";
    b.count(&s.operands, &[if unary { 2 } else { 3 + usize::from(ternary) }])?;
    let wide = if part == Part::Wide { Ty::U(ty.bits() * 2) } else { ty };
    let d = b.dest(&s.operands[0], wide)?;
    let rest = &s.operands[1..];
    if unary {
        let [a] = b.sources::<I, 1>(rest, ty)?;
        return pure(if op == "neg" {
            op1::<I, I>(d, a, I::neg)
        } else {
            op1::<I, I>(d, a, I::abs)
        });
    }
    let [x, y] = b.sources::<I, 2>(&rest[..2], ty)?;
    if ternary {
        let z = b.source(&rest[2], wide)?;
        return pure(match part {
            Part::Low => op3::<I, I, I, I>(d, [x, y, z], |a, b, c| a.mul(b).add(c)),
            Part::High => op3::<I, I, I, I>(d, [x, y, z], |a, b, c| a.high(b).add(c)),
            Part::Wide => {
                op3::<I, I, I::Wide, I::Wide>(d, [x, y, z], |a, b, c| I::add_wide(a.wide(b), c))
            }
        });
    }
    pure(binary::<I>(op, part, d, [x, y]))
}

fn binary<I: Int>(op: &str, part: Part, d: Reg, regs: [Reg; 2]) -> Pure {
    match (op, part) {
        ("mul", Part::Wide) => op2::<I, I, I::Wide>(d, regs, I::wide),
        ("mul", Part::High) => op2::<I, I, I>(d, regs, I::high),
        ("mul", Part::Low) => op2::<I, I, I>(d, regs, I::mul),
        ("add", _) => op2::<I, I, I>(d, regs, I::add),
        ("sub", _) => op2::<I, I, I>(d, regs, I::sub),
        ("div", _) => op2::<I, I, I>(d, regs, I::div),
        ("rem", _) => op2::<I, I, I>(d, regs, I::rem),
        ("min", _) => op2::<I, I, I>(d, regs, |a, b| if b.less(a) { b } else { a }),
        _ => op2::<I, I, I>(d, regs, |a, b| if a.less(b) { b } else { a }),
    }
}

/// `mul24`, `mad24`, `sad`.
pub(super) fn rare(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let op = s.opcode[0].as_str();
    let high = m.any(&["lo", "hi"]) == Some("hi");
    let ty = m.ty()?;
    if ty.bits() != 32 || matches!(ty, Ty::B(_) | Ty::F32) || high && op == "sad" {
        return Err(m.unsupported());
    }
    let d = b.dest(&s.operands[0], ty)?;
    let signed = ty.signed();
    let widen = move |a: u32| if signed { i64::from(a as i32) } else { i64::from(a) };
    // The lower 24 bits, sign-extended or not.
    let cut = move |a: u32| {
        if signed { i64::from((a << 8) as i32 >> 8) } else { i64::from(a & 0xff_ffff) }
    };
    let shift = if high { 16 } else { 0 };
    if op == "mul24" {
        b.count(&s.operands, &[3])?;
        let regs = b.sources::<u32, 2>(&s.operands[1..], ty)?;
        return pure(op2::<u32, u32, u32>(d, regs, move |a, b| {
            ((cut(a) * cut(b)) >> shift) as u32
        }));
    }
    b.count(&s.operands, &[4])?;
    let regs = b.sources::<u32, 3>(&s.operands[1..], ty)?;
    pure(if op == "mad24" {
        op3::<u32, u32, u32, u32>(d, regs, move |a, b, c| {
            (((cut(a) * cut(b)) >> shift) as u32).wrapping_add(c)
        })
    } else {
        op3::<u32, u32, u32, u32>(d, regs, move |a, b, c| {
            ((widen(a) - widen(b)).unsigned_abs() as u32).wrapping_add(c)
        })
    })
}

/// `dp4a` and `dp2a`.
pub(super) fn dot(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let four = s.opcode[0] == "dp4a";
    let high = m.any(&["lo", "hi"]);
    let [at, bt] = m.types::<2>()?;
    if high.is_some() == four || at.bits() != 32 || bt.bits() != 32 {
        return Err(m.unsupported());
    }
    b.count(&s.operands, &[4])?;
    let d = b.dest(&s.operands[0], Ty::U(32))?;
    let regs = b.sources::<u32, 3>(&s.operands[1..], Ty::U(32))?;
    let (a_signed, b_signed) = (at.signed(), bt.signed());
    let byte = |value: u32, at: u32, signed: bool| {
        let byte = (value >> (at * 8)) as u8;
        if signed { i32::from(byte as i8) } else { byte.into() }
    };
    let half = |value: u32, at: u32, signed: bool| {
        let half = (value >> (at * 16)) as u16;
        if signed { i32::from(half as i16) } else { half.into() }
    };
    let first = if high == Some("hi") { 2 } else { 0 };
    pure(op3::<u32, u32, u32, u32>(d, regs, move |a, b, c| {
        let mut sum = c;
        for i in 0..if four { 4 } else { 2 } {
            let left = if four { byte(a, i, a_signed) } else { half(a, i, a_signed) };
            let right = byte(b, if four { i } else { first + i }, b_signed);
            sum = sum.wrapping_add(left.wrapping_mul(right) as u32);
        }
        sum
    }))
}
