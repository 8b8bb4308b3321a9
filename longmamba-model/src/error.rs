use crate::eval::metrics::MetricError;
use longmamba_core::Shape;
use std::path::{Path, PathBuf};

/// The result of every fallible function in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with files, prompts and sessions. Each message names the file, the tensor or the
/// argument at fault, and where it can, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A `config.json` that does not describe a model this library can run.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Which field, and what is wrong with it.
        reason: String,
    },
    /// A file that is not what its name says: truncated, corrupt, or of another format.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file that is in none of the places where it may be.
    #[error("{name} is not here (looked at {}): {hint}", list(looked))]
    FileNotFound {
        /// What it is called.
        name: String,
        /// Every path that was tried.
        looked: Vec<PathBuf>,
        /// What to do.
        hint: &'static str,
    },
    /// A line of a file that is not what it should be.
    #[error("{}: line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A prediction cannot be scored.
    #[error("{}: line {line}: {source}", path.display())]
    Unscored {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// Why.
        source: MetricError,
    },
    /// What has no score.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// A folder without weights.
    #[error(
        "{}: no weights; put model.safetensors or pytorch_model.bin there, or the shards and their index",
        folder.display()
    )]
    NoWeights {
        /// The folder.
        folder: PathBuf,
    },
    /// A file of `torch.save` that holds more than tensors in a dictionary. Nothing of it was run.
    #[error(
        "{}: the file asks for {found}, which no flat dictionary of tensors needs; nothing was run. \
         Save the state dict alone, best as safetensors",
        path.display()
    )]
    Pickle {
        /// The file.
        path: PathBuf,
        /// The opcode, the `module.name`, or what else is refused.
        found: String,
    },
    /// The checkpoint lacks a tensor that the config calls for.
    #[error("{}: tensor {tensor} is missing", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// The checkpoint has a tensor that the config has no use for.
    #[error("{}: tensor {tensor} belongs to no part of the model that config.json describes", path.display())]
    SurplusTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// A tensor has another shape than the config gives it.
    #[error("{}: tensor {tensor} has shape {actual}, config.json calls for {expected}", path.display())]
    TensorShape {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The shape from the config.
        expected: Shape,
        /// The shape in the file.
        actual: Shape,
    },
    /// A tensor holds elements of a type that is not supported in its place.
    #[error("{}: tensor {tensor} holds {actual}, expected {expected}", path.display())]
    TensorDType {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What is supported there.
        expected: &'static str,
        /// The type in the file.
        actual: String,
    },
    /// A weight is NaN or infinite.
    #[error("{}: tensor {tensor} has a NaN or infinite value at element {index}", path.display())]
    NonFinite {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The first such element, counted in order.
        index: usize,
    },
    /// A plan that cannot be read, or that belongs to another model.
    #[error("{}: {source}", path.display())]
    Plan {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: longmamba_core::Error,
    },
    /// The folder of an evaluation that was begun with other settings.
    #[error(
        "{}: this run was begun with {name} {begun}, and {now} was asked for; name another folder, or repeat \
         what it was begun with",
        folder.display()
    )]
    OtherRun {
        /// The folder.
        folder: PathBuf,
        /// The setting.
        name: String,
        /// What it was when the run was begun, as JSON.
        begun: String,
        /// What it is now.
        now: String,
    },
    /// The folder of an evaluation that is going on.
    #[error("{}: another process is at this run, or at this shard of it; wait for it", folder.display())]
    RunInUse {
        /// The folder.
        folder: PathBuf,
    },
    /// A token id outside the vocabulary.
    #[error("token id {token} at position {position} is outside the vocabulary of {vocab}")]
    Token {
        /// The id.
        token: u32,
        /// Its index in the tokens given.
        position: usize,
        /// The number of tokens that the model knows.
        vocab: usize,
    },
    /// A prompt without tokens.
    #[error("the prompt is empty; give at least one token")]
    EmptyPrompt,
    /// More tokens than were announced, or a step before the announced prompt was complete.
    #[error("the prompt was announced with {announced} tokens, {given} were given: {hint}")]
    Announced {
        /// The number given to `prefill_of`.
        announced: usize,
        /// The number of tokens so far.
        given: usize,
        /// What to do.
        hint: &'static str,
    },
    /// A part of a prompt, where a method looks at all of it at once.
    #[error(
        "method {method} looks at the whole prompt at once: {announced} tokens were announced, {given} were \
         given; give all to one prefill call"
    )]
    Whole {
        /// The method.
        method: &'static str,
        /// The number given to `prefill_of`.
        announced: usize,
        /// The number of tokens so far.
        given: usize,
    },
    /// Logits of a token that a method may drop.
    #[error(
        "method {method} is sure to keep the last {sure} of {total} tokens only; it may drop token {token}, \
         whose logits were asked for"
    )]
    Dropped {
        /// The method.
        method: &'static str,
        /// How many tokens at the end are always kept.
        sure: usize,
        /// Tokens of the prompt.
        total: usize,
        /// The first token whose logits were asked for.
        token: usize,
    },
    /// What was tuned for another model.
    #[error(
        "the {method} factors were tuned for model {tuned} and cannot be used with model {model}: they \
         differ in {}; tune this model",
        differ.join(" and ")
    )]
    OtherModel {
        /// The method.
        method: &'static str,
        /// The model that they were tuned for.
        tuned: String,
        /// The model that they were used with.
        model: String,
        /// In what the two differ.
        differ: Vec<&'static str>,
    },
    /// An argument outside its range; the text names it.
    #[error("{0}")]
    Argument(String),
    /// A length that has no room for a sample of a task.
    #[error(
        "{task}: sample {sample} does not fit {length} tokens; it needs {smallest} with the smallest context"
    )]
    TaskLength {
        /// The task.
        task: &'static str,
        /// The number of the sample.
        sample: usize,
        /// The length that was asked for, the answer's tokens included.
        length: usize,
        /// The smallest length that does.
        smallest: usize,
    },
    /// The model gave a logit that no token can be drawn from.
    #[error(
        "the logit of token {token} is {value}; the weights or the prompt drove the model out of range"
    )]
    Logit {
        /// The token.
        token: usize,
        /// Its logit.
        value: f32,
    },
    /// What can be neither a path nor the id of a model.
    #[error("{id:?} is neither a file or folder nor a model's id: {reason}")]
    ModelId {
        /// What was given.
        id: String,
        /// What an id is.
        reason: &'static str,
    },
    /// A model that is neither on disk nor in the local cache.
    #[error("{model} is not here (looked at {}): {hint}", list(looked))]
    ModelNotFound {
        /// What was given.
        model: String,
        /// Every path that was tried.
        looked: Vec<PathBuf>,
        /// What to do.
        hint: String,
    },
    /// A file of a model cannot be downloaded.
    #[cfg(feature = "download")]
    #[error(
        "{model}: cannot download {file}: {source} (a gated model needs HF_TOKEN; the next call goes on \
         where this one stopped)"
    )]
    Download {
        /// The model's id.
        model: String,
        /// Which file.
        file: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A text cannot be turned into tokens, or back.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A tensor operation was refused.
    #[error(transparent)]
    Core(#[from] longmamba_core::Error),
    /// The GPU cannot do it.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] longmamba_cuda::Error),
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::Io { path: path.to_owned(), source }
    }

    pub(crate) fn malformed(path: &Path, reason: impl Into<String>) -> Error {
        Error::Malformed { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn line(path: &Path, line: usize, reason: impl Into<String>) -> Error {
        Error::Line { path: path.to_owned(), line, reason: reason.into() }
    }

    pub(crate) fn argument(reason: impl Into<String>) -> Error {
        Error::Argument(reason.into())
    }
}

fn list(paths: &[PathBuf]) -> String {
    let shown: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    shown.join(" and ")
}
