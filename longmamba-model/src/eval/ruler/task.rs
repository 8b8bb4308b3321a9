//! The thirteen tasks and their parameters.

use crate::eval::metrics::StringMatch;
use serde::Serialize;

/// One of RULER's tasks (Hsieh et al., arXiv 2404.06654).
#[derive(Debug, PartialEq, Eq)]
pub struct Task {
    /// Its official name.
    pub name: &'static str,
    /// What is asked.
    pub kind: Kind,
    /// Tokens in which the answer must come.
    pub tokens_to_generate: usize,
    /// How an answer is scored.
    pub metric: StringMatch,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The values of some keys, told in sentences that are hidden in a long text.
    Niah(Niah),
    /// All variables that got their value, one from the other, from one number.
    VariableTracking,
    /// The ten words of a list that are in it most often.
    CommonWords,
    /// The three most frequent made-up words, whose frequencies follow a power law.
    FrequentWords,
    /// A question, answered by some of many documents.
    Qa(Source),
}

/// Needles in a haystack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Niah {
    /// In what they are hidden.
    pub haystack: Haystack,
    /// What the values are told of.
    pub key: Word,
    /// What is asked for.
    pub value: Word,
    /// How many keys, as many as are asked for at least.
    pub keys: usize,
    /// Values of each key.
    pub values: usize,
    /// How many of the keys are asked for.
    pub queries: usize,
}

impl Niah {
    /// Keys in a sample.
    pub(super) fn all_keys(&self) -> usize {
        self.keys.max(self.queries)
    }
}

/// In what needles are hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haystack {
    /// One line over and over.
    Noise,
    /// Lines like the needles, with other keys.
    Needles,
    /// Essays.
    Essays,
}

/// What a key or a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// An adjective and a noun.
    Words,
    /// Seven digits.
    Number,
    /// A UUID of version 4.
    Uuid,
}

/// Texts from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A haystack: `{"text": …}`.
    Essays,
    /// SQuAD v2.0's JSON.
    Squad,
    /// HotpotQA's JSON.
    HotpotQa,
}

impl Source {
    /// The `longmamba ruler` flag that names the file.
    pub fn flag(self) -> &'static str {
        match self {
            Source::Essays => "--essays",
            Source::Squad => "--squad",
            Source::HotpotQa => "--hotpotqa",
        }
    }
}

impl Task {
    /// The task with this official name.
    pub fn find(name: &str) -> Option<&'static Task> {
        TASKS.iter().find(|task| task.name == name)
    }

    /// What it is made from, if not from nothing.
    pub fn source(&self) -> Option<Source> {
        match self.kind {
            Kind::Niah(Niah { haystack: Haystack::Essays, .. }) => Some(Source::Essays),
            Kind::Qa(source) => Some(source),
            _ => None,
        }
    }
}

const fn niah(name: &'static str, niah: Niah) -> Task {
    let metric = StringMatch::All;
    Task { name, kind: Kind::Niah(niah), tokens_to_generate: 128, metric }
}

const fn other(name: &'static str, kind: Kind, tokens_to_generate: usize) -> Task {
    let metric = match kind {
        Kind::Qa(_) => StringMatch::Part,
        _ => StringMatch::All,
    };
    Task { name, kind, tokens_to_generate, metric }
}

/// A number told of a word, in essays.
const ONE: Niah = Niah {
    haystack: Haystack::Essays,
    key: Word::Words,
    value: Word::Number,
    keys: 1,
    values: 1,
    queries: 1,
};

/// All tasks, in the order of the official tables.
pub static TASKS: [Task; 13] = [
    niah("niah_single_1", Niah { haystack: Haystack::Noise, ..ONE }),
    niah("niah_single_2", ONE),
    niah("niah_single_3", Niah { value: Word::Uuid, ..ONE }),
    niah("niah_multikey_1", Niah { keys: 4, ..ONE }),
    niah("niah_multikey_2", Niah { haystack: Haystack::Needles, ..ONE }),
    niah(
        "niah_multikey_3",
        Niah { haystack: Haystack::Needles, key: Word::Uuid, value: Word::Uuid, ..ONE },
    ),
    niah("niah_multivalue", Niah { values: 4, ..ONE }),
    niah("niah_multiquery", Niah { queries: 4, ..ONE }),
    other("vt", Kind::VariableTracking, 30),
    other("cwe", Kind::CommonWords, 120),
    other("fwe", Kind::FrequentWords, 50),
    other("qa_1", Kind::Qa(Source::Squad), 32),
    other("qa_2", Kind::Qa(Source::HotpotQa), 32),
];
