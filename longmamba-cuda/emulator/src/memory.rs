//! The memories: global memory in windows far apart, shared memory with its record of accesses.

pub(crate) mod global;
pub(crate) mod race;
pub(crate) mod shared;

/// The words of the bytes that one access of one thread moves, lowest address first.
pub(crate) type Packet = [u32; 4];

/// Shift that makes a window's number of an address: windows are 64 GiB apart.
pub(crate) const WINDOW_SHIFT: u32 = 36;
/// Where shared memory lies among generic addresses.
pub(crate) const SHARED_WINDOW: u64 = 1 << WINDOW_SHIFT;
/// Where local memory lies among generic addresses.
pub(crate) const LOCAL_WINDOW: u64 = 2 << WINDOW_SHIFT;
/// Where the parameters of the kernel lie among generic addresses.
pub(crate) const PARAM_WINDOW: u64 = 3 << WINDOW_SHIFT;
/// The first window of an allocation.
pub(crate) const FIRST_WINDOW: usize = 16;

/// Words that hold `bytes`.
pub(crate) fn words(bytes: u64) -> usize {
    bytes.div_ceil(4) as usize
}

/// Takes `size` bytes at byte `at` out of words: 1, 2, 4, 8 or 16 bytes, aligned.
#[inline(always)]
pub(crate) fn gather(at: u64, size: u32, word: impl Fn(usize) -> u32) -> Packet {
    let first = (at >> 2) as usize;
    let shift = (at & 3) * 8;
    match size {
        4 => [word(first), 0, 0, 0],
        1 => [word(first) >> shift & 0xff, 0, 0, 0],
        2 => [word(first) >> shift & 0xffff, 0, 0, 0],
        8 => [word(first), word(first + 1), 0, 0],
        _ => [word(first), word(first + 1), word(first + 2), word(first + 3)],
    }
}
