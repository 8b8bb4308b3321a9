//! Named tensors in a safetensors file, each to be taken exactly once.

use crate::{Error, Result, mmap};
use longmamba_core::{AlignedVec, DType, Shape, SharedBytes, Tensor};
use rayon::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::SafeTensors;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a checkpoint is loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Use the weights in place, through a memory map (the default). The file must then not be
    /// changed or truncated while the model lives: the operating system would end the process.
    /// `false` reads the file into memory first.
    pub memory_map: bool,
    /// Look at every weight and refuse NaN and infinity (the default). It reads the whole file once,
    /// at the speed of memory or disk.
    pub check_finite: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions { memory_map: true, check_finite: true }
    }
}

struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// An opened safetensors file.
pub(crate) struct Checkpoint {
    path: PathBuf,
    bytes: SharedBytes,
    metadata: HashMap<String, String>,
    /// Tensors not taken yet.
    entries: BTreeMap<String, Entry>,
    check_finite: bool,
}

impl Checkpoint {
    pub(crate) fn open(path: &Path, options: LoadOptions) -> Result<Self> {
        let bytes: SharedBytes = if options.memory_map {
            mmap::map(path)?
        } else {
            let file = std::fs::read(path).map_err(Error::io(path))?;
            Arc::new(Aligned(AlignedVec::from_slice(&file)))
        };
        Self::parse(bytes, path, options)
    }

    /// `path` is for messages only.
    pub(crate) fn parse(bytes: SharedBytes, path: &Path, options: LoadOptions) -> Result<Self> {
        let all = (*bytes).as_ref();
        check_extent(all, path)?;
        let (header, metadata) = SafeTensors::read_metadata(all)
            .map_err(|e| Error::malformed(path, format!("not a whole safetensors file ({e})")))?;
        let data = header + size_of::<u64>();
        let mut entries = BTreeMap::new();
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let (dtype, shape) = (info.dtype, info.shape.clone());
            entries.insert(name, Entry { dtype, shape, range: start + data..end + data });
        }
        Ok(Checkpoint {
            path: path.to_owned(),
            bytes,
            metadata: metadata.metadata().clone().unwrap_or_default(),
            entries,
            check_finite: options.check_finite,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Names, types, element counts and bytes of all tensors not taken yet.
    pub(crate) fn infos(&self) -> impl Iterator<Item = (&str, String, usize, usize)> {
        self.entries.iter().map(|(name, e)| {
            let elements = e.shape.iter().product();
            (&name[..], format!("{:?}", e.dtype).to_lowercase(), elements, e.range.len())
        })
    }

    /// A digest of names, types, shapes and weights: small tensors whole, of large ones the two ends.
    /// Reading gigabytes to recognise a model would cost more than loading it.
    pub(crate) fn digest(&self) -> String {
        const END: usize = 32 << 10;
        let mut hash = Sha256::new();
        for (name, entry) in &self.entries {
            let data = &(*self.bytes).as_ref()[entry.range.clone()];
            hash.update(format!("{name} {:?} {:?}\n", entry.dtype, entry.shape));
            hash.update(&data[..data.len().min(END)]);
            hash.update(&data[data.len().saturating_sub(END).max(data.len().min(END))..]);
        }
        hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
    }

    /// An entry of the header's `__metadata__`.
    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Takes a weight: f32, f16 or bf16, of exactly this shape, all finite.
    pub(crate) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let entry = self.take_entry(name, shape)?;
        let dtype = match entry.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => return Err(self.dtype_error(name, "f32, f16 or bf16", other)),
        };
        let range = entry.range;
        let tensor = Tensor::from_shared(self.bytes.clone(), range.clone(), dtype, shape)?;
        if self.check_finite {
            // In blocks, so that a large table is read by all threads; in place, as the tensor is.
            let block = dtype.size() << 20;
            let bad = (0..range.len().div_ceil(block)).into_par_iter().find_map_first(|i| {
                let from = range.start + i * block;
                let to = range.end.min(from + block);
                let elements = [(to - from) / dtype.size()];
                let part = Tensor::from_shared(self.bytes.clone(), from..to, dtype, &elements);
                part.ok()?.first_non_finite().map(|at| (i << 20) + at)
            });
            if let Some(index) = bad {
                return Err(Error::NonFinite {
                    path: self.path.clone(),
                    tensor: name.into(),
                    index,
                });
            }
        }
        Ok(tensor)
    }

