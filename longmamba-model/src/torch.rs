//! Where the tensors of a file written by `torch.save` lie.
//!
//! Two containers hold the same thing, a pickle that describes tensors and the bytes of the storages that
//! they are parts of: a zip archive since torch 1.6 ([`archive`]), a plain file before ([`legacy`]). A
//! pickle is a program for a stack machine that can call any Python function. The machine here
//! ([`machine`]) knows what a dictionary of tensors needs, and calls nothing: what a function of torch
//! would build is written down as a description. Everything else is refused by its name.
//!
//! The files come from strangers. Nothing here recurses, no size that a file claims is allocated before
//! it is checked against the file's own, and all work is linear in the file's directory and pickle
//! (times a logarithm), which are bounded: [`machine::MAX_PICKLE`], [`machine::MAX_OBJECTS`],
//! [`zip::MAX_ENTRIES`]. Checksums are not looked at: torch can be told to write none, and weights are
//! read when they are used.

mod archive;
mod globals;
mod legacy;
mod machine;
mod opcode;
mod reader;
mod state_dict;
#[cfg(test)]
mod tests;
mod value;
mod zip;

use crate::checkpoint::StoredTensor;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// Whether this is a pickle, or a container that `torch.save` has used. No safetensors file is.
pub(crate) fn is_torch(bytes: &[u8]) -> bool {
    // A safetensors file begins with a length, of which the upper half is 0, and a brace; a length of
    // 0x280 to 0x580 looks like the first bytes of a pickle.
    let safetensors = bytes.get(4..9) == Some(b"\0\0\0\0{");
    let pickle = matches!(bytes, [opcode::PROTO, 2..=5, ..]);
    !safetensors && (pickle || zip::is_zip(bytes) || legacy::is_tar(bytes))
}

/// Name → tensor of a file that holds a flat dictionary of tensors. Their bytes are used where they lie:
/// on 64-byte boundaries in a zip archive, anywhere in a legacy file.
///
/// Values that are None, a bool, a number or a string are left out, and so are empty tuples, lists and
/// dictionaries: training scripts note an epoch or a name beside the weights. Any other value is an
/// error, because weights may hide in it.
pub(crate) fn tensors(bytes: &[u8], path: &Path) -> Result<BTreeMap<String, StoredTensor>> {
    read(bytes).and_then(|file| state_dict::tensors(&file)).map_err(|fault| fault.of(path))
}

/// The tensor of a file that holds just one, without a name.
pub(crate) fn tensor(bytes: &[u8], path: &Path) -> Result<StoredTensor> {
    read(bytes).and_then(|file| state_dict::lone(&file)).map_err(|fault| fault.of(path))
}

/// A pickle that has been run, and where its storages lie.
struct File<'a> {
    objects: value::Objects<'a>,
    /// What the pickle stands for.
    root: value::Id,
    /// In bytes of the file, one for each of the objects' storages, of exactly its size.
    storages: Vec<Range<usize>>,
}

fn read(bytes: &[u8]) -> Checked<File<'_>> {
    match bytes {
        _ if !is_torch(bytes) => malformed("not a file that torch.save writes"),
        _ if zip::is_zip(bytes) => archive::read(bytes),
        _ => legacy::read(bytes),
    }
}

/// What is wrong with a file whose path is added at the end.
#[derive(Debug, PartialEq)]
enum Fault {
    /// It is damaged, or contradicts itself.
    Malformed(String),
    /// Its pickle asks for what no dictionary of tensors needs: an opcode, a global, a call.
    Refused(String),
}

type Checked<T> = std::result::Result<T, Fault>;

impl Fault {
    fn of(self, path: &Path) -> Error {
        match self {
            Fault::Malformed(reason) => Error::malformed(path, reason),
            Fault::Refused(found) => Error::Pickle { path: path.to_owned(), found },
        }
    }
}

fn malformed<T>(reason: impl Into<String>) -> Checked<T> {
    Err(Fault::Malformed(reason.into()))
}

fn refused<T>(found: impl Into<String>) -> Checked<T> {
    Err(Fault::Refused(found.into()))
}

/// A name from the file, fit to be printed.
fn shown(name: &str) -> String {
    const LONGEST: usize = 100;
    let start: String = name.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    let more = if name.chars().nth(LONGEST).is_some() { "…" } else { "" };
    start + more
}
