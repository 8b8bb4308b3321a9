//! Prompts and lengths of answers, from the copy's own settings.

use super::prompt::Template;
use crate::eval::metrics::DATASETS;
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const PROMPTS: &str = "dataset2prompt.json";
const LENGTHS: &str = "dataset2maxlen.json";

/// More would be a mistake: the longest answers of LongBench are summaries of 512 tokens.
const MOST_NEW: usize = 1 << 16;

/// How a data set is asked.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) template: Template,
    /// The most tokens of an answer.
    pub(super) max_new: usize,
}

/// From the first of the folders that has both files. Data sets that are not LongBench's are left out, and
/// those that only one of the files has.
pub(super) fn read(places: &[PathBuf]) -> Result<(PathBuf, BTreeMap<&'static str, Setup>)> {
    let here = |place: &&PathBuf| [PROMPTS, LENGTHS].iter().all(|f| place.join(f).is_file());
    let config = places.iter().find(here).ok_or_else(|| Error::FileNotFound {
        name: format!("{PROMPTS} with {LENGTHS}"),
        looked: places.to_vec(),
        hint: "put the folder config of LongBench's repository beside the data, or name it (--config)",
    })?;
    let prompts: BTreeMap<String, String> = object(&config.join(PROMPTS))?;
    let lengths: BTreeMap<String, usize> = object(&config.join(LENGTHS))?;
    let mut setups = BTreeMap::new();
    for dataset in &DATASETS {
        let (Some(prompt), Some(&max_new)) = (prompts.get(dataset.name), lengths.get(dataset.name))
        else {
            continue;
        };
        let bad = |file, reason: String| {
            Error::malformed(&config.join(file), format!("{}: {reason}", dataset.name))
        };
        let template =
            Template::parse(prompt).map_err(|reason| bad(PROMPTS, reason.to_string()))?;
        if !(1..=MOST_NEW).contains(&max_new) {
            let reason = format!("{max_new} new tokens, must be 1 to {MOST_NEW}");
            return Err(bad(LENGTHS, reason));
        }
        setups.insert(dataset.name, Setup { template, max_new });
    }
    Ok((config.clone(), setups))
}

fn object<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).map_err(Error::io(path))?;
    serde_json::from_slice(&text).map_err(|e| Error::malformed(path, e.to_string()))
}
