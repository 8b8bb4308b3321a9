//! Models on a GPU, or on the emulator of one, against the reference and against the processor.
#![cfg(feature = "cuda")]

mod common;
#[path = "cuda/generate.rs"]
mod generate;
#[path = "cuda/methods.rs"]
mod methods;
#[path = "cuda/recorded.rs"]
mod recorded;
#[path = "cuda/steps.rs"]
mod steps;

use common::{all_logits, assert_close, fixture, plan, random_tokens};
use longmamba_model::eval::perplexity::{Windows, perplexity};
use longmamba_model::eval::prose;
use longmamba_model::eval::recall::{RecallTask, recall};
use longmamba_model::policy::{Lookup, Plan};
use longmamba_model::verify::verify;
use longmamba_model::{
    Backend, Batch, CudaBackend, DType, Error, Model, Precision, Session, SessionOptions, Text,
    builtin, convert,
};
use std::sync::{Arc, LazyLock};

/// One device for all tests.
static CUDA: LazyLock<CudaBackend> = LazyLock::new(|| {
    let found = longmamba_cuda_emulator::driver_for_tests().unwrap();
    let backend = CudaBackend::new(0).unwrap();
    println!("{found}: {}", backend.device().name());
    backend
});

fn model(folder: &str) -> Arc<Model<CudaBackend>> {
    Model::load(&fixture(folder), CUDA.clone()).unwrap()
}

fn on_cpu(folder: &str) -> Arc<Model> {
    Model::load(&fixture(folder), common::backend()).unwrap()
}

fn agrees_with_the_reference(folder: &str) {
    let model = model(folder);
    let golden = fixture(folder).join("golden.safetensors");
    let report =
        verify(&model, &golden, &[1, 7, 64], common::tolerance(folder), &mut |_, _| {}).unwrap();
    let worst = report.cases.iter().map(|c| c.worst_ratio).fold(0.0, f32::max);
    println!("{folder}: worst error {worst:.3} of what is allowed");
    assert!(report.passed(), "{folder}: {report:#?}");
    assert!(report.greedy.is_some_and(|g| g.expected.len() == 12), "{folder}");
}

macro_rules! fixtures {
    ($($test:ident: $folder:literal,)*) => {
        $(#[test]
        fn $test() {
            agrees_with_the_reference($folder);
        })*

        /// None is overlooked.
        #[test]
        fn every_folder_has_its_test() {
            let mut named = vec![$($folder),*];
            named.sort_unstable();
            assert_eq!(common::folders(), named);
        }
    };
}

fixtures! {
    falcon_mamba: "falcon-mamba-hf",
    falcon_mamba_options: "falcon-mamba-hf-options",
    mamba: "mamba-hf",
    mamba_options: "mamba-hf-options",
    mamba_original: "mamba-original-bin",
    mamba2: "mamba2-hf",
    mamba2_groups: "mamba2-hf-groups",
    mamba2_options: "mamba2-hf-options",
    mamba2_sharded: "mamba2-hf-sharded",
    mamba2_original: "mamba2-original-bin",
    original_mamba1_options: "original-mamba1-options",
    original_mamba1attn: "original-mamba1attn-options",
    original_mamba2_dssm: "original-mamba2-dssm",
    original_mamba2_mlp: "original-mamba2-nonorm-mlp",
    original_mamba2_norm_first: "original-mamba2-norm-first",
    original_mamba2attn: "original-mamba2attn",
    zamba2_one_block: "zamba2-1block",
    zamba2_two_blocks: "zamba2-2block",
    zamba2_rope: "zamba2-hf-2block-rope",
    zamba2_adapters: "zamba2-hf-adapters",
    zamba2_options: "zamba2-hf-options",
}

/// One of each family.
const FAMILIES: [&str; 4] =
    ["mamba-hf", "falcon-mamba-hf", "mamba2-hf-groups", "original-mamba2attn"];

/// How far apart the two devices may be, relative to the largest logit.
const ROUNDING: f32 = 1e-4;

fn options(chunk_len: usize) -> SessionOptions {
    SessionOptions { chunk_len: Some(chunk_len), ..Default::default() }
}

