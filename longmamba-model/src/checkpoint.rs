//! Named tensors in one or several files, each to be taken exactly once.

mod folder;
mod safetensors;

#[cfg(feature = "download")]
pub(crate) use folder::weight_map;

use crate::large::LargeBytes;
use crate::mmap::{self, MappedFile};
use crate::{Error, Result, free_memory, torch};
use ::safetensors::Dtype;
use longmamba_core::{AlignedVec, DType, Shape, SharedBytes, Tensor};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a checkpoint is loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Where the weights lie while they are used. `None`: [`Map`](Placement::Map), but for a model that computes
    /// with the weights where they lie, as on the CPU: [`Fit`](Placement::Fit).
    pub placement: Option<Placement>,
    /// Look at every weight and refuse NaN and infinity (the default). It reads the whole file once,
    /// at the speed of memory or disk.
    pub check_finite: bool,
}

/// Where weights lie while they are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// In the file, through a memory map. The file must not be changed or truncated while the model lives: the
    /// operating system would end the process. Several processes share one copy.
    Map,
    /// In memory of their own, on large pages, and large linear maps on the CPU in the order in which they are
    /// read ([`Packed`](longmamba_cpu::Packed)). Systems keep most files on small pages, and decoding, which reads
    /// every weight once a token, waits for the addresses of these: up to 1.8 times as long. A prompt need not
    /// rearrange the weights again and again. Weights in `bf16` take twelve bits each, without loss
    /// ([`CpuBackend::compact`](crate::CpuBackend::compact)). The file must stay as it is until the model is loaded.
    Copy,
    /// [`Copy`](Placement::Copy) of a model whose files take at most half of the memory that is free,
    /// [`Map`](Placement::Map) of a larger one.
    Fit,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions { placement: None, check_finite: true }
    }
}

/// Where a tensor lies in its file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoredTensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Bytes of the file.
    pub range: Range<usize>,
}

/// What is known of a tensor without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// Its element type in lower case: `bf16`, `f32`, `i64`.
    pub dtype: String,
    /// Its sizes, outermost first.
    pub shape: &'a [usize],
    /// Bytes it takes.
    pub bytes: usize,
}

struct Entry {
    /// Which of the files.
    file: usize,
    stored: StoredTensor,
}

/// Tensors that are copied begin on a cache line.
const LINE: usize = 64;

struct File {
    path: PathBuf,
    bytes: SharedBytes,
    /// The same, where it is mapped.
    map: Option<Arc<MappedFile>>,
}

/// The tensors of a checkpoint: one file or several, safetensors or PyTorch's own format.
///
/// Nothing is read until a tensor is asked for, and then it is used in place where its alignment
/// allows. [`Model::load`](crate::Model::load) opens one by itself; use this type to look into a
/// file, or to load tensors for something else.
///
/// ```no_run
/// use longmamba_model::{Checkpoint, LoadOptions};
/// let file = Checkpoint::open("pytorch_model.bin".as_ref(), LoadOptions::default())?;
/// for tensor in file.tensors() {
///     println!("{} {} {:?}", tensor.name, tensor.dtype, tensor.shape);
/// }
/// # Ok::<(), longmamba_model::Error>(())
/// ```
pub struct Checkpoint {
    files: Vec<File>,
    metadata: HashMap<String, String>,
    /// Tensors not taken yet.
    entries: BTreeMap<String, Entry>,
    check_finite: bool,
    /// Of a checkpoint that does not exist: what has been asked for, which is answered with zeros.
    asked: Option<Vec<(String, Vec<usize>)>>,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint")
            .field("path", &self.path())
            .field("tensors", &self.entries.len())
            .finish_non_exhaustive()
    }
}

impl Checkpoint {
    /// Opens one file, whose format is recognised by its first bytes.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Malformed`] which says what is wrong with the file.
    pub fn open(path: &Path, options: LoadOptions) -> Result<Self> {
        let Some(bytes) = read(path, options)? else {
            let map = Arc::new(mmap::map(path)?);
            let mut checkpoint = Self::from_bytes(map.clone(), path, options)?;
            checkpoint.files[0].map = Some(map);
            return Ok(checkpoint);
        };
        Self::from_bytes(bytes, path, options)
    }

