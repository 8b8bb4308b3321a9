//! The `longmamba` command from the outside: exit codes, messages, files, JSON.
#![cfg(feature = "cli")]

mod bad_input;
mod benchmarks;
#[cfg(all(feature = "cuda", unix))]
mod device;
mod figures;
mod folder;
mod formats;
mod results;
mod ruler;
mod runs;
mod theta;
