//! The weights of a checkpoint folder: one file, or shards with an index.

use super::{Checkpoint, LoadOptions};
use crate::{Error, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

/// What a folder's weights may be called; the first that is there is taken.
const FILES: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// Which shard each tensor is in, as an index file says. The names are not checked.
pub(crate) fn weight_map(index: &Path) -> Result<BTreeMap<String, String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read(index).map_err(Error::io(index))?;
    let Index { weight_map } = serde_json::from_slice(&text)
        .map_err(|e| Error::malformed(index, format!("not an index of shards: {e}")))?;
    Ok(weight_map)
}

impl Checkpoint {
    /// Opens the weights of a folder: `model.safetensors` or `pytorch_model.bin`, whole, or in the
    /// shards that `model.safetensors.index.json` or `pytorch_model.bin.index.json` lists.
    ///
    /// # Errors
    /// [`Error::NoWeights`] where none of these is there; as [`Checkpoint::open`]; and
    /// [`Error::Malformed`] for an index that its shards do not agree with.
    pub fn open_folder(folder: &Path, options: LoadOptions) -> Result<Self> {
        for file in FILES {
            let path = folder.join(file);
            if path.exists() {
                return Self::open(&path, options);
            }
            let index = folder.join(format!("{file}.index.json"));
            if index.exists() {
                return Self::open_shards(folder, &index, options);
            }
        }
        Err(Error::NoWeights { folder: folder.to_owned() })
    }

    fn open_shards(folder: &Path, index: &Path, options: LoadOptions) -> Result<Self> {
        let weight_map = weight_map(index)?;
        let shards: BTreeSet<&String> = weight_map.values().collect();
        let mut all: Option<Checkpoint> = None;
        for &shard in &shards {
            // A shard lies beside its index: no path leads out of the folder.
            let mut parts = Path::new(shard).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                let why = format!("shard {shard:?} is not the name of a file in this folder");
                return Err(Error::malformed(index, why));
            }
            let next = Self::open(&folder.join(shard), options)?;
            match &mut all {
                None => all = Some(next),
                Some(all) => all.append(next, index)?,
            }
        }
        let all = all.ok_or_else(|| Error::malformed(index, "lists no tensor"))?;
        for (name, shard) in &weight_map {
            let there = all.entries.get(name).map(|e| all.files[e.file].path.file_name());
            if there.flatten().is_none_or(|file| file != shard.as_str()) {
                let why = format!("says that tensor {name} is in {shard}, which does not have it");
                return Err(Error::malformed(index, why));
            }
        }
        match all.entries.keys().find(|name| !weight_map.contains_key(*name)) {
            None => Ok(all),
            Some(name) => {
                Err(Error::malformed(index, format!("does not list tensor {name} of its shards")))
            }
        }
    }

    /// Adds the tensors of another shard.
    fn append(&mut self, other: Checkpoint, index: &Path) -> Result<()> {
        let first = self.files.len();
        self.files.extend(other.files);
        for (name, mut entry) in other.entries {
            entry.file += first;
            if self.entries.contains_key(&name) {
                let why = format!("tensor {name} is in two of its shards");
                return Err(Error::malformed(index, why));
            }
            self.entries.insert(name, entry);
        }
        Ok(())
    }
}
