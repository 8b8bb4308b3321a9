//! Damaged files: an error that names the file, or a model that was not harmed; never a panic.

use crate::common::{backend, fixture};
use longmamba_model::{Checkpoint, Config, Error, LoadOptions, Model, Session, SessionOptions};
use proptest::prelude::*;
use std::path::Path;
use std::sync::LazyLock;

/// What happens to a file.
#[derive(Clone, Debug)]
enum Damage {
    Cut(prop::sample::Index),
    Change(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
}

impl Damage {
    /// Most of the damage goes to the first `head` bytes, where the structure is.
    fn apply(&self, file: &mut Vec<u8>, head: usize) {
        let head = head.clamp(1, file.len());
        match self {
            Damage::Cut(at) => file.truncate(at.index(file.len())),
            Damage::Change(at, byte) => file[at.index(head)] = *byte,
            Damage::Insert(at, bytes) => {
                let at = at.index(head);
                file.splice(at..at, bytes.iter().copied());
            }
            Damage::Remove(at, count) => {
                let at = at.index(head);
                file.drain(at..(at + count).min(file.len()));
            }
        }
    }
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let one = prop_oneof![
        1 => any::<prop::sample::Index>().prop_map(Damage::Cut),
        4 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(i, b)| Damage::Change(i, b)),
        2 => (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..9))
            .prop_map(|(i, b)| Damage::Insert(i, b)),
        2 => (any::<prop::sample::Index>(), 1usize..20).prop_map(|(i, n)| Damage::Remove(i, n)),
    ];
    prop::collection::vec(one, 1..4)
}

fn read(folder: &str, file: &str) -> Vec<u8> {
    std::fs::read(fixture(folder).join(file)).unwrap()
}

/// A saved session of a model with attention, and the model.
static SAVED: LazyLock<(std::sync::Arc<Model>, Vec<u8>)> = LazyLock::new(|| {
    let model = Model::load(&fixture("original-mamba2attn"), backend()).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut session = model.session(SessionOptions::default()).unwrap();
    session.prefill(&[1, 2, 3, 4, 5]).unwrap();
    session.save(file.path()).unwrap();
    (model, std::fs::read(file.path()).unwrap())
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..Default::default() })]

    #[test]
    fn configs(damage in damage(), which in 0usize..4) {
        let folder = ["mamba-hf", "zamba2-1block", "original-mamba2attn", "mamba2-hf"][which];
        let mut file = read(folder, "config.json");
        for damage in &damage {
            let head = file.len();
            damage.apply(&mut file, head);
            if file.is_empty() { break; }
        }
        match Config::parse(&file, Path::new("some/config.json")) {
            // What is accepted has sizes that can be multiplied out.
            Ok(config) => { let _ = config.mixer.projected() * config.d_model; }
            Err(error) => prop_assert!(error.to_string().contains("some/config.json")),
        }
    }

    #[test]
    fn weights(damage in damage(), which in 0usize..3) {
        let (folder, name, head) = [
            ("mamba2-hf", "model.safetensors", 4000),
            ("original-mamba2-dssm", "pytorch_model.bin", 6000),
            ("zamba2-hf-adapters", "model.safetensors", 9000),
        ][which];
        let mut file = read(folder, name);
        for damage in &damage {
            damage.apply(&mut file, head);
            if file.is_empty() { break; }
        }
        let bytes = std::sync::Arc::new(file);
        let options = LoadOptions::default();
        match Checkpoint::from_bytes(bytes, Path::new("some/weights"), options) {
            Ok(mut opened) => {
                let all: Vec<_> =
                    opened.tensors().map(|t| (t.name.to_owned(), t.shape.to_vec())).collect();
                for (name, shape) in all {
                    if let Err(error) = opened.take(&name, &shape) {
                        prop_assert!(error.to_string().contains("some/weights"), "{error}");
                    }
                }
            }
            Err(error) => prop_assert!(error.to_string().contains("some/weights"), "{error}"),
        }
    }

    #[test]
    fn snapshots(damage in damage()) {
        let (model, good) = &*SAVED;
        let mut file = good.clone();
        for damage in &damage {
            damage.apply(&mut file, 3000);
            if file.is_empty() { break; }
        }
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), &file).unwrap();
        match Session::load(model, SessionOptions::default(), path.path()) {
            Ok(mut session) => { let _ = session.step(1); }
            Err(error) => {
                let name = path.path().file_name().unwrap().to_str().unwrap();
                prop_assert!(error.to_string().contains(name), "{error}");
            }
        }
    }
}

/// An index of shards that says what is not so.
#[test]
fn indexes() {
    let folder = tempfile::tempdir().unwrap();
    let from = fixture("mamba2-hf-sharded");
    for file in std::fs::read_dir(&from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let index = folder.path().join("model.safetensors.index.json");
    let good = std::fs::read_to_string(&index).unwrap();
    Model::load(folder.path(), backend()).unwrap();
    let first = "model-00001-of-00003.safetensors";
    let second = "model-00002-of-00003.safetensors";
    let third = "model-00003-of-00003.safetensors";
    for (from, to, expected) in [
        (first, second, "which does not have it"),
        (first, "../other.safetensors", "not the name of a file in this folder"),
        (first, "/etc/passwd", "not the name of a file in this folder"),
        (first, "absent.safetensors", "absent.safetensors"),
        ("backbone.norm_f.weight", "backbone.norm_g.weight", "backbone.norm_"),
        ("weight_map", "weights", "not an index of shards"),
    ] {
        assert!(good.contains(from), "{from}");
        std::fs::write(&index, good.replace(from, to)).unwrap();
        let error = Model::load(folder.path(), backend()).unwrap_err();
        assert!(error.to_string().contains(expected), "{from} → {to}: {error}");
    }
    // Two shards with the same tensors.
    std::fs::write(&index, &good).unwrap();
    std::fs::copy(folder.path().join(second), folder.path().join(third)).unwrap();
    let error = Model::load(folder.path(), backend()).unwrap_err();
    assert!(matches!(&error, Error::Malformed { .. }), "{error}");
    std::fs::write(folder.path().join(third), b"").unwrap();
    let error = Model::load(folder.path(), backend()).unwrap_err();
    assert!(error.to_string().contains(third), "{error}");
}
