//! From what a user types to a model on disk: a folder, a file, or an id in the local Hugging Face cache.
//!
//! The cache is laid out as Hugging Face documents it, so a model that any other program has downloaded is
//! found: `models--ORG--NAME/refs/REVISION` holds a commit, `snapshots/COMMIT` the files.

#[cfg(feature = "download")]
mod download;
#[cfg(test)]
mod tests;

#[cfg(feature = "download")]
pub use download::{Progress, download, download_with};

use crate::{Error, Result};
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Finds a model: a folder, a file, or an id such as `state-spaces/mamba-130m-hf`, for a certain branch,
/// tag or commit `state-spaces/mamba-130m-hf@REVISION`, in the local cache.
///
/// A path that exists goes before an id. A weights file (`.safetensors`, `.bin`) is returned as it is; for
/// any other file, such as `config.json`, its folder. Nothing is downloaded.
///
/// # Errors
/// [`Error::ModelNotFound`], which says where it was looked for and what to do; [`Error::ModelId`] for what
/// can be neither; [`Error::Io`].
pub fn find(model: &str) -> Result<PathBuf> {
    match on_disk(model)? {
        Some(path) => Ok(path),
        None => in_cache(&cache_folder()?, &ModelId::parse(model)?),
    }
}

/// As [`find`], with the cache at `cache`: the folder that holds `models--ORG--NAME`.
///
/// # Errors
/// As [`find`].
pub fn find_in(cache: &Path, model: &str) -> Result<PathBuf> {
    match on_disk(model)? {
        Some(path) => Ok(path),
        None => in_cache(cache, &ModelId::parse(model)?),
    }
}

/// The folder of the local Hugging Face cache, whether or not it exists: `HF_HUB_CACHE`, else `HF_HOME/hub`,
/// else `XDG_CACHE_HOME/huggingface/hub`, else `~/.cache/huggingface/hub`.
///
/// # Errors
/// [`Error::Argument`] if none of these variables is set and there is no home folder.
pub fn cache_folder() -> Result<PathBuf> {
    Environment::read().cache().ok_or_else(|| {
        Error::argument("there is no home folder; set HF_HUB_CACHE to the cache's folder")
    })
}

/// The variables that place the cache. Read in one spot, so that everything else is a function of its
/// arguments.
#[derive(Default)]
struct Environment {
    hub_cache: Option<OsString>,
    hf_home: Option<OsString>,
    xdg_cache_home: Option<OsString>,
    home: Option<PathBuf>,
}

impl Environment {
    fn read() -> Self {
        Environment {
            hub_cache: variable("HF_HUB_CACHE"),
            hf_home: variable("HF_HOME"),
            xdg_cache_home: variable("XDG_CACHE_HOME"),
            home: std::env::home_dir(),
        }
    }

    fn cache(&self) -> Option<PathBuf> {
        match &self.hub_cache {
            Some(cache) => Some(cache.into()),
            None => Some(self.hf_home()?.join("hub")),
        }
    }

    /// Where the cache and the token lie.
    fn hf_home(&self) -> Option<PathBuf> {
        match (&self.hf_home, &self.xdg_cache_home, &self.home) {
            (Some(hf_home), ..) => Some(hf_home.into()),
            (_, Some(caches), _) => Some(Path::new(caches).join("huggingface")),
            (.., Some(home)) => Some(home.join(".cache/huggingface")),
            _ => None,
        }
    }
}

/// An empty variable counts as absent.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// An id of a model and a revision of it, both fit to be parts of paths and addresses.
#[derive(Debug, PartialEq, Eq)]
struct ModelId {
    /// `ORG/NAME`, or `NAME` alone as the oldest models have it.
    name: String,
    /// A branch, a tag, or a commit.
    revision: Option<String>,
}

