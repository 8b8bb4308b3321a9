//! Steps of models with attention, which are recorded once and replayed further on.

use super::common::{self, assert_close, fixture, random_tokens};
use super::{CUDA, ROUNDING};
use longmamba_model::{Batch, CpuBackend, CudaBackend, KV_PAGE, Model, Session, SessionOptions};
use std::sync::{Arc, LazyLock};

/// Zamba2's block with rotation, and a layer with a convolution. How far the devices may be apart: as far
/// as two splits of a prompt on one (tests/models/hybrid.rs).
const MODELS: [(&str, f32); 2] =
    [("zamba2-hf-2block-rope", 5e-4), ("original-mamba2attn", ROUNDING)];

/// On a device of its own, which counts its graphs, and on the processor.
fn models(folder: &str) -> (Arc<Model<CudaBackend>>, Arc<Model>) {
    LazyLock::force(&CUDA);
    let own = CudaBackend::new(0).unwrap();
    let on_cpu = Model::load(&fixture(folder), common::backend()).unwrap();
    (Model::load(&fixture(folder), own).unwrap(), on_cpu)
}

fn options(attention_window: Option<usize>) -> SessionOptions {
    SessionOptions { chunk_len: Some(128), attention_window, ..Default::default() }
}

/// Graphs that the model's device has recorded and launched.
fn graphs(model: &Model<CudaBackend>) -> (u64, u64) {
    let counts = model.backend().device().graphs();
    (counts.recorded, counts.launched)
}

/// Over the end of the first page and of the second, and to where a window lets go of the first: each step
/// has the bits that a new session's first step has, which nobody has recorded, and is what the processor
/// makes of it. Only where a table of pages grows is a step recorded anew.
#[test]
fn steps_are_replayed_over_pages_and_windows() {
    let [zamba2, mamba2] = MODELS;
    for ((folder, rounding), window, expected) in [
        (zamba2, None, (5, 21)),
        (zamba2, Some(7), (4, 22)),
        (mamba2, Some(300), (5, 21)),
        (mamba2, Some(KV_PAGE), (4, 22)),
    ] {
        let (gpu, cpu) = models(folder);
        let tokens = random_tokens(11, 558);
        let mut session = gpu.session(options(window)).unwrap();
        let mut on_cpu = cpu.session(options(window)).unwrap();
        for (from, to) in [(250, 262), (508, 516), (552, 558)] {
            let prompt = &tokens[session.position()..from];
            session.prefill(prompt).unwrap();
            on_cpu.prefill(prompt).unwrap();
            for &token in &tokens[from..to] {
                let what = format!("{folder}, window {window:?}, at {}", session.position());
                let mut fork = session.fork().unwrap();
                fork.step(token).unwrap();
                session.step(token).unwrap();
                on_cpu.step(token).unwrap();
                assert_eq!(session.logits(), fork.logits(), "{what}");
                assert_close(session.logits(), on_cpu.logits(), rounding, &what);
            }
        }
        // All steps are launches but the first after a prompt or after the table has grown.
        assert_eq!(graphs(&gpu), expected, "{folder}, window {window:?}");
    }
}

/// A fork and a saved copy go on with recordings of their own, on what they share and then part from.
#[test]
fn forks_and_snapshots_are_replayed_apart() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (folder, rounding) in MODELS {
        let (gpu, cpu) = models(folder);
        let mut one = gpu.session(options(None)).unwrap();
        let mut one_on_cpu = cpu.session(options(None)).unwrap();
        let prompt = random_tokens(12, 250);
        one.prefill(&prompt).unwrap();
        one_on_cpu.prefill(&prompt).unwrap();
        for token in random_tokens(13, 3) {
            one.step(token).unwrap();
            one_on_cpu.step(token).unwrap();
        }
        let (mut two, mut two_on_cpu) = (one.fork().unwrap(), one_on_cpu.fork().unwrap());
        one.save(file.path()).unwrap();
        let mut loaded = Session::load(&gpu, options(None), file.path()).unwrap();
        let before = graphs(&gpu);
        let (left, right) = (random_tokens(14, 8), random_tokens(15, 8));
        for (&left, &right) in left.iter().zip(&right) {
            for (session, token) in [(&mut one, left), (&mut two, right), (&mut loaded, left)] {
                session.step(token).unwrap();
            }
            one_on_cpu.step(left).unwrap();
            two_on_cpu.step(right).unwrap();
            let what = format!("{folder} at {}", one.position());
            assert_eq!(one.logits(), loaded.logits(), "{what}");
            assert_close(one.logits(), one_on_cpu.logits(), rounding, &what);
            assert_close(two.logits(), two_on_cpu.logits(), rounding, &what);
            assert_ne!(one.logits(), two.logits(), "{what}");
        }
        // From 253 to 256, where a page is added, the first goes on with the graph that it had; the others
        // record theirs. Then all three do.
        let after = graphs(&gpu);
        assert_eq!(
            (after.0 - before.0, after.1 - before.1),
            (2 + 3, 3 + 2 + 2 + 3 * 4),
            "{folder}"
        );
    }
}

/// Sequences of any length that step together are one graph; each is what it is alone.
#[test]
fn a_ragged_batch_is_replayed() {
    for (folder, rounding) in MODELS {
        let (gpu, cpu) = models(folder);
        let mut batch = Batch::new(gpu.clone(), options(Some(300)), 0).unwrap();
        let mut alone: Vec<Session<CpuBackend>> = Vec::new();
        for (seed, len) in [(16, 250), (17, 255), (18, 3)] {
            let prompt = random_tokens(seed, len);
            let mut session = gpu.session(options(Some(300))).unwrap();
            session.prefill(&prompt).unwrap();
            batch.push(session).unwrap();
            let mut session = cpu.session(options(Some(300))).unwrap();
            session.prefill(&prompt).unwrap();
            alone.push(session);
        }
        for step in 0..10 {
            // The second waits for a while.
            let tokens = [Some(step), (step < 8).then_some(7), Some(9)];
            batch.step(&tokens).unwrap();
            for (index, (session, token)) in alone.iter_mut().zip(tokens).enumerate() {
                if let Some(token) = token {
                    session.step(token).unwrap();
                }
                let what = format!("{folder}, sequence {index}, step {step}");
                assert_close(batch.logits(index), session.logits(), rounding, &what);
            }
        }
        // Pages are added in the steps 1 and 6, and from step 8 on there are two sequences.
        assert_eq!(graphs(&gpu), (3, 4 + 1 + 1), "{folder}");
    }
}
