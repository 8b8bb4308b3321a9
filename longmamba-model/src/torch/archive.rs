//! The zip archive that `torch.save` writes since torch 1.6: `<folder>/data.pkl` is the pickle,
//! `<folder>/data/<key>` the storages.

use super::{Checked, File, machine, malformed, shown, zip};
use std::collections::HashMap;
use std::ops::Range;

pub(super) fn read(bytes: &[u8]) -> Checked<File<'_>> {
    let (folder, entries) = folder(bytes)?;
    let Some(pickle) = entries.get("data.pkl") else {
        return malformed(format!("the archive has no entry {}/data.pkl", shown(folder)));
    };
    if entries.contains_key("constants.pkl") {
        return malformed("a TorchScript module, code and all; save its state_dict() instead");
    }
    // Absent in the first versions, which ran on nothing else.
    if let Some(order) = entries.get("byteorder")
        && bytes[order.clone()] != *b"little"
    {
        return malformed("its numbers are not little-endian");
    }
    if pickle.len() > machine::MAX_PICKLE {
        return malformed(format!(
            "its pickle has {} bytes, more than {}",
            pickle.len(),
            machine::MAX_PICKLE
        ));
    }
    let pickle_end = pickle.end;
    let pickle = machine::run(bytes, pickle.start, pickle.end)?;
    if pickle.end != pickle_end {
        return malformed(format!("its pickle has {} bytes too many", pickle_end - pickle.end));
    }
    let mut storages = Vec::new();
    for storage in pickle.objects.storages() {
        let key = shown(storage.key);
        let Some(range) = entries.get(&*format!("data/{}", storage.key)) else {
            return malformed(format!("the archive has no entry for storage {key}"));
        };
        if storage.bytes() != Some(range.len()) {
            return malformed(format!(
                "storage {key} should hold {} × {:?}, its entry has {} bytes",
                storage.elements,
                storage.dtype,
                range.len()
            ));
        }
        storages.push(range.clone());
    }
    Ok(File { objects: pickle.objects, root: pickle.root, storages })
}

/// The one folder that all entries are in, and what is in it.
fn folder(bytes: &[u8]) -> Checked<(&str, HashMap<&str, Range<usize>>)> {
    let mut folder = None;
    let mut inside = HashMap::new();
    for entry in zip::entries(bytes)? {
        let Some((first, rest)) = entry.name.split_once('/') else {
            return malformed(format!("entry {} is in no folder", shown(entry.name)));
        };
        if *folder.get_or_insert(first) != first {
            return malformed(format!("entry {} is in a second folder", shown(entry.name)));
        }
        inside.insert(rest, entry.data);
    }
    match folder {
        Some(folder) => Ok((folder, inside)),
        None => malformed("the archive is empty"),
    }
}
