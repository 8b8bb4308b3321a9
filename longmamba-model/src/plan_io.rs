//! Plans on disk.

use crate::{Error, Result, write_whole};
use longmamba_core::policy::Plan;
use std::path::Path;

/// Reads a plan file.
///
/// # Errors
/// [`Error::Io`], or [`Error::Plan`] which says what is wrong with the file.
pub fn read_plan(path: &Path) -> Result<Plan> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    Plan::from_bytes(&bytes).map_err(|source| Error::Plan { path: path.to_owned(), source })
}

/// Writes a plan file, whole or not at all.
///
/// # Errors
/// [`Error::Io`].
pub fn write_plan(plan: &Plan, path: &Path) -> Result<()> {
    write_whole(path, &plan.to_bytes())
}
