//! How one lane reads and writes each state space.

use crate::error::{Access, FaultKind, Reason, Run, Trouble, What};
use crate::exec::block::Cta;
use crate::exec::warp::Warp;
use crate::memory::global::Allocation;
use crate::memory::race::Found;
use crate::memory::{LOCAL_WINDOW, PARAM_WINDOW, Packet, SHARED_WINDOW, WINDOW_SHIFT, gather};

/// A state space.
pub(in crate::decode) trait Memory: 'static {
    fn read(
        warp: &Warp,
        cta: &mut Cta<'_>,
        lane: u32,
        address: u64,
        size: u32,
        strong: bool,
    ) -> Result<Packet, Box<Trouble>>;

    fn write(
        warp: &mut Warp,
        cta: &mut Cta<'_>,
        lane: u32,
        address: u64,
        size: u32,
        packet: &Packet,
        strong: bool,
    ) -> Run;
}

pub(in crate::decode) struct GlobalMemory;
pub(super) struct SharedMemory;
pub(super) struct LocalMemory;
pub(super) struct ParamMemory;
pub(super) struct GenericMemory;

impl GlobalMemory {
    /// The allocation and the offset in it, if all bytes are inside and the address is aligned.
    #[inline(always)]
    pub fn locate<'c>(
        cta: &'c Cta<'_>,
        lane: u32,
        address: u64,
        size: u32,
    ) -> Result<(&'c Allocation, u64), Box<Trouble>> {
        if let Some(allocation) = cta.context.table.window(address) {
            let at = address.wrapping_sub(allocation.base);
            if at & u64::from(size - 1) == 0 && allocation.holds(at, size.into()) {
                return Ok((allocation, at));
            }
        }
        Err(Self::bad(cta, lane, address, size))
    }

    #[cold]
    fn bad(cta: &Cta<'_>, lane: u32, address: u64, size: u32) -> Box<Trouble> {
        let table = &cta.context.table;
        let inside = table.window(address).is_some_and(|allocation| {
            allocation.holds(address.wrapping_sub(allocation.base), size.into())
        });
        let space = "global";
        Trouble::new(
            lane,
            if inside {
                FaultKind::Misaligned { space, address, size }
            } else {
                FaultKind::Address { space, address, size, reason: table.reason(address) }
            },
        )
    }

    /// The bytes of a read, if no other block writes them.
    #[inline(always)]
    pub fn load(cta: &Cta<'_>, lane: u32, address: u64, size: u32) -> Result<Packet, Box<Trouble>> {
        let (allocation, at) = Self::locate(cta, lane, address, size)?;
        if cta.context.check_blocks
            && let Some(found) = allocation.mark_read(at, size, &cta.party, cta.pc)
        {
            return Err(Self::race(lane, allocation.base, Access::Read, found));
        }
        Ok(allocation.load(at, size))
    }

    #[cold]
    fn race(lane: u32, base: u64, access: Access, (other, found): (Access, Found)) -> Box<Trouble> {
        let (address, Found { block, pc, .. }) = (base + found.byte, found);
        Box::new(Trouble { lane, what: What::BlockRace { address, access, other, block, pc } })
    }

    #[cold]
    pub fn constant(lane: u32, address: u64, size: u32) -> Box<Trouble> {
        let reason = Reason::Constant;
        Trouble::new(lane, FaultKind::Address { space: "const", address, size, reason })
    }
}

impl Memory for GlobalMemory {
    #[inline(always)]
    fn read(
        _: &Warp,
        cta: &mut Cta<'_>,
        lane: u32,
        address: u64,
        size: u32,
        strong: bool,
    ) -> Result<Packet, Box<Trouble>> {
        if !strong {
            return Self::load(cta, lane, address, size);
        }
        cta.meet(address);
        let (allocation, at) = Self::locate(cta, lane, address, size)?;
        Ok(allocation.load(at, size))
    }

    #[inline(always)]
    fn write(
        _: &mut Warp,
        cta: &mut Cta<'_>,
        lane: u32,
        address: u64,
        size: u32,
        packet: &Packet,
        strong: bool,
    ) -> Run {
        if strong {
            cta.meet(address);
        }
        let (allocation, at) = Self::locate(cta, lane, address, size)?;
        if allocation.constant {
            return Err(Self::constant(lane, address, size));
        }
        if cta.context.check_blocks
            && !strong
            && let Some(found) = allocation.mark_write(at, size, &cta.party, cta.pc)
        {
            return Err(Self::race(lane, allocation.base, Access::Write, found));
        }
        allocation.store(at, size, packet);
        Ok(())
    }
}

impl Memory for SharedMemory {
    #[inline(always)]
    fn read(
        warp: &Warp,
        cta: &mut Cta<'_>,
        lane: u32,
        address: u64,
        size: u32,
        strong: bool,
    ) -> Result<Packet, Box<Trouble>> {
        let site = cta.site(warp.index, lane, strong);
        cta.shared.load(address, size, site)
    }

