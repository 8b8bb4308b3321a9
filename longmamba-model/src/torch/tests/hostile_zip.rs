//! Archives whose parts contradict each other.

use super::write::{Entry, Header, Pickle, archive, end, small};
use super::{read, refused_for};
use crate::torch::zip;

fn pair() -> [Entry; 2] {
    [Entry::new("x/data.pkl", Pickle::new().raw(b"}").stop()), Entry::new("x/b", b"bytes".to_vec())]
}

/// The archive with a change of its second entry.
fn changed(change: impl Fn(&mut Entry)) -> Vec<u8> {
    let mut entries = pair();
    change(&mut entries[1]);
    archive(entries.to_vec())
}

#[test]
fn the_unchanged_archive_is_fine() {
    assert!(read(&changed(|_| {})).unwrap().is_empty());
    let entries = |bytes: &[u8]| zip::entries(bytes).map(|entries| entries.len());
    assert_eq!(entries(&small()), Ok(3));
    assert_eq!(entries(&archive(vec![])), Ok(0));
    refused_for(&archive(vec![]), "the archive is empty");
}

#[test]
fn unsafe_names() {
    for name in [
        "/etc/passwd",
        "x/../../etc/passwd",
        "..",
        "x/..",
        "x/./y",
        "x//y",
        "x/",
        "",
        "x\\y",
        "C:x",
        "x/a\0b",
    ] {
        let file = changed(|entry| *entry = Entry::new(name, vec![]));
        refused_for(&file, "an entry has the unsafe name");
    }
    let file = changed(|entry| *entry = entry.clone().both(|h| h.name = b"x/\xff".to_vec()));
    refused_for(&file, "not UTF-8");
    refused_for(&changed(|entry| *entry = Entry::new("b", vec![])), "entry b is in no folder");
    refused_for(&changed(|entry| *entry = Entry::new("y/b", vec![])), "is in a second folder");
    let file = changed(|entry| *entry = Entry::new("x/data.pkl", vec![]));
    refused_for(&file, "two entries x/data.pkl");
}

#[test]
fn compressed_encrypted_and_split_entries() {
    let both = |change: fn(&mut Header)| changed(|entry| *entry = entry.clone().both(change));
    refused_for(&both(|h| h.method = 8), "entry x/b is compressed (method 8)");
    refused_for(&both(|h| h.flags = 1), "entry x/b is encrypted or split");
    refused_for(&changed(|entry| entry.local.method = 8), "another header than directory");
    refused_for(&changed(|entry| entry.local.flags = 1 << 11), "another header than directory");
    assert!(read(&both(|h| h.flags = 1 << 11)).is_ok());
}

#[test]
fn headers_must_agree() {
    let differs = "entry x/b has another header than directory";
    refused_for(&changed(|entry| entry.local.name = b"x/c".to_vec()), differs);
    refused_for(&changed(|entry| entry.local.checksum = 8), differs);
    refused_for(&changed(|entry| entry.local.size = 4), differs);
    refused_for(&changed(|entry| entry.local.packed = 4), differs);
    refused_for(&changed(|entry| entry.local.size = 0), differs);
    refused_for(&changed(|entry| entry.central.packed = 4), "two sizes");
    refused_for(&changed(|entry| entry.at = Some(1)), "entry x/b has no header");
    refused_for(&changed(|entry| entry.at = Some(1 << 30)), "lies beyond the data");
    refused_for(&changed(|entry| entry.local.name = b"x/bb".to_vec()), differs);
    // The size behind the data, as torch writes it: 0 in the header, or right.
    let described = |size| {
        changed(|entry| {
            *entry = entry.clone().both(|h| h.flags = 1 << 3);
            (entry.local.size, entry.local.packed, entry.local.checksum) = (size, size, 0);
        })
    };
    assert!(read(&described(0)).is_ok() && read(&described(5)).is_ok());
    refused_for(&described(4), differs);
}

#[test]
fn sizes_and_places() {
    let both = |change: fn(&mut Header)| changed(|entry| *entry = entry.clone().both(change));
    let size = |size: u32| {
        changed(|entry| *entry = entry.clone().both(|h| (h.size, h.packed) = (size, size)))
    };
    refused_for(&size(6), "entry x/b should have 6 bytes, more than the file");
    refused_for(&size(u32::MAX - 1), "more than the file");
    // All ones mean: in the 64-bit field.
    refused_for(&size(u32::MAX), "entry x/b has a broken extra field");
    let long = |fields: &[u64]| {
        let mut extra = vec![1, 0, u8::try_from(fields.len() * 8).unwrap(), 0];
        fields.iter().for_each(|field| extra.extend(field.to_le_bytes()));
        extra
    };
    let long_size = |fields: &[u64]| {
        let extra = long(fields);
        changed(|entry| {
            *entry = entry.clone().both(|h| {
                (h.size, h.packed, h.extra) = (u32::MAX, u32::MAX, extra.clone());
            });
        })
    };
    assert!(read(&long_size(&[5, 5])).is_ok());
    refused_for(&long_size(&[5]), "broken extra field");
    refused_for(&long_size(&[6, 6]), "should have 6 bytes, more than the file");
    refused_for(&long_size(&[u64::MAX, u64::MAX]), "more than the file");
    refused_for(&long_size(&[5, 6]), "two sizes");
    refused_for(&both(|h| h.extra = vec![9, 0, 1, 0]), "broken extra field");
    refused_for(&both(|h| h.extra = vec![9]), "broken extra field");
    refused_for(&both(|h| h.extra = vec![1, 0, 0, 0, 1, 0, 0, 0]), "broken extra field");
    let far = long(&[u64::MAX]);
    let file = changed(|entry| {
        entry.at = Some(u32::MAX);
        entry.central.extra = far.clone();
    });
    refused_for(&file, "lies beyond");
}

