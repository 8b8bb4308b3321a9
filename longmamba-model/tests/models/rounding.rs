//! What it does to logits that activations are rounded to `bf16` where they meet `bf16` weights. All processors
//! round here, so that the test is the same on all.

use crate::common::oracle;
use crate::common::{VOCAB, all_logits, random_tokens, shapes};
use longmamba_model::{CpuBackend, SessionOptions};
use proptest::prelude::*;

/// `‖found - expected‖ / ‖expected‖`
fn distance(found: &[f32], expected: impl Iterator<Item = f64> + Clone) -> f64 {
    let size = expected.clone().map(|e| e * e).sum::<f64>();
    let off = found.iter().zip(expected).map(|(&f, e)| (f64::from(f) - e).powi(2)).sum::<f64>();
    (off / size).sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..Default::default() })]

    /// Random weights, against the oracle: off by more than exact sums are, and by a few times 2⁻⁹ at most.
    #[test]
    fn rounded_logits_are_near_the_oracle(shape in shapes(), len in 1usize..150) {
        let tokens = random_tokens(shape.seed ^ 9, len);
        let backend = CpuBackend::new(None).unwrap().rounded();
        let (model, tensors) = shape.model_in_bf16(backend);
        let oracle = oracle::Model::with(shape, tensors);
        let mut session = model.session(SessionOptions::default()).unwrap();
        let logits = all_logits(&mut session, &tokens);
        let expected = oracle.run(&tokens, None);
        prop_assert_eq!(logits.len(), len * VOCAB);
        let off = distance(&logits, expected.logits.iter().copied());
        prop_assert!(off < 2e-2, "{off}");
        prop_assert!(off > 1e-5, "nothing was rounded: {off}");
    }
}

/// Trained weights: the built-in models on 2,000 bytes of text.
#[cfg(feature = "builtin")]
#[test]
fn trained_models_lose_next_to_nothing() {
    for name in ["mamba1-tiny", "mamba2-tiny"] {
        let builtin = longmamba_model::builtin::find(name).unwrap();
        let text = include_str!("../../../README.md").as_bytes();
        let tokens: Vec<u32> = text[..2000].iter().map(|&b| u32::from(b)).collect();
        let read = |backend| {
            let mut session =
                builtin.model(backend).unwrap().session(SessionOptions::default()).unwrap();
            all_logits(&mut session, &tokens)
        };
        let rounded = read(CpuBackend::new(None).unwrap().rounded());
        let exact = read(crate::common::backend());
        let off = distance(&rounded, exact.iter().map(|&v| f64::from(v)));
        let vocab = exact.len() / tokens.len();
        let loss = |logits: &[f32]| {
            let rows = logits.chunks_exact(vocab).zip(&tokens[1..]);
            let nll = rows.map(|(row, &next)| {
                let sum: f64 = row.iter().map(|&l| f64::from(l).exp()).sum();
                sum.ln() - f64::from(row[next as usize])
            });
            nll.sum::<f64>() / (tokens.len() - 1) as f64
        };
        let (before, after) = (loss(&exact), loss(&rounded));
        println!("{name}: logits off by {off:.1e}, nats a byte {before:.5} and {after:.5}");
        assert!(off < 1e-2 && off > 1e-5, "{name}: {off}");
        assert!((after - before).abs() < 2e-3, "{name}: {before} and {after}");
    }
}
