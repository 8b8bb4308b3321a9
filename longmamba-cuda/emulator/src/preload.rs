//! Makes the process find the emulated driver.

use std::path::PathBuf;
use thiserror::Error;

/// The shared library could not be found or loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PreloadError {
    /// The running program has no path.
    #[error("the path of the running program: {0}")]
    Program(#[from] std::io::Error),
    /// Cargo has not put the library beside the program.
    #[error("no {name} in {}", folders.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(" or "))]
    Missing {
        /// The file.
        name: String,
        /// Where it was looked for.
        folders: Vec<PathBuf>,
    },
    /// The dynamic loader refused it.
    #[error("{}: {source}", path.display())]
    Load {
        /// The library.
        path: PathBuf,
        /// What the loader said.
        source: libloading::Error,
    },
}

/// Loads the emulated driver, which Cargo builds beside the tests of every crate that depends on this
/// one, and returns its path. Whoever then looks for `libcuda.so.1` finds it already loaded. It stays
/// loaded; calling again is harmless.
///
/// On a machine that has a development link `libcuda.so` in the path of the loader, `cudarc` finds
/// that first.
pub fn preload() -> Result<PathBuf, PreloadError> {
    let program = std::env::current_exe()?;
    let name = libloading::library_filename("longmamba_cuda_emulator");
    // Tests are in `deps` as the library is, examples and programs are one folder off.
    let beside = program.parent().map(PathBuf::from).unwrap_or_default();
    let above = beside.parent().map(PathBuf::from).unwrap_or_default();
    let folders = vec![beside.clone(), beside.join("deps"), above.clone(), above.join("deps")];
    let Some(path) = folders.iter().map(|folder| folder.join(&name)).find(|path| path.is_file())
    else {
        return Err(PreloadError::Missing { name: name.to_string_lossy().into_owned(), folders });
    };
    // SAFETY: the library is this crate; it has no initialisers beyond those of the standard library.
    match unsafe { libloading::Library::new(&path) } {
        Ok(library) => {
            // Unloading it would leave the callers with dangling functions.
            std::mem::forget(library);
            Ok(path)
        }
        Err(source) => Err(PreloadError::Load { path, source }),
    }
}
