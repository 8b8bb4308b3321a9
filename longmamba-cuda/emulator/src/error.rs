//! What can go wrong, as types.

use std::fmt;
use thiserror::Error;

/// A module that cannot be loaded.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError {
    /// Not PTX.
    #[error("PTX line {line}: {what}")]
    Syntax {
        /// The line of the text, from 1.
        line: u32,
        /// What is wrong there.
        what: String,
    },
    /// PTX that the emulator does not know. It never skips anything.
    #[error("PTX line {line}: the emulator does not know {what}")]
    Unsupported {
        /// The line of the text, from 1.
        line: u32,
        /// The instruction or directive.
        what: String,
    },
    /// An operand that does not fit its instruction, or a name without a declaration.
    #[error("PTX line {line}: {what}")]
    Operand {
        /// The line of the text, from 1.
        line: u32,
        /// What is wrong there.
        what: String,
    },
    /// The module was made for a newer chip.
    #[error("the module is for sm_{module}, the device is an sm_{device}")]
    Target {
        /// `.target` of the module.
        module: u32,
        /// What the device is.
        device: u32,
    },
    /// The module was written by a newer compiler.
    #[error("the module is PTX {}.{}, the driver reads up to {}.{}", module / 10, module % 10, driver / 10, driver % 10)]
    Version {
        /// `.version` of the module, major times ten plus minor.
        module: u32,
        /// The newest that the driver reads.
        driver: u32,
    },
    /// No memory for the variables of the module.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A host call about memory that cannot be served.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryError {
    /// The device is full.
    #[error("out of device memory: {wanted} bytes wanted, {free} free")]
    Full {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes left.
        free: u64,
    },
    /// Zero bytes asked for.
    #[error("an allocation of no bytes")]
    Empty,
    /// The range is not inside one live allocation.
    #[error("{size} bytes at {address:#x}: {reason}")]
    Range {
        /// The first byte.
        address: u64,
        /// How many bytes.
        size: u64,
        /// What lies there.
        reason: Reason,
    },
}

/// Why an address is no good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Nothing was ever there.
    Nothing,
    /// The allocation was freed.
    Freed {
        /// Its first byte.
        base: u64,
        /// Its bytes.
        size: u64,
    },
    /// Past either end of an allocation.
    Outside {
        /// Its first byte.
        base: u64,
        /// Its bytes.
        size: u64,
    },
    /// Past the end of a space that the launch gave its size.
    Past {
        /// Bytes of the space.
        size: u64,
    },
    /// Constant memory is not written by kernels.
    Constant,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Nothing => write!(f, "no allocation there"),
            Reason::Freed { base, size } => {
                write!(f, "the allocation of {size} bytes at {base:#x} was freed")
            }
            Reason::Outside { base, size } => {
                write!(f, "outside the allocation of {size} bytes at {base:#x}")
            }
            Reason::Past { size } => write!(f, "the space has {size} bytes"),
            Reason::Constant => write!(f, "constant memory"),
        }
    }
}

/// A kernel that did something it must not.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("kernel {kernel}, PTX line {line} (`{instruction}`), block ({}, {}, {}), thread ({}, {}, {}): {kind}", block[0], block[1], block[2], thread[0], thread[1], thread[2])]
pub struct Fault {
    /// The kernel.
    pub kernel: String,
    /// The line in the text of the module, from 1.
    pub line: u32,
    /// The opcode with its modifiers.
    pub instruction: String,
    /// Of the thread that is to blame; of a group of threads, the first.
    pub block: [u32; 3],
    /// The thread that is to blame; of a group of threads, the first.
    pub thread: [u32; 3],
    /// What it did.
    pub kind: FaultKind,
}

