//! Comparison with reference logits: `golden.safetensors`.
//!
//! The file holds `caseN.input_ids` i64 `[batch, len]`, `caseN.logits` f32 `[batch, len, vocab]`, and
//! `greedy.prompt` i64 `[1, len]`, `greedy.tokens` i64 `[1, n]`.

use crate::backend::Backend;
use crate::checkpoint::{Checkpoint, LoadOptions};
use crate::config::Config;
use crate::model::Model;
use crate::sample::most_likely;
use crate::session::{Session, SessionOptions};
use crate::{Error, Result};
use longmamba_core::{DType, Tensor};
use std::path::Path;
use std::sync::Arc;

/// What an error may be: `absolute + relative · |expected|`.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Tolerance {
    /// The part that does not depend on the value.
    pub absolute: f32,
    /// The part that does.
    pub relative: f32,
}

impl Default for Tolerance {
    fn default() -> Self {
        Tolerance { absolute: 2e-4, relative: 2e-4 }
    }
}

/// One case, read in one way.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct CaseReport {
    /// `case0` and so on.
    pub name: String,
    /// Tokens given to `prefill` at a time; `None`: the whole prompt.
    pub chunk: Option<usize>,
    /// Logits compared.
    pub logits: usize,
    /// The largest |error|.
    pub worst_error: f32,
    /// The largest |error| ÷ what it may be; at most 1 passes.
    pub worst_ratio: f32,
    /// Whether all logits are within the tolerance; NaN never is.
    pub passed: bool,
}

/// The greedy continuation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct GreedyReport {
    /// The reference's tokens.
    pub expected: Vec<u32>,
    /// Ours.
    pub actual: Vec<u32>,
    /// Whether they are the same.
    pub passed: bool,
}

/// The outcome of [`verify`].
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Report {
    /// What was allowed.
    pub tolerance: Tolerance,
    /// Every case in every chunking.
    pub cases: Vec<CaseReport>,
    /// The greedy continuation, where the file has one.
    pub greedy: Option<GreedyReport>,
}

impl Report {
    /// Whether everything agreed, and there was something to agree.
    pub fn passed(&self) -> bool {
        let greedy = self.greedy.as_ref().is_none_or(|g| g.passed);
        !self.cases.is_empty() && self.cases.iter().all(|c| c.passed) && greedy
    }
}

