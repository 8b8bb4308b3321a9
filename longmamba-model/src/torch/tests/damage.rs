//! Truncated and changed files: never a panic, never bytes outside the file.

use super::write::small;
use super::{fixture, read, refusal};
use proptest::prelude::*;

const SMALL: [&str; 5] =
    ["legacy-protocol2.bin", "legacy-protocol4.bin", "protocol4.pt", "slices.pt", "state-dict.pt"];

#[test]
fn every_truncation_is_an_error() {
    for file in SMALL.map(fixture).into_iter().chain([small()]) {
        for len in 0..file.len() {
            refusal(&file[..len]);
        }
        let mut longer = file.clone();
        longer.push(0);
        refusal(&longer);
    }
}

/// All bytes set to all values.
#[test]
fn every_change_of_one_byte() {
    for mut file in [small(), fixture("legacy-tied.bin")] {
        for at in 0..file.len() {
            let was = file[at];
            for value in 0..=u8::MAX {
                file[at] = value;
                let _ = read(&file);
            }
            file[at] = was;
        }
    }
}

#[test]
fn a_few_changes_of_every_byte() {
    for mut file in SMALL.map(fixture) {
        for at in 0..file.len() {
            let was = file[at];
            for value in [0, 0xff, was ^ 1, was ^ 0x80, was.wrapping_add(1), b'(', b'.', b'q'] {
                file[at] = value;
                let _ = read(&file);
            }
            file[at] = was;
        }
    }
}

proptest! {
    #[test]
    fn many_changes(
        file in 0..SMALL.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let mut file = fixture(SMALL[file]);
        for (at, value) in changes {
            let at = at.index(file.len());
            file[at] = value;
        }
        let _ = read(&file);
    }

    #[test]
    fn parts_moved_and_repeated(
        file in 0..SMALL.len(),
        parts in prop::collection::vec(any::<[prop::sample::Index; 2]>(), 1..8),
    ) {
        let file = fixture(SMALL[file]);
        let mut mixed = vec![];
        for [from, to] in parts {
            let (from, to) = (from.index(file.len()), to.index(file.len()));
            mixed.extend_from_slice(&file[from.min(to)..from.max(to)]);
        }
        let _ = read(&mixed);
        // With a right beginning, and with a right end.
        let _ = read(&[&file[..file.len() / 2], &mixed].concat());
        let _ = read(&[&mixed, &file[file.len() / 2..]].concat());
    }

    #[test]
    fn noise(mut bytes in prop::collection::vec(any::<u8>(), 0..300), magic in 0..3) {
        let start: &[u8] = [b"PK\x03\x04".as_slice(), b"\x80\x02", b""][magic as usize];
        bytes.splice(0..0, start.iter().copied());
        let _ = read(&bytes);
    }
}
