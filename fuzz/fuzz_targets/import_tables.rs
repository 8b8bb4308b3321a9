#![no_main]

use longmamba_core::policy::{Fingerprint, Plan};
use longmamba_model::{ImportSettings, import_plan};
use std::sync::LazyLock;

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for part in ["delta_t-thre", "tA_prod"] {
        std::fs::create_dir(folder.path().join(part)).expect("a folder in it");
    }
    folder
});

// The input is the two files of a model's one layer, the length of the first in front.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((len, files)) = bytes.split_first_chunk() else { return };
    let (one, two) = files.split_at(files.len().min(u16::from_le_bytes(*len).into()));
    for (part, bytes) in [("delta_t-thre", one), ("tA_prod", two)] {
        let path = FOLDER.path().join(part).join(format!("{part}_layer_0.pt"));
        std::fs::write(path, bytes).expect("a file in the temporary folder");
    }
    let model = Fingerprint { family: "mamba2".into(), layers: 1, channels: 4, digest: "0".into() };
    if let Ok(plan) = import_plan(FOLDER.path(), model, &ImportSettings::default()) {
        assert_eq!(Plan::from_bytes(&plan.to_bytes()).as_ref(), Ok(&plan));
    }
});
