//! The model as it is.

use super::Entry;

/// In [`ALL`](super::ALL).
pub const ENTRY: Entry =
    Entry { name: "vanilla", about: "The model as it is", build: |_, _| Ok(None) };
