//! Files of one JSON object a line.

use crate::{Error, Result};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Calls `each` with every line that is not blank, and its number from 1 on. Holds one line at a time.
///
/// # Errors
/// [`Error::Io`]; [`Error::Line`] for a line that is not such an object; what `each` returns.
pub(crate) fn for_each<T: DeserializeOwned>(
    path: &Path,
    mut each: impl FnMut(usize, T) -> Result<()>,
) -> Result<()> {
    let mut file = BufReader::new(File::open(path).map_err(Error::io(path))?);
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if file.read_until(b'\n', &mut bytes).map_err(Error::io(path))? == 0 {
            break;
        }
        let text = bytes.trim_ascii_end();
        if text.is_empty() {
            continue;
        }
        let value = serde_json::from_slice(text).map_err(|e| {
            // The line that serde_json tells is within the line.
            let (column, text) = (e.column(), e.to_string());
            let cause = text.rsplit_once(" at line ").map_or(&*text, |(cause, _)| cause);
            Error::line(path, line, format!("column {column}: {cause}"))
        })?;
        each(line, value)?;
    }
    Ok(())
}
