use longmamba_model::{Checkpoint, LoadOptions};
use std::path::Path;
use std::sync::Arc;

/// Opens the bytes as a checkpoint of whatever format they look like, and takes every tensor: none may
/// reach outside the file, and each has the size that it said.
pub fn take_all(bytes: &[u8]) {
    let options = LoadOptions::default();
    let shared = Arc::new(bytes.to_vec());
    let Ok(mut file) = Checkpoint::from_bytes(shared, Path::new("fuzz"), options) else { return };
    let tensors: Vec<_> =
        file.tensors().map(|t| (t.name.to_owned(), t.shape.to_vec(), t.bytes)).collect();
    for (name, shape, size) in tensors {
        assert!(file.has(&name) && size <= bytes.len());
        if let Ok(tensor) = file.take(&name, &shape) {
            assert_eq!(tensor.bytes().len(), size);
            assert_eq!(tensor.elements(), shape.iter().product::<usize>());
            assert!(!file.has(&name));
        }
    }
}
