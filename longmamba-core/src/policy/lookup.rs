/// How a threshold is found for a text whose length S is not in the table.
///
/// Neither filters a text of at most L tokens, L being the training length, and both take the last
/// entry for a text longer than it.
///
/// Measured against thresholds computed for every S (`tests/policy_thresholds.rs`: log-normal Δ with
/// σ = 1, L = 2000, clamp 5 %, maximum of 5 windows, the published lengths), mean relative error:
///
/// | S | nearest | linear in S | linear in ln S | linear in 1/S |
/// |---|---|---|---|---|
/// | L to the first length above it | 66 % | 34 % | 28 % | 22 % |
/// | from there to 8 L | 4.1 % | 0.8 % | 0.7 % | 0.7 % |
///
/// Above, where g has reached the clamp, all are exact. The order is the same with σ = 0.3 and with a
/// clamp of 20 %; only with σ = 2 and a clamp of 5 % is ln S better close to L (8 % against 16 %). There
/// g leaves 0 steeply and no rule is good: a table for texts little longer than L needs lengths there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Lookup {
    /// The entry of the nearest length, as in the published code: ties go to the shorter.
    Nearest,
    /// Between the two lengths around S, linearly in 1/S; from 0 at L to the first length above L.
    #[default]
    Interpolated,
}

/// Where in a table of thresholds a length lies: the same for all channels and layers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TablePosition {
    /// The row above, and how much of it.
    upper: (usize, f64),
    /// The row below has the rest; `None` is a row of zeros.
    lower: Option<usize>,
}

impl Lookup {
    /// Where a text of `total_len` tokens lies among `lengths`, strictly ascending. `None`: nothing is
    /// filtered.
    pub fn position(
        self,
        lengths: &[usize],
        train_len: usize,
        total_len: usize,
    ) -> Option<TablePosition> {
        if total_len <= train_len {
            return None;
        }
        let above = lengths.partition_point(|&length| length < total_len);
        let upper = above.min(lengths.len().checked_sub(1)?);
        let lower = above.checked_sub(1);
        match self {
            Lookup::Nearest => {
                let distance = |row: usize| lengths[row].abs_diff(total_len);
                let row =
                    lower.filter(|&lower| distance(lower) <= distance(upper)).unwrap_or(upper);
                // An entry at or below L is 0.
                let at = TablePosition { upper: (row, 1.0), lower: None };
                (lengths[row] > train_len).then_some(at)
            }
            Lookup::Interpolated => {
                if lengths[upper] <= total_len {
                    let at = TablePosition { upper: (upper, 1.0), lower: None };
                    return (lengths[upper] > train_len).then_some(at);
                }
                // Rows at or below L are 0, and so is g(L).
                let lower = lower.filter(|&row| lengths[row] > train_len);
                let from = lower.map_or(train_len, |row| lengths[row]) as f64;
                let (s, to) = (total_len as f64, lengths[upper] as f64);
                // (1/from − 1/s) / (1/from − 1/to), for from = 0 too.
                let weight = (s - from) * to / ((to - from) * s);
                Some(TablePosition { upper: (upper, weight), lower })
            }
        }
    }
}

impl TablePosition {
    /// The threshold of one channel, given its entries by row.
    pub fn threshold(&self, entry: impl Fn(usize) -> f32) -> f32 {
        let (row, weight) = self.upper;
        let upper = f64::from(entry(row));
        let lower = self.lower.map_or(0.0, |row| f64::from(entry(row)));
        (lower + weight * (upper - lower)) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::RELEASED_LENGTHS;
    use proptest::prelude::*;

    /// The table whose entry is the length itself.
    fn at(lookup: Lookup, lengths: &[usize], train_len: usize, total_len: usize) -> f32 {
        let position = lookup.position(lengths, train_len, total_len);
        position.map_or(0.0, |p| p.threshold(|row| lengths[row] as f32))
    }

    #[test]
    fn nearest_is_the_published_rule() {
        for (total_len, entry) in [
            (2001, 0.0), // nearest to 2000, which is not past L
            (2500, 0.0),
            (2501, 3e3),
            (3000, 3e3),
            (3500, 3e3),
            (3501, 4e3),
            (9000, 8e3),
            (9001, 1e4),
            (180_000, 168e3),
            (180_001, 192e3),
            (192_001, 192e3),
            (usize::MAX, 192e3),
        ] {
            assert_eq!(
                at(Lookup::Nearest, &RELEASED_LENGTHS, 2000, total_len),
                entry,
                "{total_len}"
            );
        }
        assert_eq!(at(Lookup::Nearest, &RELEASED_LENGTHS, 0, 1), 1e3, "below the first");
    }

    #[test]
    fn interpolated_is_linear_in_the_reciprocal() {
        let at = |total_len| at(Lookup::Interpolated, &[100, 200, 400, 800], 150, total_len);
        assert_eq!((at(1), at(150)), (0.0, 0.0));
        assert_eq!((at(200), at(400), at(800), at(801)), (200.0, 400.0, 800.0, 800.0));
        // (1/150 − 1/160) / (1/150 − 1/200) = 1/4 of the way from 0 at 150 to 200 at 200.
        assert_eq!(at(160), 50.0);
        // (1/400 − 1/500) / (1/400 − 1/800) = 2/5 of the way from 400 to 800.
        assert_eq!(at(500), 560.0);
    }

    #[test]
    fn a_table_of_nothing_or_of_short_lengths_filters_nothing() {
        for lookup in [Lookup::Nearest, Lookup::Interpolated] {
            assert_eq!(lookup.position(&[], 0, 10), None);
            assert_eq!(lookup.position(&[10, 20], 20, 1000), None);
        }
    }

    proptest! {
        #[test]
        fn a_rising_table_is_looked_up_rising_and_between_its_entries(
            mut lengths in prop::collection::btree_set(1usize..1000, 1..8),
            train_len in 0usize..1200,
            total_len in 1usize..1200,
        ) {
            let list: Vec<usize> = std::mem::take(&mut lengths).into_iter().collect();
            for lookup in [Lookup::Nearest, Lookup::Interpolated] {
                let here = at(lookup, &list, train_len, total_len);
                let next = at(lookup, &list, train_len, total_len + 1);
                prop_assert!(here <= next, "{lookup:?} {here} {next}");
                prop_assert!(here >= 0.0 && here <= list[list.len() - 1] as f32);
                prop_assert!(total_len > train_len || here == 0.0);
            }
        }
    }
}
