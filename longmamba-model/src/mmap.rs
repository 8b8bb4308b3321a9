//! The one place where a file is mapped into memory.

use crate::{Error, Result};
use std::fs::File;
use std::path::Path;

/// A file's bytes; `None` of an empty file, which cannot be mapped.
pub(crate) struct MappedFile(Option<memmap2::Mmap>);

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(&[])
    }
}

impl MappedFile {
    /// Tells the system that what was read so far is not needed for now: it no longer counts as this process's
    /// memory. It can be read again.
    pub(crate) fn release(&self) {
        #[cfg(unix)]
        if let Some(map) = &self.0 {
            // SAFETY: nothing was ever written through the map, so that what is read again is what the file has,
            // as before.
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }
}

/// The bytes of `path`, mapped read-only.
pub(crate) fn map(path: &Path) -> Result<MappedFile> {
    let file = File::open(path).map_err(Error::io(path))?;
    let meta = file.metadata().map_err(Error::io(path))?;
    if !meta.is_file() {
        return Err(Error::malformed(path, "not a regular file"));
    }
    if meta.len() == 0 {
        return Ok(MappedFile(None));
    }
    // SAFETY: the map is private to this process and only ever read, through `&[u8]`. What remains
    // is that another process changes or truncates the file while it is mapped; no library can rule
    // that out, and the documentation of `Placement` says so.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path))?;
    Ok(MappedFile(Some(map)))
}
