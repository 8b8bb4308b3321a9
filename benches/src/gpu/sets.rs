//! Inputs and outputs that launches use in turn, so that none finds its own in a cache.

use super::Result;

/// All sets of a case together lie in at least as many bytes: several times the L2 cache of any device of
/// today.
const COLD: f64 = 512e6;

/// What launches read and write, one after the other.
pub(super) struct Sets<S> {
    all: Vec<S>,
    next: usize,
}

impl<S> Sets<S> {
    /// As many as it takes, of `bytes` each.
    pub(super) fn new(
        quick: bool,
        bytes: f64,
        mut make: impl FnMut() -> Result<S>,
    ) -> Result<Self> {
        let count = if quick { 2 } else { ((COLD / bytes).ceil() as usize).clamp(1, 1024) };
        let all = (0..count).map(|_| make()).collect::<Result<_>>()?;
        Ok(Sets { all, next: 0 })
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The first set, which the next launch then uses.
    pub(super) fn rewind(&mut self) -> &mut S {
        self.next = 0;
        &mut self.all[0]
    }

    /// What a launch after [`Sets::rewind`] used.
    pub(super) fn first(&self) -> &S {
        &self.all[0]
    }

    /// That of this launch.
    pub(super) fn turn(&mut self) -> &mut S {
        let turn = self.next;
        self.next = (turn + 1) % self.all.len();
        &mut self.all[turn]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_used_in_turn() {
        let mut next = 0;
        let mut sets = Sets::new(false, COLD / 2.5, || {
            next += 1;
            Ok(next)
        })
        .unwrap();
        assert_eq!([*sets.turn(), *sets.turn(), *sets.turn(), *sets.turn()], [1, 2, 3, 1]);
        assert_eq!((*sets.rewind(), *sets.turn(), *sets.first()), (1, 1, 1));
        assert_eq!(Sets::new(true, 1.0, || Ok(())).unwrap().len(), 2);
    }
}
