//! The files that samples come from.

use crate::failure::{Failure, Outcome};
use longmamba_model::eval::ruler::{Sample, Task, read_samples};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// What samples are made of or read from, by digest: a run is not continued with others.
#[derive(Debug, Default)]
pub struct Files(BTreeMap<String, String>);

impl Files {
    /// Reads a file and notes it under `name`.
    pub fn read<T>(
        &mut self,
        name: &str,
        path: &Path,
        read: impl FnOnce(&Path) -> longmamba_model::Result<T>,
    ) -> Outcome<T> {
        let value = read(path)?;
        self.note_file(name, path)?;
        Ok(value)
    }

    fn note_file(&mut self, name: &str, path: &Path) -> Outcome {
        let bytes =
            fs::read(path).map_err(|e| Failure::input(format!("{}: {e}", path.display())))?;
        self.note(name, &bytes);
        Ok(())
    }

    pub fn note(&mut self, name: &str, bytes: &[u8]) {
        let digest = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        self.0.insert(name.to_owned(), digest);
    }

    pub fn digests(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

/// Samples of one task and length.
#[derive(Debug)]
pub struct DataFile {
    pub task: &'static Task,
    pub length: usize,
    pub samples: Vec<Sample>,
}

/// Reads one file, or all `.jsonl` files below a folder, of `tasks` or of all.
///
/// The task is the file's name up to the first dot, or the folder's that it lies in; the length is the
/// nearest of three folders whose name is a number, or else what the longest sample has.
pub fn find_data(
    path: &Path,
    tasks: &[&'static Task],
    files: &mut Files,
) -> Outcome<Vec<DataFile>> {
    let refuse =
        |path: &Path, why: String| Failure::Input(format!("--data {}: {why}", path.display()));
    let mut paths = Vec::new();
    match path.is_dir() {
        true => below(path, &mut paths)
            .map_err(|(path, e)| refuse(&path, format!("cannot be read: {e}")))?,
        false => paths.push(path.to_owned()),
    }
    let mut found = Vec::new();
    for file in &paths {
        let task = match (task_of(file), tasks) {
            (Some(task), _) => task,
            (None, [task]) if paths.len() == 1 => task,
            (None, _) => {
                let why = "neither the file's name nor its folder's is a task's; name it after its task, or \
                           say which it is with --tasks";
                return Err(refuse(file, why.into()));
            }
        };
        if !tasks.is_empty() && !tasks.contains(&task) {
            continue;
        }
        let samples = read_samples(file)?;
        let longest = samples.iter().map(|sample| sample.length).max().unwrap_or(0);
        let length = length_of(file).unwrap_or(longest);
        // Not by its path, so that the data may move.
        files.note_file(&format!("{}/{length}", task.name), file)?;
        found.push(DataFile { task, length, samples });
    }
    if found.is_empty() {
        let why = "there is no file (.jsonl) of the tasks that are to be run";
        return Err(refuse(path, why.into()));
    }
    let mut seen = HashSet::new();
    if let Some(double) = found.iter().find(|file| !seen.insert((file.task.name, file.length))) {
        let why = format!("there are two files of {} at {}", double.task.name, double.length);
        return Err(refuse(path, why));
    }
    found.sort_by_key(|file| (file.length, number(file.task)));
    Ok(found)
}

/// Its place in the official order.
fn number(task: &Task) -> Option<usize> {
    longmamba_model::eval::ruler::TASKS.iter().position(|t| t == task)
}

/// The `.jsonl` files in a folder and the folders in it, by name; not RULER's predictions.
fn below(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<(), (PathBuf, std::io::Error)> {
    let failed = |e| (folder.to_owned(), e);
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // Not that of what a link leads to: links may go round in circles.
        entries.push((entry.path(), entry.file_type().map_err(failed)?.is_dir()));
    }
    entries.sort();
    for (path, is_folder) in entries {
        if !is_folder && path.extension().is_some_and(|ending| ending == "jsonl") {
            paths.push(path);
        } else if is_folder && !path.ends_with("pred") {
            below(&path, paths)?;
        }
    }
    Ok(())
}

fn names(path: &Path) -> impl Iterator<Item = &str> {
    path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    })
}

fn task_of(path: &Path) -> Option<&'static Task> {
    let first = |name: &str| name.split('.').next().and_then(Task::find);
    names(path).take(2).find_map(first)
}

fn length_of(path: &Path) -> Option<usize> {
    // As deep as the official files lie: length, `data`, task.
    names(path).skip(1).take(3).find_map(|name| name.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_tell_task_and_length() {
        for (path, task, length) in [
            ("samples/4096/vt/validation.jsonl", Some("vt"), Some(4096)),
            ("model/synthetic/8192/data/qa_1/validation.jsonl", Some("qa_1"), Some(8192)),
            ("goldens/niah_single_2.standin.jsonl", Some("niah_single_2"), None),
            ("cwe.jsonl", Some("cwe"), None),
            ("/4096/validation.jsonl", None, Some(4096)),
        ] {
            let path = Path::new(path);
            assert_eq!(
                (task_of(path).map(|t| t.name), length_of(path)),
                (task, length),
                "{path:?}"
            );
        }
    }
}