/// A session goes from one device to the other and back, and its state with it.
#[test]
fn snapshots_load_on_either_device() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for folder in FAMILIES {
        let (gpu, cpu) = (model(folder), on_cpu(folder));
        let tokens = random_tokens(1, 50);
        let mut first = cpu.session(options(16)).unwrap();
        first.prefill(&tokens).unwrap();
        first.save(file.path()).unwrap();
        let mut second = Session::load(&gpu, options(9), file.path()).unwrap();
        assert_eq!(first.logits(), second.logits(), "{folder}");
        for token in random_tokens(2, 5) {
            first.step(token).unwrap();
            second.step(token).unwrap();
            assert_close(second.logits(), first.logits(), ROUNDING, folder);
        }
        second.save(file.path()).unwrap();
        let mut third = Session::load(&cpu, options(16), file.path()).unwrap();
        let fourth = Session::load(&gpu, options(16), file.path()).unwrap();
        assert_eq!(third.logits(), second.logits(), "{folder}");
        for layer in 0..gpu.config().recurrent_layers() {
            let sums = second.delta_sums(layer).unwrap();
            assert_eq!(third.delta_sums(layer).unwrap(), sums, "{folder}");
            assert_eq!(fourth.delta_sums(layer).unwrap(), sums, "{folder}");
        }
        third.step(3).unwrap();
        second.step(3).unwrap();
        assert_close(second.logits(), third.logits(), ROUNDING, folder);
    }
}

/// Steps, of which all but the first are replayed from a recording, and a prompt in one piece; in between
/// another prompt, another sequence and a fork, which the recording must not be used for.
#[test]
fn recorded_steps_equal_prefill() {
    for folder in FAMILIES {
        let gpu = model(folder);
        let tokens = random_tokens(3, 24);
        let mut whole = gpu.session(options(64)).unwrap();
        let expected = all_logits(&mut whole, &tokens);
        let mut session = gpu.session(options(64)).unwrap();
        let vocab = gpu.config().vocab_size;
        let mut actual = Vec::new();
        for (i, &token) in tokens.iter().enumerate() {
            match i {
                // A prompt between steps.
                10 => session.prefill(&[token]).unwrap(),
                // The recording is the old session's; the new one has other buffers.
                16 => {
                    session = session.fork().unwrap();
                    session.step(token).unwrap();
                }
                _ => session.step(token).unwrap(),
            }
            actual.extend_from_slice(session.logits());
        }
        for (t, (a, e)) in actual.chunks(vocab).zip(expected.chunks(vocab)).enumerate() {
            assert_close(a, e, ROUNDING, &format!("{folder}, token {t}"));
        }
    }
}

/// What `demo` does: samples are read one after the other, on one device.
#[test]
fn evaluations_agree() {
    fn measure<B: Backend>(backend: B) -> (Vec<u8>, f64, f64) {
        let builtin = builtin::find("mamba1-tiny").unwrap();
        let model = builtin.model_on(backend).unwrap();
        let sampled = prose::sampled(&model, 20, 3, &|_| {}).unwrap();
        let text = prose::plain(100, 3);
        let tokens = text.bytes().map(u32::from).collect();
        let plan = Some(Arc::new(builtin.plan().unwrap()));
        let options = SessionOptions { plan, ..Default::default() };
        let windows = Windows { windows: 2, labels: 40, ..Windows::new(300) };
        let texts = [Text::from_tokens(tokens)];
        let ppl = perplexity(&model, &texts, windows, &options, &|_| {}).unwrap();
        let task = RecallTask { facts: 2, ..RecallTask::new(300) };
        let prompts = task.prompts(&[text.as_bytes()], 2, 3).unwrap();
        let right = recall(&model, &prompts, &options, &|_| {}).unwrap().right;
        (sampled, ppl.nll.mean, right.mean)
    }
    let (gpu, cpu) = (measure(CUDA.clone()), measure(common::backend()));
    assert_eq!((gpu.0, gpu.2), (cpu.0, cpu.2));
    assert!((gpu.1 - cpu.1).abs() < 1e-4 * cpu.1, "{} nats, {} on the processor", gpu.1, cpu.1);
}

/// A ragged batch: each sequence as if it were alone, and sequences may wait.
#[test]
fn a_batch_equals_its_sequences() {
    for folder in FAMILIES {
        let gpu = model(folder);
        let prompts = [random_tokens(4, 1), random_tokens(5, 23), random_tokens(6, 8)];
        let mut batch = Batch::new(gpu.clone(), options(13), 3).unwrap();
        let slices: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        batch.prefill(&slices).unwrap();
        let mut alone: Vec<_> = prompts
            .iter()
            .map(|prompt| {
                let mut session = gpu.session(options(64)).unwrap();
                session.prefill(prompt).unwrap();
                session
            })
            .collect();
        for step in 0..6 {
            for (index, session) in alone.iter().enumerate() {
                let what = format!("{folder}, sequence {index}, step {step}");
                assert_close(batch.logits(index), session.logits(), ROUNDING, &what);
            }
            let tokens = [Some(7), (step % 3 != 1).then_some(step), Some(9)];
            batch.step(&tokens).unwrap();
            for (session, token) in alone.iter_mut().zip(tokens) {
                if let Some(token) = token {
                    session.step(token).unwrap();
                }
            }
        }
    }
}

