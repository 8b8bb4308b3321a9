//! Files with one JSON object a line, one line a sample.

use crate::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A sample that is done: in the file `{"index": 3, …}` with the sample's own fields after it, of which it
/// must have some, none of them named `index`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line<S> {
    /// Which of the part's samples, counted from 0 over all shards.
    pub index: usize,
    /// What came of it.
    #[serde(flatten)]
    pub sample: S,
}

/// A file that lines are appended to.
#[derive(Debug)]
pub(super) struct LinesFile {
    path: PathBuf,
    file: File,
    /// Where a line is put together.
    text: Vec<u8>,
}

impl LinesFile {
    /// The file, and its lines, which are to be the first ones of samples `indices`. What a killed process
    /// left of a line is cut off.
    pub(super) fn open<S: DeserializeOwned>(
        path: &Path,
        indices: &[usize],
    ) -> Result<(Self, Vec<Line<S>>)> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        let file = File::options().create(true).append(true).open(path).map_err(Error::io(path))?;
        let (lines, whole) = parse(path, &fs::read(path).map_err(Error::io(path))?)?;
        for (number, line) in lines.iter().enumerate() {
            let expected = indices.get(number);
            if expected != Some(&line.index) {
                let expected = expected.map_or("none".into(), |e| format!("sample {e}"));
                return Err(Error::malformed(
                    path,
                    format!(
                        "line {} is sample {}, and {expected} was to come; the file is of another run, or was \
                         changed",
                        number + 1,
                        line.index
                    ),
                ));
            }
        }
        file.set_len(whole as u64).map_err(Error::io(path))?;
        Ok((LinesFile { path: path.to_owned(), file, text: Vec::new() }, lines))
    }

    /// In one write, so that a process killed before or after it leaves whole lines.
    pub(super) fn append<S: Serialize>(&mut self, line: &Line<S>) -> Result<()> {
        self.text.clear();
        let put = serde_json::to_writer(&mut self.text, line).map_err(std::io::Error::from);
        self.text.push(b'\n');
        put.and_then(|()| self.file.write_all(&self.text)).map_err(Error::io(&self.path))
    }
}

/// The lines of a run's file, in the order in which they stand there; a last one that was cut short is left
/// out.
///
/// # Errors
/// [`Error::Malformed`], with the line's number; [`Error::Io`].
pub fn read_lines<S: DeserializeOwned>(path: &Path) -> Result<Vec<Line<S>>> {
    Ok(parse(path, &fs::read(path).map_err(Error::io(path))?)?.0)
}

/// The lines, and how many bytes they are.
fn parse<S: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<(Vec<Line<S>>, usize)> {
    let mut lines = Vec::new();
    let mut whole = 0;
    for text in bytes.split_inclusive(|&b| b == b'\n').filter(|line| line.ends_with(b"\n")) {
        let line = serde_json::from_slice(text)
            .map_err(|e| Error::malformed(path, format!("line {}: {e}", lines.len() + 1)))?;
        lines.push(line);
        whole += text.len();
    }
    Ok((lines, whole))
}
