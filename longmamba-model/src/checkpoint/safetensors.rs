//! The header of a safetensors file.

use super::StoredTensor;
use crate::{Error, Result};
use safetensors::tensor::SafeTensors;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// What the file holds, by name, and its `__metadata__`.
pub(super) fn read(
    all: &[u8],
    path: &Path,
) -> Result<(BTreeMap<String, StoredTensor>, HashMap<String, String>)> {
    check_extent(all, path)?;
    let (header, metadata) = SafeTensors::read_metadata(all)
        .map_err(|e| Error::malformed(path, format!("not a whole safetensors file ({e})")))?;
    let data = header + size_of::<u64>();
    let mut tensors = BTreeMap::new();
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        let (dtype, shape) = (info.dtype, info.shape.clone());
        tensors.insert(name, StoredTensor { dtype, shape, range: start + data..end + data });
    }
    Ok((tensors, metadata.metadata().clone().unwrap_or_default()))
}

/// That no tensor claims bytes beyond the file. safetensors checks that too, but adds first, and a sum
/// near 2⁶⁴ overflows; and this message names the tensor.
fn check_extent(all: &[u8], path: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct Entry {
        data_offsets: Option<serde_json::Value>,
    }
    let Some((len, rest)) = all.split_first_chunk() else { return Ok(()) };
    let len = usize::try_from(u64::from_le_bytes(*len)).unwrap_or(usize::MAX);
    let Some((header, data)) = rest.split_at_checked(len) else {
        let reason =
            format!("truncated: the header should have {len} bytes, {} are there", rest.len());
        return Err(Error::malformed(path, reason));
    };
    // What is no JSON is reported by safetensors.
    let entries: HashMap<String, Entry> = serde_json::from_slice(header).unwrap_or_default();
    for (name, entry) in entries {
        let end = entry.data_offsets.as_ref().and_then(|o| o.get(1)).and_then(|e| e.as_u64());
        if end.is_some_and(|end| end > data.len() as u64) {
            let reason = format!(
                "truncated: tensor {name} ends at byte {} of the data, the file has {}",
                end.unwrap_or_default(),
                data.len()
            );
            return Err(Error::malformed(path, reason));
        }
    }
    Ok(())
}
