//! Wherever weights lie, the model is the same.

use crate::common::{Shape, all_logits, assert_close, random_tokens, safetensors_file};
use half::bf16;
use longmamba_core::{AlignedVec, DType, Tensor, View};
use longmamba_cpu::Cpu;
use longmamba_model::{
    Backend, CpuBackend, CpuMatrix, LoadOptions, Model, Placement, Purpose, SessionOptions,
};
use std::fs;
use std::sync::Arc;

fn shape(mamba2: bool, tied: bool) -> Shape {
    Shape {
        mamba2,
        seed: 11,
        d_model: 40,
        layers: 2,
        d_state: 16,
        d_conv: 4,
        groups: 1,
        head_dim: 8,
        bias: tied,
        tied,
    }
}

/// Chunks of as many tokens as products take the method for many rows.
const CHUNK: usize = 16;

fn options() -> SessionOptions {
    SessionOptions { chunk_len: Some(CHUNK), ..Default::default() }
}

#[test]
fn logits_do_not_depend_on_it() {
    for (mamba2, tied) in [(false, false), (false, true), (true, false), (true, true)] {
        let shape = shape(mamba2, tied);
        for (in_bf16, rounds) in [(false, true), (true, true), (true, false)] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("config.json"), shape.config()).unwrap();
            let file = match in_bf16 {
                true => shape.file_in_bf16().0,
                false => safetensors_file(&shape.tensors()),
            };
            fs::write(folder.path().join("model.safetensors"), file).unwrap();
            let load = |placement, packed_from| {
                let backend = CpuBackend::new(Some(2)).unwrap().packed_from(packed_from);
                let backend = if rounds { backend.rounded() } else { backend.exact() };
                let options = LoadOptions { placement: Some(placement), ..Default::default() };
                Model::load_with(folder.path(), backend, options).unwrap()
            };
            let mapped = load(Placement::Map, 0);
            for (placement, packed_from) in [
                (Placement::Copy, 0),
                (Placement::Copy, usize::MAX),
                (Placement::Fit, 0),
                (Placement::Fit, 1 << 12),
            ] {
                let model = load(placement, packed_from);
                assert_eq!(model.fingerprint(), mapped.fingerprint());
                let what = format!(
                    "mamba2 {mamba2} {tied} bf16 {in_bf16} {rounds} {placement:?} {packed_from}"
                );
                // Another last digit may be rounded to another `bf16`.
                same(&mapped, &model, if in_bf16 && rounds { 1e-2 } else { 1e-4 }, &what);
            }
        }
    }
}

/// Not a bit differs in whole chunks; single tokens may take sums in another order.
fn same(expected: &Arc<Model>, found: &Arc<Model>, tolerance: f32, what: &str) {
    let (mut a, mut b) = (expected.session(options()).unwrap(), found.session(options()).unwrap());
    let prompt = random_tokens(3, 3 * CHUNK);
    let (expected, found) = (all_logits(&mut a, &prompt), all_logits(&mut b, &prompt));
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert!(bits(expected) == bits(found), "{what}");
    for token in random_tokens(4, 5) {
        a.step(token).unwrap();
        b.step(token).unwrap();
        assert_close(b.logits(), a.logits(), tolerance, what);
    }
}

/// With whole chunks and single tokens, rounded or not, on every instruction set.
#[test]
fn twelve_bits_a_weight_change_nothing() {
    for mamba2 in [false, true] {
        let shape = shape(mamba2, true);
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), shape.config()).unwrap();
        let (file, tensors) = shape.file_in_bf16();
        fs::write(folder.path().join("model.safetensors"), file).unwrap();
        // Else there would be nothing to compare.
        let compact = |name: &str| {
            let (_, shape, values) = tensors.iter().find(|(n, ..)| n.ends_with(name)).unwrap();
            let values: Vec<bf16> = values.iter().copied().map(bf16::from_f32).collect();
            let w = View::new(&values, [shape[0], shape[1]]).unwrap();
            let room = AlignedVec::<u8>::zeros(Cpu::new().compact_bytes(w.shape()).unwrap());
            Cpu::new().pack_compact(w, room).unwrap().is_some()
        };
        assert!(compact("in_proj.weight") && compact("out_proj.weight"));
        for (cpu, rounds) in Cpu::available().flat_map(|cpu| [(cpu, true), (cpu, false)]) {
            let logits = |compact| {
                let backend = CpuBackend::with_cpu(cpu, Some(2)).unwrap().packed_from(0);
                let backend = if rounds { backend.rounded() } else { backend.exact() };
                let placement = Some(Placement::Copy);
                let options = LoadOptions { placement, ..Default::default() };
                let backend = backend.compact(compact);
                let model = Model::load_with(folder.path(), backend, options).unwrap();
                let mut session = model.session(self::options()).unwrap();
                let mut logits = all_logits(&mut session, &random_tokens(3, 2 * CHUNK + 3));
                for token in random_tokens(4, 3) {
                    session.step(token).unwrap();
                    logits.extend_from_slice(session.logits());
                }
                logits.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            assert!(logits(false) == logits(true), "mamba2 {mamba2} {cpu:?} {rounds}");
        }
    }
}

/// What is rearranged: large linear maps of a type that products take in panels.
#[test]
fn only_large_linear_maps_are_packed() {
    let (rows, columns) = (64, 1024);
    let tensor = |dtype: DType| {
        let bytes = AlignedVec::<u8>::zeros(rows * columns * dtype.size());
        let len = bytes.len();
        Tensor::from_shared(Arc::new(bytes.to_vec()), 0..len, dtype, &[rows, columns]).unwrap()
    };
    let packed = |backend: &CpuBackend, dtype, purpose| {
        let matrix = backend.matrix(tensor(dtype)).unwrap();
        matches!(backend.own(&matrix, purpose).unwrap().unwrap(), CpuMatrix::Packed(_))
    };
    let backend = CpuBackend::new(None).unwrap().packed_from(rows * columns * 2);
    assert!(packed(&backend, DType::F32, Purpose::Products));
    assert!(packed(&backend, DType::BF16, Purpose::Products));
    assert!(packed(&backend.clone().rounded(), DType::BF16, Purpose::Products));
    assert!(packed(&backend.clone().exact(), DType::BF16, Purpose::Products));
    assert!(!packed(&backend, DType::F16, Purpose::Products));
    assert!(!packed(&backend, DType::F32, Purpose::Rows));
    let compact = |compact| {
        let backend = backend.clone().compact(compact);
        let matrix = backend.matrix(tensor(DType::BF16)).unwrap();
        match backend.own(&matrix, Purpose::Products).unwrap().unwrap() {
            CpuMatrix::Packed(packed) => packed.is_compact(),
            _ => panic!("not packed"),
        }
    };
    assert!(compact(true) && !compact(false));
    let backend = backend.packed_from(rows * columns * 2 + 1);
    assert!(packed(&backend, DType::F32, Purpose::Products));
    assert!(!packed(&backend, DType::BF16, Purpose::Products));
}
