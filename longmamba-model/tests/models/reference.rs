//! The built-in models against the reference implementation of LongMamba (PyTorch, double precision
//! calibration). Format of the files: `calibration.windows` i64 `[5, 256]`, `calibration.lengths`
//! i64 `[7]`, `calibration.log_score` `[layers, channels]`, `calibration.thresholds` `[layers, lengths,
//! channels]`, `prompt` i64 `[1, 2048]`, `logits.METHOD` f32 `[1, 128, 256]`, and for S in 256, 2048,
//! 8192 `recallS.METHOD.predicted` u8 `[20, 5]` with `.margin`.
#![cfg(feature = "builtin")]

use crate::common::{self, fixture};
use longmamba_model::SessionOptions;
use longmamba_model::builtin::{self, Builtin};
use longmamba_model::calibrate::calibrate;
use longmamba_model::policy::{Aggregate, CalibrationSettings, Lookup, Plan};
use longmamba_model::verify::{Tolerance, verify};
use safetensors::SafeTensors;
use std::sync::Arc;

struct File(Vec<u8>);

impl File {
    fn open(name: &str) -> Self {
        File(std::fs::read(fixture(name)).unwrap())
    }

    fn bytes<const N: usize>(&self, name: &str) -> Vec<[u8; N]> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        file.tensor(name).unwrap().data().as_chunks().0.to_vec()
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        self.bytes(name).into_iter().map(f32::from_le_bytes).collect()
    }

    fn f64(&self, name: &str) -> f64 {
        f64::from_le_bytes(self.bytes(name)[0])
    }

    fn i64(&self, name: &str) -> Vec<usize> {
        self.bytes(name).into_iter().map(|b| i64::from_le_bytes(b) as usize).collect()
    }

    fn u8(&self, name: &str) -> Vec<u32> {
        self.bytes::<1>(name).into_iter().map(|[b]| u32::from(b)).collect()
    }
}

fn reference(model: &Builtin) -> File {
    File::open(&format!("{}/longmamba.safetensors", model.name))
}

fn tokens(ids: &[usize]) -> Vec<u32> {
    ids.iter().map(|&t| t as u32).collect()
}

/// The built-in plan, made again.
fn calibrated(model: &Builtin) -> Plan {
    let file = reference(model);
    let windows = tokens(&file.i64("calibration.windows"));
    let windows: Vec<&[u32]> = windows.chunks(256).collect();
    let (clamp, lengths) = (file.f64("clamp_percent"), file.i64("calibration.lengths"));
    let settings = CalibrationSettings::new(256, clamp, Aggregate::Max, lengths).unwrap();
    let loaded = model.model(common::backend()).unwrap();
    calibrate(&loaded, &windows, settings, file.f64("theta"), &mut |_| {}).unwrap()
}

fn assert_relative(actual: &[f32], expected: &[f32], what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    let mut worst = 0.0f32;
    for (index, (a, e)) in actual.iter().zip(expected).enumerate() {
        let error = (a - e).abs() / e.abs().max(1e-6);
        assert!(error <= 1e-3, "{what}[{index}] is {a}, the reference has {e}");
        worst = worst.max(error);
    }
    println!("{what}: worst relative error {worst:.1e}");
}

#[test]
fn calibration_reproduces_the_reference() {
    for model in builtin::all() {
        let (plan, file) = (calibrated(model), reference(model));
        let scores: Vec<f32> = (0..plan.layers().len())
            .flat_map(|l| plan.layers()[l].log_scores.clone())
            .map(|s| s as f32)
            .collect();
        let thresholds: Vec<f32> =
            plan.layers().iter().flat_map(|l| l.thresholds.clone()).collect();
        assert_relative(
            &scores,
            &file.f32("calibration.log_score"),
            &format!("{} log score", model.name),
        );
        assert_relative(
            &thresholds,
            &file.f32("calibration.thresholds"),
            &format!("{} threshold", model.name),
        );
    }
}

/// The plan that is checked in is the one that this code makes.
#[test]
fn built_in_plans_are_fresh() {
    for model in builtin::all() {
        let (fresh, stored) = (calibrated(model), model.plan().unwrap());
        assert_eq!(fresh.fingerprint(), stored.fingerprint(), "{}", model.name);
        assert_eq!(fresh.theta(), stored.theta());
        for (a, b) in fresh.layers().iter().zip(stored.layers()) {
            // Another instruction set may round differently.
            assert_relative(&a.thresholds, &b.thresholds, "stored threshold");
        }
        let globals = (0..4).flat_map(|l| (0..stored.fingerprint().channels).map(move |c| (l, c)));
        let globals = globals.filter(|&(l, c)| stored.is_global(l, c)).count();
        assert_eq!(globals, if model.name == "mamba2-tiny" { 16 } else { 164 });
    }
}

