//! A vector's worth of neighbouring channels, from and to any layout: one load where the channels
//! are contiguous, lane by lane elsewhere.

use crate::dispatch::Block;
use crate::isa::Isa;
use longmamba_core::View;

/// `count` elements of `block` along its last dimension, at most a vector; the other lanes are zero.
#[inline(always)]
pub(crate) fn load<I: Isa, const R: usize>(
    isa: I,
    block: &Block<'_, f32, R>,
    index: [usize; R],
    count: usize,
) -> I::V {
    if block.strides()[R - 1] == 1 {
        return isa.load_at(block.row(index, count), 0);
    }
    let mut lanes = [0.0; 16];
    for (i, lane) in lanes[..count].iter_mut().enumerate() {
        let mut at = index;
        at[R - 1] += i;
        *lane = block.get(at);
    }
    isa.load(&lanes)
}

/// Writes the first `count` lanes along the last dimension of `block`.
#[inline(always)]
pub(crate) fn store<I: Isa, const R: usize>(
    isa: I,
    v: I::V,
    block: &mut Block<'_, f32, R>,
    index: [usize; R],
    count: usize,
) {
    if block.strides()[R - 1] == 1 {
        return isa.store_at(v, block.row_mut(index, count), 0);
    }
    let mut lanes = [0.0; 16];
    isa.store(v, &mut lanes);
    for (i, &lane) in lanes[..count].iter().enumerate() {
        let mut at = index;
        at[R - 1] += i;
        block.set(at, lane);
    }
}

/// `count` elements of `view` along its last dimension, at most a vector; the other lanes are zero.
#[inline(always)]
pub(crate) fn view<I: Isa, const R: usize>(
    isa: I,
    view: &View<'_, f32, R>,
    index: [usize; R],
    count: usize,
) -> I::V {
    let strides = view.layout().strides();
    if strides[R - 1] == 1 {
        return isa.load_at(&view.row(index)[..count], 0);
    }
    let start: usize = index.iter().zip(&strides).map(|(i, s)| i * s).sum();
    let mut lanes = [0.0; 16];
    for (i, lane) in lanes[..count].iter_mut().enumerate() {
        *lane = view.data()[start + i * strides[R - 1]];
    }
    isa.load(&lanes)
}
