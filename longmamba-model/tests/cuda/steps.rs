//! Steps of one token a sequence, whose stages are fused, against the processor.

use super::common::{self, assert_close, fixture, folders, plan, random_tokens, shapes};
use super::{CUDA, ROUNDING, model, on_cpu, options};
use longmamba_model::{Backend, Batch, DType, DeltaSums, Model, Session, SessionOptions, convert};
use proptest::prelude::*;
use std::sync::Arc;

/// How many kernels the recorded step launches, as the recording says itself; `None` without one.
fn launches(of: &impl std::fmt::Debug) -> Option<usize> {
    let text = format!("{of:?}");
    let (_, rest) = text.split_once("launches: ")?;
    rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse().ok()
}

/// Of a session after three steps, the second of which is recorded.
fn launches_of_a_step(folder: &str) -> Option<usize> {
    let mut session = model(folder).session(options(16)).unwrap();
    assert_eq!(launches(&session), None, "{folder}");
    for token in 0..3 {
        session.step(token).unwrap();
    }
    launches(&session)
}

/// Mamba-1: norm, in_proj and convolution; x_proj; Falcon-Mamba's norms, dt_proj and scan; out_proj. Mamba-2:
/// norm, in_proj and convolution; scan and gate; norm and out_proj.
#[test]
fn a_step_has_as_few_launches_as_stated() {
    for (folder, each) in [
        ("mamba-hf", 4),
        ("mamba-hf-options", 4),
        ("falcon-mamba-hf", 4),
        ("mamba2-hf", 3),
        ("mamba2-hf-groups", 3),
        ("mamba2-hf-options", 3),
        // A gated MLP beside the scan: its gate, and the norm apart from out_proj.
        ("original-mamba2-dssm", 5),
        // Also two groups, each with its norm in front of the gate.
        ("original-mamba2-norm-first", 7),
        // Layer norm, apart from in_proj and the convolution.
        ("original-mamba1-options", 6),
        // That, and no norm behind the gate, and an MLP of four kernels.
        ("original-mamba2-nonorm-mlp", 9),
    ] {
        let layers = model(folder).config().recurrent_layers();
        assert_eq!(launches_of_a_step(folder), Some(layers * each), "{folder}");
    }
}

/// Up to 8 sequences take no more launches than one; more go through the stages one by one.
#[test]
fn a_batch_has_as_few_launches() {
    for (folder, each, apart) in [("mamba-hf", 4, 23), ("mamba2-hf", 3, 22)] {
        let layers = model(folder).config().recurrent_layers();
        for (count, expected) in [(1, each), (2, each), (3, each), (8, each), (9, apart)] {
            let mut batch = Batch::new(model(folder), options(16), count).unwrap();
            for token in 0..3 {
                batch.step(&vec![Some(token); count]).unwrap();
            }
            let what = format!("{folder}, {count} sequences");
            assert_eq!(launches(&batch), Some(layers * expected), "{what}");
        }
    }
}

/// The sums are those of the same tokens, and as many were kept.
fn assert_same_sums(found: &DeltaSums, expected: &DeltaSums, what: &str) {
    assert_eq!(found.kept, expected.kept, "{what}");
    for (found, expected) in
        [(&found.delta_sum, &expected.delta_sum), (&found.kept_sum, &expected.kept_sum)]
    {
        for (channel, (f, e)) in found.iter().zip(expected).enumerate() {
            assert!((f - e).abs() <= 1e-3 * (1.0 + e), "{what}, channel {channel}: {f}, not {e}");
        }
    }
}

