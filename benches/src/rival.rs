//! The `gemm` crate behind a safe function.

use gemm::Parallelism;

/// `out = x · wᵀ` by `gemm`: `x` `[rows, inputs]`, `w` `[outputs, inputs]`, `out` `[rows, outputs]`.
///
/// # Panics
/// Where a slice has another size than its shape.
pub(crate) fn gemm_crate(
    x: &[f32],
    w: &[f32],
    out: &mut [f32],
    [rows, inputs, outputs]: [usize; 3],
    threads: usize,
) {
    assert_eq!(x.len(), rows * inputs);
    assert_eq!(w.len(), outputs * inputs);
    assert_eq!(out.len(), rows * outputs);
    let parallelism = if threads == 1 { Parallelism::None } else { Parallelism::Rayon(threads) };
    // SAFETY: with these strides the function reads exactly the elements of `x` and `w` and writes
    // exactly those of `out`, whose sizes were checked; it does not read `out` (alpha is off).
    unsafe {
        gemm::gemm(
            rows,
            outputs,
            inputs,
            out.as_mut_ptr(),
            1,
            outputs as isize,
            false,
            x.as_ptr(),
            1,
            inputs as isize,
            w.as_ptr(),
            inputs as isize,
            1,
            0.0f32,
            1.0f32,
            false,
            false,
            false,
            parallelism,
        );
    }
}
