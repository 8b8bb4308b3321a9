//! Samples as the official generators write them: one JSON object a line.

use crate::{Error, Result, write_whole};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// A prompt and its references. A model reads `input` and then `answer_prefix`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Its number; in official files of the niah tasks, where in `input` the first answer stands.
    pub index: usize,
    /// The prompt.
    pub input: String,
    /// What the answer should have in it.
    pub outputs: Vec<String>,
    /// Tokens of prompt and answer prefix, and of the answer at most.
    pub length: usize,
    /// The same with a chat model's template, which these models do not have.
    #[serde(default)]
    pub length_w_model_temp: usize,
    /// What the prompt ends with, and where the model goes on.
    #[serde(default)]
    pub answer_prefix: String,
    /// Tokens before the first answer, in niah tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_position_answer: Option<usize>,
    /// Whether a made-up text stands in for one that was not given; not in official files.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub standin: bool,
}

impl Sample {
    /// What a model reads.
    pub fn prompt(&self) -> String {
        [self.input.as_str(), &self.answer_prefix].concat()
    }
}

/// Reads a file of samples, the official generators' or [`write_samples`]'s. Other fields are passed
/// over.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] with the line where one is no sample, has no prompt or no reference;
/// or where there is none at all.
pub fn read_samples(path: &Path) -> Result<Vec<Sample>> {
    let bytes = fs::read(path).map_err(Error::io(path))?;
    let mut samples = Vec::new();
    for (line, number) in bytes.split(|&b| b == b'\n').zip(1..) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let refuse = |why: &str| Error::malformed(path, format!("line {number}: {why}"));
        let sample: Sample = serde_json::from_slice(line).map_err(|e| {
            let why = e.to_string();
            // Its own line number is always 1.
            refuse(why.rsplit_once(" at line ").map_or(&*why, |(why, _)| why))
        })?;
        if sample.input.is_empty() {
            return Err(refuse("\"input\" is empty"));
        }
        if sample.outputs.is_empty() {
            return Err(refuse("\"outputs\" has no reference"));
        }
        samples.push(sample);
    }
    if samples.is_empty() {
        return Err(Error::malformed(path, "there is no sample"));
    }
    Ok(samples)
}

/// Writes a file of samples, the whole or nothing.
///
/// # Errors
/// [`Error::Io`].
pub fn write_samples(path: &Path, samples: &[Sample]) -> Result<()> {
    let mut lines = Vec::new();
    for sample in samples {
        serde_json::to_writer(&mut lines, sample)
            .map_err(|e| Error::Io { path: path.to_owned(), source: e.into() })?;
        lines.push(b'\n');
    }
    write_whole(path, &lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("validation.jsonl");
        let sample = Sample {
            index: 3,
            input: "a \"b\"\n\u{1f}é\u{2028}".into(),
            outputs: vec!["x".into(), "y".into()],
            length: 7,
            length_w_model_temp: 7,
            answer_prefix: " So".into(),
            token_position_answer: Some(2),
            standin: true,
        };
        let other =
            Sample { token_position_answer: None, standin: false, index: 4, ..sample.clone() };
        write_samples(&path, &[sample.clone(), other.clone()]).unwrap();
        assert_eq!(read_samples(&path).unwrap(), [sample, other]);
    }

    #[test]
    fn wrong_lines_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("niah.jsonl");
        let good = br#"{"index": 0, "input": "a", "outputs": ["b"], "length": 9, "_meta": {}}"#;
        for (bad, why) in [
            (&b"{"[..], "line 3: EOF"),
            (b"[1]", "line 3: invalid"),
            (b"{\"index\": 0}", "line 3: missing field `input`"),
            (b"\xff", "line 3: "),
            (
                br#"{"index": -1, "input": "a", "outputs": ["b"], "length": 9}"#,
                "line 3: invalid value",
            ),
            (br#"{"index": 0, "input": "a", "outputs": "b", "length": 9}"#, "line 3: invalid type"),
            (br#"{"index": 0, "input": "", "outputs": ["b"], "length": 9}"#, "\"input\" is empty"),
            (br#"{"index": 0, "input": "a", "outputs": [], "length": 9}"#, "no reference"),
        ] {
            fs::write(&path, [good, &b"\r\n\n"[..], bad, b"\n", good].concat()).unwrap();
            let error = read_samples(&path).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("niah.jsonl"), "{error}");
            assert!(!error.contains("line 1"), "{error}");
        }
        fs::write(&path, "\n \n").unwrap();
        assert!(read_samples(&path).unwrap_err().to_string().contains("no sample"));
        fs::write(&path, good).unwrap();
        assert_eq!(read_samples(&path).unwrap()[0].answer_prefix, "");
    }
}
