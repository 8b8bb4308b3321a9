//! Loads, stores, and what is about addresses.

mod access;
mod atomic;

pub(super) use access::{GlobalMemory, Memory};
pub(super) use atomic::atomic;

use super::builder::{Address, Meaning};
use super::convert::register;
use super::mods::{Mods, Ty};
use super::{Builder, Decoded, pure};
use crate::error::{LoadError, Run};
use crate::exec::block::Cta;
use crate::exec::code::{Action, Effect};
use crate::exec::regs::{Class, LANES, Reg, op1};
use crate::exec::warp::{Warp, lanes};
use crate::memory::{LOCAL_WINDOW, PARAM_WINDOW, Packet, SHARED_WINDOW, WINDOW_SHIFT};
use crate::ptx::{Operand, Statement};
use access::{GenericMemory, LocalMemory, ParamMemory, SharedMemory};

/// A state space as an instruction names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Global,
    Shared,
    Local,
    Param,
    Generic,
}

fn take_space(m: &mut Mods<'_>) -> Where {
    let names = [
        "global",
        "const",
        "shared",
        "shared::cta",
        "local",
        "param",
        "param::entry",
        "param::func",
    ];
    match m.any(&names) {
        // Constant memory is global memory that kernels do not write.
        Some("global" | "const") => Where::Global,
        Some("shared" | "shared::cta") => Where::Shared,
        Some("local") => Where::Local,
        Some(_) => Where::Param,
        None => Where::Generic,
    }
}

fn window(space: Where) -> u64 {
    match space {
        Where::Shared => SHARED_WINDOW,
        Where::Local => LOCAL_WINDOW,
        Where::Param => PARAM_WINDOW,
        Where::Global | Where::Generic => 0,
    }
}

/// Generic addresses to those of a space, and back.
pub(super) fn cvta(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let to = m.take("to");
    let space = take_space(m);
    if space == Where::Generic || m.ty()? != Ty::U(64) {
        return Err(m.unsupported());
    }
    b.count(&s.operands, &[2])?;
    let d = b.dest(&s.operands[0], Ty::U(64))?;
    let a = b.source(&s.operands[1], Ty::U(64))?;
    let window = window(space);
    pure(if to {
        op1::<u64, u64>(d, a, move |a| a.wrapping_sub(window))
    } else {
        op1::<u64, u64>(d, a, move |a| a.wrapping_add(window))
    })
}

pub(super) fn isspacep(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let space = take_space(m);
    m.end()?;
    b.count(&s.operands, &[2])?;
    let d = b.dest(&s.operands[0], Ty::Pred)?;
    let a = b.source(&s.operands[1], Ty::U(64))?;
    let window = window(space) >> WINDOW_SHIFT;
    let inside = move |address: u64| match space {
        Where::Global | Where::Generic => address >> WINDOW_SHIFT > PARAM_WINDOW >> WINDOW_SHIFT,
        _ => address >> WINDOW_SHIFT == window,
    };
    let mask = crate::exec::regs::compare::<u64>([a, a], move |a, _| inside(a));
    pure(Box::new(move |regs, active| {
        let value = mask(regs);
        regs.set_pred(d.index, active, value);
    }))
}

/// What the space says, or the name in the address.
fn resolve(b: &Builder<'_>, space: Where, address: &Address) -> Result<Where, LoadError> {
    Ok(match (space, address.meaning) {
        // Parameters of device functions, and those of calls, are in local memory.
        (Where::Param, Some(Meaning::LocalParam(_))) => Where::Local,
        (Where::Param, None) if b.frames.len() > 1 => Where::Local,
        (Where::Generic, Some(Meaning::Global(_) | Meaning::Const(_))) => Where::Global,
        (Where::Generic, Some(Meaning::Shared(_))) => Where::Shared,
        (Where::Generic, Some(Meaning::Local(_))) => Where::Local,
        (space, Some(meaning)) => {
            let fits = matches!(
                (space, meaning),
                (Where::Global, Meaning::Global(_) | Meaning::Const(_))
                    | (Where::Shared, Meaning::Shared(_))
                    | (Where::Local, Meaning::Local(_))
                    | (Where::Param, Meaning::Param(_))
            );
            if !fits {
                return Err(b.error("a variable of another state space"));
            }
            space
        }
        (space, None) => space,
    })
}

/// Caching and ordering: no caches here, and one thread of the host runs a block.
fn hint(part: &str) -> bool {
    matches!(
        part,
        "nc" | "ca"
            | "cg"
            | "cs"
            | "lu"
            | "cv"
            | "wb"
            | "wt"
            | "weak"
            | "unified"
            | "L2::64B"
            | "L2::128B"
            | "L2::256B"
    ) || part.starts_with("L1::")
        || part.starts_with("L2::evict")
}

/// Vector and type of a load or store, and whether it takes part in ordering.
fn shape(b: &mut Builder<'_>, m: &mut Mods<'_>) -> Result<(Where, Ty, usize, bool), LoadError> {
    let order = m.any(&["volatile", "relaxed", "acquire", "release", "mmio"]);
    let strong = order.is_some();
    if strong && m.any(&["cta", "gpu", "sys"]) != Some("cta") {
        b.ordered |= matches!(order, Some("acquire" | "release"));
    }
    let space = take_space(m);
    m.ignore(hint);
    let count = match m.any(&["v2", "v4"]) {
        None => 1,
        Some("v2") => 2,
        Some(_) => 4,
    };
    let ty = m.ty()?;
    if ty == Ty::Pred || ty.bytes() as usize * count > 16 {
        return Err(m.unsupported());
    }
    Ok((space, ty, count, strong))
}

