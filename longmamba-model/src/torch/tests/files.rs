//! `tests/reference/torch_files.py` made the files.

use super::{fixture, fixtures, read, refused_for};
use crate::torch::{is_torch, tensor};
use crate::{Checkpoint, Error, LoadOptions, Placement};
use safetensors::SafeTensors;
use std::collections::BTreeSet;
use std::path::Path;

/// That a file of torch and one of safetensors hold the same, under names that `rename` translates.
fn same(name: &str, bytes: &[u8], expected: &[u8], rename: impl Fn(&str) -> String) {
    assert!(is_torch(bytes) && !is_torch(expected), "{name}");
    let expected = SafeTensors::deserialize(expected).unwrap();
    let tensors = read(bytes).unwrap();
    assert!(!tensors.is_empty());
    let mut seen = BTreeSet::new();
    for (key, tensor) in tensors {
        let there = expected.tensor(&rename(&key)).unwrap();
        assert_eq!(
            (there.dtype(), there.shape()),
            (tensor.dtype, &tensor.shape[..]),
            "{name} {key}"
        );
        assert_eq!(there.data(), &bytes[tensor.range], "{name} {key}");
        seen.insert(rename(&key));
    }
    assert_eq!(seen, expected.names().into_iter().map(str::to_owned).collect(), "{name}");
}

#[test]
fn original_checkpoints_have_the_weights_of_the_converted_ones() {
    for family in ["mamba", "mamba2"] {
        let get = |folder: String, file| std::fs::read(fixtures().join(folder).join(file)).unwrap();
        let bytes = get(format!("{family}-original-bin"), "pytorch_model.bin");
        let expected = get(format!("{family}-hf"), "model.safetensors");
        same(family, &bytes, &expected, |name| match name {
            // The head is tied.
            "lm_head.weight" | "backbone.embedding.weight" => "backbone.embeddings.weight".into(),
            other => other.into(),
        });
        let tensors = read(&bytes).unwrap();
        assert_eq!(
            tensors["lm_head.weight"].range.len(),
            tensors["backbone.embedding.weight"].range.len()
        );
        assert!(
            tensors.values().all(|t| t.range.start.is_multiple_of(64)),
            "{family}: not in place"
        );
    }
}

#[test]
fn files_of_every_protocol_container_and_type() {
    for (name, expected) in [
        ("protocol2.pt", "protocol2"),
        ("protocol3.pt", "protocol3"),
        ("protocol4.pt", "protocol4"),
        ("protocol5.pt", "protocol5"),
        ("legacy-protocol2.bin", "protocol2"),
        ("legacy-protocol3.bin", "protocol2"),
        ("legacy-protocol4.bin", "protocol2"),
        ("legacy-protocol5.bin", "protocol2"),
        ("dtypes.pt", "dtypes"),
        ("legacy-dtypes.bin", "dtypes"),
        ("state-dict.pt", "state-dict"),
        ("legacy-state-dict.bin", "state-dict"),
        ("parameters.pt", "parameters"),
        ("tied.pt", "tied"),
        ("legacy-tied.bin", "tied"),
        ("slices.pt", "slices"),
        ("legacy-slices.bin", "slices"),
        ("extras.pt", "extras"),
    ] {
        same(name, &fixture(name), &fixture(&format!("{expected}.safetensors")), str::to_owned);
    }
}

#[test]
fn a_lone_tensor_has_no_name() {
    let bytes = fixture("lone.pt");
    let lone = tensor(&bytes, Path::new("lone.pt")).unwrap();
    let expected = fixture("lone.safetensors");
    let expected = SafeTensors::deserialize(&expected).unwrap();
    let expected = expected.tensor("").unwrap();
    assert_eq!((expected.dtype(), expected.shape()), (lone.dtype, &lone.shape[..]));
    assert_eq!(expected.data(), &bytes[lone.range]);
    refused_for(&bytes, "it holds a tensor, not a dictionary of tensors");
    let error = tensor(&fixture("tied.pt"), Path::new("tied.pt")).unwrap_err().to_string();
    assert_eq!(error, "tied.pt: it holds a dictionary, not one tensor");
}

#[test]
fn a_checkpoint_gives_the_same_tensors_from_every_container() {
    let folder = fixtures().join("torch");
    for name in ["protocol2.safetensors", "protocol2.pt", "legacy-protocol2.bin"] {
        for placement in [Placement::Map, Placement::Copy, Placement::Fit] {
            let options = LoadOptions { placement: Some(placement), ..Default::default() };
            let mut file = Checkpoint::open(&folder.join(name), options).unwrap();
            let names: Vec<_> = file.tensors().map(|t| t.name.to_owned()).collect();
            assert_eq!(names, ["layers.0.bias", "layers.0.weight", "scale"], "{name}");
            let weight = file.take_f32("layers.0.weight", &[3, 4]).unwrap();
            // The first and the last number of the seeded generator.
            assert_eq!((weight[0], weight[11]), (0.66135216, -0.058250178), "{name}");
        }
    }
    let refused = Checkpoint::open(&folder.join("runs.pt"), LoadOptions::default()).unwrap_err();
    assert!(matches!(refused, Error::Pickle { found, .. } if found == "posix.system"));
}

#[test]
fn what_is_no_flat_dictionary_of_plain_tensors_is_refused_by_name() {
    for (name, why) in [
        ("transposed.pt", "tensor turned: not in row-major order: shape [3, 3], strides [1, 3]"),
        ("legacy-transposed.bin", "tensor turned: not in row-major order"),
        ("expanded.pt", "tensor stretched: one element repeated (stride 0)"),
        ("columns.pt", "tensor columns: not in row-major order: shape [3, 2], strides [3, 1]"),
        ("overlap.pt", "tensors upper and lower share some of their bytes"),
        ("reshaped.pt", "share some of their bytes"),
        ("nested.pt", "entry state_dict is a dictionary; expected a flat dictionary"),
        ("list.pt", "it holds a list, not a dictionary of tensors"),
        ("number-key.pt", "a key of its dictionary is a number"),
        ("complex.pt", "torch.ComplexFloatStorage"),
        ("float8.pt", "torch._utils._rebuild_tensor_v3"),
        ("sparse.pt", "torch._utils._rebuild_sparse_tensor"),
        ("module.pt", "__main__.Module"),
        ("runs.pt", "posix.system"),
        ("legacy-runs.bin", "posix.system"),
        ("torchscript.pt", "TorchScript"),
    ] {
        println!("{name}");
        refused_for(&fixture(name), why);
    }
    assert!(!Path::new("/tmp/unpickled").exists());
}

#[test]
fn other_files_are_told_apart() {
    let mut tar = vec![0; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    assert!(is_torch(&tar));
    refused_for(&tar, "load and save it with a newer one");
    for other in [&b""[..], b"{}", b"\x80", b"\x80\x02\0\0\0\0\0\0{\"a\":", b"GGUF\x03\0\0\0\0"] {
        assert!(!is_torch(other), "{other:?}");
        refused_for(other, "not a file that torch.save writes");
    }
    // Any pickle is recognised, to be refused with the right words.
    let plain = b"\x80\x02}q\0.".as_slice();
    assert!(is_torch(plain));
    refused_for(plain, "none that torch.save wrote");
}
