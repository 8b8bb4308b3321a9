use crate::isa::{LINE_BYTES, Pair};
use bytemuck::Zeroable;
use longmamba_core::AlignedVec;

/// Working memory of the kernels that need some. It grows to the largest request and stays: a
/// program keeps one per session (or per thread that calls kernels), and in steady state nothing is
/// allocated.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    floats: AlignedVec<f32>,
    pairs: AlignedVec<Pair>,
}

/// Elements in a cache line; slots start and end on one, so that threads do not share any.
const LINE: usize = LINE_BYTES / size_of::<f32>();

impl Scratch {
    /// Empty; the first use allocates.
    pub fn new() -> Self {
        Scratch::default()
    }

    /// How many bytes it holds.
    pub fn capacity(&self) -> usize {
        size_of_val(&self.floats[..]) + size_of_val(&self.pairs[..])
    }

    /// `count` slots of at least `len` elements each, one after the other. Each is aligned to 64 bytes; the
    /// contents are unspecified.
    pub(crate) fn slots<T: Scratched>(&mut self, count: usize, len: usize) -> Slots<'_, T> {
        self.room_and_slots(0, count, len).1
    }

    /// Slots of floats and of another type, which may be floats, too, with as many of each.
    pub(crate) fn slots_of_two<T: Scratched>(
        &mut self,
        count: usize,
        lens: [usize; 2],
    ) -> (Slots<'_, f32>, Slots<'_, T>) {
        T::slots(&mut self.floats, &mut self.pairs, count, lens)
    }

    /// Room for `room` pairs, and slots of floats and of pairs.
    pub(crate) fn pairs_and_slots(
        &mut self,
        room: usize,
        floats: [usize; 2],
        pairs: [usize; 2],
    ) -> (&mut [Pair], Slots<'_, f32>, Slots<'_, Pair>) {
        let [count, len] = floats;
        grow(&mut self.floats, count * len.next_multiple_of(LINE));
        let floats = Slots::cut(&mut self.floats, count, len).0;
        let [count, len] = pairs;
        let room_len = room.next_multiple_of(LINE);
        grow(&mut self.pairs, room_len + count * len.next_multiple_of(LINE));
        let (first, rest) = self.pairs.split_at_mut(room_len);
        (&mut first[..room], floats, Slots::cut(rest, count, len).0)
    }

    /// Room for `room` elements, and slots.
    pub(crate) fn room_and_slots<T: Scratched>(
        &mut self,
        room: usize,
        count: usize,
        len: usize,
    ) -> (&mut [T], Slots<'_, T>) {
        let memory = T::memory(&mut self.floats, &mut self.pairs);
        grow(memory, room.next_multiple_of(LINE) + count * len.next_multiple_of(LINE));
        let (first, rest) = memory.split_at_mut(room.next_multiple_of(LINE));
        (&mut first[..room], Slots::cut(rest, count, len).0)
    }
}

/// Working memory for several pieces of work, as much for each.
pub(crate) struct Slots<'a, T> {
    memory: &'a mut [T],
    len: usize,
}

impl<'a, T> Slots<'a, T> {
    /// Cuts off `count` slots of at least `len` elements.
    fn cut(memory: &'a mut [T], count: usize, len: usize) -> (Self, &'a mut [T]) {
        let len = len.next_multiple_of(LINE);
        let (memory, rest) = memory.split_at_mut(count * len);
        (Slots { memory, len }, rest)
    }

    /// All of it.
    pub(crate) fn own(&mut self) -> &mut [T] {
        self.memory
    }

    /// All of it, for as long as it is lent.
    pub(crate) fn into_all(self) -> &'a mut [T] {
        self.memory
    }

    /// The first `count` of them.
    ///
    /// # Panics
    /// Where there are fewer.
    pub(crate) fn first(self, count: usize) -> Self {
        Slots { memory: &mut self.memory[..count * self.len], len: self.len }
    }

    /// Moves it out; none is left.
    pub(crate) fn take(&mut self) -> Self {
        Slots { memory: std::mem::take(&mut self.memory), len: self.len }
    }

    /// As `parallel` halves a number of pieces: rounding down on the left.
    pub(crate) fn halve(self) -> (Self, Self) {
        let left = self.memory.len().checked_div(self.len).unwrap_or(0) / 2 * self.len;
        let (memory, rest) = self.memory.split_at_mut(left);
        (Slots { memory, len: self.len }, Slots { memory: rest, len: self.len })
    }
}

/// Elements of four bytes that [`Scratch`] has room for.
pub(crate) trait Scratched: Copy + Zeroable {
    /// That for these elements.
    fn memory<'a>(
        floats: &'a mut AlignedVec<f32>,
        pairs: &'a mut AlignedVec<Pair>,
    ) -> &'a mut AlignedVec<Self>;

    /// `count` slots of floats and as many of these.
    fn slots<'a>(
        floats: &'a mut AlignedVec<f32>,
        pairs: &'a mut AlignedVec<Pair>,
        count: usize,
        lens: [usize; 2],
    ) -> (Slots<'a, f32>, Slots<'a, Self>);
}

impl Scratched for f32 {
    fn memory<'a>(
        floats: &'a mut AlignedVec<f32>,
        _: &'a mut AlignedVec<Pair>,
    ) -> &'a mut AlignedVec<f32> {
        floats
    }

    fn slots<'a>(
        floats: &'a mut AlignedVec<f32>,
        _: &'a mut AlignedVec<Pair>,
        count: usize,
        [first, second]: [usize; 2],
    ) -> (Slots<'a, f32>, Slots<'a, f32>) {
        grow(floats, count * (first.next_multiple_of(LINE) + second.next_multiple_of(LINE)));
        let (first, rest) = Slots::cut(floats, count, first);
        (first, Slots::cut(rest, count, second).0)
    }
}

impl Scratched for Pair {
    fn memory<'a>(
        _: &'a mut AlignedVec<f32>,
        pairs: &'a mut AlignedVec<Pair>,
    ) -> &'a mut AlignedVec<Pair> {
        pairs
    }

    fn slots<'a>(
        floats: &'a mut AlignedVec<f32>,
        pairs: &'a mut AlignedVec<Pair>,
        count: usize,
        [first, second]: [usize; 2],
    ) -> (Slots<'a, f32>, Slots<'a, Pair>) {
        grow(floats, count * first.next_multiple_of(LINE));
        grow(pairs, count * second.next_multiple_of(LINE));
        (Slots::cut(floats, count, first).0, Slots::cut(pairs, count, second).0)
    }
}

fn grow<T: Copy + Zeroable>(memory: &mut AlignedVec<T>, len: usize) {
    if memory.len() < len {
        *memory = AlignedVec::zeros(len);
    }
}