/// What a kernel did.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// An access to memory that is not there.
    #[error("{size} bytes of {space} memory at {address:#x}: {reason}")]
    Address {
        /// The state space.
        space: &'static str,
        /// The first byte.
        address: u64,
        /// Bytes of the access.
        size: u32,
        /// What lies there.
        reason: Reason,
    },
    /// An address that is no multiple of the size of the access.
    #[error("{size} bytes of {space} memory at {address:#x}: misaligned")]
    Misaligned {
        /// The state space.
        space: &'static str,
        /// The first byte.
        address: u64,
        /// Bytes of the access.
        size: u32,
    },
    /// Two threads, one byte of shared memory, at least one of them writes, and no barrier between.
    #[error(
        "race in shared memory at {address:#x}: this {access} and the {other_access} of thread {other_thread} at PTX line {other_line} have no barrier between them"
    )]
    Race {
        /// The byte.
        address: u64,
        /// Read or write.
        access: Access,
        /// What the other thread did.
        other_access: Access,
        /// The other thread, counted along x, then y, then z.
        other_thread: u32,
        /// Where it did it.
        other_line: u32,
    },
    /// Shared memory that a `cp.async` is still filling.
    #[error(
        "{access} of shared memory at {address:#x} while the cp.async of thread {other_thread} at PTX line {other_line} was not waited for"
    )]
    Pending {
        /// The byte.
        address: u64,
        /// Read or write.
        access: Access,
        /// The thread that issued the copy, counted along x, then y, then z.
        other_thread: u32,
        /// Where it did it.
        other_line: u32,
    },
    /// Two blocks, one byte of global memory, at least one of them writes.
    #[error(
        "race in global memory at {address:#x}: this {access} and the {other_access} of {} of the same launch at PTX line {other_line} are in no order",
        other_block.map_or("another block".into(), |block| format!("block {block}"))
    )]
    BlockRace {
        /// The byte.
        address: u64,
        /// Read or write.
        access: Access,
        /// What the other block did.
        other_access: Access,
        /// The other block, counted along x, then y, then z (modulo 32767); `None` where it is one of several
        /// that read the byte.
        other_block: Option<u32>,
        /// Where it did it; of the accesses to the same four bytes, any.
        other_line: u32,
    },
    /// A barrier that some threads of the block never reach.
    #[error("barrier that not all threads reach: thread {missing} is {place}")]
    Barrier {
        /// One of the missing threads, counted along x, then y, then z.
        missing: u32,
        /// Where that thread is.
        place: Place,
    },
    /// A warp's operation that some threads of its mask never reach.
    #[error("not all threads of the mask {mask:#010x} reach this: thread {missing} is {place}")]
    Collective {
        /// The mask.
        mask: u32,
        /// One of the missing threads, counted along x, then y, then z.
        missing: u32,
        /// Where that thread is.
        place: Place,
    },
    /// An operand whose value the instruction does not allow.
    #[error("{0}")]
    Value(&'static str),
    /// `trap`, which is also how assertions end.
    #[error("the kernel trapped")]
    Trap,
    /// The block executed more instructions than the limit; most likely it waits for something.
    #[error("the block did not end within {0} instructions")]
    Limit(u64),
}

/// Read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An atomic operation.
    Atomic,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Access::Read => "read",
            Access::Write => "write",
            Access::Atomic => "atomic operation",
        })
    }
}

/// Where a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// It has ended, or never began because the block is smaller.
    Ended,
    /// It waits at this line of the text.
    Line(u32),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Ended => write!(f, "not running"),
            Place::Line(line) => write!(f, "at PTX line {line}"),
        }
    }
}

/// A launch that does not fit the device or the kernel, or a kernel that failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LaunchError {
    /// The module has no such kernel.
    #[error("no kernel named {0}")]
    NoKernel(String),
    /// Grid, block or shared memory out of range.
    #[error("launch of {kernel}: {what}")]
    Config {
        /// The kernel.
        kernel: String,
        /// What is out of range.
        what: String,
    },
    /// The bytes of the arguments are not those of the parameters.
    #[error("launch of {kernel}: {given} bytes of arguments, the parameters take {wanted}")]
    Params {
        /// The kernel.
        kernel: String,
        /// Bytes given.
        given: usize,
        /// Bytes of the parameters.
        wanted: usize,
    },
    /// The kernel ran and failed.
    #[error(transparent)]
    Fault(#[from] Box<Fault>),
}

/// What an instruction found, before it is known where it stands.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub lane: u32,
    pub what: What,
}

/// As [`FaultKind`], with places in the code instead of lines.
#[derive(Debug)]
pub(crate) enum What {
    Plain(FaultKind),
    Race { address: u64, access: Access, other: Access, thread: u32, pc: u32, pending: bool },
    BlockRace { address: u64, access: Access, other: Access, block: Option<u32>, pc: u32 },
}

impl Trouble {
    pub fn new(lane: u32, kind: FaultKind) -> Box<Self> {
        Box::new(Self { lane, what: What::Plain(kind) })
    }
}

/// Boxed, because it is rare and results of instructions are everywhere.
pub(crate) type Run = Result<(), Box<Trouble>>;