#[test]
fn overlapping_entries() {
    // The second in the directory is the first in the file, again or with a part of its bytes.
    let inner = archive(vec![Entry::new("x/b", b"bytes".to_vec())]);
    let header = 30 + 10;
    let [mut one, mut two] = pair();
    one.data = inner[..30 + 3 + 5].to_vec();
    one = one.both(|h| (h.size, h.packed) = (38, 38));
    two.at = Some(header);
    refused_for(&archive(vec![one, two]), "entries x/data.pkl and x/b of the archive overlap");
    let [one, mut two] = pair();
    two.at = Some(0);
    two.central = one.central.clone();
    two.central.name = b"x/data.pkL".to_vec();
    refused_for(&archive(vec![one, two]), "another header than directory");
}

/// The three records at the end.
#[test]
fn ends_that_lie() {
    let file = changed(|_| {});
    let body = &file[..file.len() - 22];
    let start = body.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    let (size, at) = (u32::try_from(body.len() - start).unwrap(), u32::try_from(start).unwrap());
    assert_eq!([body, &end(2, size, at)].concat(), file);
    let with = |entries, size, at| [body, &end(entries, size, at)].concat();
    refused_for(&with(1, size, at), "longer than its entries");
    refused_for(&with(3, size, at), "fewer entries than it should");
    refused_for(&with(u16::MAX, size, at), "fewer entries");
    refused_for(&with(2, size - 1, at), "truncated: the directory");
    refused_for(&with(2, size, at + 1), "truncated: the directory");
    refused_for(&with(2, size + 1, at - 1), "fewer entries");
    refused_for(&with(2, u32::MAX, u32::MAX), "truncated: the directory");
    let mut commented = file.clone();
    let last = commented.len() - 2;
    commented[last] = 1;
    refused_for(&commented, "does not end as one");
    refused_for(&[&file[..], b"appended"].concat(), "does not end as one");

    let end64 = |entries: u64, size: u64, at: u64, record: u64| {
        let mut bytes = b"PK\x06\x06\x2c\0\0\0\0\0\0\0".to_vec();
        bytes.extend([0; 12]);
        for word in [entries, entries, size, at] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(b"PK\x06\x07\0\0\0\0");
        bytes.extend(record.to_le_bytes());
        bytes.extend([1, 0, 0, 0]);
        bytes
    };
    let (size64, at64, record) = (size.into(), at.into(), body.len() as u64);
    let with64 = |long: Vec<u8>, short: Vec<u8>| [body, &long, &short].concat();
    let right = end64(2, size64, at64, record);
    assert!(read(&with64(right.clone(), end(2, size, at))).is_ok());
    assert!(read(&with64(right.clone(), end(u16::MAX, u32::MAX, u32::MAX))).is_ok());
    refused_for(&with64(right.clone(), end(3, size, at)), "contradict each other");
    refused_for(&with64(right.clone(), end(2, size, at + 1)), "contradict each other");
    refused_for(&with64(right, end(2, size + 1, at)), "contradict each other");
    let all = || end(u16::MAX, u32::MAX, u32::MAX);
    let moved = end64(2, size64, at64, record - 1);
    refused_for(&with64(moved, all()), "is not where it should be");
    let far = end64(2, u64::MAX, u64::MAX, record);
    refused_for(&with64(far, all()), "truncated: the directory");
    let many = end64(u64::MAX, size64, at64, record);
    refused_for(&with64(many, all()), "18446744073709551615 entries, more than");
}

#[test]
fn parts_of_a_checkpoint() {
    refused_for(&archive(vec![Entry::new("x/b", vec![])]), "no entry x/data.pkl");
    let with = |entry| archive(pair().into_iter().chain([entry]).collect());
    assert!(read(&with(Entry::new("x/byteorder", b"little".to_vec()))).is_ok());
    refused_for(&with(Entry::new("x/byteorder", b"big".to_vec())), "not little-endian");
    refused_for(&with(Entry::new("x/constants.pkl", vec![])), "TorchScript");
}
