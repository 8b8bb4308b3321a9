//! From a [`Cpu`] to the instructions: the one place where an instruction set is chosen.
//!
//! A closure that runs on another thread does not inherit the target features of the function it
//! was written in, so dispatch happens inside each parallel task: one predictable branch for a task
//! of many channels or rows.

mod awake;
mod parallel;
mod scratch;
mod split;

pub use awake::keep_awake;
pub(crate) use parallel::{Cut, Divide, block_cut, block_units, parallel, parallel_shared, pieces};
pub use scratch::Scratch;
pub(crate) use scratch::{Scratched, Slots};
pub(crate) use split::{Block, RowsMut};

#[cfg(target_arch = "aarch64")]
use crate::isa::neon::Neon;
use crate::isa::{Isa, IsaKind, scalar::Scalar};
#[cfg(target_arch = "x86_64")]
use crate::isa::{avx2::Avx2, avx512::Avx512};
use std::fmt;
use std::sync::OnceLock;

/// A computation that is written once for all instruction sets. `run` and all that it calls must be
/// `#[inline(always)]`.
pub(crate) trait Kernel {
    /// What it returns.
    type Out;
    /// Whether pairs of `bf16` are multiplied or rounded to in it. What does not need not be compiled for the
    /// instructions that do that.
    const PAIRS: bool = false;
    /// The computation.
    fn run<I: Isa>(self, isa: I) -> Self::Out;
}

/// The processor's instruction set, verified. All kernels are methods of this type.
///
/// ```
/// use longmamba_cpu::Cpu;
/// let mut values = [0.0f32, -1.0, -200.0];
/// Cpu::new().exp_nonpositive(&mut values);
/// assert_eq!((values[0], values[2]), (1.0, 0.0));
/// ```
#[derive(Clone, Copy)]
pub struct Cpu(Token);

#[derive(Clone, Copy)]
enum Token {
    Scalar(Scalar),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512<false>),
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(Avx512<true>),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Cpu {
    /// The best instruction set that this processor has; asked once per process. Where it has AMX, Linux is asked to
    /// let the process use it.
    pub fn new() -> Self {
        static BEST: OnceLock<Cpu> = OnceLock::new();
        *BEST.get_or_init(|| {
            let best = Cpu::available().last();
            best.unwrap_or(Cpu(Token::Scalar(Scalar::new())))
        })
    }

    /// This instruction set and no other, for tests and benchmarks; `None` where the processor or
    /// the target lacks it.
    pub fn with_isa(isa: IsaKind) -> Option<Self> {
        match isa {
            IsaKind::Scalar => Some(Cpu(Token::Scalar(Scalar::new()))),
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx2 => Avx2::new().map(|token| Cpu(Token::Avx2(token))),
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx512 => Avx512::new().map(|token| Cpu(Token::Avx512(token))),
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx512Bf16 => Avx512::new().map(|token| Cpu(Token::Avx512Bf16(token))),
            #[cfg(target_arch = "x86_64")]
            IsaKind::Amx => {
                let token = Avx512::new().and_then(Avx512::with_amx);
                token.map(|token| Cpu(Token::Avx512Bf16(token)))
            }
            #[cfg(target_arch = "aarch64")]
            IsaKind::Neon => Neon::new().map(|token| Cpu(Token::Neon(token))),
            #[allow(unreachable_patterns, reason = "all are reachable on no target")]
            _ => None,
        }
    }

    /// Every instruction set that this processor has, the best last.
    pub fn available() -> impl Iterator<Item = Self> {
        use IsaKind::{Amx, Avx2, Avx512, Avx512Bf16, Neon, Scalar};
        [Scalar, Neon, Avx2, Avx512, Avx512Bf16, Amx].into_iter().filter_map(Cpu::with_isa)
    }

    /// Which instruction set this is.
    pub fn isa(&self) -> IsaKind {
        match self.0 {
            Token::Scalar(_) => IsaKind::Scalar,
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(_) => IsaKind::Avx2,
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(_) => IsaKind::Avx512,
            #[cfg(target_arch = "x86_64")]
            Token::Avx512Bf16(isa) if isa.has_amx() => IsaKind::Amx,
            #[cfg(target_arch = "x86_64")]
            Token::Avx512Bf16(_) => IsaKind::Avx512Bf16,
            #[cfg(target_arch = "aarch64")]
            Token::Neon(_) => IsaKind::Neon,
        }
    }

    /// Whether [`matmul_bf16`](Cpu::matmul_bf16) is faster than [`matmul`](Cpu::matmul) here: with AMX, and with AVX-512
    /// BF16 on AMD's processors. Intel's cores multiply pairs at half the rate of floats without it.
    pub fn has_fast_bf16(&self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Token::Avx512Bf16(isa) => isa.has_fast_pairs(),
            _ => false,
        }
    }

    /// Runs `kernel`, compiled for this instruction set, on the calling thread.
    #[inline]
    pub(crate) fn call<K: Kernel>(self, kernel: K) -> K::Out {
        match self.0 {
            Token::Scalar(isa) => isa.call(kernel),
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(isa) => isa.call(kernel),
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(isa) => isa.call(kernel),
            #[cfg(target_arch = "x86_64")]
            Token::Avx512Bf16(isa) if K::PAIRS => isa.call(kernel),
            #[cfg(target_arch = "x86_64")]
            Token::Avx512Bf16(isa) => isa.without_bf16().call(kernel),
            #[cfg(target_arch = "aarch64")]
            Token::Neon(isa) => isa.call(kernel),
        }
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Cpu::new()
    }
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cpu({})", self.isa())
    }
}
