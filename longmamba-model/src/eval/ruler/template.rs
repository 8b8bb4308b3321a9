//! The sentences of prompts: this library's own, or those of a file.

use crate::{Error, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::fs;
use std::path::Path;

/// The wording of every kind of task.
///
/// A JSON file with one object for each kind, named as the official generators name them; kinds that
/// are left out keep this library's words. Every kind has a `template` and an `answer_prefix`, which
/// follows it and is where the model goes on; what else there is are the sentences that the context is
/// made of. Placeholders stand in braces and are filled once, so that braces in a text stay:
///
/// | kind | sentence | placeholders |
/// |---|---|---|
/// | `niah` | `template` | `{context}`, `{query}`, `{type_needle_v}` |
/// | | `answer_prefix` | `{query}`, `{type_needle_v}` |
/// | | `needle` | `{key}`, `{value}`, `{type_needle_v}` |
/// | | `noise` | |
/// | `variable_tracking` | `template` | `{context}`, `{query}`, `{num_v}` |
/// | | `answer_prefix` | `{query}`, `{num_v}` |
/// | | `noise` | |
/// | | `assign`, `copy` | `{key}`, and in `{value}` the number or the other variable |
/// | `common_words_extraction`, `freq_words_extraction` | `template` | `{context}` |
/// | | `answer_prefix` | |
/// | `qa` | `template` | `{context}`, `{query}` |
/// | | `answer_prefix` | `{query}` |
/// | | `document` | `{key}` for its number, `{value}` for its text |
///
/// `template` and `answer_prefix` of `niah` are written for several values. Where one value is asked
/// for, "Some", "are all", "are" and "answers" in them become "A", "is", "is" and "answer", and the
/// `s` at the end of `{type_needle_v}` (numbers, uuids) is dropped, as the official generator does it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Templates {
    pub(super) niah: NiahTemplate,
    pub(super) variables: VariablesTemplate,
    pub(super) common: WordsTemplate,
    pub(super) frequent: WordsTemplate,
    pub(super) qa: QaTemplate,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NiahTemplate {
    pub template: String,
    pub answer_prefix: String,
    pub needle: String,
    pub noise: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VariablesTemplate {
    pub template: String,
    pub answer_prefix: String,
    pub noise: String,
    pub assign: String,
    pub copy: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WordsTemplate {
    pub template: String,
    pub answer_prefix: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QaTemplate {
    pub template: String,
    pub answer_prefix: String,
    pub document: String,
}

/// Which placeholders a sentence must have, and which it may have.
type Placeholders = (&'static [&'static str], &'static [&'static str]);

/// Kind, sentence, placeholders.
const SENTENCES: [(&str, &str, Placeholders); 16] = [
    ("niah", "template", (&["context", "query"], &["type_needle_v"])),
    ("niah", "answer_prefix", (&[], &["query", "type_needle_v"])),
    ("niah", "needle", (&["key", "value"], &["type_needle_v"])),
    ("niah", "noise", (&[], &[])),
    ("variable_tracking", "template", (&["context", "query"], &["num_v"])),
    ("variable_tracking", "answer_prefix", (&[], &["query", "num_v"])),
    ("variable_tracking", "noise", (&[], &[])),
    ("variable_tracking", "assign", (&["key", "value"], &[])),
    ("variable_tracking", "copy", (&["key", "value"], &[])),
    ("common_words_extraction", "template", (&["context"], &[])),
    ("common_words_extraction", "answer_prefix", (&[], &[])),
    ("freq_words_extraction", "template", (&["context"], &[])),
    ("freq_words_extraction", "answer_prefix", (&[], &[])),
    ("qa", "template", (&["context", "query"], &[])),
    ("qa", "answer_prefix", (&[], &["query"])),
    ("qa", "document", (&["value"], &["key"])),
];

impl Templates {
    /// This library's own wording, as JSON: the pattern for a file.
    pub const OWN: &'static str = include_str!("template.json");

    /// This library's own wording.
    ///
    /// # Errors
    /// None: [`Templates::OWN`] is part of the program and tested.
    pub fn own() -> Result<Self> {
        Self::of("{}", Path::new("template.json"))
    }

    /// The wording in a file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] for what is no such file, a kind or sentence that does not
    /// exist, a sentence that is missing, and a placeholder that is missing or is not filled there.
    pub fn read(path: &Path) -> Result<Self> {
        Self::of(&fs::read_to_string(path).map_err(Error::io(path))?, path)
    }

    fn of(text: &str, path: &Path) -> Result<Self> {
        let parse = |text| -> Result<Map<String, Value>> {
            serde_json::from_str(text)
                .map_err(|e| Error::malformed(path, format!("not a template file: {e}")))
        };
        let mut all = parse(Self::OWN)?;
        for (kind, sentences) in parse(text)? {
            if all.insert(kind.clone(), sentences).is_none() {
                let why = format!("there is no kind of task {kind:?}");
                return Err(Error::malformed(path, why));
            }
        }
        check(&all).map_err(|why| Error::malformed(path, why))?;
        Ok(Templates {
            niah: part(&mut all, "niah", path)?,
            variables: part(&mut all, "variable_tracking", path)?,
            common: part(&mut all, "common_words_extraction", path)?,
            frequent: part(&mut all, "freq_words_extraction", path)?,
            qa: part(&mut all, "qa", path)?,
        })
    }
}

fn part<T: DeserializeOwned>(all: &mut Map<String, Value>, kind: &str, path: &Path) -> Result<T> {
    serde_json::from_value(all.remove(kind).unwrap_or_default())
        .map_err(|e| Error::malformed(path, format!("{kind}: {e}")))
}

/// Whether every sentence has the placeholders that it must have and no others.
fn check(all: &Map<String, Value>) -> std::result::Result<(), String> {
    for (kind, sentence, (must, may)) in SENTENCES {
        // What is missing or no text is found where the parts are read.
        let Some(text) = all.get(kind).and_then(|k| k.get(sentence)).and_then(Value::as_str) else {
            continue;
        };
        let has: Vec<&str> = pieces(text).filter_map(|(_, name)| name).collect();
        if let Some(name) = must.iter().find(|name| !has.contains(name)) {
            return Err(format!("{kind}: {sentence} lacks {{{name}}}"));
        }
        if let Some(name) = has.iter().find(|name| !must.contains(name) && !may.contains(name)) {
            return Err(format!("{kind}: {sentence} has {{{name}}}, which nothing fills"));
        }
    }
    Ok(())
}

/// `sentence` with each placeholder filled; those of other names stay.
pub(super) fn fill(sentence: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(sentence.len());
    for (text, name) in pieces(sentence) {
        filled.push_str(text);
        let Some(name) = name else { continue };
        match values.iter().find(|(of, _)| *of == name) {
            Some((_, value)) => filled.push_str(value),
            None => filled.extend(["{", name, "}"]),
        }
    }
    filled
}

/// Text, and the placeholder that follows it.
fn pieces(sentence: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let mut rest = Some(sentence);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let mut from = 0;
        while let Some(open) = text[from..].find('{').map(|at| from + at) {
            let name = &text[open + 1..];
            let length = name.find(|c: char| !(c.is_ascii_lowercase() || c == '_'));
            if let Some(length) = length.filter(|&n| n > 0 && name[n..].starts_with('}')) {
                rest = Some(&name[length + 1..]);
                return Some((&text[..open], Some(&name[..length])));
            }
            from = open + 1;
        }
        Some((text, None))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn placeholders_are_filled_once() {
        let filled = fill("{a}{b} {c} {} {A {b", &[("a", "{b}"), ("b", "x")]);
        assert_eq!(filled, "{b}x {c} {} {A {b");
        assert_eq!(fill("", &[]), "");
    }

    #[test]
    fn kinds_that_a_file_leaves_out_keep_our_words() {
        let own = Templates::own().unwrap();
        let file = json!({"common_words_extraction": {
            "template": "Words: {context}", "answer_prefix": " They are {x{"
        }});
        let mixed = Templates::of(&file.to_string(), Path::new("f")).unwrap();
        assert_eq!(mixed.common.template, "Words: {context}");
        assert_eq!(Templates { common: own.common.clone(), ..mixed }, own);
    }

    #[test]
    fn a_wrong_file_says_what_is_wrong() {
        let own: Value = serde_json::from_str(Templates::OWN).unwrap();
        let with = |sentence: &str, value: Value| {
            let mut niah = own["niah"].clone();
            niah[sentence] = value;
            json!({ "niah": niah }).to_string()
        };
        for (file, why) in [
            ("[]".to_owned(), "not a template file"),
            ("{".to_owned(), "line 1"),
            (json!({"nia": {}}).to_string(), "no kind of task \"nia\""),
            (json!({"niah": {"template": "{context}{query}"}}).to_string(), "niah: missing field"),
            (json!({"niah": 3}).to_string(), "niah: invalid type"),
            (with("needle", json!("{key} is")), "niah: needle lacks {value}"),
            (with("noise", json!("{context}")), "noise has {context}"),
            (with("noise", json!(7)), "niah: invalid type"),
            (with("other", json!("")), "unknown field `other`"),
        ] {
            let error = Templates::of(&file, Path::new("folder/file.json")).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(why) && error.contains("file.json"), "{error}");
        }
    }
}
