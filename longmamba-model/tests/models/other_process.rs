//! A session that is saved by one process and continued by another.

use crate::common::{backend, fixture};
use longmamba_model::{Model, Session, SessionOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

const SNAPSHOT: &str = "LONGMAMBA_TEST_SNAPSHOT";
const FOLDERS: [&str; 3] = ["mamba-hf", "mamba2-hf", "zamba2-hf-2block-rope"];

fn snapshot(folder: &Path, model: &str) -> PathBuf {
    folder.join(format!("{model}.session"))
}

/// The logits of three more tokens, as bits.
fn continued(session: &mut Session) -> Vec<u8> {
    let mut all = Vec::new();
    for token in [3, 1, 4] {
        session.step(token).unwrap();
        all.extend(session.logits().iter().flat_map(|l| l.to_bits().to_le_bytes()));
    }
    all
}

#[test]
fn another_process_continues_bit_for_bit() {
    let load = |name: &str| Model::load(&fixture(name), backend()).unwrap();
    // Here the test is the other process.
    if let Some(folder) = std::env::var_os(SNAPSHOT) {
        for name in FOLDERS {
            let path = snapshot(folder.as_ref(), name);
            let mut session = Session::load(&load(name), SessionOptions::default(), &path).unwrap();
            std::fs::write(path.with_extension("logits"), continued(&mut session)).unwrap();
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for name in FOLDERS {
        let mut session = load(name).session(SessionOptions::default()).unwrap();
        session.prefill(&(0..50).collect::<Vec<_>>()).unwrap();
        session.save(&snapshot(folder.path(), name)).unwrap();
        expected.push(continued(&mut session));
    }
    let mut other = Command::new(std::env::current_exe().unwrap());
    other
        .args(["other_process::another_process_continues_bit_for_bit", "--exact"])
        .env(SNAPSHOT, folder.path());
    assert!(other.output().unwrap().status.success());
    for (name, expected) in FOLDERS.iter().zip(expected) {
        let path = snapshot(folder.path(), name).with_extension("logits");
        assert!(std::fs::read(path).unwrap() == expected, "{name}: other logits");
    }
}
