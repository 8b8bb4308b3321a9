//! Predictions as they lie in files.

use super::merge::{self, Missing, Order};
use crate::eval::json_lines;
use crate::eval::metrics::Dataset;
use crate::eval::ruler::{TASKS, Task};
use crate::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Whose samples they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Benchmark {
    /// A line has `pred`, `answers`, `all_classes`, `length`.
    LongBench,
    /// A line has `pred`, `outputs`.
    Ruler,
}

/// What is scored together: one data set of LongBench, or one task of RULER at one length, of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Whose samples.
    pub benchmark: Benchmark,
    /// The folder that the files lie in, the model's or the method's; empty where they lie in none.
    pub run: String,
    /// The data set, without `_e`, or the task.
    pub name: String,
    /// The length of a RULER task, where it is known.
    pub length: Option<u64>,
    /// Which samples are not there.
    pub missing: Missing,
    pub(super) samples: Vec<Sample>,
}

/// One prediction, and what it is scored against.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) index: Option<u64>,
    pub(super) place: Place,
    pub(super) prediction: String,
    pub(super) references: Vec<String>,
    pub(super) all_classes: Option<Vec<String>>,
    pub(super) length: Option<u64>,
}

/// Where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// In the list of all files.
    pub(super) file: usize,
    pub(super) line: usize,
}

/// All predictions of some files.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    /// What is scored together, ordered by run, benchmark, length and name.
    pub groups: Vec<Group>,
    pub(super) files: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Line {
    index: Option<u64>,
    pred: String,
    answers: Option<Vec<String>>,
    outputs: Option<Vec<String>>,
    all_classes: Option<Vec<String>>,
    length: Option<u64>,
    dataset: Option<String>,
    task: Option<String>,
    max_seq_length: Option<u64>,
}

type Key = (String, Benchmark, Option<u64>, String);

impl Predictions {
    /// Reads files of JSON lines, and all `.jsonl` files in and below folders.
    ///
    /// A line with `answers` is LongBench's, one with `outputs` is RULER's. The data set is its field
    /// `dataset`, the task its field `task`; without it, the file's name up to the first dot. The length of
    /// a RULER task is the field `max_seq_length`, or the name of a folder around the file that is a number.
    /// The run is the name of the nearest folder around the file that is neither that nor RULER's `pred` or
    /// `synthetic`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Line`] for a line that is neither's, or of no known data set or task, and as
    /// [`Order`] says; [`Error::Malformed`] for a folder without such files, and for a file without lines unless
    /// others of its data set or task have some.
    pub fn read(paths: &[PathBuf], order: Order) -> Result<Self> {
        let mut files = Vec::new();
        for path in paths {
            match path.is_dir() {
                true => files_below(path, &mut files)?,
                false => files.push(path.clone()),
            }
        }
        let mut groups: BTreeMap<Key, Vec<Sample>> = BTreeMap::new();
        let mut empty_files = Vec::new();
        for (file, path) in files.iter().enumerate() {
            let around = Around::of(path);
            let mut empty = true;
            json_lines::for_each(path, |number, line: Line| {
                empty = false;
                let (key, sample) = line
                    .sample(&around, Place { file, line: number })
                    .map_err(|reason| Error::line(path, number, reason))?;
                groups.entry(key).or_default().push(sample);
                Ok(())
            })?;
            if empty {
                empty_files.push((path, around));
            }
        }
        // A shard may have no samples, but not all of them.
        let is_of = |around: &Around, (run, _, length, name): &Key| {
            let bare = around.name.strip_suffix("_e").unwrap_or(&around.name);
            (run, name.as_str()) == (&around.run, bare)
                && (length.is_none() || *length == around.length)
        };
        for (path, around) in empty_files {
            if !groups.keys().any(|key| is_of(&around, key)) {
                return Err(Error::malformed(path, "there is no prediction in it"));
            }
        }
        let group = |((run, benchmark, length, name), samples)| {
            let (samples, missing) = merge::merge(samples, order, &files)?;
            Ok(Group { benchmark, run, name, length, missing, samples })
        };
        let groups = groups.into_iter().map(group).collect::<Result<_>>()?;
        Ok(Predictions { groups, files })
    }
}

/// The `.jsonl` files in a folder and in the folders in it, by name.
fn files_below(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let before = files.len();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let entry = entry.map_err(Error::io(&folder))?;
            // Not that of what a link leads to: links may go round in circles.
            let kind = entry.file_type().map_err(Error::io(&folder))?;
            let path = entry.path();
            if kind.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "jsonl") {
                files.push(path);
            }
        }
    }
    if files.len() == before {
        return Err(Error::malformed(
            folder,
            "there is no file of predictions (.jsonl) in this folder",
        ));
    }
    files[before..].sort();
    Ok(())
}

/// What a file's path tells of its lines.
struct Around {
    run: String,
    length: Option<u64>,
    name: String,
}

impl Around {
    fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.split('.').next().unwrap_or_default().to_owned();
        let mut around = Around { run: String::new(), length: None, name };
        let folders = path.parent().into_iter().flat_map(Path::components).rev();
        for folder in folders {
            let Component::Normal(folder) = folder else { break };
            let folder = folder.to_string_lossy();
            match folder.parse() {
                Ok(length) if around.length.is_none() => around.length = Some(length),
                _ if matches!(&*folder, "pred" | "synthetic") => {}
                _ => {
                    around.run = folder.into_owned();
                    break;
                }
            }
        }
        around
    }
}

impl Line {
    fn sample(self, around: &Around, place: Place) -> std::result::Result<(Key, Sample), String> {
        let Line { index, pred, answers, outputs, all_classes, length, dataset, task, .. } = self;
        let run = around.run.clone();
        let (key, references) = match (answers, outputs) {
            (Some(answers), None) => {
                let name = dataset.as_ref().unwrap_or(&around.name);
                let dataset = Dataset::find(name).map_err(|e| e.to_string())?;
                ((run, Benchmark::LongBench, None, dataset.name.to_owned()), answers)
            }
            (None, Some(outputs)) => {
                let name = task.as_ref().unwrap_or(&around.name);
                if Task::find(name).is_none() {
                    let known = TASKS.each_ref().map(|task| task.name).join(", ");
                    return Err(format!("{name:?} is no task of RULER; there are {known}"));
                }
                let length = self.max_seq_length.or(around.length);
                ((run, Benchmark::Ruler, length, name.clone()), outputs)
            }
            (None, None) => {
                return Err("neither answers, as LongBench's predictions have, nor outputs, as \
                            RULER's have"
                    .into());
            }
            (Some(_), Some(_)) => {
                return Err(
                    "both answers, as LongBench's predictions have, and outputs, as RULER's \
                            have"
                        .into(),
                );
            }
        };
        Ok((key, Sample { index, place, prediction: pred, references, all_classes, length }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_tell_run_and_length() {
        for (path, run, length, name) in [
            ("run/longmamba/8192/vt.0-of-4.jsonl", "longmamba", Some(8192), "vt"),
            ("results/model/synthetic/4096/pred/qa_1.jsonl", "model", Some(4096), "qa_1"),
            ("pred_e/model/trec.jsonl", "model", None, "trec"),
            ("trec.jsonl", "", None, "trec"),
            ("../8192/vt.jsonl", "", Some(8192), "vt"),
            ("7/8/vt.jsonl", "7", Some(8), "vt"),
        ] {
            let around = Around::of(Path::new(path));
            assert_eq!((&*around.run, around.length, &*around.name), (run, length, name), "{path}");
        }
    }
}
