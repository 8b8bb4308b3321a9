//! Arithmetic and functions of f32 and f64.

use super::mods::{Mods, Ty};
use super::{Builder, Decoded, pure};
use crate::exec::regs::{op1, op2, op3};
use crate::num::{self, Round, choose32, choose64, flush, saturate};
use crate::ptx::{Operand, Statement};

/// Sources flushed, the result flushed and saturated, as asked.
#[derive(Clone, Copy)]
struct Finish {
    ftz: bool,
    sat: bool,
}

impl Finish {
    #[inline(always)]
    fn source(self, a: f32) -> f32 {
        if self.ftz { flush(a) } else { a }
    }

    #[inline(always)]
    fn result(self, a: f32) -> f32 {
        let a = if self.ftz { flush(a) } else { a };
        if self.sat { saturate(a) } else { a }
    }
}

pub(super) fn arithmetic(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let op = s.opcode[0].as_str();
    let finish = Finish { ftz: m.take("ftz"), sat: m.take("sat") };
    let nan = m.take("NaN");
    let approx = op == "div" && m.any(&["approx", "full"]).is_some();
    let round = m.round();
    let ty = m.ty()?;
    let near = round.unwrap_or(Round::Near);
    let wanted = match op {
        "abs" | "neg" => 2,
        "fma" | "mad" => 4,
        "rem" => return Err(m.unsupported()),
        _ => 3,
    };
    b.count(&s.operands, &[wanted])?;
    if matches!(op, "fma" | "mad") && round.is_none()
        || op == "div" && round.is_none() && !approx
        || nan && !matches!(op, "min" | "max")
        || matches!(op, "min" | "max" | "abs" | "neg") && (round.is_some() || finish.sat)
    {
        return Err(m.unsupported());
    }
    if ty == Ty::F64 {
        if finish.ftz || finish.sat || nan || approx {
            return Err(m.unsupported());
        }
        return double(b, op, &s.operands, near, m);
    }
    let d = b.dest(&s.operands[0], Ty::F32)?;
    let rest = &s.operands[1..];
    let plain = near == Round::Near && !finish.ftz && !finish.sat;
    if wanted == 2 {
        let [a] = b.sources::<f32, 1>(rest, ty)?;
        return pure(match op {
            "abs" => op1::<f32, f32>(d, a, move |a| finish.result(a.abs())),
            _ => op1::<f32, f32>(d, a, move |a| finish.result(-a)),
        });
    }
    if wanted == 4 {
        let regs = b.sources::<f32, 3>(rest, ty)?;
        return pure(if plain {
            op3::<f32, f32, f32, f32>(d, regs, f32::mul_add)
        } else {
            op3::<f32, f32, f32, f32>(d, regs, move |a, b, c| {
                let [a, b, c] = [a, b, c].map(|x| finish.source(x));
                finish.result(num::fma32(a, b, c, near))
            })
        });
    }
    let regs = b.sources::<f32, 2>(rest, ty)?;
    macro_rules! with {
        ($plain:expr, $rounded:expr) => {
            if plain {
                op2::<f32, f32, f32>(d, regs, $plain)
            } else {
                op2::<f32, f32, f32>(d, regs, move |a, b| {
                    let rounded: fn(f32, f32, Round) -> f32 = $rounded;
                    finish.result(rounded(finish.source(a), finish.source(b), near))
                })
            }
        };
    }
    pure(match op {
        "add" => with!(|a, b| a + b, |a, b, round| match round {
            Round::Near => a + b,
            _ => num::add32(a, b, round),
        }),
        "sub" => with!(|a, b| a - b, |a, b, round| match round {
            Round::Near => a - b,
            _ => num::add32(a, -b, round),
        }),
        "mul" => with!(|a, b| a * b, |a, b, round| match round {
            Round::Near => a * b,
            _ => num::mul32(a, b, round),
        }),
        "div" => with!(|a, b| a / b, num::div32),
        _ => {
            let greater = op == "max";
            op2::<f32, f32, f32>(d, regs, move |a, b| {
                finish.result(choose32(finish.source(a), finish.source(b), greater, nan))
            })
        }
    })
}

fn double(
    b: &mut Builder<'_>,
    op: &str,
    operands: &[Operand],
    round: Round,
    m: &Mods<'_>,
) -> Decoded {
    let d = b.dest(&operands[0], Ty::F64)?;
    let rest = &operands[1..];
    if let "abs" | "neg" = op {
        let [a] = b.sources::<f64, 1>(rest, Ty::F64)?;
        return pure(if op == "abs" {
            op1::<f64, f64>(d, a, f64::abs)
        } else {
            op1::<f64, f64>(d, a, |a| -a)
        });
    }
    if let "fma" | "mad" = op {
        // The error of a fused operation in f64 is not at hand.
        if round != Round::Near {
            return Err(m.unsupported());
        }
        let regs = b.sources::<f64, 3>(rest, Ty::F64)?;
        return pure(op3::<f64, f64, f64, f64>(d, regs, f64::mul_add));
    }
    let regs = b.sources::<f64, 2>(rest, Ty::F64)?;
    pure(match op {
        "add" => op2::<f64, f64, f64>(d, regs, move |a, b| num::add64(a, b, round)),
        "sub" => op2::<f64, f64, f64>(d, regs, move |a, b| num::add64(a, -b, round)),
        "mul" => op2::<f64, f64, f64>(d, regs, move |a, b| num::mul64(a, b, round)),
        "div" => op2::<f64, f64, f64>(d, regs, move |a, b| num::div64(a, b, round)),
        "min" => op2::<f64, f64, f64>(d, regs, |a, b| choose64(a, b, false)),
        _ => op2::<f64, f64, f64>(d, regs, |a, b| choose64(a, b, true)),
    })
}