    #[inline(always)]
    fn write(
        warp: &mut Warp,
        cta: &mut Cta<'_>,
        lane: u32,
        address: u64,
        size: u32,
        packet: &Packet,
        strong: bool,
    ) -> Run {
        let site = cta.site(warp.index, lane, strong);
        cta.shared.store(address, size, packet, site)
    }
}

/// Checks an access to a space of the given size that begins at zero.
#[inline(always)]
fn inside(space: &'static str, lane: u32, address: u64, size: u32, bytes: u64) -> Run {
    if address > bytes || u64::from(size) > bytes - address {
        let reason = Reason::Past { size: bytes };
        return Err(Trouble::new(lane, FaultKind::Address { space, address, size, reason }));
    }
    if address & u64::from(size - 1) != 0 {
        return Err(Trouble::new(lane, FaultKind::Misaligned { space, address, size }));
    }
    Ok(())
}

impl Memory for LocalMemory {
    #[inline(always)]
    fn read(
        warp: &Warp,
        _: &mut Cta<'_>,
        lane: u32,
        address: u64,
        size: u32,
        _: bool,
    ) -> Result<Packet, Box<Trouble>> {
        inside("local", lane, address, size, warp.local_words as u64 * 4)?;
        let first = lane as usize * warp.local_words;
        Ok(gather(address, size, |word| warp.local[first + word]))
    }

    #[inline(always)]
    fn write(
        warp: &mut Warp,
        _: &mut Cta<'_>,
        lane: u32,
        address: u64,
        size: u32,
        packet: &Packet,
        _: bool,
    ) -> Run {
        inside("local", lane, address, size, warp.local_words as u64 * 4)?;
        let first = lane as usize * warp.local_words + (address / 4) as usize;
        if size >= 4 {
            let words = size as usize / 4;
            warp.local[first..first + words].copy_from_slice(&packet[..words]);
        } else {
            let shift = (address & 3) * 8;
            let mask = if size == 1 { 0xff } else { 0xffff } << shift;
            let word = &mut warp.local[first];
            *word = *word & !mask | packet[0] << shift & mask;
        }
        Ok(())
    }
}

impl Memory for ParamMemory {
    #[inline(always)]
    fn read(
        _: &Warp,
        cta: &mut Cta<'_>,
        lane: u32,
        address: u64,
        size: u32,
        _: bool,
    ) -> Result<Packet, Box<Trouble>> {
        let params = &cta.context.params;
        inside("param", lane, address, size, params.len() as u64 * 4)?;
        Ok(gather(address, size, |word| params[word]))
    }

    fn write(
        _: &mut Warp,
        _: &mut Cta<'_>,
        lane: u32,
        address: u64,
        size: u32,
        _: &Packet,
        _: bool,
    ) -> Run {
        let reason = Reason::Constant;
        Err(Trouble::new(lane, FaultKind::Address { space: "param", address, size, reason }))
    }
}

impl Memory for GenericMemory {
    #[inline]
    fn read(
        warp: &Warp,
        cta: &mut Cta<'_>,
        lane: u32,
        address: u64,
        size: u32,
        strong: bool,
    ) -> Result<Packet, Box<Trouble>> {
        match address >> WINDOW_SHIFT << WINDOW_SHIFT {
            SHARED_WINDOW => {
                SharedMemory::read(warp, cta, lane, address - SHARED_WINDOW, size, strong)
            }
            LOCAL_WINDOW => {
                LocalMemory::read(warp, cta, lane, address - LOCAL_WINDOW, size, strong)
            }
            PARAM_WINDOW => {
                ParamMemory::read(warp, cta, lane, address - PARAM_WINDOW, size, strong)
            }
            _ => GlobalMemory::read(warp, cta, lane, address, size, strong),
        }
    }

    #[inline]
    fn write(
        warp: &mut Warp,
        cta: &mut Cta<'_>,
        lane: u32,
        address: u64,
        size: u32,
        packet: &Packet,
        strong: bool,
    ) -> Run {
        match address >> WINDOW_SHIFT << WINDOW_SHIFT {
            SHARED_WINDOW => {
                SharedMemory::write(warp, cta, lane, address - SHARED_WINDOW, size, packet, strong)
            }
            LOCAL_WINDOW => {
                LocalMemory::write(warp, cta, lane, address - LOCAL_WINDOW, size, packet, strong)
            }
            PARAM_WINDOW => {
                ParamMemory::write(warp, cta, lane, address - PARAM_WINDOW, size, packet, strong)
            }
            _ => GlobalMemory::write(warp, cta, lane, address, size, packet, strong),
        }
    }
}
