//! In steady state neither prefill nor decode allocates: page faults are dear.

mod common;

use common::{Shape, VOCAB, random_tokens, safetensors_file};
use longmamba_core::DType;
use longmamba_model::{
    CpuBackend, GenerateOptions, LoadOptions, Model, Placement, Quantization, SampleOptions,
    Sampler, SessionOptions, decode,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::fs;
use std::ops::ControlFlow;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[derive(Clone, Copy, Debug)]
enum Weights {
    F32,
    Bf16,
    /// Copied from a file, and rearranged; in `bf16`, norms go right into products.
    Packed(DType),
    Quantized(Quantization),
}

/// The model from a file, with all its linear maps rearranged.
fn packed(shape: Shape, dtype: DType, backend: CpuBackend) -> Arc<Model> {
    let folder = tempfile::tempdir().unwrap();
    let file = match dtype {
        DType::F32 => safetensors_file(&shape.tensors()),
        _ => shape.file_in_bf16().0,
    };
    fs::write(folder.path().join("config.json"), shape.config()).unwrap();
    fs::write(folder.path().join("model.safetensors"), file).unwrap();
    let options = LoadOptions { placement: Some(Placement::Copy), ..Default::default() };
    Model::load_with(folder.path(), backend.packed_from(0), options).unwrap()
}

/// One test in this binary: the counter sees all threads.
#[test]
fn prefill_and_decode_allocate_nothing() {
    for threads in [1, 2] {
        for (mamba2, weights) in [
            (false, Weights::F32),
            (true, Weights::F32),
            (false, Weights::Bf16),
            (true, Weights::Bf16),
            (false, Weights::Packed(DType::F32)),
            (false, Weights::Packed(DType::BF16)),
            (true, Weights::Packed(DType::F32)),
            (true, Weights::Packed(DType::BF16)),
            (false, Weights::Quantized(Quantization::Int8)),
            (true, Weights::Quantized(Quantization::Int4)),
        ] {
            let shape = Shape {
                mamba2,
                seed: 1,
                d_model: 64,
                layers: 3,
                d_state: 16,
                d_conv: 4,
                groups: 2,
                // Of whole vectors, as in every model: the state is used in place.
                head_dim: 16,
                bias: !matches!(weights, Weights::Packed(_)),
                tied: true,
            };
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            // Inside the pool, as an embedding program should be: handing work into a pool from
            // outside costs an allocation once in a while.
            pool.install(|| {
                let backend = CpuBackend::new(None).unwrap();
                let model = match weights {
                    Weights::F32 => shape.model_on(backend),
                    Weights::Bf16 => shape.model_in_bf16(backend.rounded()).0,
                    Weights::Packed(dtype) => packed(shape, dtype, backend.rounded()),
                    Weights::Quantized(kind) => shape.model_on(backend.quantized(kind)),
                };
                let options = SessionOptions { chunk_len: Some(64), ..Default::default() };
                let mut session = model.session(options).unwrap();
                let tokens = random_tokens(2, 64 * 10 + 17);
                let sampling = SampleOptions { temperature: 1.0, top_p: 0.9, ..Default::default() };
                let mut sampler = Sampler::new(sampling).unwrap();
                let until = GenerateOptions { max_new: 20, stop: Vec::new() };
                let mut seen = 0;
                let mut run = |session: &mut longmamba_model::Session| {
                    session
                        .prefill_scored(&tokens, 100..200, |_, logits| seen += logits.len())
                        .unwrap();
                    for token in 0..20 {
                        session.step(token).unwrap();
                    }
                    decode(session, &mut sampler, &until, |_| ControlFlow::Continue(())).unwrap();
                };
                run(&mut session);
                let region = Region::new(ALLOCATOR);
                run(&mut session);
                let change = region.change();
                assert_eq!(
                    change.allocations, 0,
                    "mamba2: {mamba2}, {weights:?}, {threads} threads: {change:?}"
                );
                assert_eq!(seen, 2 * 100 * VOCAB);
                // The counter does count.
                drop(std::hint::black_box(vec![0u8; 100]));
                assert_eq!(region.change().allocations, 1);
            });
        }
    }
}
