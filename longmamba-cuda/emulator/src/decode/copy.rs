//! `cp.async`: copies from global to shared memory that are waited for later.
//!
//! The source is read at once. The bytes arrive when the thread waits; until then they hold what they
//! held, and touching them is an error.

use super::Decoded;
use super::builder::Builder;
use super::memory::{GlobalMemory, addresses};
use super::mods::{Mods, Ty};
use crate::error::{FaultKind, LoadError, Run, Trouble};
use crate::exec::block::Cta;
use crate::exec::code::Action;
use crate::exec::warp::{Warp, lanes};
use crate::memory::shared::Copy;
use crate::memory::{Packet, SHARED_WINDOW};
use crate::ptx::{Operand, Statement};

pub(super) fn decode(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    if !m.take("async") {
        return Err(m.unsupported());
    }
    match m.any(&["commit_group", "wait_group", "wait_all"]) {
        Some("commit_group") => {
            m.end()?;
            b.count(&s.operands, &[0])?;
            return Ok(Action::Effect(Box::new(|warp, _, mask| {
                for lane in lanes(mask) {
                    let copies = &mut warp.copies[lane as usize];
                    copies.groups.push_back(copies.open);
                    copies.open = 0;
                }
                Ok(())
            })));
        }
        Some(wait) => {
            m.end()?;
            let all = wait == "wait_all";
            b.count(&s.operands, &[usize::from(!all)])?;
            let keep = if all { 0 } else { number(b, &s.operands[0])? };
            return Ok(Action::Effect(Box::new(move |warp, cta, mask| {
                for lane in lanes(mask) {
                    wait_for(warp, cta, lane, keep, all);
                }
                Ok(())
            })));
        }
        None => {}
    }
    issue(b, s, m)
}

fn number(b: &Builder<'_>, operand: &Operand) -> Result<usize, LoadError> {
    match operand {
        Operand::Int(value) => usize::try_from(*value).map_err(|_| b.error("a negative number")),
        _ => Err(b.error("a constant is wanted")),
    }
}

fn wait_for(warp: &mut Warp, cta: &mut Cta<'_>, lane: u32, keep: usize, all: bool) {
    let index = warp.index;
    let copies = &mut warp.copies[lane as usize];
    let mut done = 0;
    while copies.groups.len() > keep {
        done += copies.groups.pop_front().unwrap_or(0);
    }
    if all {
        done += std::mem::take(&mut copies.open);
    }
    for copy in copies.pending.drain(..done) {
        let site = cta.site(index, lane, false);
        cta.shared.end_copy(&copy, site);
    }
}

fn issue(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let Some(cache) = m.any(&["ca", "cg"]) else { return Err(m.unsupported()) };
    let to_shared = m.any(&["shared::cta", "shared"]).is_some();
    let from_global = m.take("global");
    m.ignore(|part| part.starts_with("L2::") && part != "L2::cache_hint");
    m.end()?;
    if !to_shared || !from_global {
        return Err(m.unsupported());
    }
    b.count(&s.operands, &[3, 4])?;
    let to = b.address(&s.operands[0])?;
    let from = b.address(&s.operands[1])?;
    let size = number(b, &s.operands[2])? as u32;
    if !matches!((cache, size), ("ca", 4 | 8 | 16) | ("cg", 16)) {
        return Err(m.unsupported());
    }
    // The fourth operand is how much to read, the rest being zeros; as a predicate, whether to.
    let limit = match s.operands.get(3) {
        None => None,
        Some(operand) => {
            if let Operand::Name(name, 0) = operand
                && b.any_register(name)?.is_some_and(|reg| reg.bits == 1)
            {
                return Err(m.unsupported());
            }
            Some(b.source(operand, Ty::U(32))?)
        }
    };
    Ok(Action::Effect(Box::new(move |warp: &mut Warp, cta: &mut Cta<'_>, mask| -> Run {
        let (to, from) = (addresses(warp, &to), addresses(warp, &from));
        for lane in lanes(mask) {
            let at = lane as usize;
            let read = limit.map_or(size, |limit| warp.regs.lane(limit, at) as u32);
            if read > size {
                let what = "cp.async reads more than it copies";
                return Err(Trouble::new(lane, FaultKind::Value(what)));
            }
            let data = read_source(cta, lane, from[at], size, read)?;
            let target = if to[at] >= SHARED_WINDOW { to[at] - SHARED_WINDOW } else { to[at] };
            let copy = Copy { to: target, size, data, pc: cta.pc };
            let site = cta.site(warp.index, lane, false);
            cta.shared.begin_copy(&copy, site)?;
            let copies = &mut warp.copies[at];
            copies.pending.push_back(copy);
            copies.open += 1;
        }
        Ok(())
    })))
}

fn read_source(
    cta: &Cta<'_>,
    lane: u32,
    address: u64,
    size: u32,
    read: u32,
) -> Result<Packet, Box<Trouble>> {
    let mut data = Packet::default();
    if address & u64::from(size - 1) != 0 {
        let kind = FaultKind::Misaligned { space: "global", address, size };
        return Err(Trouble::new(lane, kind));
    }
    for byte in (0..read).step_by(4) {
        let part = (read - byte).min(4);
        let word = &mut data[byte as usize / 4];
        if part == 4 {
            *word = GlobalMemory::load(cta, lane, address + u64::from(byte), 4)?[0];
        } else {
            for i in 0..part {
                let address = address + u64::from(byte + i);
                *word |= GlobalMemory::load(cta, lane, address, 1)?[0] << (8 * i);
            }
        }
    }
    Ok(data)
}