fn elements(operand: &Operand, count: usize) -> Option<&[Operand]> {
    match operand {
        Operand::Vector(parts) if parts.len() == count => Some(parts),
        Operand::Vector(_) => None,
        one => (count == 1).then_some(std::slice::from_ref(one)),
    }
}

/// The addresses of all lanes.
#[inline(always)]
pub(super) fn addresses(warp: &Warp, address: &Address) -> [u64; LANES] {
    let offset = address.offset as u64;
    match address.base.class {
        Class::Long => {
            let base = &warp.regs.longs[address.base.index as usize];
            std::array::from_fn(|lane| base[lane].wrapping_add(offset))
        }
        _ => {
            // A 32-bit address of shared memory wraps in 32 bits.
            let base = &warp.regs.words[address.base.index as usize];
            std::array::from_fn(|lane| base[lane].wrapping_add(offset as u32).into())
        }
    }
}

/// Element `index` of a packet, zero-extended.
#[inline(always)]
fn element(packet: &Packet, size: u32, index: usize) -> u64 {
    match size {
        4 => packet[index].into(),
        8 => u64::from(packet[2 * index]) | u64::from(packet[2 * index + 1]) << 32,
        2 => (packet[index / 2] >> (index % 2 * 16) & 0xffff).into(),
        _ => (packet[index / 4] >> (index % 4 * 8) & 0xff).into(),
    }
}

#[inline(always)]
fn set_element(packet: &mut Packet, size: u32, index: usize, value: u64) {
    match size {
        4 => packet[index] = value as u32,
        8 => {
            packet[2 * index] = value as u32;
            packet[2 * index + 1] = (value >> 32) as u32;
        }
        2 => packet[index / 2] |= (value as u32 & 0xffff) << (index % 2 * 16),
        _ => packet[index / 4] |= (value as u32 & 0xff) << (index % 4 * 8),
    }
}

#[derive(Clone)]
struct Transfer {
    address: Address,
    regs: Vec<Reg>,
    ty: Ty,
    strong: bool,
}

impl Transfer {
    fn load<M: Memory>(self) -> Effect {
        let Self { address, regs, ty, strong } = self;
        let size = ty.bytes();
        let total = size * regs.len() as u32;
        let words = size == 4 && regs.iter().all(|reg| reg.class == Class::Word);
        let unused = 64 - ty.bits();
        Box::new(move |warp: &mut Warp, cta: &mut Cta<'_>, mask: u32| -> Run {
            let addresses = addresses(warp, &address);
            for lane in lanes(mask) {
                let at = lane as usize;
                let packet = M::read(warp, cta, lane, addresses[at], total, strong)?;
                if words {
                    for (index, reg) in regs.iter().enumerate() {
                        warp.regs.words[reg.index as usize][at] = packet[index];
                    }
                    continue;
                }
                for (index, reg) in regs.iter().enumerate() {
                    let mut value = element(&packet, size, index);
                    if ty.signed() {
                        value = ((value << unused) as i64 >> unused) as u64;
                    }
                    warp.regs.set_lane(*reg, at, value);
                }
            }
            Ok(())
        })
    }

    fn store<M: Memory>(self) -> Effect {
        let Self { address, regs, ty, strong } = self;
        let size = ty.bytes();
        let total = size * regs.len() as u32;
        Box::new(move |warp: &mut Warp, cta: &mut Cta<'_>, mask: u32| -> Run {
            let addresses = addresses(warp, &address);
            for lane in lanes(mask) {
                let at = lane as usize;
                let mut packet = Packet::default();
                for (index, reg) in regs.iter().enumerate() {
                    set_element(&mut packet, size, index, warp.regs.lane(*reg, at));
                }
                M::write(warp, cta, lane, addresses[at], total, &packet, strong)?;
            }
            Ok(())
        })
    }
}

pub(super) fn load(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let (space, ty, count, strong) = shape(b, m)?;
    b.count(&s.operands, &[2])?;
    let Some(parts) = elements(&s.operands[0], count) else { return Err(m.unsupported()) };
    let regs: Result<Vec<Reg>, _> = parts.iter().map(|part| register(b, part, ty, true)).collect();
    let address = b.address(&s.operands[1])?;
    let transfer = Transfer { address, regs: regs?, ty, strong };
    Ok(Action::Effect(match resolve(b, space, &address)? {
        Where::Global => transfer.load::<GlobalMemory>(),
        Where::Shared => transfer.load::<SharedMemory>(),
        Where::Local => transfer.load::<LocalMemory>(),
        Where::Param => transfer.load::<ParamMemory>(),
        Where::Generic => transfer.load::<GenericMemory>(),
    }))
}

pub(super) fn store(b: &mut Builder<'_>, s: &Statement, m: &mut Mods<'_>) -> Decoded {
    let (space, ty, count, strong) = shape(b, m)?;
    b.count(&s.operands, &[2])?;
    let Some(parts) = elements(&s.operands[1], count) else { return Err(m.unsupported()) };
    let regs: Result<Vec<Reg>, _> = parts.iter().map(|part| register(b, part, ty, false)).collect();
    let address = b.address(&s.operands[0])?;
    let transfer = Transfer { address, regs: regs?, ty, strong };
    Ok(Action::Effect(match resolve(b, space, &address)? {
        Where::Global => transfer.store::<GlobalMemory>(),
        Where::Shared => transfer.store::<SharedMemory>(),
        Where::Local => transfer.store::<LocalMemory>(),
        Where::Param => return Err(b.error("a store to the parameters of the kernel")),
        Where::Generic => transfer.store::<GenericMemory>(),
    }))
}

/// `prefetch` and its like.
pub(super) fn prefetch(_: &mut Builder<'_>, _: &Statement) -> Decoded {
    Ok(Action::Nothing)
}
