//! Tiny checkpoints against the logits of Hugging Face transformers.

use crate::common::{self, fixture, folders};
use longmamba_model::verify::{Tolerance, verify};
use longmamba_model::{Cpu, CpuBackend, Model};

/// How many of them there are: none is overlooked.
const FOLDERS: usize = 21;
const CHUNKS: [usize; 4] = [1, 7, 64, 1000];

/// Whole and in chunks, with every instruction set that this machine has.
#[test]
fn logits_and_greedy_continuation_are_the_reference() {
    let folders = folders();
    assert_eq!(folders.len(), FOLDERS, "{folders:?}");
    for folder in &folders {
        for cpu in Cpu::available() {
            let backend = CpuBackend::with_cpu(cpu, Some(2)).unwrap();
            let model = Model::load(&fixture(folder), backend).unwrap();
            let golden = fixture(folder).join("golden.safetensors");
            let report =
                verify(&model, &golden, &CHUNKS, common::tolerance(folder), &mut |_, _| {})
                    .unwrap();
            let worst = report.cases.iter().map(|c| c.worst_ratio).fold(0.0, f32::max);
            println!("{folder} {cpu:?}: worst error {worst:.3} of what is allowed");
            assert!(report.passed(), "{folder} {cpu:?}: {report:#?}");
            assert_eq!(report.cases.len() % (1 + CHUNKS.len()), 0, "{folder}: cases are missing");
            assert!(report.greedy.is_some_and(|g| g.expected.len() == 12));
        }
    }
}

/// The comparison itself can fail: each kind of damage to the golden file is seen.
#[test]
fn a_changed_reference_is_noticed() {
    let model = Model::load(&fixture("mamba2-hf"), common::backend()).unwrap();
    let golden = std::fs::read(fixture("mamba2-hf").join("golden.safetensors")).unwrap();
    let run = |bytes: &[u8], tolerance| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        verify(&model, file.path(), &[], tolerance, &mut |_, _| {}).unwrap()
    };
    assert!(run(&golden, Tolerance::default()).passed());

    let mut changed = golden.clone();
    let last = changed.len() - 4;
    let value = f32::from_le_bytes(changed[last..].try_into().unwrap()) + 0.01;
    changed[last..].copy_from_slice(&value.to_le_bytes());
    let report = run(&changed, Tolerance::default());
    assert_eq!(report.cases.iter().filter(|c| !c.passed).count(), 1);
    assert!(run(&changed, Tolerance { absolute: 0.1, relative: 0.0 }).passed());
}
