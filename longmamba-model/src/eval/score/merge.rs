//! From the lines of several files to one list of samples.

use super::predictions::{Place, Sample};
use crate::{Error, Result};
use std::path::PathBuf;

/// What puts lines in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Their `index`, the number of the sample, whatever files they are in. It is an error where one is there
    /// twice, or where some lines have one and others have none. Lines that all have none may be in one
    /// file only.
    Index,
    /// Where they stand, file by file. For files whose `index` is something else, as in the `niah` tasks
    /// that RULER's own code writes.
    Lines,
}

/// Which samples are not there, as far as indices tell: those below the highest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// How many.
    pub count: u64,
    /// The first few.
    pub first: Vec<u64>,
}

/// How many missing indices are named.
const NAMED: usize = 5;

pub(super) fn merge(
    mut samples: Vec<Sample>,
    order: Order,
    files: &[PathBuf],
) -> Result<(Vec<Sample>, Missing)> {
    let error = |place: &Place, reason| Err(Error::line(&files[place.file], place.line, reason));
    let indexed = samples.iter().filter(|s| s.index.is_some()).count();
    if order == Order::Lines {
        return Ok((samples, Missing::default()));
    }
    if indexed == 0 {
        let first = samples.first().map(|s| s.place.file);
        return match samples.iter().find(|s| Some(s.place.file) != first) {
            Some(other) => error(
                &other.place,
                format!(
                    "lines without index can be merged with those of {} only as they stand; give one \
                     file, or --unindexed",
                    files[first.unwrap_or_default()].display()
                ),
            ),
            None => Ok((samples, Missing::default())),
        };
    }
    if let Some(bare) = samples.iter().find(|s| s.index.is_none()) {
        return error(&bare.place, "no index, and other lines have one".into());
    }
    samples.sort_by_key(|s| s.index);
    let mut missing = Missing::default();
    // Before which index all are there or noted.
    let mut next = 0;
    let mut last: Option<&Sample> = None;
    for sample in &samples {
        let Some(index) = sample.index else { continue };
        if let Some(last) = last.filter(|last| last.index == Some(index)) {
            let Place { file, line } = last.place;
            let reason = format!(
                "index {index} is also in {}, line {line}; take one away, or where index is not the \
                 sample's number, as in RULER's own niah files, give --unindexed",
                files[file].display()
            );
            return error(&sample.place, reason);
        }
        let room = NAMED - missing.first.len();
        missing.first.extend((next..index).take(room));
        missing.count += index - next;
        next = index.saturating_add(1);
        last = Some(sample);
    }
    Ok((samples, missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(index: Option<u64>, file: usize, line: usize) -> Sample {
        Sample {
            index,
            place: Place { file, line },
            prediction: String::new(),
            references: Vec::new(),
            all_classes: None,
            length: None,
        }
    }

    /// Indices in order, and how many are missing and which.
    type Merged = (Vec<Option<u64>>, u64, Vec<u64>);

    /// Of lines given as (file, index); or the message.
    fn merged(lines: &[(usize, Option<u64>)], order: Order) -> std::result::Result<Merged, String> {
        let files = ["a.jsonl", "b.jsonl"].map(PathBuf::from);
        let samples = lines.iter().zip(1..).map(|(&(file, index), line)| sample(index, file, line));
        let (samples, missing) =
            merge(samples.collect(), order, &files).map_err(|e| e.to_string())?;
        Ok((samples.iter().map(|s| s.index).collect(), missing.count, missing.first))
    }

    #[test]
    fn shards_are_merged_by_index() {
        let lines = [(0, Some(0)), (0, Some(2)), (1, Some(1)), (1, Some(3))];
        let all = (0..4).map(Some).collect();
        assert_eq!(merged(&lines, Order::Index), Ok((all, 0, vec![])));
        let gaps = [(0, Some(9)), (1, Some(1))];
        let expected = (vec![Some(1), Some(9)], 8, vec![0, 2, 3, 4, 5]);
        assert_eq!(merged(&gaps, Order::Index), Ok(expected));
        // As hostile as it gets.
        let far = merged(&[(0, Some(u64::MAX)), (0, Some(0))], Order::Index).unwrap();
        assert_eq!((far.1, far.2), (u64::MAX - 1, vec![1, 2, 3, 4, 5]));
    }

    #[test]
    fn what_cannot_be_merged_is_named() {
        let error = |lines: &[_]| merged(lines, Order::Index).unwrap_err();
        let twice = error(&[(0, Some(0)), (0, Some(1)), (1, Some(1))]);
        assert!(
            twice.starts_with("b.jsonl: line 3: index 1 is also in a.jsonl, line 2"),
            "{twice}"
        );
        let twice = error(&[(0, Some(u64::MAX)), (1, Some(u64::MAX))]);
        assert!(twice.contains("is also in"), "{twice}");
        let bare = error(&[(0, Some(0)), (1, None)]);
        assert!(bare.starts_with("b.jsonl: line 2: no index"), "{bare}");
        let bare = error(&[(0, None), (1, None)]);
        assert!(bare.starts_with("b.jsonl: line 2: lines without index"), "{bare}");
    }

    #[test]
    fn lines_may_be_taken_as_they_stand() {
        let lines = [(0, Some(7)), (0, Some(7)), (1, None)];
        let expected = (vec![Some(7), Some(7), None], 0, vec![]);
        assert_eq!(merged(&lines, Order::Lines), Ok(expected));
        assert_eq!(merged(&[(0, None), (0, None)], Order::Index), Ok((vec![None; 2], 0, vec![])));
    }
}
