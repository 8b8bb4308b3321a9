//! `atom` and `red`.

use super::access::GlobalMemory;
use super::{Where, addresses, resolve, take_space};
use crate::decode::mods::{Mods, Ty};
use crate::decode::{Builder, Decoded};
use crate::error::{FaultKind, Run, Trouble};
use crate::exec::block::Cta;
use crate::exec::code::Action;
use crate::exec::warp::{Warp, lanes};
use crate::memory::{PARAM_WINDOW, Packet, SHARED_WINDOW, WINDOW_SHIFT};
use crate::num::{Half, choose32};
use crate::ptx::Statement;

const OPS: [&str; 10] = ["add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"];

/// What an operation makes of the old value; `b` and `c` are its operands.
fn apply(op: &str, ty: Ty, old: u64, b: u64, c: u64) -> u64 {
    let pairwise = |half: Half| {
        let low = half.add(old as u16, b as u16);
        let high = half.add((old >> 16) as u16, (b >> 16) as u16);
        u64::from(high) << 16 | u64::from(low)
    };
    match (op, ty) {
        ("exch", _) => b,
        ("cas", _) => {
            if old == b {
                c
            } else {
                old
            }
        }
        ("and", _) => old & b,
        ("or", _) => old | b,
        ("xor", _) => old ^ b,
        ("inc", _) => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        ("dec", _) => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
        ("add", Ty::F32) => {
            (f32::from_bits(old as u32) + f32::from_bits(b as u32)).to_bits().into()
        }
        ("add", Ty::F64) => (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        ("add", Ty::F16) => Half::F16.add(old as u16, b as u16).into(),
        ("add", Ty::Bf16) => Half::Bf16.add(old as u16, b as u16).into(),
        ("add", Ty::F16x2) => pairwise(Half::F16),
        ("add", Ty::Bf16x2) => pairwise(Half::Bf16),
        ("add", _) => old.wrapping_add(b),
        (_, Ty::F32) => {
            let (x, y) = (f32::from_bits(old as u32), f32::from_bits(b as u32));
            choose32(x, y, op == "max", false).to_bits().into()
        }
        (_, Ty::S(32)) => {
            let (x, y) = (old as i32, b as i32);
            (if op == "max" { x.max(y) } else { x.min(y) }) as u32 as u64
        }
        (_, Ty::S(64)) => {
            let (x, y) = (old as i64, b as i64);
            (if op == "max" { x.max(y) } else { x.min(y) }) as u64
        }
        _ => {
            if op == "max" {
                old.max(b)
            } else {
                old.min(b)
            }
        }
    }
}

fn allowed(op: &str, ty: Ty) -> bool {
    match ty {
        Ty::B(32 | 64) => matches!(op, "and" | "or" | "xor" | "exch" | "cas"),
        Ty::B(16) => op == "cas",
        Ty::U(32) => matches!(op, "add" | "min" | "max" | "inc" | "dec"),
        Ty::U(64) | Ty::S(32 | 64) => matches!(op, "add" | "min" | "max"),
        Ty::F32 | Ty::F64 | Ty::F16 | Ty::Bf16 | Ty::F16x2 | Ty::Bf16x2 => op == "add",
        _ => false,
    }
}

pub(in crate::decode) fn atomic(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let returns = s.opcode[0] == "atom";
    let orders = matches!(
        m.any(&["relaxed", "acquire", "release", "acq_rel"]),
        Some("acquire" | "release" | "acq_rel")
    );
    b.ordered |= m.any(&["cta", "gpu", "sys"]) != Some("cta") && orders;
    let space = take_space(m);
    let Some(op) = m.any(&OPS) else { return Err(m.unsupported()) };
    m.take("noftz");
    let ty = m.ty()?;
    if !allowed(op, ty) || op == "cas" && !returns {
        return Err(m.unsupported());
    }
    let sources = if op == "cas" { 2 } else { 1 };
    b.count(&s.operands, &[1 + usize::from(returns) + sources])?;
    let mut rest = s.operands.as_slice();
    let d = if returns {
        let d = b.dest(&rest[0], ty)?;
        rest = &rest[1..];
        Some(d)
    } else {
        None
    };
    let address = b.address(&rest[0])?;
    let x = b.source(&rest[1], ty)?;
    let y = if sources == 2 { b.source(&rest[2], ty)? } else { x };
    let space = resolve(b, space, &address)?;
    if matches!(space, Where::Local | Where::Param) {
        return Err(m.unsupported());
    }
    Ok(Action::Effect(Box::new(move |warp: &mut Warp, cta: &mut Cta<'_>, mask| -> Run {
        let addresses = addresses(warp, &address);
        for lane in lanes(mask) {
            let at = lane as usize;
            let (bx, by) = (warp.regs.lane(x, at), warp.regs.lane(y, at));
            let change = |old| apply(op, ty, old, bx, by);
            let mut address = addresses[at];
            let mut shared = space == Where::Shared;
            if space == Where::Generic {
                match address >> WINDOW_SHIFT << WINDOW_SHIFT {
                    SHARED_WINDOW => {
                        address -= SHARED_WINDOW;
                        shared = true;
                    }
                    1..=PARAM_WINDOW => {
                        let what = "atomic operations are for global and shared memory";
                        return Err(Trouble::new(lane, FaultKind::Value(what)));
                    }
                    _ => {}
                }
            }
            let size = ty.bytes();
            let old = if shared {
                let site = cta.site(warp.index, lane, true);
                let old = join(&cta.shared.load(address, size, site)?);
                let new = change(old);
                cta.shared.store(address, size, &[new as u32, (new >> 32) as u32, 0, 0], site)?;
                old
            } else {
                global(cta, lane, address, size, change)?
            };
            if let Some(d) = d {
                warp.regs.set_lane(d, at, old);
            }
        }
        Ok(())
    })))
}

fn join(packet: &Packet) -> u64 {
    u64::from(packet[0]) | u64::from(packet[1]) << 32
}

fn global(
    cta: &mut Cta<'_>,
    lane: u32,
    address: u64,
    size: u32,
    change: impl Fn(u64) -> u64,
) -> Result<u64, Box<Trouble>> {
    cta.meet(address);
    let (allocation, at) = GlobalMemory::locate(cta, lane, address, size)?;
    if allocation.constant {
        return Err(GlobalMemory::constant(lane, address, size));
    }
    Ok(match size {
        4 => allocation.update((at / 4) as usize, |old| change(old.into()) as u32).into(),
        2 => {
            let shift = (at & 3) * 8;
            let part = |word: u32| u64::from(word >> shift & 0xffff);
            part(allocation.update((at / 4) as usize, |old| {
                old & !(0xffff << shift) | (change(part(old)) as u32 & 0xffff) << shift
            }))
        }
        _ => {
            // Memory is words of 32 bits; those of 64 go one at a time.
            let _one = cta.context.atomics.lock().unwrap_or_else(|lock| lock.into_inner());
            let old = join(&allocation.load(at, 8));
            let new = change(old);
            allocation.store(at, 8, &[new as u32, (new >> 32) as u32, 0, 0]);
            old
        }
    })
}