/// A ragged batch on both devices: logits after every token, and Δ at the end. Some sequences wait.
fn batches_agree<B: Backend>(
    gpu: &Arc<Model<B>>,
    cpu: &Arc<Model>,
    count: usize,
    rounding: f32,
    what: &str,
) {
    let mut on_gpu = Batch::new(gpu.clone(), options(16), count).unwrap();
    let mut on_cpu = Batch::new(cpu.clone(), options(16), count).unwrap();
    let prompts: Vec<_> = (0..count).map(|i| random_tokens(i as u64, 1 + i * 5 % 11)).collect();
    let prompts: Vec<_> = prompts.iter().map(Vec::as_slice).collect();
    on_gpu.prefill(&prompts).unwrap();
    on_cpu.prefill(&prompts).unwrap();
    for step in 0..7 {
        // The third and fourth step are of other sequences than the rest.
        let token =
            |i: usize| (i % 3 != 1 || !(2..4).contains(&step)).then_some((step * 7 + i) as u32);
        let tokens: Vec<_> = (0..count).map(token).collect();
        on_gpu.step(&tokens).unwrap();
        on_cpu.step(&tokens).unwrap();
        for index in 0..count {
            let what = format!("{what}, sequence {index}, step {step}");
            assert_close(on_gpu.logits(index), on_cpu.logits(index), rounding, &what);
        }
    }
    for index in 0..count {
        for layer in 0..gpu.config().recurrent_layers() {
            let found = on_gpu.delta_sums(index, layer).unwrap();
            let expected = on_cpu.delta_sums(index, layer).unwrap();
            assert_same_sums(
                &found,
                &expected,
                &format!("{what}, sequence {index}, layer {layer}"),
            );
        }
    }
}

#[test]
fn every_family_steps_as_on_the_processor() {
    for (i, folder) in folders().into_iter().enumerate() {
        let rounding = if folder.starts_with("zamba2") { 1e-3 } else { ROUNDING };
        batches_agree(&model(&folder), &on_cpu(&folder), [1, 3, 5][i % 3], rounding, &folder);
    }
}

#[test]
fn weights_of_16_bits_step_as_on_the_processor() {
    for folder in ["mamba-hf", "falcon-mamba-hf", "mamba2-hf-groups"] {
        for dtype in [DType::F16, DType::BF16] {
            let out = tempfile::tempdir().unwrap();
            let new = out.path().join("new");
            convert(&fixture(folder), &new, Some(dtype), &mut |_, _| {}).unwrap();
            let gpu = Model::load(&new, CUDA.clone()).unwrap();
            let cpu = Model::load(&new, common::backend()).unwrap();
            batches_agree(&gpu, &cpu, 2, ROUNDING, &format!("{folder} {dtype}"));
        }
    }
}

/// With thresholds that hold after the prompt too.
#[test]
fn steps_are_filtered() {
    for folder in ["mamba-hf", "falcon-mamba-hf", "mamba2-hf-groups"] {
        let (gpu, cpu) = (model(folder), on_cpu(folder));
        let plan = Some(plan(&cpu));
        let options = SessionOptions { plan, filter_decode: true, ..options(16) };
        let (mut on_gpu, mut on_cpu) =
            (gpu.session(options.clone()).unwrap(), cpu.session(options).unwrap());
        // More than the plan was made with, so that there is something to filter.
        let prompt = random_tokens(7, 96);
        on_gpu.prefill(&prompt).unwrap();
        on_cpu.prefill(&prompt).unwrap();
        let layers = gpu.config().recurrent_layers();
        let kept = |session: &Session| -> Vec<u64> {
            (0..layers).flat_map(|l| session.delta_sums(l).unwrap().kept).collect()
        };
        let before = kept(&on_cpu);
        let tokens = random_tokens(8, 12);
        for &token in &tokens {
            on_gpu.step(token).unwrap();
            on_cpu.step(token).unwrap();
            assert_close(on_gpu.logits(), on_cpu.logits(), 5e-4, folder);
        }
        let after = kept(&on_cpu);
        let dropped: u64 =
            before.iter().zip(&after).map(|(b, a)| b + tokens.len() as u64 - a).sum();
        assert!(dropped > 0, "{folder}: no step was filtered");
        for layer in 0..layers {
            let (found, expected) =
                (on_gpu.delta_sums(layer).unwrap(), on_cpu.delta_sums(layer).unwrap());
            assert_same_sums(&found, &expected, &format!("{folder}, layer {layer}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Random sizes: taps, states, groups, heads, biases.
    #[test]
    fn random_models_step_as_on_the_processor(shape in shapes(), count in 1usize..5) {
        let (gpu, cpu) = (shape.model_on(CUDA.clone()), shape.model());
        batches_agree(&gpu, &cpu, count, ROUNDING, &format!("{shape:?}"));
    }
}
