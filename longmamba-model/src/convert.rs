//! From any checkpoint that can be read to one safetensors file, with the same names.

use crate::checkpoint::{Checkpoint, LoadOptions};
use crate::config::Config;
use crate::names::drop_copies;
use crate::{Error, Result};
use half::{bf16, f16};
use longmamba_core::{DType, Tensor};
use safetensors::Dtype;
use safetensors::tensor::View;
use std::borrow::Cow;
use std::cell::Cell;
use std::fs;
use std::path::Path;

/// What lies beside the weights and goes with them, where it is there.
const COMPANIONS: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "golden.safetensors",
];

/// What a conversion wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Converted {
    /// Tensors; a weight that the checkpoint held twice counts once.
    pub tensors: usize,
    /// Bytes of weights.
    pub bytes: usize,
}

/// Writes the model in `from`, a folder or a file that [`Model::load`](crate::Model::load) would take,
/// to the new folder `to`: `config.json` as it is, `model.safetensors`, and the tokenizer.
///
/// Names and values stay, so that plans and snapshots of the one fit the other; with `dtype` all weights
/// are rounded to that type, which makes it another model. `progress` is called with the bytes written
/// and their number. The weights are never in memory as a whole, and the file appears under its name
/// when it is complete.
///
/// # Errors
/// As [`Model::load`](crate::Model::load); [`Error::Argument`] where `to` has weights already or a value
/// is too large for `dtype`; [`Error::Io`].
pub fn convert(
    from: &Path,
    to: &Path,
    dtype: Option<DType>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Converted> {
    let folder = if from.is_file() { from.parent().unwrap_or(Path::new("")) } else { from };
    let config_path = folder.join("config.json");
    let config = Config::read(&config_path)?;
    let options = LoadOptions::default();
    let mut weights = match from.is_file() {
        true => Checkpoint::open(from, options)?,
        false => Checkpoint::open_folder(from, options)?,
    };
    let target = to.join("model.safetensors");
    if target.exists() || to.join("config.json").exists() {
        return Err(Error::argument(format!("{} has a model already", to.display())));
    }
    drop_copies(&config, &mut weights);
    let all: Vec<(String, Vec<usize>)> =
        weights.tensors().map(|t| (t.name.to_owned(), t.shape.to_vec())).collect();
    let (total, done) = (Cell::new(0), Cell::new(0));
    let progress = Cell::new(Some(progress));
    let mut tensors = Vec::with_capacity(all.len());
    for (name, shape) in all {
        let tensor = weights.take(&name, &shape)?;
        let dtype = dtype.unwrap_or(tensor.dtype());
        check_range(&tensor, dtype, &name)?;
        let part = Part { tensor, shape, dtype, done: &done, total: &total, progress: &progress };
        total.set(total.get() + part.data_len());
        tensors.push((name, part));
    }
    let converted = Converted { tensors: tensors.len(), bytes: total.get() };

    fs::create_dir_all(to).map_err(Error::io(to))?;
    let temporary = to.join(format!("model.safetensors.{}.tmp", std::process::id()));
    let write = || -> Result<()> {
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        safetensors::serialize_to_file(tensors, Some(metadata), &temporary)
            .map_err(|e| Error::malformed(&target, format!("cannot be written: {e}")))?;
        for name in COMPANIONS.iter().filter(|name| folder.join(name).is_file()) {
            fs::copy(folder.join(name), to.join(name)).map_err(Error::io(&to.join(name)))?;
        }
        let config_copy = to.join("config.json");
        fs::copy(&config_path, &config_copy).map_err(Error::io(&config_copy))?;
        fs::rename(&temporary, &target).map_err(Error::io(&target))
    };
    write().inspect_err(|_| {
        // The error that matters is the first one.
        let _ = fs::remove_file(&temporary);
    })?;
    Ok(converted)
}

/// That no value becomes infinite on the way: f16 ends at 65,504.
fn check_range(tensor: &Tensor, dtype: DType, name: &str) -> Result<()> {
    if dtype != DType::F16 || tensor.dtype() == DType::F16 {
        return Ok(());
    }
    let values = tensor.to_f32();
    match values.iter().find(|v| f16::from_f32(**v).is_infinite()) {
        None => Ok(()),
        Some(value) => Err(Error::argument(format!(
            "tensor {name} has the value {value}, which f16 cannot hold; bf16 can"
        ))),
    }
}

/// A tensor on its way to the file; rounded when it is written, one at a time.
struct Part<'a, 'p> {
    tensor: Tensor,
    shape: Vec<usize>,
    dtype: DType,
    done: &'a Cell<usize>,
    total: &'a Cell<usize>,
    progress: &'a Cell<Option<&'p mut dyn FnMut(usize, usize)>>,
}

impl View for Part<'_, '_> {
    fn dtype(&self) -> Dtype {
        match self.dtype {
            DType::F32 => Dtype::F32,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.done.set(self.done.get() + self.data_len());
        if let Some(progress) = self.progress.take() {
            progress(self.done.get(), self.total.get());
            self.progress.set(Some(progress));
        }
        if self.dtype == self.tensor.dtype() {
            return Cow::Borrowed(self.tensor.bytes());
        }
        let values = self.tensor.to_f32();
        Cow::Owned(match self.dtype {
            DType::F32 => bytemuck::cast_slice(&values).to_vec(),
            DType::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
            DType::BF16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        })
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }
}
