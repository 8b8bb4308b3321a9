//! Multiply-adds and loads as fast as the processor can, and nothing else.

use longmamba_cpu::IsaKind;
use std::hint::black_box;

/// Runs `rounds` rounds of multiply-adds; returns how many floating-point operations that was.
pub(crate) fn multiply_add(isa: IsaKind, rounds: usize) -> f64 {
    match isa {
        #[cfg(target_arch = "x86_64")]
        IsaKind::Avx2 if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") => {
            // SAFETY: both features were just detected.
            unsafe { x86::avx2(rounds) }
        }
        #[cfg(target_arch = "x86_64")]
        IsaKind::Avx512 if is_x86_feature_detected!("avx512f") => {
            // SAFETY: the feature was just detected.
            unsafe { x86::avx512(rounds) }
        }
        #[cfg(target_arch = "aarch64")]
        IsaKind::Neon if std::arch::is_aarch64_feature_detected!("neon") => {
            // SAFETY: the feature was just detected.
            unsafe { arm::neon(rounds) }
        }
        _ => plain(rounds),
    }
}

/// Reads all of `data`, `times` times over.
pub(crate) fn read(isa: IsaKind, data: &[f32], times: usize) {
    for _ in 0..times {
        match isa {
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx2 | IsaKind::Avx512 if is_x86_feature_detected!("avx2") => {
                // SAFETY: the feature was just detected.
                unsafe { x86::read(black_box(data)) }
            }
            _ => read_lanes::<32>(black_box(data)),
        }
    }
}

/// Combines everything in `LANES` independent lanes, eight registers of them.
#[inline(always)]
fn read_lanes<const LANES: usize>(data: &[f32]) {
    let mut sums = [0u32; LANES];
    for part in data.chunks_exact(LANES) {
        for (sum, v) in sums.iter_mut().zip(part) {
            *sum ^= v.to_bits();
        }
    }
    black_box(sums);
}

/// Multiplications and additions apart, as the compiler vectorises them for any processor.
fn plain(rounds: usize) -> f64 {
    const CHAINS: usize = 8;
    let (scale, shift) = (black_box(0.999f32), black_box(1e-3f32));
    let mut sums = [[1.0f32; 4]; CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            for lane in sum {
                *lane = *lane * scale + shift;
            }
        }
    }
    black_box(sums);
    (rounds * CHAINS * 4 * 2) as f64
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    const CHAINS: usize = 12;

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(rounds: usize) -> f64 {
        let scale = _mm256_set1_ps(black_box(0.999));
        let shift = _mm256_set1_ps(black_box(1e-3));
        let mut sums = [shift; CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, scale, shift);
            }
        }
        black_box(sums);
        (rounds * CHAINS * 8 * 2) as f64
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn read(data: &[f32]) {
        super::read_lanes::<64>(data);
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(rounds: usize) -> f64 {
        let scale = _mm512_set1_ps(black_box(0.999));
        let shift = _mm512_set1_ps(black_box(1e-3));
        let mut sums = [shift; CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, scale, shift);
            }
        }
        black_box(sums);
        (rounds * CHAINS * 16 * 2) as f64
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;
    use std::hint::black_box;

    /// Four pipes of four cycles, on the widest processors.
    const CHAINS: usize = 20;

    #[target_feature(enable = "neon")]
    pub(super) fn neon(rounds: usize) -> f64 {
        let scale = vdupq_n_f32(black_box(0.999));
        let shift = vdupq_n_f32(black_box(1e-3));
        let mut sums = [shift; CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = vfmaq_f32(shift, *sum, scale);
            }
        }
        black_box(sums);
        (rounds * CHAINS * 4 * 2) as f64
    }
}
