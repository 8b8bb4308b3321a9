//! Work that is split over the threads of the current rayon pool.

/// Work that can be cut in two.
pub(crate) trait Divide: Sized + Send {
    /// How many units it has; it can be cut between any two.
    fn units(&self) -> usize;
    /// The first `at` units and the rest.
    fn divide(self, at: usize) -> (Self, Self);
    /// Does it, on this thread.
    fn run(self);
}

/// Does `work` in [`pieces`] pieces. With one piece rayon is not touched at all. Nothing is allocated.
pub(crate) fn parallel<W: Divide>(work: W, least: usize) {
    match pieces(work.units(), least) {
        1 => work.run(),
        count => run(work, count),
    }
}

/// The most pieces to a thread of work that is shared out as it goes.
const PIECES: usize = 16;

/// The same in smaller pieces, of at least `least` units. A thread that is done takes some of another's: where the
/// system holds one up, the others do not wait for it.
pub(crate) fn parallel_shared<W: Divide>(work: W, least: usize) {
    let threads = rayon::current_num_threads();
    match (work.units() / least.max(1)).min(threads * PIECES) {
        count @ 2.. if threads > 1 => run(work, count),
        _ => work.run(),
    }
}

/// How many pieces work of `units` is done in at most: one per thread, and none much smaller than
/// `least` units.
pub(crate) fn pieces(units: usize, least: usize) -> usize {
    match units / least.max(1) {
        0 | 1 => 1,
        most => most.min(rayon::current_num_threads()),
    }
}

/// Cuts off the first `count / 2` pieces.
fn run<W: Divide>(work: W, count: usize) {
    // A cut may fall beside the middle, so that a part has fewer units than pieces.
    let count = count.min(work.units());
    if count <= 1 {
        return work.run();
    }
    let left = count / 2;
    let at = work.units() * left / count;
    let (first, rest) = work.divide(at);
    super::awake::join(|| run(first, left), || run(rest, count - left));
}

/// Where to cut work on `[batch, channels]`.
pub(crate) enum Cut {
    /// Between two channels.
    Channel(usize),
    /// Between two sequences.
    Sequence(usize),
}

/// The units of work on `[batch, channels]` that goes block by block of channels.
pub(crate) fn block_units(batch: usize, channels: usize, block: usize) -> usize {
    batch * channels.div_ceil(block)
}

/// Cuts such work near unit `at`: between blocks while there are several, because sequences of a
/// ragged batch differ in length and channels do not.
pub(crate) fn block_cut(batch: usize, channels: usize, block: usize, at: usize) -> Cut {
    let blocks = channels.div_ceil(block);
    if blocks > 1 {
        Cut::Channel((at / batch).clamp(1, blocks - 1) * block)
    } else {
        Cut::Sequence(at.clamp(1, batch - 1))
    }
}
