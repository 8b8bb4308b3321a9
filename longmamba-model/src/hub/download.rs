#[cfg(test)]
mod tests;

use super::{Environment, ModelId, cache_folder, in_cache, is_commit, is_name, variable};
use crate::checkpoint::weight_map;
use crate::{Error, Result, write_whole};
use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// How far the download of one file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file's name in the model's folder.
    pub file: &'a str,
    /// Bytes that are here, with those of an earlier call that was cut short.
    pub done: u64,
    /// The file's size in bytes.
    pub total: u64,
}

/// Downloads a model into the local Hugging Face cache, unless it is there, and returns its folder: config,
/// weights (safetensors before `pytorch_model.bin`, in one file or several) and `tokenizer.json`.
///
/// `id` is as in [`find`](super::find). `HF_ENDPOINT` and `HF_TOKEN` are heeded, and the token that `hf auth
/// login` stored. The branch's or tag's name points at the new files only when all are here; a call that
/// was cut short, by whatever means, leaves parts behind that the next call completes.
///
/// # Errors
/// [`Error::Download`], [`Error::ModelId`], [`Error::Io`].
pub fn download(id: &str) -> Result<PathBuf> {
    download_with(id, &mut |_| ())
}

/// As [`download`]; `progress` is called as bytes arrive.
///
/// # Errors
/// As [`download`].
pub fn download_with(id: &str, progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf> {
    let source = Source {
        cache: cache_folder()?,
        endpoint: text_of("HF_ENDPOINT"),
        token: text_of("HF_TOKEN").or_else(stored_token),
    };
    source.fetch(&ModelId::parse(id)?, progress)
}

fn text_of(name: &str) -> Option<String> {
    variable(name)?.into_string().ok()
}

fn stored_token() -> Option<String> {
    let text = fs::read_to_string(Environment::read().hf_home()?.join("token")).ok()?;
    Some(text.trim().to_owned()).filter(|token| !token.is_empty())
}

/// Where files come from and go to.
struct Source {
    cache: PathBuf,
    endpoint: Option<String>,
    token: Option<String>,
}

impl Source {
    fn fetch(&self, id: &ModelId, progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf> {
        let fault = |file: &str, source| Error::Download {
            model: id.to_string(),
            file: file.to_owned(),
            source,
        };
        let mut builder = ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_progress(false)
            .with_token(self.token.clone());
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
        }
        let list = "the list of files";
        let api = builder.build().map_err(|e| fault(list, e.into()))?;
        let repo = |revision: &str| {
            Repo::with_revision(id.name.clone(), RepoType::Model, revision.to_owned())
        };
        let info = api.repo(repo(id.revision())).info().map_err(|e| fault(list, e.into()))?;
        if !is_commit(&info.sha) {
            return Err(fault(list, format!("the commit is called {:?}", info.sha).into()));
        }
        let listed: BTreeSet<String> = info.siblings.into_iter().map(|s| s.rfilename).collect();

        // All files are of this one commit, whatever is pushed to the branch meanwhile.
        let snapshot = self.cache.join(id.folder()).join("snapshots").join(&info.sha);
        let commit = Commit { api: api.repo(repo(&info.sha)), snapshot: &snapshot };
        let mut fetch =
            |name: &str| commit.fetch(name, progress).map_err(|source| fault(name, source));
        fetch("config.json")?;
        if listed.contains("tokenizer.json") {
            fetch("tokenizer.json")?;
        }
        let Some(weights) = WEIGHTS.into_iter().find(|name| listed.contains(*name)) else {
            return Err(fault("weights", format!("it has none of {}", WEIGHTS.join(", ")).into()));
        };
        let file = fetch(weights)?;
        if weights.ends_with(".json") {
            for shard in shards(&file)? {
                fetch(&shard)?;
            }
        }

        let refs = self.cache.join(id.folder()).join("refs");
        // hf-hub notes the commit under its own name as well, which no other program does.
        let _ = fs::remove_file(refs.join(&info.sha));
        if id.revision() != info.sha {
            let reference = refs.join(id.revision());
            let folder = reference.parent().unwrap_or(&refs);
            fs::create_dir_all(folder).map_err(Error::io(folder))?;
            write_whole(&reference, info.sha.as_bytes())?;
        }
        in_cache(&self.cache, id)
    }
}

/// What weights may be called, the best first.
const WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

struct Commit<'a> {
    api: ApiRepo,
    snapshot: &'a Path,
}

impl Commit<'_> {
    fn fetch(
        &self,
        name: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> std::result::Result<PathBuf, Box<dyn std::error::Error + Send + Sync>> {
        let here = self.snapshot.join(name);
        if here.is_file() {
            return Ok(here);
        }
        let total = Cell::new(0);
        let meter = Meter { progress, file: name, done: 0, total: &total };
        let file = self.api.download_with_progress(name, meter)?;
        if file != here {
            return Err(format!("it came as part of another commit, {}", file.display()).into());
        }
        // hf-hub trusts that the server honoured the range it asked for.
        let blob = fs::canonicalize(&file)?;
        let size = fs::metadata(&blob)?.len();
        if size != total.get() {
            fs::remove_file(&file)?;
            if blob != file {
                fs::remove_file(&blob)?;
            }
            return Err(format!("{size} bytes came, {} were announced", total.get()).into());
        }
        Ok(file)
    }
}

/// The files that an index of weights names.
fn shards(index: &Path) -> Result<BTreeSet<String>> {
    let names: BTreeSet<String> = weight_map(index)?.into_values().collect();
    match names.iter().find(|name| !is_name(name)) {
        None => Ok(names),
        Some(name) => Err(Error::malformed(index, format!("{name:?} is no name of a file"))),
    }
}

/// Adds up what hf-hub reports in pieces.
struct Meter<'a> {
    progress: &'a mut dyn FnMut(Progress<'_>),
    file: &'a str,
    done: u64,
    total: &'a Cell<u64>,
}

impl hf_hub::api::Progress for Meter<'_> {
    fn init(&mut self, size: usize, _: &str) {
        self.done = 0;
        self.total.set(size as u64);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        (self.progress)(Progress { file: self.file, done: self.done, total: self.total.get() });
    }

    fn finish(&mut self) {}
}
