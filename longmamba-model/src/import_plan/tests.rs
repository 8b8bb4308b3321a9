//! `tests/reference/torch_files.py` made the tables.

use super::*;
use safetensors::SafeTensors;

fn tables() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/torch/tables")
}

/// Of the model that `tables/` is for.
fn model() -> Fingerprint {
    Fingerprint { family: "mamba2".into(), layers: 3, channels: 4, digest: "0".into() }
}

fn import(folder: &Path) -> Result<Plan> {
    import_plan(folder, model(), &ImportSettings::default())
}

/// A copy of `tables/` in which files can be replaced.
fn copy() -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for part in ["delta_t-thre", "tA_prod"] {
        std::fs::create_dir(copy.path().join(part)).unwrap();
        for layer in 0..3 {
            std::fs::copy(file(&tables(), part, layer), file(copy.path(), part, layer)).unwrap();
        }
    }
    copy
}

/// The message where layer 1's file of `part` has another content.
fn with(part: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> String {
    let copy = copy();
    let path = file(copy.path(), part, 1);
    std::fs::write(&path, change(std::fs::read(&path).unwrap())).unwrap();
    let message = import(copy.path()).unwrap_err().to_string();
    let name = path.display().to_string();
    assert!(message.starts_with(&name), "{message} should name {name}");
    message[name.len()..].into()
}

/// A change of the values of one channel, given its number and the bytes of the tensor called `key`.
fn value(part: &str, key: &str, channel: usize, value: f32) -> String {
    with(part, |mut bytes| {
        let path = Path::new("");
        let tensor = match key {
            "tA_prod" => torch::tensor(&bytes, path).unwrap(),
            key => torch::tensors(&bytes, path).unwrap()[key].clone(),
        };
        bytes[tensor.range][channel * 4..][..4].copy_from_slice(&value.to_le_bytes());
        bytes
    })
}

#[test]
fn published_tables_become_a_plan() {
    for (folder, layers, channels, train_len) in
        [("tables", 3, 4, 2000), ("tables-bf16", 2, 3, 4000)]
    {
        let folder = tables().with_file_name(folder);
        let fingerprint = Fingerprint { layers, channels, ..model() };
        let settings = ImportSettings { train_len, ..Default::default() };
        let plan = import_plan(&folder, fingerprint.clone(), &settings).unwrap();
        assert_eq!(plan.lengths(), [1000, 2000, 3000, 4000, 8000, 16_000]);
        assert_eq!((plan.train_len(), plan.theta(), plan.windows()), (train_len, 0.05, 5));
        assert_eq!((plan.clamp_percent(), plan.aggregate()), (5.0, Aggregate::Max));
        assert_eq!((plan.min_total_len(), plan.fingerprint()), (3000, &fingerprint));
        for (layer, table) in plan.layers().iter().enumerate() {
            let bytes = std::fs::read(folder.join(format!("layer_{layer}.safetensors"))).unwrap();
            let expected = SafeTensors::deserialize(&bytes).unwrap();
            let get = |key: &str| -> Vec<f32> {
                let data = expected.tensor(key).unwrap().data();
                data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
            };
            let scores: Vec<f64> = get("scores").into_iter().map(|s| f64::from(s).ln()).collect();
            assert_eq!(table.log_scores, scores);
            // One score of each layer has underflowed, one is 1.
            assert_eq!(table.log_scores[layer % channels], f64::NEG_INFINITY);
            assert_eq!(table.log_scores[(layer + 1) % channels], 0.0);
            let rows = table.thresholds.chunks(channels).zip(["1k", "2k", "3k", "4k", "8k", "16k"]);
            for ((row, key), &length) in rows.zip(plan.lengths()) {
                if length <= train_len {
                    assert_eq!(row, vec![0.0; channels]);
                } else {
                    assert_eq!(row, get(key));
                    assert!(row.iter().all(|&g| g > 0.0));
                }
            }
        }
        // A file of it is a plan like any other.
        assert_eq!(Plan::from_bytes(&plan.to_bytes()).unwrap(), plan);
    }
}

#[test]
fn another_model_is_noticed() {
    let other = |layers, channels| {
        let fingerprint = Fingerprint { layers, channels, ..model() };
        import_plan(&tables(), fingerprint, &ImportSettings::default()).unwrap_err().to_string()
    };
    let message = other(4, 4);
    assert!(message.contains("delta_t-thre_layer_3.pt: "), "{message}");
    let message = other(2, 4);
    assert!(
        message.contains("_layer_2.pt: a table of layer 2; the model has 2 layers"),
        "{message}"
    );
    let message = other(3, 5);
    assert!(
        message.contains("_layer_0.pt: 16k has shape [4], the model has 5 channels"),
        "{message}"
    );
}

#[test]
fn missing_and_surplus_files() {
    for part in ["delta_t-thre", "tA_prod"] {
        let copy = copy();
        std::fs::remove_file(file(copy.path(), part, 1)).unwrap();
        let error = import(copy.path()).unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if *path == file(copy.path(), part, 1)));
        let copy = self::copy();
        std::fs::write(file(copy.path(), part, 3), "").unwrap();
        let message = import(copy.path()).unwrap_err().to_string();
        assert!(message.contains(&format!("{part}_layer_3.pt: a table of layer 3")), "{message}");
    }
    assert!(matches!(import(Path::new("no/such/folder")), Err(Error::Io { .. })));
}

