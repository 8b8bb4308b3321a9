//! What memory is to send while a product is taken from what is there.

use crate::isa::{Isa, LINE_BYTES};
use std::ptr::null;

/// Memory that is read once a product is done, and asked for on the way.
#[derive(Clone, Copy)]
pub(crate) struct Coming {
    first: *const u8,
    bytes: usize,
}

impl Coming {
    /// Nothing that is known.
    pub(crate) const NOTHING: Coming = Coming { first: null(), bytes: 0 };

    /// As much as `now`, right after it. It need not be there: nobody reads it.
    pub(crate) fn after<T>(now: &[T]) -> Coming {
        Coming { first: now.as_ptr_range().end.cast(), bytes: size_of_val(now) }
    }

    /// Part `index` of `count`.
    #[inline(always)]
    pub(super) fn part(self, index: usize, count: usize) -> Coming {
        let bytes = self.bytes / count.max(1);
        Coming { first: self.first.wrapping_add(index * bytes), bytes }
    }

    /// Asks for all of it.
    #[inline(always)]
    pub(super) fn ask<I: Isa>(self, isa: I) {
        for line in (0..self.bytes).step_by(LINE_BYTES) {
            isa.prefetch_for_later(self.first.wrapping_add(line));
        }
    }
}
