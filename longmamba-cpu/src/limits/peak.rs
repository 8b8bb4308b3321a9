//! Multiply-adds and loads as fast as the processor can, and nothing else.

use crate::dispatch::Kernel;
use crate::isa::tile::Factor;
use crate::isa::{Isa, LINE_BYTES, Pair};
use half::bf16;
use std::hint::black_box;

/// Chains of multiply-adds: two or four a cycle, each of four to six cycles.
const CHAINS: usize = 12;

/// Rounds of multiply-adds of floats; gives how many operations that was.
pub(super) struct Floats(pub(super) usize);

/// The same of pairs of `bf16`.
pub(super) struct Pairs(pub(super) usize);

/// Reads all of the data so many times. What comes from afar is asked for ahead, as products with one row do: from memory
/// that is faster, and from a core's own caches slower.
pub(super) struct Read<'a> {
    pub(super) data: &'a [f32],
    pub(super) times: usize,
    pub(super) from_afar: bool,
}

impl Kernel for Floats {
    type Out = f64;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f64 {
        2.0 * chains::<I, f32>(isa, self.0, 0.999, 1e-3)
    }
}

impl Kernel for Pairs {
    type Out = f64;
    const PAIRS: bool = true;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f64 {
        if let Some(amx) = isa.amx() {
            return 2.0 * amx.chains(self.0);
        }
        let pair = |v| [bf16::from_f32(v), bf16::from_f32(-v)];
        4.0 * chains::<I, Pair>(isa, self.0, pair(0.5), pair(0.25))
    }
}

/// Gives the number of products of factors.
#[inline(always)]
fn chains<I: Isa, F: Factor>(isa: I, rounds: usize, a: F, b: F) -> f64 {
    let (a, b) = (black_box(a).splat(isa), black_box(b).splat(isa));
    let mut sums = [isa.zero(); CHAINS];
    for _ in 0..rounds {
        let mut i = 0;
        while i < CHAINS {
            sums[i] = F::multiply_add(isa, a, b, sums[i]);
            i += 1;
        }
    }
    let mut total = isa.zero();
    for sum in sums {
        total = isa.add(total, sum);
    }
    black_box(isa.reduce_sum(total));
    (rounds * CHAINS * I::LANES) as f64
}

impl Kernel for Read<'_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Read { data, times, from_afar } = self;
        for _ in 0..times {
            let data = black_box(data);
            // The largest of all: it needs no arithmetic that could be in the way.
            let mut largest = [isa.zero(); 4];
            for part in data.chunks_exact(4 * I::LANES) {
                if from_afar {
                    for line in (0..size_of_val(part)).step_by(LINE_BYTES) {
                        isa.ask_ahead(part.as_ptr().wrapping_byte_add(line));
                    }
                }
                for (v, largest) in largest.iter_mut().enumerate() {
                    *largest = isa.max(isa.load(&part[v * I::LANES..]), *largest);
                }
            }
            let [a, b, c, d] = largest;
            black_box(isa.reduce_sum(isa.add(isa.add(a, b), isa.add(c, d))));
        }
    }
}
