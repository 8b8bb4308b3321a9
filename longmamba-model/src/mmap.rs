//! The one place where a file is mapped into memory.

use crate::{Error, Result};
use longmamba_core::SharedBytes;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// The bytes of `path`, mapped read-only; an empty file gives no bytes.
pub(crate) fn map(path: &Path) -> Result<SharedBytes> {
    let file = File::open(path).map_err(Error::io(path))?;
    let meta = file.metadata().map_err(Error::io(path))?;
    if !meta.is_file() {
        return Err(Error::malformed(path, "not a regular file"));
    }
    if meta.len() == 0 {
        return Ok(Arc::new(Vec::new()));
    }
    // SAFETY: the map is private to this process and only ever read, through `&[u8]`. What remains
    // is that another process changes or truncates the file while it is mapped; no library can rule
    // that out, and the documentation of `Placement::Map` says so and offers to read the
    // file into memory instead.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path))?;
    Ok(Arc::new(map))
}
