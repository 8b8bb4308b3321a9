//! Evaluations that may be killed at any moment and go on where they were.
//!
//! A run is a folder: `settings.json` says what is measured, and of what every part of the run has a file
//! of JSON lines, one a sample, written when the sample is done. Samples are written in order whatever order
//! they are finished in, so the file of a run that was killed and resumed has the same bytes as that of
//! one that was not. A [`Shard`] does some of the samples, in files of its own beside those of the others.
//!
#![cfg_attr(feature = "builtin", doc = "```")]
#![cfg_attr(not(feature = "builtin"), doc = "```ignore")]
//! use longmamba_model::eval::run::{Run, Settings, Shard};
//! use longmamba_model::{CpuBackend, builtin};
//!
//! let model = builtin::find("mamba2-tiny").expect("it is built in").model(CpuBackend::new(None)?)?;
//! let folder = std::env::temp_dir().join(format!("squares-{}", std::process::id()));
//! let settings = Settings::new("squares", &model).with("seed", 1);
//! for _ in 0..2 {
//!     // The second time all is there already.
//!     let run = Run::open(&folder, &settings, Shard::WHOLE)?;
//!     let part = run.part("first-ten", 10)?;
//!     let lines = part.finish(&model, |index| Ok(serde_json::json!({ "square": index * index })))?;
//!     assert_eq!(lines[9].sample["square"], 81);
//! }
//! # std::fs::remove_dir_all(&folder).ok();
//! # Ok::<(), longmamba_model::Error>(())
//! ```

mod lines;
mod settings;
mod shard;

pub use lines::{Line, read_lines};
pub use settings::Settings;
pub use shard::Shard;

use super::samples_in_order;
use crate::backend::Backend;
use crate::model::Model;
use crate::{Error, Result};
use lines::LinesFile;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, TryLockError};
use std::ops::ControlFlow;
use std::path::{Component, Path, PathBuf};

/// An evaluation under way, in a folder or in memory alone.
#[derive(Debug)]
pub struct Run {
    folder: Option<Folder>,
    shard: Shard,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Held as long as the run is open; the system lets go of it when the process ends, however it ends.
    _lock: File,
}

impl Run {
    /// A run that leaves nothing behind.
    pub fn in_memory(shard: Shard) -> Self {
        Run { folder: None, shard }
    }

    /// Begins a run in `folder`, which is made where there is none, or goes on with the one that is there.
    ///
    /// # Errors
    /// [`Error::OtherRun`] where the folder's run has other settings; [`Error::RunInUse`] where another
    /// process has this shard of it open; [`Error::Malformed`], [`Error::Io`].
    pub fn open(folder: &Path, settings: &Settings, shard: Shard) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let path = folder.join(shard.file_name("lock", ""));
        let lock =
            File::options().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::RunInUse { folder: folder.to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(Error::Io { path, source }),
        }
        settings.begin_or_check(&folder.join("settings.json"))?;
        Ok(Run { folder: Some(Folder { path: folder.to_owned(), _lock: lock }), shard })
    }

    /// Writes what came of the run to `result.json` in its folder, with the shard in its name where it is one
    /// of several.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_result(&self, result: &impl Serialize) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let path = folder.path.join(self.shard.file_name("result", ".json"));
        let text = serde_json::to_vec_pretty(result).map_err(|e| Error::io(&path)(e.into()))?;
        crate::write_whole(&path, &text)
    }

    /// Which samples are this run's.
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// A part of the run, with `total` samples in all shards together, and what is done of it. `name` is a
    /// path below the run's folder, without an ending, as in `longmamba/8192/vt`.
    ///
    /// # Errors
    /// [`Error::Malformed`], with the line, for a file of other samples; [`Error::Argument`] for a name that
    /// leads out of the folder; [`Error::Io`].
    pub fn part<S: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        total: usize,
    ) -> Result<Part<S>> {
        let indices: Vec<usize> = self.shard.indices(total).collect();
        let Some(folder) = &self.folder else {
            return Ok(Part { indices, done: Vec::new(), file: None });
        };
        let inside = Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
        if name.is_empty() || !inside {
            return Err(Error::argument(format!("{name:?} is no name for a part of a run")));
        }
        let path = folder.path.join(self.shard.file_name(name, ".jsonl"));
        let (file, done) = LinesFile::open(&path, &indices)?;
        Ok(Part { indices, done, file: Some(file) })
    }
}

/// One file of a run: samples of one kind.
#[derive(Debug)]
pub struct Part<S> {
    /// Of this shard, ascending.
    indices: Vec<usize>,
    done: Vec<Line<S>>,
    file: Option<LinesFile>,
}

impl<S: Serialize + DeserializeOwned + Send> Part<S> {
    /// What was done before.
    pub fn done(&self) -> &[Line<S>] {
        &self.done
    }

    /// The samples that are still to be done.
    pub fn left(&self) -> &[usize] {
        &self.indices[self.done.len()..]
    }

    /// Does what is left, as many samples at a time as the model's device reads best together, and writes
    /// each line as soon as those before it are written. Gives the lines of all samples of this shard.
    ///
    /// Numbers in a sample must be finite: JSON has no others.
    ///
    /// # Errors
    /// The first sample's for which `work` fails, after which no other is started; what is done before it is
    /// kept. [`Error::Io`] where the file cannot be written.
    pub fn finish<B: Backend>(
        self,
        model: &Model<B>,
        work: impl Fn(usize) -> Result<S> + Sync,
    ) -> Result<Vec<Line<S>>> {
        self.finish_while(model, work, |_| true)
    }

    /// As [`Part::finish`], for as long as `more` holds of the lines so far, of those that were done before
    /// too: gives the first lines of which it does not hold, or all. What is given hangs neither on how many
    /// samples are done at a time nor on how often the run was killed.
    ///
    /// # Errors
    /// As [`Part::finish`].
    pub fn finish_while<B: Backend>(
        self,
        model: &Model<B>,
        work: impl Fn(usize) -> Result<S> + Sync,
        more: impl Fn(&[Line<S>]) -> bool + Sync,
    ) -> Result<Vec<Line<S>>> {
        let Part { indices, mut done, mut file } = self;
        if let Some(enough) = (1..=done.len()).find(|&count| !more(&done[..count])) {
            done.truncate(enough);
            return Ok(done);
        }
        let left = &indices[done.len()..];
        samples_in_order(
            model,
            left.len(),
            |i| work(left[i]),
            |i, sample| {
                let line = Line { index: left[i], sample };
                if let Some(file) = &mut file {
                    file.append(&line)?;
                }
                done.push(line);
                Ok(if more(&done) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            },
        )?;
        Ok(done)
    }
}

#[cfg(all(test, feature = "builtin"))]
mod tests;
