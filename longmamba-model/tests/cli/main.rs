//! The `longmamba` command from the outside: exit codes, messages, files, JSON.
#![cfg(feature = "cli")]

mod bad_input;
mod folder;
mod formats;
mod results;
