//! Distances that the processor adds to an address by itself.

use crate::isa::{Isa, IsaKind};
use std::hint::black_box;

/// The multiples of a distance in bytes, up to eleven: the odd ones, which an instruction that loads takes times
/// 1, 2, 4 or 8 without a cost. They wrap where they overflow: the stride of a matrix of one row may be any number.
///
/// A compiler that knows how they hang together computes one from another again and again where it should keep
/// all in registers: in the loop over a tile of 6 × 2, 95 instructions for four steps instead of 85. With
/// AVX2 it is not told. With sixteen lanes a tile has more rows than there are registers for, and time enough.
#[derive(Clone, Copy)]
pub(super) struct Multiples([usize; 6]);

impl Multiples {
    /// Those up to `MOST`, at least 1, of the distance between elements so far apart.
    #[inline(always)]
    pub(super) fn new<I: Isa, T, const MOST: usize>(stride: usize) -> Self {
        const { assert!(MOST < 13) };
        let distance = stride.wrapping_mul(size_of::<T>());
        let mut odd = [distance; 6];
        let mut i = 1;
        while 2 * i < MOST {
            let multiple = distance.wrapping_mul(2 * i + 1);
            odd[i] = match I::KIND {
                IsaKind::Avx2 => black_box(multiple),
                IsaKind::Scalar
                | IsaKind::Neon
                | IsaKind::Avx512
                | IsaKind::Avx512Bf16
                | IsaKind::Amx => multiple,
            };
            i += 1;
        }
        Multiples(odd)
    }

    /// `i` times the distance.
    #[inline(always)]
    pub(super) fn times(self, i: usize) -> usize {
        match i {
            0 => 0,
            _ => self.0[i >> i.trailing_zeros() >> 1] << i.trailing_zeros(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::scalar::Scalar;

    #[test]
    fn multiples_are_what_they_say() {
        for stride in [0, 1, 7, 4096] {
            let multiples = Multiples::new::<Scalar, f32, 11>(stride);
            assert!((0..12).all(|i| multiples.times(i) == i * stride * size_of::<f32>()));
        }
    }
}
