//! The shapes of published models, and how many parameters their authors count.

use longmamba_model::Config;
use std::path::Path;

fn parameters(name: &str) -> usize {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shapes").join(name);
    let tensors = Config::read(&path).unwrap().tensors().unwrap();
    tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
}

/// Mamba-1 and Zamba2: the numbers that public code notes for the published checkpoints. Mamba-2, for
/// which none was found: what transformers counts for a model of that shape.
#[test]
fn parameters_are_those_published() {
    for (name, published) in [
        ("mamba-130m.json", 129_135_360),
        ("mamba-370m.json", 371_516_416),
        ("mamba-790m.json", 793_204_224),
        ("mamba-1.4b.json", 1_372_178_432),
        ("mamba-2.8b.json", 2_768_345_600),
        ("mamba2-130m.json", 128_989_632),
        ("mamba2-370m.json", 368_346_624),
        ("mamba2-780m.json", 780_161_280),
        ("mamba2-1.3b.json", 1_343_757_312),
        ("mamba2-2.7b.json", 2_702_599_680),
        ("zamba2-1.2b.json", 1_215_064_704),
    ] {
        assert_eq!(parameters(name), published, "{name}");
    }
}