/// Compares the model with the reference logits in `golden`: every case whole, and again with the
/// prompt in pieces of each of `chunks`. `progress` is called with the cases done and their number.
///
/// # Errors
/// A golden file that is damaged, or made for another vocabulary.
pub fn verify<B: Backend>(
    model: &Arc<Model<B>>,
    golden: &Path,
    chunks: &[usize],
    tolerance: Tolerance,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Report> {
    if chunks.contains(&0) {
        return Err(Error::argument("a chunk must have at least one token"));
    }
    let mut file = Checkpoint::open(golden, LoadOptions::default())?;
    let names: Vec<String> = (0..)
        .map(|n| format!("case{n}"))
        .take_while(|n| file.has(&format!("{n}.input_ids")))
        .collect();
    let ways: Vec<Option<usize>> =
        std::iter::once(None).chain(chunks.iter().map(|&c| Some(c))).collect();
    let mut cases = Vec::new();
    let total = names.len() * ways.len();
    for name in names {
        let case = Case::read(&mut file, name, model.config(), golden)?;
        for &chunk in &ways {
            cases.push(case.run(model, chunk, tolerance)?);
            progress(cases.len(), total);
        }
    }
    let greedy = file.has("greedy.prompt").then(|| greedy(model, &mut file, golden)).transpose()?;
    Ok(Report { tolerance, cases, greedy })
}

struct Case {
    name: String,
    /// `[batch][len]`
    tokens: Vec<Vec<u32>>,
    /// `[batch, len, stride]`; those past the vocabulary mean nothing.
    logits: Tensor,
    stride: usize,
}

impl Case {
    fn read(file: &mut Checkpoint, name: String, config: &Config, path: &Path) -> Result<Self> {
        let ids = format!("{name}.input_ids");
        let shape = file.shape(&ids)?.to_vec();
        let [batch, len] = shape[..] else {
            return Err(Error::malformed(
                path,
                format!("{ids} has shape {shape:?}, expected [batch, len]"),
            ));
        };
        let all = tokens(file, &ids, path)?;
        let logits = file.take(&format!("{name}.logits"), &[batch, len, config.vocab_rows])?;
        if logits.dtype() != DType::F32 {
            let (tensor, actual) = (format!("{name}.logits"), logits.dtype().to_string());
            return Err(Error::TensorDType {
                path: path.to_owned(),
                tensor,
                expected: "f32",
                actual,
            });
        }
        let tokens = all.chunks(len.max(1)).map(<[u32]>::to_vec).collect();
        Ok(Case { name, tokens, logits, stride: config.vocab_rows })
    }

    fn run<B: Backend>(
        &self,
        model: &Arc<Model<B>>,
        chunk: Option<usize>,
        tolerance: Tolerance,
    ) -> Result<CaseReport> {
        let expected = self.logits.as_slice::<f32>()?;
        let mut report = CaseReport {
            name: self.name.clone(),
            chunk,
            logits: 0,
            worst_error: 0.0,
            worst_ratio: 0.0,
            passed: true,
        };
        for (tokens, expected) in
            self.tokens.iter().zip(expected.chunks(self.tokens[0].len() * self.stride))
        {
            // The session's own chunks follow the caller's, so that 1000 really is one piece.
            let chunk_len = chunk.unwrap_or(tokens.len()).clamp(1, 1 << 16);
            let mut session = model
                .session(SessionOptions { chunk_len: Some(chunk_len), ..Default::default() })?;
            session.prefill_of(tokens.len())?;
            let mut rows = expected.chunks_exact(self.stride);
            for piece in tokens.chunks(chunk_len) {
                session.prefill_scored(piece, 0..piece.len(), |_, logits| {
                    if let Some(expected) = rows.next() {
                        report.compare(logits, expected, tolerance);
                    }
                })?;
            }
            report.passed &= rows.next().is_none();
        }
        Ok(report)
    }
}

impl CaseReport {
    fn compare(&mut self, actual: &[f32], expected: &[f32], tolerance: Tolerance) {
        self.logits += actual.len();
        for (&a, &e) in actual.iter().zip(expected) {
            let error = (a - e).abs();
            let ratio = error / (tolerance.absolute + tolerance.relative * e.abs());
            // NaN is in no range.
            self.passed &= (0.0..=1.0).contains(&ratio);
            self.worst_error = if error.is_nan() { error } else { self.worst_error.max(error) };
            self.worst_ratio = if ratio.is_nan() { ratio } else { self.worst_ratio.max(ratio) };
        }
    }
}

fn tokens(file: &mut Checkpoint, name: &str, path: &Path) -> Result<Vec<u32>> {
    let ids = file.take_integers(name)?;
    let ids = ids.into_iter().map(u32::try_from).collect::<std::result::Result<_, _>>();
    ids.map_err(|_| Error::malformed(path, format!("{name} has an id that is no token id")))
}

fn greedy<B: Backend>(
    model: &Arc<Model<B>>,
    file: &mut Checkpoint,
    path: &Path,
) -> Result<GreedyReport> {
    let prompt = tokens(file, "greedy.prompt", path)?;
    let expected = tokens(file, "greedy.tokens", path)?;
    let mut session: Session<B> = model.session(SessionOptions::default())?;
    session.prefill(&prompt)?;
    let mut actual = Vec::with_capacity(expected.len());
    for _ in 0..expected.len() {
        let (next, _) = most_likely(session.logits())?;
        actual.push(next);
        session.step(next)?;
    }
    Ok(GreedyReport { passed: actual == expected, expected, actual })
}
