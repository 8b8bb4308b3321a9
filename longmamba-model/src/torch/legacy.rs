//! The file that `torch.save` wrote before torch 1.6, and still does on request: four small pickles
//! (magic number, version, sizes of C's types, the object), a pickle with the keys of all storages, then
//! the storages in that order, each with the number of its elements in front.

use super::machine::Pickle;
use super::reader::Reader;
use super::value::{Storage, Value};
use super::{Checked, File, machine, malformed, shown};
use std::collections::HashMap;
use std::ops::Range;

const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
const VERSION: i128 = 1001;

/// Whether this is a tar archive, which torch wrote before 0.1.10.
pub(super) fn is_tar(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}

pub(super) fn read(bytes: &[u8]) -> Checked<File<'_>> {
    if is_tar(bytes) {
        return malformed(
            "a tar archive of torch before 0.1.10; load and save it with a newer one",
        );
    }
    let (magic, end) = integer(bytes, 0)?;
    if magic != Some(MAGIC) {
        return malformed("a pickle, but none that torch.save wrote");
    }
    let (version, end) = integer(bytes, end)?;
    match version {
        Some(VERSION) => {}
        Some(other) => {
            return malformed(format!("version {other} of the legacy format is unknown"));
        }
        None => return malformed("its version is no number"),
    }
    let object = machine::run(bytes, system(bytes, end)?, bytes.len())?;
    let keys = machine::run(bytes, object.end, bytes.len())?;
    let Value::List(listed) = keys.objects.get(keys.root) else {
        return malformed("its storage keys are no list");
    };
    let mut reader = Reader::new(bytes, keys.end, bytes.len())?;
    let known: HashMap<_, _> = object.objects.storages().iter().map(|s| (s.key, s)).collect();
    let mut ranges = HashMap::new();
    for &key in listed {
        let Some(key) = keys.objects.str(key) else {
            return malformed("a storage key is no string");
        };
        let Some(&storage) = known.get(key) else {
            return malformed(format!("storage {} belongs to no tensor", shown(key)));
        };
        if ranges.insert(key, elements(&mut reader, storage)?).is_some() {
            return malformed(format!("storage {} is listed twice", shown(key)));
        }
    }
    if !reader.rest().is_empty() {
        let rest = reader.rest().len();
        return malformed(format!("{rest} bytes follow the last storage"));
    }
    let mut storages = Vec::new();
    for storage in object.objects.storages() {
        match ranges.get(storage.key) {
            Some(range) => storages.push(range.clone()),
            None => return malformed(format!("storage {} is missing", shown(storage.key))),
        }
    }
    Ok(File { objects: object.objects, root: object.root, storages })
}

/// Where the elements of the next storage lie.
fn elements(reader: &mut Reader<'_>, storage: &Storage<'_>) -> Checked<Range<usize>> {
    let count = reader.u64()?;
    let bytes = storage.bytes().filter(|_| count == storage.elements as u64);
    let Some(bytes) = bytes else {
        return malformed(format!(
            "storage {} should have {} × {:?}, it says {count}",
            shown(storage.key),
            storage.elements,
            storage.dtype
        ));
    };
    let start = reader.at();
    reader.take(bytes)?;
    Ok(start..reader.at())
}

/// A pickle of one number, and the byte after it.
fn integer(bytes: &[u8], from: usize) -> Checked<(Option<i128>, usize)> {
    let pickle = machine::run(bytes, from, bytes.len())?;
    Ok((pickle.objects.int(pickle.root), pickle.end))
}

/// The byte after the description of the system, which must be little-endian.
fn system(bytes: &[u8], from: usize) -> Checked<usize> {
    let Pickle { objects, root, end } = machine::run(bytes, from, bytes.len())?;
    let Value::Dict(entries) = objects.get(root) else {
        return malformed("its system description is no dictionary");
    };
    let little = entries.iter().find(|(key, _)| objects.str(*key) == Some("little_endian"));
    match little.map(|(_, value)| objects.get(*value)) {
        Some(Value::Bool(true)) => Ok(end),
        Some(Value::Bool(false)) => malformed("its numbers are not little-endian"),
        _ => malformed("it does not say whether its numbers are little-endian"),
    }
}
