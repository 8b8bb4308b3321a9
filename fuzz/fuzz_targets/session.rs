#![no_main]

use longmamba_model::{CpuBackend, LoadOptions, Model, Session, SessionOptions};
use std::path::Path;
use std::sync::{Arc, LazyLock};

/// A hybrid model, so that keys and values are read too, and a folder for the file.
static MODEL: LazyLock<(Arc<Model>, tempfile::TempDir)> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = folder.join("../longmamba-model/tests/fixtures/original-mamba1attn-options");
    let backend = CpuBackend::new(None).expect("no threads are started");
    let model = Model::load_with(&folder, backend, LoadOptions::default()).expect("a fixture");
    (model, tempfile::tempdir().expect("a temporary folder"))
});

// A saved session, with or without a window on its attention.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&window, bytes)) = bytes.split_first() else { return };
    let (model, folder) = &*MODEL;
    let path = folder.path().join("session.safetensors");
    std::fs::write(&path, bytes).expect("a file in the temporary folder");
    let attention_window = (window > 0).then_some(window.into());
    let options = SessionOptions { attention_window, ..SessionOptions::default() };
    if let Ok(mut session) = Session::load(model, options, &path) {
        let position = session.position();
        // It may be at odds with its announced prompt, but it goes on or says so.
        if session.step(1).is_ok() {
            assert_eq!(session.position(), position + 1);
        }
    }
});
