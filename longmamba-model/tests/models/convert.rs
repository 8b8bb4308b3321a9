//! Conversion keeps a model what it is; rounding the weights changes it as little as the reference says.

use crate::common::{self, backend, fixture};
use longmamba_model::verify::{Tolerance, verify};
use longmamba_model::{DType, Error, Model, convert};
use std::path::Path;

fn converted(folder: &str, dtype: Option<DType>) -> tempfile::TempDir {
    let out = tempfile::tempdir().unwrap();
    let to = out.path().join("new");
    convert(&fixture(folder), &to, dtype, &mut |done, all| assert!(done <= all)).unwrap();
    out
}

fn passes(folder: &Path, golden: &Path, tolerance: Tolerance) -> f32 {
    let model = Model::load(folder, backend()).unwrap();
    let report = verify(&model, golden, &[7], tolerance, &mut |_, _| {}).unwrap();
    assert!(report.passed(), "{}: {report:#?}", golden.display());
    report.cases.iter().map(|c| c.worst_ratio).fold(0.0, f32::max)
}

/// From a pickle, from shards and from a safetensors file: the same digest, hence the same plans and
/// snapshots, and the same logits.
#[test]
fn a_converted_model_is_the_same_model() {
    for folder in ["mamba2-original-bin", "mamba2-hf-sharded", "zamba2-hf-adapters"] {
        let out = converted(folder, None);
        let new = out.path().join("new");
        let before = Model::load(&fixture(folder), backend()).unwrap();
        let after = Model::load(&new, backend()).unwrap();
        assert_eq!(before.fingerprint(), after.fingerprint(), "{folder}");
        assert_eq!(before.weights(), after.weights(), "{folder}");
        passes(&new, &fixture(folder).join("golden.safetensors"), Tolerance::default());
    }
}

/// Weights rounded to f16 and bf16, used in place, against the reference's f32 run of the same rounded
/// weights: the same bound as for f32, because only the weights are rounded, never an activation.
#[test]
fn rounded_weights_give_what_the_reference_gives_for_them() {
    let mut seen = 0;
    for folder in [
        "mamba-hf",
        "mamba-original-bin",
        "mamba2-hf",
        "mamba2-hf-groups",
        "mamba2-original-bin",
        "falcon-mamba-hf",
        "zamba2-1block",
        "zamba2-2block",
    ] {
        for (dtype, name) in [(DType::F16, "f16"), (DType::BF16, "bf16")] {
            let out = converted(folder, Some(dtype));
            let golden = fixture("rounded").join(format!("{folder}.{name}.golden.safetensors"));
            let worst = passes(&out.path().join("new"), &golden, common::tolerance(folder));
            println!("{folder} {name}: worst error {worst:.3} of what is allowed");
            // The reference of the unrounded weights is another one: the comparison can fail.
            let model = Model::load(&out.path().join("new"), backend()).unwrap();
            let exact = fixture(folder).join("golden.safetensors");
            let report =
                verify(&model, &exact, &[], common::tolerance(folder), &mut |_, _| {}).unwrap();
            assert!(!report.passed(), "{folder} {name}");
            seen += 1;
        }
    }
    assert_eq!(seen, 16);
}

#[test]
fn nothing_is_overwritten_and_nothing_becomes_infinite() {
    let out = converted("mamba-hf", None);
    let again = convert(&fixture("mamba-hf"), &out.path().join("new"), None, &mut |_, _| {});
    assert!(matches!(again, Err(Error::Argument(why)) if why.contains("has a model already")));

    let folder = out.path().join("large");
    std::fs::create_dir(&folder).unwrap();
    let shape = common::Shape {
        mamba2: true,
        seed: 1,
        d_model: 8,
        layers: 1,
        d_state: 4,
        d_conv: 2,
        groups: 1,
        head_dim: 8,
        bias: false,
        tied: true,
    };
    let mut tensors = shape.tensors();
    tensors[0].2[3] = 70_000.0;
    std::fs::write(folder.join("model.safetensors"), common::safetensors_file(&tensors)).unwrap();
    std::fs::write(folder.join("config.json"), shape.config()).unwrap();
    let to = out.path().join("half");
    let why = convert(&folder, &to, Some(DType::F16), &mut |_, _| {}).unwrap_err().to_string();
    assert!(why.contains("embeddings") && why.contains("70000") && !to.exists(), "{why}");
    convert(&folder, &to, Some(DType::BF16), &mut |_, _| {}).unwrap();
}