    /// Takes a small weight, widened to f32.
    pub(crate) fn take_f32(&mut self, name: &str, shape: &[usize]) -> Result<AlignedVec<f32>> {
        Ok(self.take(name, shape)?.to_f32())
    }

    /// The shape of a tensor that is still there.
    pub(crate) fn shape(&self, name: &str) -> Result<&[usize]> {
        self.entries.get(name).map(|e| &e.shape[..]).ok_or_else(|| self.missing(name))
    }

    /// Takes whole numbers: i64 or u8.
    pub(crate) fn take_integers(&mut self, name: &str) -> Result<Vec<i64>> {
        let shape = self.shape(name)?.to_vec();
        let entry = self.take_entry(name, &shape)?;
        let data = &(*self.bytes).as_ref()[entry.range];
        match entry.dtype {
            Dtype::I64 => Ok(data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect()),
            Dtype::U8 => Ok(data.iter().map(|&b| i64::from(b)).collect()),
            other => Err(self.dtype_error(name, "i64 or u8", other)),
        }
    }

    /// Takes double precision numbers.
    pub(crate) fn take_f64(&mut self, name: &str) -> Result<Vec<f64>> {
        let shape = self.shape(name)?.to_vec();
        let entry = self.take_entry(name, &shape)?;
        match entry.dtype {
            Dtype::F64 => {
                let data = &(*self.bytes).as_ref()[entry.range];
                Ok(data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect())
            }
            other => Err(self.dtype_error(name, "f64", other)),
        }
    }

    /// All must have been taken.
    pub(crate) fn finish(self) -> Result<()> {
        match self.entries.into_keys().next() {
            None => Ok(()),
            Some(tensor) => Err(Error::SurplusTensor { path: self.path, tensor }),
        }
    }

    fn take_entry(&mut self, name: &str, shape: &[usize]) -> Result<Entry> {
        let entry = self.entries.remove(name).ok_or_else(|| self.missing(name))?;
        if entry.shape != shape {
            return Err(Error::TensorShape {
                path: self.path.clone(),
                tensor: name.into(),
                expected: Shape::from(shape),
                actual: Shape::from(&entry.shape[..]),
            });
        }
        Ok(entry)
    }

    fn missing(&self, name: &str) -> Error {
        Error::MissingTensor { path: self.path.clone(), tensor: name.into() }
    }

    fn dtype_error(&self, name: &str, expected: &'static str, actual: Dtype) -> Error {
        let (path, tensor, actual) = (self.path.clone(), name.into(), format!("{actual:?}"));
        Error::TensorDType { path, tensor, expected, actual }
    }
}

/// That no tensor claims bytes beyond the file. safetensors checks that too, but adds first, and a sum
/// near 2⁶⁴ overflows; and this message names the tensor.
fn check_extent(all: &[u8], path: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct Entry {
        data_offsets: Option<serde_json::Value>,
    }
    let Some((len, rest)) = all.split_first_chunk() else { return Ok(()) };
    let len = usize::try_from(u64::from_le_bytes(*len)).unwrap_or(usize::MAX);
    let Some((header, data)) = rest.split_at_checked(len) else {
        let reason =
            format!("truncated: the header should have {len} bytes, {} are there", rest.len());
        return Err(Error::malformed(path, reason));
    };
    // What is no JSON is reported by safetensors.
    let entries: HashMap<String, Entry> = serde_json::from_slice(header).unwrap_or_default();
    for (name, entry) in entries {
        let end = entry.data_offsets.as_ref().and_then(|o| o.get(1)).and_then(|e| e.as_u64());
        if end.is_some_and(|end| end > data.len() as u64) {
            let reason = format!(
                "truncated: tensor {name} ends at byte {} of the data, the file has {}",
                end.unwrap_or_default(),
                data.len()
            );
            return Err(Error::malformed(path, reason));
        }
    }
    Ok(())
}

struct Aligned(AlignedVec<u8>);

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