impl ModelId {
    fn parse(text: &str) -> Result<Self> {
        let fault = |reason| Error::ModelId { id: text.to_owned(), reason };
        let (name, revision) = match text.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (text, None),
        };
        if name.split('/').count() > 2 || !name.split('/').all(is_name) {
            return Err(fault(
                "an id is ORG/NAME, of letters, digits, '-', '_' and '.', without '--' or '..', \
                 and a part neither starts nor ends with '-' or '.'",
            ));
        }
        if revision.is_some_and(|revision| !revision.split('/').all(is_revision_part)) {
            return Err(fault("after '@' stands a branch, a tag or a commit"));
        }
        Ok(ModelId { name: name.to_owned(), revision: revision.map(str::to_owned) })
    }

    fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// Its folder in the cache.
    fn folder(&self) -> String {
        format!("models--{}", self.name.replace('/', "--"))
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.revision {
            Some(revision) => write!(f, "{}@{revision}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

fn is_name(part: &str) -> bool {
    let edge = ['-', '.'];
    (1..=96).contains(&part.len())
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && !part.starts_with(edge)
        && !part.ends_with(edge)
        && !part.contains("--")
        && !part.contains("..")
}

fn is_revision_part(part: &str) -> bool {
    (1..=200).contains(&part.len())
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+'))
        && !part.starts_with('.')
        && !part.contains("..")
}

/// A commit's full hash: it becomes part of a path, and it comes out of files and from the network.
fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn on_disk(model: &str) -> Result<Option<PathBuf>> {
    let path = Path::new(model);
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() || is_weights(path) => Ok(Some(path.to_owned())),
        Ok(_) => match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => Ok(Some(folder.to_owned())),
            _ => Ok(Some(PathBuf::from("."))),
        },
        Err(e) if is_absent(&e) || e.kind() == ErrorKind::InvalidInput => {
            if is_only_a_path(model) {
                return Err(Error::ModelNotFound {
                    model: model.to_owned(),
                    looked: vec![path.to_owned()],
                    hint:
                        "there is no such file or folder; give a model's folder, a weights file, \
                           or an id such as state-spaces/mamba-130m-hf"
                            .to_owned(),
                });
            }
            Ok(None)
        }
        Err(source) => Err(Error::io(path)(source)),
    }
}

fn is_weights(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "safetensors" || e == "bin")
}

/// Whether `model` was surely meant as a path: an answer about ids would mislead.
fn is_only_a_path(model: &str) -> bool {
    let path = Path::new(model);
    path.has_root()
        || model.starts_with(['.', '~'])
        || model.ends_with('/')
        || model.contains('\\')
        || is_weights(path)
        || path.extension().is_some_and(|e| e == "json")
}

fn is_absent(e: &std::io::Error) -> bool {
    matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory)
}

fn in_cache(cache: &Path, id: &ModelId) -> Result<PathBuf> {
    let folder = cache.join(id.folder());
    let missing = |looked: Vec<PathBuf>, hint: String| Error::ModelNotFound {
        model: id.to_string(),
        looked,
        hint,
    };
    if !folder.is_dir() {
        return Err(missing(vec![PathBuf::from(&id.name), folder], how_to_fetch(id)));
    }
    let reference = folder.join("refs").join(id.revision());
    let commit = match fs::read_to_string(&reference) {
        Ok(text) if is_commit(text.trim()) => text.trim().to_owned(),
        Ok(_) => return Err(Error::malformed(&reference, "it does not hold the hash of a commit")),
        Err(e) if is_absent(&e) && is_commit(id.revision()) => id.revision().to_owned(),
        Err(e) if is_absent(&e) => {
            let mut hint = how_to_fetch(id);
            if let Some(commit) = some_commit(&folder) {
                hint.push_str(&format!("; cached is {}@{commit}", id.name));
            }
            return Err(missing(vec![reference], hint));
        }
        Err(source) => return Err(Error::io(&reference)(source)),
    };
    let snapshot = folder.join("snapshots").join(commit);
    // The files are links into the folder of blobs; a download cut short leaves some out.
    let config = snapshot.join("config.json");
    if config.is_file() { Ok(snapshot) } else { Err(missing(vec![config], how_to_fetch(id))) }
}

fn how_to_fetch(id: &ModelId) -> String {
    let revision = id.revision.as_ref().map_or(String::new(), |r| format!(" --revision {r}"));
    format!(
        "download it with `hf download {}{revision}`, or with hub::download (feature `download`)",
        id.name
    )
}

/// A commit in the cache that a user could ask for by name.
fn some_commit(folder: &Path) -> Option<String> {
    let commits = fs::read_dir(folder.join("snapshots")).ok()?.flatten();
    commits
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_commit(name))
        .max()
}