/// With a plan the same tokens are kept, so the same logits come out. The GPU's own calibration gives
/// the processor's plan within rounding.
#[test]
fn a_plan_filters_the_same_tokens() {
    for folder in ["mamba-hf", "mamba2-hf", "zamba2-hf-2block-rope"] {
        let (gpu, cpu) = (model(folder), on_cpu(folder));
        let (own, plan) = (plan(&gpu), plan(&cpu));
        assert_eq!(own.train_len(), plan.train_len());
        let channels = gpu.config().mixer.channels();
        for layer in 0..gpu.config().recurrent_layers() {
            let thresholds = |plan: &Plan| {
                let mut out = vec![0.0; channels];
                plan.delta_min(layer, 96, Lookup::Nearest, 1.0, &mut out).unwrap();
                out
            };
            assert_close(&thresholds(&own), &thresholds(&plan), 1e-4, folder);
        }

        let tokens = random_tokens(7, 96);
        let options = |plan| SessionOptions { chunk_len: Some(40), plan, ..Default::default() };
        let mut on_gpu = gpu.session(options(Some(plan.clone()))).unwrap();
        let mut on_cpu = cpu.session(options(Some(plan))).unwrap();
        let mut vanilla = gpu.session(options(None)).unwrap();
        on_gpu.prefill(&tokens).unwrap();
        on_cpu.prefill(&tokens).unwrap();
        vanilla.prefill(&tokens).unwrap();
        let (mut dropped, mut differ) = (0, 0);
        for layer in 0..gpu.config().recurrent_layers() {
            let (a, b) = (on_gpu.delta_sums(layer).unwrap(), on_cpu.delta_sums(layer).unwrap());
            for (a, b) in a.kept.iter().zip(&b.kept) {
                dropped += tokens.len() as u64 - b;
                differ += a.abs_diff(*b);
            }
        }
        assert!(dropped > 0, "{folder}: nothing was filtered");
        // A Δ within rounding of its threshold may fall on either side.
        assert!(differ * 1000 <= dropped, "{folder}: {differ} of {dropped} differ");
        if differ == 0 {
            assert_close(on_gpu.logits(), on_cpu.logits(), 5e-4, folder);
        }
        assert_ne!(on_gpu.logits(), vanilla.logits(), "{folder}");
    }
}

/// Weights of 16 bits. In f32 throughout: what the reference gives for the rounded weights, within the
/// bound of f32. On tensor cores: as near to that as rounding the activations allows.
#[test]
fn weights_of_16_bits() {
    LazyLock::force(&CUDA);
    for folder in ["mamba-hf", "mamba2-hf"] {
        for (dtype, name, bound) in [(DType::F16, "f16", 4e-3), (DType::BF16, "bf16", 3e-2)] {
            let out = tempfile::tempdir().unwrap();
            let new = out.path().join("new");
            convert(&fixture(folder), &new, Some(dtype), &mut |_, _| {}).unwrap();
            let exact = CudaBackend::with_precision(0, Precision::Exact).unwrap();
            let exact = Model::load(&new, exact).unwrap();
            let golden = fixture("rounded").join(format!("{folder}.{name}.golden.safetensors"));
            let allowed = common::tolerance(folder);
            let report = verify(&exact, &golden, &[], allowed, &mut |_, _| {}).unwrap();
            assert!(report.passed(), "{folder} {name}: {report:#?}");

            let tensor = Model::load(&new, CUDA.clone()).unwrap();
            let tokens = random_tokens(8, 40);
            let expected = all_logits(&mut exact.session(options(64)).unwrap(), &tokens);
            let actual = all_logits(&mut tensor.session(options(64)).unwrap(), &tokens);
            assert_close(&actual, &expected, bound, &format!("{folder} {name}"));
            assert_ne!(actual, expected, "{folder} {name}: were tensor cores used?");
        }
    }
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    LazyLock::force(&CUDA);
    let error = CudaBackend::new(99).unwrap_err();
    assert!(matches!(error, Error::Cuda(longmamba_cuda::Error::NoDevice { ordinal: 99, .. })));
    assert!(error.to_string().contains("no CUDA device 99"), "{error}");
}
