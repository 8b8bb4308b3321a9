//! Folders that a test may fill and spoil, and ways to run the command.

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

pub fn longmamba(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_longmamba")).args(args).output().unwrap()
}

pub fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub fn fixture(name: &str) -> String {
    in_repository("tests/fixtures").join(name).display().to_string()
}

pub fn plan(model: &str) -> String {
    in_repository("builtin").join(model).join("plan.safetensors").display().to_string()
}

/// A folder that a test may fill and spoil.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    /// With a copy of a fixture's model in it.
    pub fn of(fixture_name: &str) -> Self {
        Self::with_model(Path::new(&fixture(fixture_name)))
    }

    /// With a copy of a built-in model in it.
    pub fn of_builtin(name: &str) -> Self {
        Self::with_model(&in_repository("builtin").join(name))
    }

    fn with_model(from: &Path) -> Self {
        let folder = Folder::new();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(from.join(file), folder.path(file)).unwrap();
        }
        folder
    }

    pub fn path(&self, file: &str) -> String {
        self.0.path().join(file).display().to_string()
    }

    pub fn write(&self, file: &str, bytes: impl AsRef<[u8]>) -> String {
        fs::write(self.path(file), bytes).unwrap();
        self.path(file)
    }

    /// Names and sizes.
    pub fn listing(&self) -> BTreeMap<String, u64> {
        let entries = fs::read_dir(self.0.path()).unwrap().map(|e| e.unwrap());
        entries
            .map(|e| (e.file_name().display().to_string(), e.metadata().unwrap().len()))
            .collect()
    }

    /// Runs the command with bad input: exit code 2, a message that names the cause, nothing on stdout,
    /// nothing written.
    #[track_caller]
    pub fn refuses(&self, args: &[&str], causes: &[&str]) {
        let before = self.listing();
        let output = longmamba(args);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
        assert!(output.stdout.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
        assert!(message.starts_with("error: "), "{args:?}: {message}");
        for cause in causes {
            assert!(message.contains(cause), "{args:?}: no {cause:?} in: {message}");
        }
        assert_eq!(self.listing(), before, "{args:?} wrote something");
    }

    /// Rewrites the model's tensors.
    pub fn tensors(&self, change: impl FnOnce(&mut BTreeMap<String, Tensor>)) {
        let bytes = fs::read(self.path("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors: BTreeMap<String, Tensor> = file
            .iter()
            .map(|(name, view)| {
                let tensor = Tensor(view.dtype(), view.shape().to_vec(), view.data().to_vec());
                (name.to_owned(), tensor)
            })
            .collect();
        change(&mut tensors);
        let views = tensors
            .iter()
            .map(|(name, t)| (name, TensorView::new(t.0, t.1.clone(), &t.2).unwrap()));
        let bytes = safetensors::serialize(views, None).unwrap();
        self.write("model.safetensors", bytes);
    }

    /// A tokenizer whose tokens are characters: id 0 to 95, and `z` with the id given.
    pub fn tokenizer(&self, z: u32) {
        let mut vocab: BTreeMap<String, u32> =
            (b'!'..=b'~').zip(1..).map(|(byte, id)| (char::from(byte).to_string(), id)).collect();
        vocab.extend([("Ġ".to_owned(), 0), ("Ċ".to_owned(), 95), ("z".to_owned(), z)]);
        let byte_level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false
        });
        let tokenizer = json!({
            "version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null,
            "pre_tokenizer": byte_level, "decoder": byte_level,
            "model": { "type": "BPE", "vocab": vocab, "merges": [] }
        });
        self.write("tokenizer.json", tokenizer.to_string());
    }
}

/// A tensor's type, shape and bytes.
pub struct Tensor(pub Dtype, pub Vec<usize>, pub Vec<u8>);

/// Plain text of at least `len` bytes.
pub fn text(len: usize) -> String {
    "The lamp was lit, and the ferry came back over the water. ".repeat(len / 58 + 1)
}

#[track_caller]
pub fn json_of(args: &[&str]) -> Value {
    let output = longmamba(args);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {message}");
    assert!(message.is_empty(), "notes are for terminals: {message}");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(value.is_object());
    value
}
