//! AMX: products of whole tiles of pairs. Intel's processors since Sapphire Rapids have it, and Linux lends it.
//!
//! A tile is a register of sixteen rows of 64 bytes: sixteen rows of sixteen pairs of the left factor, sixteen pairs
//! of each of sixteen columns of the right one, or sixteen rows of sixteen sums. One instruction takes 8192 products
//! and adds them to their sums: as many as 256 of AVX-512 BF16.
//!
//! The compiler does not know these registers, so they are written about in assembly. What tiles hold lives inside of
//! one block of it; only their shape outlasts it, in a [`Tiles`], whose end sets them free.
//!
//! Subnormal values count as 0. Of each step of sixteen pairs the first products of pairs are summed in order, and the
//! second ones; then both sums are added to the sum before (Intel's manual, `TDPBF16PS`).

use super::Pair;
use super::tile::FEW;
use super::tile::blocks::{BLOCK, Step, TILE};
use half::bf16;
use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// How far ahead a panel is asked for, in bytes.
const AHEAD: usize = 8192;

/// Proof that the processor has AMX for `bf16`, and that the system lets this process use it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amx(());

impl Amx {
    /// `None` where it may not be used. Asks the system the first time.
    pub(crate) fn new() -> Option<Self> {
        static ALLOWED: OnceLock<bool> = OnceLock::new();
        ALLOWED.get_or_init(|| processor_has() && system_allows()).then_some(Amx(()))
    }

    /// Tiles for a block of `rows` by `columns` sums, 1 to [`BLOCK`] of each.
    ///
    /// # Safety
    /// A thread has eight tiles, so there must be no other [`Tiles`] of this thread as long as these live.
    #[inline(always)]
    pub(crate) unsafe fn tiles(self, shape: [usize; 2]) -> Tiles {
        let mut tiles = Tiles { shape: [0; 2], thread: PhantomData };
        tiles.reshape(shape);
        tiles
    }

    /// Multiplies tiles that stay where they are so many times; gives how many products of `bf16` that was.
    pub(crate) fn chains(self, rounds: usize) -> f64 {
        // SAFETY: nothing in here makes others.
        let tiles = unsafe { self.tiles([BLOCK, BLOCK]) };
        // Zeros would be multiplied faster.
        let factors = Step([[[bf16::from_f32(0.37); 2]; TILE]; TILE]);
        // SAFETY: `tiles` have their full shape, and the factors are what one of them holds.
        unsafe {
            asm!(
                "tileloadd tmm4, [{factors} + {row}]",
                "tileloadd tmm5, [{factors} + {row}]",
                "tileloadd tmm6, [{factors} + {row}]",
                "tileloadd tmm7, [{factors} + {row}]",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "dec {rounds}",
                "jnz 2b",
                factors = in(reg) &raw const factors,
                row = in(reg) TILE * size_of::<Pair>(),
                rounds = inout(reg) rounds.max(1) => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly),
            );
        }
        drop(tiles);
        (rounds.max(1) * BLOCK * BLOCK * TILE * 2) as f64
    }
}

/// Whether the processor multiplies tiles of `bf16`.
fn processor_has() -> bool {
    const BF16: u32 = 1 << 22;
    const TILES: u32 = 1 << 24;
    // SAFETY: every processor of 64 bits has the instruction; leaves that it lacks give what says nothing of AMX,
    // or are asked for by nobody: AVX-512, which comes before this, is in the same one.
    #[allow(unused_unsafe, reason = "safe in newer compilers")]
    let leaf = unsafe { __cpuid_count(7, 0) };
    leaf.edx & (BF16 | TILES) == BF16 | TILES
}

/// Whether the system keeps tiles when it changes threads. It must be asked, once for a process, as they take 8 KiB.
fn system_allows() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XTILE_DATA: i64 = 18;
    let result: i64;
    // SAFETY: the call takes two numbers and touches no memory of this process. Where it is not known it fails.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XTILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Where the sums of a block go.
#[derive(Clone, Copy)]
pub(crate) struct SumsAt {
    pub(crate) data: *mut f32,
    /// From row to row.
    pub(crate) stride: usize,
}

/// Tiles of this thread in the shape of a block.
pub(crate) struct Tiles {
    shape: [usize; 2],
    /// Shapes are a thread's own.
    thread: PhantomData<*const ()>,
}