/// To make them: `cargo test -p longmamba-model --all-features --test reference -- --ignored write`.
#[test]
#[ignore = "writes builtin/*/plan.safetensors"]
fn write_built_in_plans() {
    for model in builtin::all() {
        let path =
            format!("{}/builtin/{}/plan.safetensors", env!("CARGO_MANIFEST_DIR"), model.name);
        longmamba_model::write_plan(&calibrated(model), path.as_ref()).unwrap();
    }
}

#[test]
fn golden_logits_are_the_reference() {
    for model in builtin::all() {
        let golden = fixture(model.name).join("golden.safetensors");
        let model = model.model(common::backend()).unwrap();
        let report =
            verify(&model, &golden, &[7, 64], Tolerance::default(), &mut |_, _| {}).unwrap();
        assert!(report.passed(), "{report:#?}");
    }
}

fn methods(model: &Builtin) -> [(&'static str, Option<Arc<Plan>>); 2] {
    [("vanilla", None), ("longmamba", Some(Arc::new(model.plan().unwrap())))]
}

#[test]
fn filtered_logits_reproduce_the_reference() {
    for builtin in builtin::all() {
        let (file, model) = (reference(builtin), builtin.model(common::backend()).unwrap());
        let prompt = tokens(&file.i64("prompt"));
        for (method, plan) in methods(builtin) {
            let options = SessionOptions { plan, lookup: Lookup::Nearest, ..Default::default() };
            let mut session = model.session(options).unwrap();
            let mut actual = Vec::new();
            session
                .prefill_scored(&prompt, 1920..2048, |_, l| actual.extend_from_slice(l))
                .unwrap();
            let expected = file.f32(&format!("logits.{method}"));
            let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let worst =
                actual.iter().zip(&expected).map(|(a, e)| (a - e).abs()).fold(0.0, f32::max);
            println!(
                "{} {method}: worst error {worst:.1e} of logits up to {scale:.1}",
                builtin.name
            );
            common::assert_close(&actual, &expected, 1e-3, &format!("{} {method}", builtin.name));
        }
    }
}

/// The prepared prompts: the same answers, byte for byte, where the reference's first and second
/// choice are not within 0.01 of each other.
#[test]
fn recall_predictions_are_the_reference() {
    let prompts = File::open("recall.safetensors");
    for builtin in builtin::all() {
        let (file, model) = (reference(builtin), builtin.model(common::backend()).unwrap());
        for len in [256usize, 2048, 8192] {
            let ids = prompts.u8(&format!("recall{len}.input_ids"));
            let positions = prompts.i64(&format!("recall{len}.answer_positions"));
            for (method, plan) in methods(builtin) {
                let predicted = file.u8(&format!("recall{len}.{method}.predicted"));
                let margins = file.f32(&format!("recall{len}.{method}.margin"));
                let (mut right, mut close) = (0, 0);
                for (prompt, (positions, (predicted, margins))) in ids
                    .chunks(len)
                    .zip(positions.chunks(5).zip(predicted.chunks(5).zip(margins.chunks(5))))
                {
                    let options = SessionOptions {
                        plan: plan.clone(),
                        lookup: Lookup::Nearest,
                        ..Default::default()
                    };
                    let mut session = model.session(options).unwrap();
                    let mut answers = [None; 5];
                    session
                        .prefill_scored(prompt, positions[0] - 1..len, |at, logits| {
                            if let Some(q) = positions.iter().position(|&p| p == at + 1) {
                                answers[q] = logits
                                    .iter()
                                    .enumerate()
                                    .max_by(|a, b| a.1.total_cmp(b.1))
                                    .map(|m| m.0);
                            }
                        })
                        .unwrap();
                    for q in 0..5 {
                        right += usize::from(answers[q] == Some(prompt[positions[q]] as usize));
                        if margins[q] < 0.01 {
                            close += 1;
                        } else {
                            assert_eq!(
                                answers[q],
                                Some(predicted[q] as usize),
                                "{} {len} {method}",
                                builtin.name
                            );
                        }
                    }
                }
                println!(
                    "{} {len} {method}: {right} of 100 right, {close} too close to compare",
                    builtin.name
                );
                assert!(close < 10);
            }
        }
    }
}