/// The approximate functions are computed in f64 and rounded, so they are better here than on a GPU.
fn approximate(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "rcp" => |a| 1.0 / a,
        "sqrt" => f64::sqrt,
        "rsqrt" => |a| 1.0 / a.sqrt(),
        "ex2" => f64::exp2,
        "lg2" => f64::log2,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tanh" => f64::tanh,
        _ => return None,
    })
}

pub(super) fn functions(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let op = s.opcode[0].as_str();
    if let "copysign" | "testp" = op {
        return rare(b, s, m);
    }
    let finish = Finish { ftz: m.take("ftz"), sat: false };
    let approx = m.take("approx");
    let round = m.round();
    let ty = m.ty()?;
    b.count(&s.operands, &[2])?;
    let Some(function) = approximate(op) else { return Err(m.unsupported()) };
    if approx == round.is_some() || round.is_some() && !matches!(op, "rcp" | "sqrt") {
        return Err(m.unsupported());
    }
    match ty {
        Ty::F32 => {
            let d = b.dest(&s.operands[0], ty)?;
            let [a] = b.sources::<f32, 1>(&s.operands[1..], ty)?;
            pure(match (op, round) {
                ("rcp", Some(round)) => op1::<f32, f32>(d, a, move |a| {
                    finish.result(num::div32(1.0, finish.source(a), round))
                }),
                ("sqrt", Some(round)) => op1::<f32, f32>(d, a, move |a| {
                    finish.result(num::sqrt32(finish.source(a), round))
                }),
                ("rsqrt", _) => op1::<f32, f32>(d, a, move |a| {
                    // Of a negative zero it is minus infinity.
                    let a = finish.source(a);
                    let r = if a == 0.0 { 1.0 / a } else { function(a.into()) as f32 };
                    finish.result(r)
                }),
                _ => op1::<f32, f32>(d, a, move |a| {
                    finish.result(function(finish.source(a).into()) as f32)
                }),
            })
        }
        Ty::F64 if matches!(op, "rcp" | "sqrt" | "rsqrt") => {
            let d = b.dest(&s.operands[0], ty)?;
            let [a] = b.sources::<f64, 1>(&s.operands[1..], ty)?;
            pure(match (op, round) {
                ("rcp", Some(round)) => op1::<f64, f64>(d, a, move |a| num::div64(1.0, a, round)),
                ("sqrt", Some(round)) => op1::<f64, f64>(d, a, move |a| num::sqrt64(a, round)),
                // `rcp.approx.ftz.f64` and its like have the upper half of the result only.
                _ => op1::<f64, f64>(d, a, move |a| {
                    f64::from_bits(function(a).to_bits() & 0xffff_ffff_0000_0000)
                }),
            })
        }
        Ty::F16 | Ty::Bf16 | Ty::F16x2 | Ty::Bf16x2 if matches!(op, "ex2" | "tanh") => {
            super::half::function(b, s, ty, function)
        }
        _ => Err(m.unsupported()),
    }
}

fn rare(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    if s.opcode[0] == "copysign" {
        let ty = m.ty()?;
        b.count(&s.operands, &[3])?;
        let d = b.dest(&s.operands[0], ty)?;
        return match ty {
            Ty::F32 => {
                let regs = b.sources::<f32, 2>(&s.operands[1..], ty)?;
                pure(op2::<f32, f32, f32>(d, regs, |a, b| b.copysign(a)))
            }
            Ty::F64 => {
                let regs = b.sources::<f64, 2>(&s.operands[1..], ty)?;
                pure(op2::<f64, f64, f64>(d, regs, |a, b| b.copysign(a)))
            }
            _ => Err(m.unsupported()),
        };
    }
    let names = ["finite", "infinite", "number", "notanumber", "normal", "subnormal"];
    let Some(kind) = m.any(&names) else { return Err(m.unsupported()) };
    let ty = m.ty()?;
    b.count(&s.operands, &[2])?;
    let d = b.dest(&s.operands[0], Ty::Pred)?;
    let a = b.source(&s.operands[1], ty)?;
    let test = move |a: f64, subnormal: bool| match kind {
        "finite" => a.is_finite(),
        "infinite" => a.is_infinite(),
        "number" => !a.is_nan(),
        "notanumber" => a.is_nan(),
        "normal" => a.is_finite() && !subnormal && a != 0.0,
        _ => subnormal,
    };
    let mask = match ty {
        Ty::F32 => {
            crate::exec::regs::compare::<f32>([a, a], move |a, _| test(a.into(), a.is_subnormal()))
        }
        Ty::F64 => crate::exec::regs::compare::<f64>([a, a], move |a, _| test(a, a.is_subnormal())),
        _ => return Err(m.unsupported()),
    };
    pure(Box::new(move |regs, active| {
        let mask = mask(regs);
        regs.set_pred(d.index, active, mask);
    }))
}