#[test]
fn values_that_are_no_thresholds_and_no_scores() {
    assert_eq!(
        value("delta_t-thre", "4k", 2, f32::NAN),
        ": tensor 4k has a NaN or infinite value at element 2"
    );
    assert_eq!(
        value("tA_prod", "tA_prod", 1, f32::INFINITY),
        ": tensor tA_prod has a NaN or infinite value at element 1"
    );
    assert_eq!(
        value("delta_t-thre", "16k", 3, -0.5),
        ": 16k has -0.5 for channel 3, which is not a threshold"
    );
    for score in [-1.0, 1.5] {
        let message = value("tA_prod", "tA_prod", 0, score);
        assert!(message.contains("channel 0, which is not a score between 0 and 1"), "{message}");
    }
}

#[test]
fn files_of_another_content() {
    let swap = |part, name| with(part, |_| std::fs::read(tables().with_file_name(name)).unwrap());
    for (part, name, why) in [
        ("delta_t-thre", "table-key.pt", ": key \"12\" is no length; expected \"3k\" and the like"),
        ("delta_t-thre", "table-fewer.pt", ": it lacks the key \"16k\" of layer 0"),
        ("delta_t-thre", "table-more.pt", ": it has the key \"20k\", which layer 0 lacks"),
        (
            "delta_t-thre",
            "table-integers.pt",
            ": tensor 3k holds I64, expected f32, f16, bf16 or f64",
        ),
        ("delta_t-thre", "table-matrix.pt", ": 3k has shape [2, 2], the model has 4 channels"),
        ("delta_t-thre", "table-empty.pt", ": it has no table of thresholds"),
        ("delta_t-thre", "table-many.pt", ": it has 1001 tables, more than 1000"),
        ("delta_t-thre", "lone.pt", ": it holds a tensor, not a dictionary of tensors"),
        ("delta_t-thre", "tied.safetensors", ": not a file that torch.save writes"),
        (
            "tA_prod",
            "lone.pt",
            ": tA_prod has 2 for channel 2, which is not a score between 0 and 1",
        ),
        ("tA_prod", "table-empty.pt", ": it holds a dictionary, not one tensor"),
    ] {
        assert!(swap(part, name).contains(why), "{name}: {}", swap(part, name));
    }
    let runs = swap("tA_prod", "legacy-runs.bin");
    assert!(runs.contains("posix.system") && runs.contains("nothing was run"), "{runs}");
}

#[test]
fn lengths_have_one_spelling() {
    assert_eq!(length("1k"), Some(1000));
    assert_eq!(length("192k"), Some(192_000));
    for key in ["", "k", "0k", "03k", "3", "3K", "-3k", "+3k", "3.5k", "٣k", "3kk", "1234567k"] {
        assert_eq!(length(key), None, "{key}");
    }
}

#[test]
fn settings_are_checked() {
    let wrong = |change: fn(&mut ImportSettings)| {
        let mut settings = ImportSettings::default();
        change(&mut settings);
        import_plan(&tables(), model(), &settings).unwrap_err()
    };
    for error in [
        wrong(|s| s.train_len = 0),
        wrong(|s| s.clamp_percent = f64::NAN),
        wrong(|s| s.windows = 0),
        wrong(|s| s.theta = -1.0),
    ] {
        assert!(matches!(error, Error::Core(_)), "{error}");
    }
}
