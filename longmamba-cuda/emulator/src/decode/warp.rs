//! Exchange among the lanes of a warp.

use super::mods::{Mods, Ty};
use super::{Builder, Decoded};
use crate::exec::code::{Action, Members};
use crate::exec::regs::LANES;
use crate::exec::warp::lanes;
use crate::ptx::{Operand, Statement};

pub(super) fn decode(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let op = s.opcode[0].as_str();
    if op == "activemask" {
        if m.ty()? != Ty::B(32) {
            return Err(m.unsupported());
        }
        b.count(&s.operands, &[1])?;
        let d = b.dest(&s.operands[0], Ty::B(32))?;
        return Ok(Action::Effect(Box::new(move |warp, _, mask| {
            for lane in lanes(mask) {
                warp.regs.set_lane(d, lane as usize, mask.into());
            }
            Ok(())
        })));
    }
    if !m.take("sync") {
        return Err(m.unsupported());
    }
    match op {
        "shfl" => shuffle(b, s, m),
        "vote" => vote(b, s, m),
        "match" => matching(b, s, m),
        "redux" => reduce(b, s, m),
        _ => Err(m.unsupported()),
    }
}

/// `d|p`: the second is a predicate.
fn destinations(operand: &Operand) -> (Operand, Option<Operand>) {
    match operand {
        Operand::Pair(d, p) => (Operand::Name(d.clone(), 0), Some(Operand::Name(p.clone(), 0))),
        other => (other.clone(), None),
    }
}

fn shuffle(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let Some(mode) = m.any(&["up", "down", "bfly", "idx"]) else { return Err(m.unsupported()) };
    if m.ty()? != Ty::B(32) {
        return Err(m.unsupported());
    }
    b.count(&s.operands, &[5])?;
    let (d, p) = destinations(&s.operands[0]);
    let d = b.dest(&d, Ty::B(32))?;
    let p = p.map(|p| b.dest(&p, Ty::Pred)).transpose()?;
    let a = b.source(&s.operands[1], Ty::B(32))?;
    let by = b.source(&s.operands[2], Ty::U(32))?;
    let c = b.source(&s.operands[3], Ty::U(32))?;
    let members = b.source(&s.operands[4], Ty::B(32))?;
    Ok(Action::Collective(
        Members::Mask(members),
        Box::new(move |warp, _, mask| {
            let from = warp.regs.words[a.index as usize];
            for lane in lanes(mask) {
                let at = lane as usize;
                let by = warp.regs.lane(by, at) as u32 & 31;
                let c = warp.regs.lane(c, at) as u32;
                let (clamp, segment) = (c & 31, c >> 8 & 31);
                // The first lane of the segment, and the last that may be read.
                let first = lane & segment;
                let last = first | clamp & !segment;
                let source = match mode {
                    "up" => lane.wrapping_sub(by),
                    "down" => lane + by,
                    "bfly" => lane ^ by,
                    _ => first | by & !segment,
                };
                let inside = match mode {
                    "up" => (source as i32) >= last as i32,
                    _ => source <= last,
                };
                let source = if inside { source } else { lane };
                // What a lane outside the mask would give is undefined.
                let value = if mask >> source & 1 != 0 { from[source as usize] } else { u32::MAX };
                warp.regs.set_lane(d, at, value.into());
                if let Some(p) = p {
                    warp.regs.set_lane(p, at, inside.into());
                }
            }
            Ok(())
        }),
    ))
}

fn vote(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let Some(mode) = m.any(&["all", "any", "uni", "ballot"]) else { return Err(m.unsupported()) };
    let ballot = mode == "ballot";
    let ty = m.ty()?;
    if ty != if ballot { Ty::B(32) } else { Ty::Pred } {
        return Err(m.unsupported());
    }
    b.count(&s.operands, &[3])?;
    let d = b.dest(&s.operands[0], ty)?;
    let (a, negated) = b.predicate(&s.operands[1])?;
    let members = b.source(&s.operands[2], Ty::B(32))?;
    Ok(Action::Collective(
        Members::Mask(members),
        Box::new(move |warp, _, mask| {
            let votes = warp.regs.preds[a.index as usize];
            let votes = (if negated { !votes } else { votes }) & mask;
            let value = match mode {
                "all" => u32::from(votes == mask),
                "any" => u32::from(votes != 0),
                "uni" => u32::from(votes == mask || votes == 0),
                _ => votes,
            };
            for lane in lanes(mask) {
                warp.regs.set_lane(d, lane as usize, value.into());
            }
            Ok(())
        }),
    ))
}

fn matching(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let Some(mode) = m.any(&["any", "all"]) else { return Err(m.unsupported()) };
    let ty = m.ty()?;
    if !matches!(ty, Ty::B(32 | 64)) {
        return Err(m.unsupported());
    }
    b.count(&s.operands, &[3])?;
    let (d, p) = destinations(&s.operands[0]);
    let d = b.dest(&d, Ty::B(32))?;
    let p = p.map(|p| b.dest(&p, Ty::Pred)).transpose()?;
    let a = b.source(&s.operands[1], ty)?;
    let members = b.source(&s.operands[2], Ty::B(32))?;
    let any = mode == "any";
    Ok(Action::Collective(
        Members::Mask(members),
        Box::new(move |warp, _, mask| {
            let values: [u64; LANES] = std::array::from_fn(|lane| warp.regs.lane(a, lane));
            for lane in lanes(mask) {
                let equal = lanes(mask)
                    .filter(|other| values[*other as usize] == values[lane as usize])
                    .fold(0_u32, |equal, other| equal | 1 << other);
                let value = if any || equal == mask { equal } else { 0 };
                warp.regs.set_lane(d, lane as usize, value.into());
                if let Some(p) = p {
                    warp.regs.set_lane(p, lane as usize, (equal == mask).into());
                }
            }
            Ok(())
        }),
    ))
}

fn reduce(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let Some(op) = m.any(&["add", "min", "max", "and", "or", "xor"]) else {
        return Err(m.unsupported());
    };
    let ty = m.ty()?;
    let bits = matches!(op, "and" | "or" | "xor");
    if bits != (ty == Ty::B(32)) || !matches!(ty, Ty::B(32) | Ty::U(32) | Ty::S(32)) {
        return Err(m.unsupported());
    }
    b.count(&s.operands, &[3])?;
    let d = b.dest(&s.operands[0], ty)?;
    let a = b.source(&s.operands[1], ty)?;
    let members = b.source(&s.operands[2], Ty::B(32))?;
    let signed = ty.signed();
    Ok(Action::Collective(
        Members::Mask(members),
        Box::new(move |warp, _, mask| {
            let values = warp.regs.words[a.index as usize];
            let order = |value: u32| if signed { value ^ 1 << 31 } else { value };
            let result = lanes(mask)
                .map(|lane| values[lane as usize])
                .reduce(|x, y| match op {
                    "add" => x.wrapping_add(y),
                    "and" => x & y,
                    "or" => x | y,
                    "xor" => x ^ y,
                    "min" => {
                        if order(y) < order(x) {
                            y
                        } else {
                            x
                        }
                    }
                    _ => {
                        if order(y) > order(x) {
                            y
                        } else {
                            x
                        }
                    }
                })
                .unwrap_or(0);
            for lane in lanes(mask) {
                warp.regs.set_lane(d, lane as usize, result.into());
            }
            Ok(())
        }),
    ))
}
