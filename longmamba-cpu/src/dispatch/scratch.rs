use longmamba_core::AlignedVec;

/// Working memory of the kernels that need some. It grows to the largest request and stays: a
/// program keeps one per session (or per thread that calls kernels), and in steady state nothing is
/// allocated.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    floats: AlignedVec<f32>,
}

/// Floats in a cache line; slots start and end on one, so that threads do not share any.
const LINE: usize = 16;

impl Scratch {
    /// Empty; the first use allocates.
    pub fn new() -> Self {
        Scratch::default()
    }

    /// How many floats it holds.
    pub fn capacity(&self) -> usize {
        self.floats.len()
    }

    /// `count` slots of at least `len` floats each, one after the other, with the length of a slot.
    /// Each is aligned to 64 bytes; the contents are unspecified.
    pub(crate) fn slots(&mut self, count: usize, len: usize) -> (&mut [f32], usize) {
        let slot = len.next_multiple_of(LINE);
        let needed = count * slot;
        if self.floats.len() < needed {
            self.floats = AlignedVec::zeros(needed);
        }
        (&mut self.floats[..needed], slot)
    }
}
