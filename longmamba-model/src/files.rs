use crate::{Error, Result};
use std::fs;
use std::io::Write;
use std::path::Path;

/// Writes a file under a temporary name beside `path` and renames it: a reader finds the old file or
/// the whole new one, whenever the program is killed.
///
/// # Errors
/// [`Error::Io`].
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|source| {
        // The error that matters is the first one.
        let _ = fs::remove_file(&temporary);
        Error::Io { path: path.to_owned(), source }
    })
}