    /// The same from bytes; `path` is for messages only.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn from_bytes(bytes: SharedBytes, path: &Path, options: LoadOptions) -> Result<Self> {
        let all = (*bytes).as_ref();
        let (tensors, metadata) = match torch::is_torch(all) {
            true => (torch::tensors(all, path)?, HashMap::new()),
            false => safetensors::read(all, path)?,
        };
        let entries = tensors.into_iter().map(|(name, stored)| (name, Entry { file: 0, stored }));
        Ok(Checkpoint {
            entries: entries.collect(),
            files: vec![File { path: path.to_owned(), bytes, map: None }],
            metadata,
            check_finite: options.check_finite,
            asked: None,
        })
    }

    /// A checkpoint that has every tensor it is asked for, all zeros, and remembers the questions.
    pub(crate) fn asking() -> Self {
        Checkpoint {
            files: Vec::new(),
            metadata: HashMap::new(),
            entries: BTreeMap::new(),
            check_finite: false,
            asked: Some(Vec::new()),
        }
    }

    /// What it was asked for, in order.
    pub(crate) fn asked(self) -> Vec<(String, Vec<usize>)> {
        self.asked.unwrap_or_default()
    }

    /// The file, or the first of several.
    pub(crate) fn path(&self) -> &Path {
        self.files.first().map_or(Path::new(""), |f| &f.path)
    }

    /// The file that a tensor is in.
    pub(crate) fn path_of_tensor(&self, name: &str) -> PathBuf {
        self.entries.get(name).map_or_else(|| self.path().to_owned(), |e| self.path_of(e))
    }

    fn path_of(&self, entry: &Entry) -> PathBuf {
        self.files[entry.file].path.clone()
    }

    fn data(&self, entry: &Entry) -> &[u8] {
        // The readers have checked every range against its file.
        &(*self.files[entry.file].bytes).as_ref()[entry.stored.range.clone()]
    }

    /// The bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| (*file.bytes).as_ref().len() as u64).sum()
    }

    /// Copies all that is smaller than `bytes`, side by side, to memory that it shares.
    ///
    /// # Errors
    /// [`Error::Io`] where there is not enough memory; [`Error::Malformed`] where tensors share so much of a file
    /// that apart they would take more than all of it.
    pub(crate) fn gather_small(&mut self, bytes: usize) -> Result<()> {
        for file in 0..self.files.len() {
            let entries = self.entries.values_mut();
            let mut small: Vec<_> =
                entries.filter(|e| e.file == file && e.stored.range.len() < bytes).collect();
            let (path, from) = (&self.files[file].path, (*self.files[file].bytes).as_ref());
            let taken: usize = small.iter().map(|e| e.stored.range.len()).sum();
            if taken > from.len() {
                return Err(Error::malformed(path, "many small tensors share the same bytes"));
            }
            let pool = LargeBytes::try_zeros(taken + LINE * small.len());
            let mut pool = pool.ok_or_else(|| Error::io(path)(ErrorKind::OutOfMemory.into()))?;
            let (mut at, moved) = (0, self.files.len());
            for Entry { file, stored } in &mut small {
                let to = at..at + stored.range.len();
                pool[to.clone()].copy_from_slice(&from[stored.range.clone()]);
                at = to.end.next_multiple_of(LINE);
                (*file, stored.range) = (moved, to);
            }
            let path = path.clone();
            self.files.push(File { path, bytes: Arc::new(pool), map: None });
        }
        Ok(())
    }

    /// What was read so far is no longer needed, or rarely.
    pub(crate) fn release(&self) {
        self.files.iter().filter_map(|file| file.map.as_ref()).for_each(|map| map.release());
    }

    /// The tensors that have not been taken yet, by name.
    pub fn tensors(&self) -> impl Iterator<Item = TensorInfo<'_>> {
        self.entries.iter().map(|(name, Entry { stored, .. })| TensorInfo {
            name,
            dtype: format!("{:?}", stored.dtype).to_lowercase(),
            shape: &stored.shape,
            bytes: stored.range.len(),
        })
    }

    /// A digest of names, types, shapes and weights: small tensors whole, of large ones the two ends.
    /// Reading gigabytes to recognise a model would cost more than loading it.
    pub(crate) fn digest(&self) -> String {
        const END: usize = 32 << 10;
        let mut hash = Sha256::new();
        for (name, entry) in &self.entries {
            let data = self.data(entry);
            let StoredTensor { dtype, shape, .. } = &entry.stored;
            hash.update(format!("{name} {dtype:?} {shape:?}\n"));
            hash.update(&data[..data.len().min(END)]);
            hash.update(&data[data.len().saturating_sub(END).max(data.len().min(END))..]);
        }
        hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
    }

    /// An entry of the header's `__metadata__`.
    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// Whether a tensor of this name is there and has not been taken.
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Takes a weight: f32, f16 or bf16, of exactly this shape, all finite (where
    /// [`check_finite`](LoadOptions::check_finite) is set).
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`], [`Error::TensorDType`] or
    /// [`Error::NonFinite`].
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let entry = self.take_entry(name, shape)?;
        let dtype = match entry.stored.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            _ => return Err(self.dtype_error(name, "f32, f16 or bf16", &entry)),
        };
        let range = entry.stored.range.clone();
        let bytes = &self.files[entry.file].bytes;
        let tensor = Tensor::from_shared(bytes.clone(), range.clone(), dtype, shape)?;
        if self.check_finite {
            // In blocks, so that a large table is read by all threads; in place, as the tensor is.
            let block = dtype.size() << 20;
            let bad = (0..range.len().div_ceil(block)).into_par_iter().find_map_first(|i| {
                let from = range.start + i * block;
                let to = range.end.min(from + block);
                let elements = [(to - from) / dtype.size()];
                let part = Tensor::from_shared(bytes.clone(), from..to, dtype, &elements);
                part.ok()?.first_non_finite().map(|at| (i << 20) + at)
            });
            if let Some(index) = bad {
                let path = self.path_of(&entry);
                return Err(Error::NonFinite { path, tensor: name.into(), index });
            }
        }
        Ok(tensor)
    }

    /// Takes a small weight, widened to f32.
    pub(crate) fn take_f32(&mut self, name: &str, shape: &[usize]) -> Result<AlignedVec<f32>> {
        Ok(self.take(name, shape)?.to_f32())
    }

    /// The shape of a tensor that has not been taken.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        self.entries.get(name).map(|e| &e.stored.shape[..]).ok_or_else(|| self.missing(name))
    }

    /// Takes whole numbers: i64 or u8.
    pub(crate) fn take_integers(&mut self, name: &str) -> Result<Vec<i64>> {
        let shape = self.shape(name)?.to_vec();
        let entry = self.take_entry(name, &shape)?;
        let data = self.data(&entry);
        match entry.stored.dtype {
            Dtype::I64 => Ok(data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect()),
            Dtype::U8 => Ok(data.iter().map(|&b| i64::from(b)).collect()),
            _ => Err(self.dtype_error(name, "i64 or u8", &entry)),
        }
    }

    /// Takes double precision numbers.
    pub(crate) fn take_f64(&mut self, name: &str) -> Result<Vec<f64>> {
        let shape = self.shape(name)?.to_vec();
        let entry = self.take_entry(name, &shape)?;
        match entry.stored.dtype {
            Dtype::F64 => {
                let data = self.data(&entry).as_chunks().0;
                Ok(data.iter().map(|b| f64::from_le_bytes(*b)).collect())
            }
            _ => Err(self.dtype_error(name, "f64", &entry)),
        }
    }

    /// Whether two tensors hold the same.
    pub(crate) fn same(&self, a: &str, b: &str) -> bool {
        let (Some(a), Some(b)) = (self.entries.get(a), self.entries.get(b)) else { return false };
        let place = |e: &Entry| (e.file, e.stored.range.clone());
        a.stored.dtype == b.stored.dtype
            && a.stored.shape == b.stored.shape
            && (place(a) == place(b) || self.data(a) == self.data(b))
    }

    /// Forgets `name` where it holds the same as `other`: a tied weight that was written twice.
    pub(crate) fn drop_copy(&mut self, name: &str, other: &str) {
        if self.same(name, other) {
            self.discard(name);
        }
    }

    /// Forgets a tensor that is known to have no use.
    pub(crate) fn discard(&mut self, name: &str) {
        self.entries.remove(name);
    }

    /// All must have been taken.
    pub(crate) fn finish(self) -> Result<()> {
        match self.entries.iter().next() {
            None => Ok(()),
            Some((tensor, entry)) => {
                Err(Error::SurplusTensor { path: self.path_of(entry), tensor: tensor.clone() })
            }
        }
    }

    fn take_entry(&mut self, name: &str, shape: &[usize]) -> Result<Entry> {
        if let Some(asked) = &mut self.asked {
            asked.push((name.to_owned(), shape.to_vec()));
            let elements = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
            let bytes = elements.and_then(|n| n.checked_mul(size_of::<f32>()));
            let bytes = bytes.ok_or_else(|| Error::argument(format!("{name} is too large")))?;
            // Pages that nobody touches take no memory.
            let zeros: SharedBytes = Arc::new(LargeBytes::zeros(bytes));
            self.files = vec![File { path: PathBuf::new(), bytes: zeros, map: None }];
            let stored = StoredTensor { dtype: Dtype::F32, shape: shape.to_vec(), range: 0..bytes };
            return Ok(Entry { file: 0, stored });
        }
        let entry = self.entries.remove(name).ok_or_else(|| self.missing(name))?;
        if entry.stored.shape != shape {
            return Err(Error::TensorShape {
                path: self.path_of(&entry),
                tensor: name.into(),
                expected: Shape::from(shape),
                actual: Shape::from(&entry.stored.shape[..]),
            });
        }
        Ok(entry)
    }

    fn missing(&self, name: &str) -> Error {
        Error::MissingTensor { path: self.path().to_owned(), tensor: name.into() }
    }

    fn dtype_error(&self, name: &str, expected: &'static str, entry: &Entry) -> Error {
        let (path, actual) = (self.path_of(entry), format!("{:?}", entry.stored.dtype));
        Error::TensorDType { path, tensor: name.into(), expected, actual }
    }
}

/// A copy of a file, or `None` where it is to be mapped.
fn read(path: &Path, options: LoadOptions) -> Result<Option<SharedBytes>> {
    let placement = options.placement.unwrap_or(Placement::Map);
    if placement == Placement::Map {
        return Ok(None);
    }
    let mut file = std::fs::File::open(path).map_err(Error::io(path))?;
    let meta = file.metadata().map_err(Error::io(path))?;
    if !meta.is_file() {
        return Err(Error::malformed(path, "not a regular file"));
    }
    if placement == Placement::Fit && !free_memory::fits(meta.len(), free_memory::bytes()) {
        return Ok(None);
    }
    let len = usize::try_from(meta.len()).map_err(|_| Error::malformed(path, "too large"))?;
    let mut bytes = match LargeBytes::try_zeros(len) {
        Some(bytes) => bytes,
        None if placement == Placement::Fit => return Ok(None),
        None => return Err(Error::io(path)(ErrorKind::OutOfMemory.into())),
    };
    file.read_exact(&mut bytes).map_err(Error::io(path))?;
    Ok(Some(Arc::new(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::safetensors::tensor::TensorView;

    fn checkpoint() -> Checkpoint {
        let bytes: Vec<u8> = (0..=255).collect();
        let tensors = [("a", 0..12), ("b", 12..140), ("c", 140..256)].map(|(name, range)| {
            (name, TensorView::new(Dtype::F32, vec![range.len() / 4], &bytes[range]).unwrap())
        });
        let file = ::safetensors::serialize(tensors, None).unwrap();
        Checkpoint::from_bytes(Arc::new(file), Path::new("f"), LoadOptions::default()).unwrap()
    }

    #[test]
    fn small_tensors_are_gathered_and_stay_the_same() {
        let (mut gathered, whole) = (checkpoint(), checkpoint());
        gathered.gather_small(120).unwrap();
        assert_eq!(gathered.digest(), whole.digest());
        for (name, entry) in &gathered.entries {
            assert_eq!(entry.file, usize::from(name != "b"), "{name}");
            assert_eq!(gathered.data(entry), whole.data(&whole.entries[name]), "{name}");
            assert_eq!(gathered.path_of_tensor(name), Path::new("f"));
        }
        assert!(gathered.entries["c"].stored.range.start.is_multiple_of(LINE));
    }

    /// As a PyTorch file may have them: a small file would otherwise ask for any amount of memory.
    #[test]
    fn tensors_that_share_bytes_are_not_multiplied() {
        let mut checkpoint = checkpoint();
        for i in 0..10 {
            let stored = checkpoint.entries["b"].stored.clone();
            checkpoint.entries.insert(format!("b{i}"), Entry { file: 0, stored });
        }
        let error = checkpoint.gather_small(1000).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{error}");
    }
}
