//! Models with quantised weights are those whose tensors hold what the codes stand for.

use crate::common::{
    Shape, Tensors, all_logits, assert_close, backend, random_tokens, safetensors_file,
};
use longmamba_core::{AnyView, View};
use longmamba_cpu::Quantized;
use longmamba_model::{CpuBackend, Error, LoadOptions, Model, Quantization, SessionOptions};
use std::sync::Arc;

const KINDS: [Quantization; 2] = [Quantization::Int8, Quantization::Int4];

fn shape(mamba2: bool, tied: bool) -> Shape {
    Shape {
        mamba2,
        seed: 5,
        d_model: 40,
        layers: 2,
        d_state: 16,
        d_conv: 4,
        groups: 1,
        head_dim: 8,
        bias: true,
        tied,
    }
}

fn model(shape: Shape, tensors: &Tensors, backend: CpuBackend) -> Result<Arc<Model>, Error> {
    let file = Arc::new(safetensors_file(tensors));
    Model::from_bytes(shape.config().as_bytes(), file, "random", backend)
}

/// Logits of a prompt in chunks, then of single tokens.
fn logits(model: &Arc<Model>) -> Vec<f32> {
    let options = SessionOptions { chunk_len: Some(16), ..Default::default() };
    let mut session = model.session(options).unwrap();
    let mut all = all_logits(&mut session, &random_tokens(3, 37));
    for token in random_tokens(4, 5) {
        session.step(token).unwrap();
        all.extend_from_slice(session.logits());
    }
    all
}

/// `scale · q` of a weight.
fn dequantized(kind: Quantization, shape: &[usize], values: &[f32]) -> Vec<f32> {
    let view = View::new(values, [shape[0], shape[1]]).unwrap();
    let quantized = Quantized::new(kind, AnyView::F32(view)).unwrap();
    let mut out = vec![0.0; values.len()];
    for (output, row) in out.chunks_exact_mut(shape[1]).enumerate() {
        quantized.row(output, row);
    }
    out
}

/// The same model with its linear maps replaced, and the head apart from the table.
fn replaced(kind: Quantization, tensors: &Tensors) -> Tensors {
    let mut all = tensors.clone();
    if !all.iter().any(|(name, ..)| name == "lm_head.weight") {
        let (_, shape, values) =
            tensors.iter().find(|(name, ..)| name == "backbone.embeddings.weight").unwrap();
        all.push(("lm_head.weight".into(), shape.clone(), values.clone()));
    }
    for (name, shape, values) in &mut all {
        let linear = ["in_proj.weight", "x_proj.weight", "out_proj.weight", "lm_head.weight"];
        if linear.iter().any(|part| name.ends_with(part)) {
            *values = dequantized(kind, shape, values);
        }
    }
    all
}

#[test]
fn logits_are_those_of_what_codes_stand_for() {
    for mamba2 in [false, true] {
        for tied in [false, true] {
            let shape = shape(mamba2, tied);
            let tensors = shape.tensors();
            let exact = model(shape, &tensors, backend()).unwrap();
            for kind in KINDS {
                let ours = model(shape, &tensors, backend().quantized(kind)).unwrap();
                let untied = Shape { tied: false, ..shape };
                let expected = model(untied, &replaced(kind, &tensors), backend()).unwrap();
                let found = logits(&ours);
                assert_close(&found, &logits(&expected), 2e-5, &format!("{shape:?}, {kind:?}"));
                assert_ne!(found, logits(&exact), "nothing was quantised");
                // The same plans and snapshots.
                assert_eq!(ours.fingerprint(), exact.fingerprint());
                // Rounding to bf16 changes little.
                let rounded = CpuBackend::new(None).unwrap().rounded().quantized(kind);
                let rounded = model(shape, &tensors, rounded).unwrap();
                assert_close(&logits(&rounded), &found, 0.1, &format!("{shape:?}, {kind:?}"));
            }
        }
    }
}

/// Also where the check of the file is left out.
#[test]
fn weights_that_are_not_finite_are_named() {
    for name in ["backbone.embeddings.weight", "backbone.layers.1.mixer.out_proj.weight"] {
        for kind in KINDS {
            let shape = shape(true, true);
            let mut tensors = shape.tensors();
            let (.., values) = tensors.iter_mut().find(|(n, ..)| n == name).unwrap();
            values[77] = f32::INFINITY;
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("config.json"), shape.config()).unwrap();
            let file = folder.path().join("model.safetensors");
            std::fs::write(file, safetensors_file(&tensors)).unwrap();
            let options = LoadOptions { check_finite: false, ..Default::default() };
            let backend = backend().quantized(kind);
            let error = Model::load_with(folder.path(), backend, options).unwrap_err();
            let Error::NonFinite { tensor, index, .. } = error else { panic!("{error:?}") };
            assert_eq!((&*tensor, index), (name, 77));
        }
    }
}
