//! LongBench, read from the user's own copy.
//!
//! The texts and prompts are other people's and are not part of this library: `data/*.jsonl` is what is in
//! the data set's `data.zip`, `dataset2prompt.json` and `dataset2maxlen.json` are in the folder `config` of
//! the official repository. [`LongBench::open`] finds them; [`LongBench::samples`] gives the prompts of a data
//! set; [`predict`](fn@predict) has a model answer one; the scores are in [`metrics`](super::metrics).

mod config;
mod data;
mod predict;
mod prompt;

pub use data::Sample;
pub use predict::{PredictOptions, Prediction, clean_up_spaces, cut_middle, predict};

use super::metrics::{DATASETS, Dataset};
use crate::{Error, Result};
use config::Setup;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Which files of a copy are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edition {
    /// `<name>.jsonl`
    Whole,
    /// `<name>_e.jsonl`: LongBench-E, with as many samples of each length.
    E,
}

impl Edition {
    fn file_name(self, dataset: &Dataset) -> String {
        match self {
            Edition::Whole => format!("{}.jsonl", dataset.name),
            Edition::E => format!("{}_e.jsonl", dataset.name),
        }
    }
}

/// A copy of LongBench.
#[derive(Clone, Debug)]
pub struct LongBench {
    /// Where its files lie.
    data: PathBuf,
    /// By data set.
    setup: BTreeMap<&'static str, Setup>,
    config: PathBuf,
}

impl LongBench {
    /// A copy with its data in `folder` or in `folder/data`. `config` is a folder with the two files of
    /// settings, or one with a `config` in it; without it they are looked for in `folder`, in the folder
    /// around it, and in their `config`.
    ///
    /// # Errors
    /// [`Error::FileNotFound`]; [`Error::Malformed`] for settings that are none; [`Error::Io`].
    pub fn open(folder: &Path, config: Option<&Path>) -> Result<Self> {
        std::fs::read_dir(folder).map_err(Error::io(folder))?;
        let inner = folder.join("data");
        let data = if inner.is_dir() { inner } else { folder.to_owned() };
        let around = folder.join("..");
        let places: Vec<PathBuf> = config
            .map_or_else(|| vec![folder, &around], |config| vec![config])
            .into_iter()
            .flat_map(|place| [place.to_owned(), place.join("config")])
            .collect();
        let (config, setup) = config::read(&places)?;
        Ok(LongBench { data, setup, config })
    }

    /// The data sets that this copy has files of, in LongBench's order.
    pub fn datasets(&self, edition: Edition) -> Vec<&'static Dataset> {
        let here = |d: &&Dataset| self.data.join(edition.file_name(d)).is_file();
        DATASETS.iter().filter(here).collect()
    }

    /// The samples of a data set, in the file's order.
    ///
    /// # Errors
    /// [`Error::FileNotFound`] for a data set that is not in this copy, [`Error::Malformed`] for one without
    /// a prompt or samples; [`Error::Line`] for a line that is no sample, [`Error::Unscored`] for one to which
    /// no answer could be scored; [`Error::Io`].
    pub fn samples(&self, dataset: &'static Dataset, edition: Edition) -> Result<Vec<Sample>> {
        let setup = self.setup.get(dataset.name).ok_or_else(|| {
            let reason = format!("{} has no prompt or no number of new tokens there", dataset.name);
            Error::malformed(&self.config, reason)
        })?;
        let name = edition.file_name(dataset);
        let path = self.data.join(&name);
        if !path.is_file() {
            return Err(Error::FileNotFound {
                name,
                looked: vec![self.data.clone()],
                hint: "unpack LongBench's data.zip there, or name the folder where that was done",
            });
        }
        data::read(&path, dataset, setup)
    }
}

#[cfg(test)]
mod tests;
