//! Runs PTX, the text that CUDA compilers write, on a machine without a GPU, and finds what a GPU
//! would silently do wrong: accesses outside of allocations, races, barriers that not all threads
//! reach. For tests only; it says nothing about speed.
//!
//! There are two ways in. [`Emulator`] is the device as a Rust type, with typed errors. The other is
//! the CUDA driver's own interface: the crate is also built as a shared library whose name inside is
//! `libcuda.so.1`, with the entry points that the crate `cudarc` calls. A test calls [`preload`]
//! before anything else, and the program's own lookup of the driver finds this one:
//!
//! ```no_run
//! longmamba_cuda_emulator::preload().expect("built beside the test");
//! // From here on cudarc's CudaContext::new(0) is the emulated device.
//! ```
//!
//! The same shared library has a stand-in for cuBLASLt's products, for programs that load it by the path that
//! [`preload`] returns or through a link named `libcublasLt.so.12`.
//!
//! For a program that is not changed at all, put a link named `libcuda.so.1` to
//! `liblongmamba_cuda_emulator.so` into a folder and name that folder in `LD_LIBRARY_PATH`.
//!
//! # What is checked
//! - Every allocation has a window of the address space of its own; each access must be inside a live
//!   one, and aligned. Fresh memory, shared memory and registers are full of ones (NaN).
//! - Shared memory: two accesses to a byte by different threads, one of them a write, without a
//!   barrier between; bytes that a `cp.async` is filling and that nobody waited for.
//! - Global memory: two accesses to a byte by different blocks of a launch, one of them a write, unless
//!   the blocks meet in between: at an address that both access atomically or as volatile, in a kernel
//!   with a fence of the device or with acquire and release. Such accesses themselves are exempt.
//! - Page-locked memory of the host: a copy from or to it is put off until the program waits for it; memory
//!   that is written or freed before that is an error.
//! - Barriers and operations of warps must be reached by all the threads they are for. Whole warps may
//!   end before a barrier of the block, single lanes of a warp may not.
//! - An instruction or a modifier that is not known is an error when the module is loaded.
//!
//! # What is different from a GPU
//! - Approximate functions (`ex2.approx` and others) are computed in f64 and rounded.
//! - `mma` adds its products in the order of k, each sum rounded to f32.
//! - Instructions are not fused that the assembler of a GPU might fuse; NaN keep their bits.
//! - Blocks run in order on the threads of the host; blocks that wait for each other never end, which
//!   the limit on instructions reports.
//!
//! # Environment
//! Of the shared library, and of [`Config::from_env`]:
//!
//! | variable | meaning | default |
//! | --- | --- | --- |
//! | `LONGMAMBA_EMULATOR_SM` | compute capability, as in `sm_80` | 80 |
//! | `LONGMAMBA_EMULATOR_DRIVER` | the CUDA that the driver supports, 12000 for 12.0 | 12000 |
//! | `LONGMAMBA_EMULATOR_DEVICES` | devices, 0 for none | 1 |
//! | `LONGMAMBA_EMULATOR_MEMORY` | bytes of memory of a device | 8 GiB |
//! | `LONGMAMBA_EMULATOR_PINNED` | bytes of the host's memory that can be page-locked | 8 GiB |
//! | `LONGMAMBA_EMULATOR_THREADS` | threads of the host that run blocks | processors |
//! | `LONGMAMBA_EMULATOR_RACES` | `0`: no checks for races; `shared`: none among blocks | all |
//! | `LONGMAMBA_EMULATOR_LIMIT` | thread instructions of one block | 2^40 |
//! | `LONGMAMBA_EMULATOR_MUTATION` | a mistake to make on purpose: [`Mutation`] | none |
//! | `LONGMAMBA_EMULATOR_TRACE` | `1`: each launch on stderr, with its instructions | 0 |
#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "asks for the driver's library")]
mod choose;
mod decode;
mod device;
#[allow(unsafe_code, reason = "the C interface of the driver: pointers of the caller")]
mod driver;
mod error;
mod exec;
mod memory;
mod mutation;
mod num;
#[allow(unsafe_code, reason = "loads a shared library")]
mod preload;
mod ptx;

pub use choose::{TestDriver, driver_for_tests};
pub use device::{Config, Emulator, Launch, Module, Params};
pub use error::{Access, Fault, FaultKind, LaunchError, LoadError, MemoryError, Place, Reason};
pub use mutation::Mutation;
pub use preload::{PreloadError, preload};
