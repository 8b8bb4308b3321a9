//! Files that torch wrote, files that it never would, and damage of every kind.

mod damage;
mod files;
mod hostile_pickle;
mod hostile_tensor;
mod hostile_zip;
mod write;

use super::{StoredTensor, tensors};
use crate::Error;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(fixtures().join("torch").join(name)).expect(name)
}

fn read(bytes: &[u8]) -> crate::Result<BTreeMap<String, StoredTensor>> {
    let tensors = tensors(bytes, Path::new("the.bin"))?;
    // Whatever is accepted lies inside the file, and is as long as it says.
    for tensor in tensors.values() {
        let elements: usize = tensor.shape.iter().product();
        assert_eq!(tensor.range.len(), elements * tensor.dtype.bitsize() / 8);
        assert!(tensor.range.end <= bytes.len());
    }
    Ok(tensors)
}

/// The message, which names the file.
#[track_caller]
fn refusal(bytes: &[u8]) -> String {
    let error = read(bytes).expect_err("it must be refused");
    assert!(matches!(error, Error::Malformed { .. } | Error::Pickle { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.starts_with("the.bin: "), "{message}");
    assert!(message.len() < 600, "{} bytes of message", message.len());
    message
}

#[track_caller]
fn refused_for(bytes: &[u8], why: &str) {
    let message = refusal(bytes);
    assert!(message.contains(why), "{message:?} should contain {why:?}");
}
