//! What a run measures, so that it is not continued as another.

use crate::backend::Backend;
use crate::model::Model;
use crate::session::SessionOptions;
use crate::{Error, Result, write_whole};
use longmamba_core::policy::Fingerprint;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// What is measured, of which model, and where. What changes results must be the same when a run is
/// continued; where it was begun is only noted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The format of this file.
    format: u32,
    /// What a run is continued with.
    run: Map<String, Value>,
    /// Where it was begun.
    begun: Map<String, Value>,
}

const FORMAT: u32 = 1;

impl Settings {
    /// For an evaluation of `model`. Notes this library's version and the machine.
    pub fn new<B: Backend>(evaluation: &str, model: &Model<B>) -> Self {
        let Fingerprint { family, layers, channels, digest } = model.fingerprint();
        let run = json!({
            "evaluation": evaluation,
            "model": { "family": family, "layers": layers, "channels": channels, "digest": digest },
        });
        let begun = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "model_path": model.path().display().to_string(),
            "machine": format!("{} {}", std::env::consts::ARCH, std::env::consts::OS),
            "processor": processor(),
            "threads": std::thread::available_parallelism().map_or(0, usize::from),
        });
        let fields = |value| match value {
            Value::Object(fields) => fields,
            _ => unreachable!("written as an object above"),
        };
        Settings { format: FORMAT, run: fields(run), begun: fields(begun) }
    }

    /// A setting that changes the results: a method, a seed, lengths. A value that JSON cannot hold, such as
    /// a map whose keys are no strings, counts as none.
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        self.run.insert(name.to_owned(), serde_json::to_value(value).unwrap_or_default());
        self
    }

    /// Something that does not change them, such as the device.
    pub fn noting(mut self, name: &str, value: impl Serialize) -> Self {
        self.begun.insert(name.to_owned(), serde_json::to_value(value).unwrap_or_default());
        self
    }

    /// Writes the file of a new run, or compares with that of an old one.
    pub(super) fn begin_or_check(&self, path: &Path) -> Result<()> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let text =
                    serde_json::to_vec_pretty(self).map_err(|e| Error::io(path)(e.into()))?;
                return write_whole(path, &text);
            }
            Err(error) => return Err(Error::io(path)(error)),
        };
        let old: Settings = serde_json::from_slice(&text)
            .map_err(|e| Error::malformed(path, format!("not the settings of a run: {e}")))?;
        if old.format != FORMAT {
            let why = format!("of format {}; this version has format {FORMAT}", old.format);
            return Err(Error::malformed(path, why));
        }
        let names = old.run.keys().chain(self.run.keys());
        for name in names {
            let (begun, now) = (old.run.get(name), self.run.get(name));
            if begun != now {
                let shown =
                    |value: Option<&Value>| value.map_or("not set".into(), Value::to_string);
                return Err(Error::OtherRun {
                    folder: path.parent().unwrap_or(path).to_owned(),
                    name: name.clone(),
                    begun: shown(begun),
                    now: shown(now),
                });
            }
        }
        Ok(())
    }
}

/// Its name, where the system has it in a file.
fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

impl SessionOptions {
    /// What of these changes results, for [`Settings::with`]: the method and all that it was made with, by a
    /// digest, and the length of a chunk, which changes how results are rounded.
    ///
    /// # Errors
    /// [`Error::Argument`] for options that do not go together.
    pub fn settings(&self) -> Result<Value> {
        let digest = crate::snapshot::digest(self.identity()?.as_bytes());
        Ok(json!({ "chunk_len": self.chunk_len, "digest": digest }))
    }
}