impl Tiles {
    /// Rows and columns of the block.
    #[inline(always)]
    pub(crate) fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Another shape, as in [`Amx::tiles`].
    #[inline(always)]
    pub(crate) fn reshape(&mut self, shape: [usize; 2]) {
        if self.shape == shape {
            return;
        }
        assert!(shape.iter().all(|n| (1..=BLOCK).contains(n)));
        self.shape = shape;
        // A second tile that is not needed has one row or column. It costs little, and nobody looks at it.
        let [rows, columns] = shape.map(|n| [n.min(TILE), n.saturating_sub(TILE).max(1)]);
        let mut layout = TileLayout { palette: 1, ..TileLayout::default() };
        let mut set = |tile: usize, rows: usize, columns: usize| {
            layout.rows[tile] = rows as u8;
            layout.row_bytes[tile] = (columns * size_of::<f32>()) as u16;
        };
        for i in 0..2 {
            set(2 * i, rows[i], columns[0]);
            set(2 * i + 1, rows[i], columns[1]);
            set(4 + i, rows[i], TILE);
            set(6 + i, TILE, columns[i]);
        }
        // SAFETY: an `Amx` has made this, so the instruction is there and allowed; it reads the 64 bytes of a layout
        // whose shapes are at most 16 rows of 64 bytes, and empties all tiles, which nobody relies on.
        unsafe {
            asm!(
                "ldtilecfg [{0}]",
                in(reg) &raw const layout,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly),
            );
        }
    }

    /// `sums[i][j] = Σ_k left[i, k] · right[k, j]` for the block's rows and columns and `steps` times [`TILE`] pairs;
    /// with `add` that is added to what is there. Strides are in pairs. A few rows wait for `right` to come from memory,
    /// so it is asked for ahead.
    ///
    /// # Safety
    /// `left` must be valid for reading all those pairs of each of the block's rows, `right` for reading the block's
    /// columns of each of those pairs, and `sums` for reading and writing the block's shape, where both of its sizes
    /// are above [`TILE`]; else a whole block, of which what lies outside the shape may become anything.
    #[inline(always)]
    #[allow(
        clippy::too_many_arguments,
        reason = "two factors, how much of them, and where it goes"
    )]
    pub(crate) unsafe fn multiply(
        &self,
        left: *const Pair,
        left_stride: usize,
        right: *const Pair,
        right_stride: usize,
        steps: usize,
        add: bool,
        sums: SumsAt,
    ) {
        let [rows, columns] = self.shape;
        let bytes = |pairs: usize| pairs.wrapping_mul(size_of::<Pair>());
        let (left_stride, right_stride) = (bytes(left_stride), bytes(right_stride));
        // What a second tile that is not needed reads is the first row or column once more.
        let second_left = match rows > TILE {
            true => left.wrapping_byte_add(left_stride.wrapping_mul(TILE)),
            false => left,
        };
        let second_right = if columns > TILE { right.wrapping_add(TILE) } else { right };
        let how = u64::from(add) | u64::from(rows <= FEW) << 1;
        let row = sums.stride.wrapping_mul(size_of::<f32>());
        // SAFETY: the caller vouches for what is read: of each step the rows and columns that the tiles' shapes have;
        // and for the sums: tiles 0 and 1 side by side, 2 and 3 below, where the second are as large as what is left
        // of the shape or, with nothing left, inside of a whole block.
        unsafe {
            asm!(
                "test {how:l}, 1",
                "jnz 2f",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "jmp 3f",
                "2:",
                "tileloadd tmm0, [{sums} + {row}]",
                "tileloadd tmm1, [{sums} + {row} + 64]",
                "tileloadd tmm2, [{lower} + {row}]",
                "tileloadd tmm3, [{lower} + {row} + 64]",
                "3:",
                "test {steps}, {steps}",
                "jz 5f",
                "4:",
                "tileloadd tmm4, [{left} + {left_stride}]",
                "tileloadd tmm6, [{right} + {right_stride}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{second_right} + {right_stride}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{second_left} + {left_stride}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "test {how:l}, 2",
                "jz 6f",
                // The lines of a step of a panel: one after the other. To ask for what is not there does nothing.
                ".irp line, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                "prefetcht0 [{right} + {ahead} + 64 * \\line]",
                "prefetcht0 [{right} + {ahead} + 1024 + 64 * \\line]",
                ".endr",
                "6:",
                "add {left}, 64",
                "add {second_left}, 64",
                "lea {right}, [{right} + 8 * {right_stride}]",
                "lea {right}, [{right} + 8 * {right_stride}]",
                "lea {second_right}, [{second_right} + 8 * {right_stride}]",
                "lea {second_right}, [{second_right} + 8 * {right_stride}]",
                "dec {steps}",
                "jnz 4b",
                "5:",
                "tilestored [{sums} + {row}], tmm0",
                "tilestored [{sums} + {row} + 64], tmm1",
                "tilestored [{lower} + {row}], tmm2",
                "tilestored [{lower} + {row} + 64], tmm3",
                how = in(reg) how,
                sums = in(reg) sums.data,
                lower = in(reg) sums.data.wrapping_byte_add(row.wrapping_mul(TILE)),
                row = in(reg) row,
                steps = inout(reg) steps => _,
                left = inout(reg) left => _,
                second_left = inout(reg) second_left => _,
                left_stride = in(reg) left_stride,
                right = inout(reg) right => _,
                second_right = inout(reg) second_right => _,
                right_stride = in(reg) right_stride,
                ahead = const AHEAD,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

impl Drop for Tiles {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: an `Amx` has made this, so the instruction is there; it empties tiles that nobody relies on.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem),
            );
        }
    }
}

/// What the shapes of tiles are loaded from.
#[repr(C, align(64))]
#[derive(Default)]
struct TileLayout {
    /// 1: eight tiles of a KiB.
    palette: u8,
    /// Where an interrupted load or store goes on.
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

const _: () = assert!(size_of::<TileLayout>() == 64);
