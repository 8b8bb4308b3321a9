//! Vectors of neighbouring channels for a run of states, from and to any layout: loads where the
//! channels are contiguous, lane by lane elsewhere.

use crate::dispatch::Block;
use crate::isa::Isa;
use longmamba_core::View;

/// Loads `count` elements along the last dimension, at most a vector, from `index` on and from the
/// next indexes of dimension `dim`, one for each vector of `into`. The other lanes are zero.
#[inline(always)]
pub(crate) fn load<I: Isa, const R: usize>(
    isa: I,
    block: &mut Block<'_, f32, R>,
    index: [usize; R],
    dim: usize,
    count: usize,
    into: &mut [I::V],
) {
    if block.strides()[R - 1] == 1 {
        let rows = block.rows_mut(index, dim, into.len(), count);
        for (v, row) in into.iter_mut().zip(rows) {
            *v = isa.load_at(row, 0);
        }
        return;
    }
    for (i, v) in into.iter_mut().enumerate() {
        let mut lanes = [0.0; 16];
        let mut at = index;
        at[dim] += i;
        for lane in &mut lanes[..count] {
            *lane = block.get(at);
            at[R - 1] += 1;
        }
        *v = isa.load(&lanes);
    }
}

/// Stores the first `count` lanes of each vector of `from` where [`load`] reads it.
#[inline(always)]
pub(crate) fn store<I: Isa, const R: usize>(
    isa: I,
    from: &[I::V],
    block: &mut Block<'_, f32, R>,
    index: [usize; R],
    dim: usize,
    count: usize,
) {
    if block.strides()[R - 1] == 1 {
        let rows = block.rows_mut(index, dim, from.len(), count);
        for (&v, row) in from.iter().zip(rows) {
            isa.store_at(v, row, 0);
        }
        return;
    }
    for (i, &v) in from.iter().enumerate() {
        let mut lanes = [0.0; 16];
        isa.store(v, &mut lanes);
        let mut at = index;
        at[dim] += i;
        for &lane in &lanes[..count] {
            block.set(at, lane);
            at[R - 1] += 1;
        }
    }
}

/// As [`load`], from a matrix and along its first dimension. The indexes must be inside the shape.
#[inline(always)]
pub(crate) fn view<I: Isa>(
    isa: I,
    matrix: &View<'_, f32, 2>,
    [row, column]: [usize; 2],
    count: usize,
    into: &mut [I::V],
) {
    let [row_stride, stride] = matrix.layout().strides();
    let mut start = row * row_stride + column * stride;
    for v in into {
        if stride == 1 {
            *v = isa.load_at(&matrix.data()[start..start + count], 0);
        } else {
            let mut lanes = [0.0; 16];
            for (i, lane) in lanes[..count].iter_mut().enumerate() {
                *lane = matrix.data()[start + i * stride];
            }
            *v = isa.load(&lanes);
        }
        start += row_stride;
    }
}
