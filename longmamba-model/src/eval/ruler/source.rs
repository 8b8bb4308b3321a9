//! Texts from outside, in the schemas in which they are published, and stand-ins for them.

use super::task::Source;
use super::words::{Fresh, stream};
use crate::eval::prose::plain;
use crate::{Error, Result};
use fastrand::Rng;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// The files that the caller has; a stand-in takes the place of each other one.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A haystack.
    pub essays: Option<Essays>,
    /// Questions on single paragraphs.
    pub squad: Option<Questions>,
    /// Questions that need two documents.
    pub hotpotqa: Option<Questions>,
}

impl Sources {
    /// Whether the caller has this one.
    pub fn has(&self, source: Source) -> bool {
        match source {
            Source::Essays => self.essays.is_some(),
            Source::Squad => self.squad.is_some(),
            Source::HotpotQa => self.hotpotqa.is_some(),
        }
    }
}

/// Prose as words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Essays(Vec<String>);

impl Essays {
    /// Reads `{"text": …}`; white space between words becomes one space.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] for another JSON, or a text without a word.
    pub fn read(path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct File {
            text: String,
        }
        let File { text } = parse(path, "an object with \"text\"")?;
        let essays = Self::of(&text);
        if essays.0.is_empty() {
            return Err(Error::malformed(path, "the text has no word"));
        }
        Ok(essays)
    }

    fn of(text: &str) -> Self {
        Essays(text.split_whitespace().map(str::to_owned).collect())
    }

    /// At least `words` words of made-up sentences.
    pub(super) fn standin(words: usize) -> Self {
        Self::of(&plain(words, 0))
    }

    /// The first `count` words, beginning again where they end.
    pub(super) fn words(&self, count: usize) -> Vec<&str> {
        self.0.iter().cycle().take(count).map(String::as_str).collect()
    }
}

/// Questions, and the documents that answer them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Questions {
    pub(super) documents: Vec<String>,
    pub(super) questions: Vec<Question>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub text: String,
    pub answers: Vec<String>,
    /// Documents that are always there.
    pub own: Vec<usize>,
    /// Documents that come before any others.
    pub near: Vec<usize>,
}

impl Questions {
    /// How many questions there are.
    pub fn len(&self) -> usize {
        self.questions.len()
    }

    /// Whether there is none; what was read has one at least.
    pub fn is_empty(&self) -> bool {
        self.questions.is_empty()
    }

    /// Reads SQuAD v2.0's JSON. A paragraph is a document; the others of its article are near. What has
    /// no answer is left out.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] for another JSON, or one without an answered question.
    pub fn squad(path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct File {
            data: Vec<Article>,
        }
        #[derive(Deserialize)]
        struct Article {
            paragraphs: Vec<Paragraph>,
        }
        #[derive(Deserialize)]
        struct Paragraph {
            context: String,
            qas: Vec<Qa>,
        }
        #[derive(Deserialize)]
        struct Qa {
            question: String,
            #[serde(default)]
            is_impossible: bool,
            answers: Vec<Answer>,
        }
        #[derive(Deserialize)]
        struct Answer {
            text: String,
        }
        let File { data } = parse(path, "SQuAD v2.0's JSON")?;
        let mut documents = Documents::default();
        let mut questions = Vec::new();
        for article in data {
            let indexes: Vec<usize> =
                article.paragraphs.iter().map(|p| documents.index(&p.context)).collect();
            for (paragraph, &index) in article.paragraphs.into_iter().zip(&indexes) {
                let mut near: Vec<usize> = indexes.clone();
                near.sort_unstable();
                near.dedup();
                near.retain(|&other| other != index);
                let asked = paragraph.qas.into_iter().filter(|qa| !qa.is_impossible);
                questions.extend(asked.map(|qa| Question {
                    text: qa.question,
                    answers: qa.answers.into_iter().map(|a| a.text).collect(),
                    own: vec![index],
                    near: near.clone(),
                }));
            }
        }
        Self::of(documents, questions, path)
    }

    /// Reads HotpotQA's JSON (distractor setting). A document is a title and its sentences.
    ///
    /// # Errors
    /// As [`Questions::squad`].
    pub fn hotpotqa(path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Item {
            question: String,
            answer: String,
            context: Vec<(String, Vec<String>)>,
        }
        let items: Vec<Item> = parse(path, "HotpotQA's JSON")?;
        let mut documents = Documents::default();
        let questions = items
            .into_iter()
            .map(|item| {
                let document = |(title, sentences): &(String, Vec<String>)| {
                    documents.index(&format!("{title}\n{}", sentences.concat()))
                };
                let mut own: Vec<usize> = item.context.iter().map(document).collect();
                own.sort_unstable();
                own.dedup();
                let answers = vec![item.answer];
                Question { text: item.question, answers, own, near: Vec::new() }
            })
            .collect();
        Self::of(documents, questions, path)
    }

    fn of(documents: Documents, mut questions: Vec<Question>, path: &Path) -> Result<Self> {
        for question in &mut questions {
            question.answers.retain(|answer| !answer.trim().is_empty());
        }
        questions.retain(|q| !q.answers.is_empty() && !q.own.is_empty());
        if questions.is_empty() {
            return Err(Error::malformed(path, "there is no question with an answer"));
        }
        Ok(Questions { documents: documents.all, questions })
    }

    /// Made-up towns, mayors and birthplaces. With `hops` a question needs the document of the town
    /// and that of its mayor, otherwise the town's alone.
    pub(super) fn standin(hops: bool) -> Self {
        const TOWNS: usize = 1000;
        let mut random = stream(0, &[]);
        let mut fresh = Fresh::default();
        let mut name = || fresh.draw(|attempt| made_up(3 + attempt / 8, &mut random));
        let mut all = Questions { documents: Vec::new(), questions: Vec::new() };
        for town in 0..TOWNS {
            let (place, mayor, born) = (name(), format!("{} {}", name(), name()), name());
            let (of_town, of_mayor) = (all.documents.len(), all.documents.len() + 1);
            all.documents.extend([
                format!("{place}\nThe mayor of {place} is {mayor}. {}", plain(30, town as u64)),
                format!(
                    "{mayor}\n{mayor} was born in {born}. {}",
                    plain(30, (TOWNS + town) as u64)
                ),
            ]);
            let (text, answers, own) = match hops {
                true => (
                    format!("Where was the mayor of {place} born?"),
                    vec![born],
                    vec![of_town, of_mayor],
                ),
                false => (format!("Who is the mayor of {place}?"), vec![mayor], vec![of_town]),
            };
            all.questions.push(Question { text, answers, own, near: Vec::new() });
        }
        all
    }
}

/// A capitalised name of so many syllables.
fn made_up(syllables: usize, random: &mut Rng) -> String {
    let mut name = String::new();
    for index in 0..syllables {
        let consonant = *b"bdfgklmnprstvz".get(random.usize(..14)).unwrap_or(&b'n');
        let consonant = if index == 0 { consonant.to_ascii_uppercase() } else { consonant };
        let vowel = *b"aeiou".get(random.usize(..5)).unwrap_or(&b'a');
        name.extend([char::from(consonant), char::from(vowel)]);
    }
    name
}

/// Documents, each once.
#[derive(Default)]
struct Documents {
    all: Vec<String>,
    indexes: HashMap<String, usize>,
}

impl Documents {
    fn index(&mut self, document: &str) -> usize {
        if let Some(&index) = self.indexes.get(document) {
            return index;
        }
        self.indexes.insert(document.to_owned(), self.all.len());
        self.all.push(document.to_owned());
        self.all.len() - 1
    }
}

fn parse<T: DeserializeOwned>(path: &Path, what: &str) -> Result<T> {
    let bytes = fs::read(path).map_err(Error::io(path))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::malformed(path, format!("not {what}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn file(json: &Value) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), json.to_string()).unwrap();
        file
    }

    #[test]
    fn squad_by_hand() {
        let qa = |question: &str, impossible: bool, answers: &[&str]| {
            let answers: Vec<Value> = answers.iter().map(|a| json!({ "text": a })).collect();
            json!({"question": question, "is_impossible": impossible, "answers": answers})
        };
        let json = json!({"version": "v2.0", "data": [
            {"title": "T", "paragraphs": [
                {"context": "A.", "qas": [qa("a?", false, &["x", "y"]), qa("no?", true, &["z"])]},
                {"context": "B.", "qas": [qa("b?", false, &[]), qa("bb?", false, &["w", " "])]},
            ]},
            {"title": "U", "paragraphs": [{"context": "A.", "qas": []}]},
        ]});
        let questions = Questions::squad(file(&json).path()).unwrap();
        assert_eq!(questions.documents, ["A.", "B."]);
        let question = |text: &str, answers: &[&str], own: usize, near: usize| Question {
            text: text.into(),
            answers: answers.iter().map(|a| a.to_string()).collect(),
            own: vec![own],
            near: vec![near],
        };
        let expected = [question("a?", &["x", "y"], 0, 1), question("bb?", &["w"], 1, 0)];
        assert_eq!(questions.questions, expected);
    }

    #[test]
    fn hotpotqa_by_hand() {
        let json = json!([
            {"question": "q?", "answer": "yes", "type": "x", "context":
                [["One", ["A. ", "B."]], ["Two", []], ["One", ["A. ", "B."]]]},
            {"question": "none?", "answer": "", "context": [["One", []]]},
        ]);
        let questions = Questions::hotpotqa(file(&json).path()).unwrap();
        assert_eq!(questions.documents, ["One\nA. B.", "Two\n", "One\n"]);
        assert_eq!(questions.questions.len(), 1);
        assert_eq!(questions.questions[0].own, [0, 1]);
    }

    #[test]
    fn wrong_files_say_what_is_wrong() {
        type Read = fn(&Path) -> Result<()>;
        let squad: Read = |path| Questions::squad(path).map(|_| ());
        let hotpotqa: Read = |path| Questions::hotpotqa(path).map(|_| ());
        let essays: Read = |path| Essays::read(path).map(|_| ());
        for (read, json, why) in [
            (squad, json!([]), "not SQuAD"),
            (squad, json!({"data": [{"paragraphs": [{"context": 3}]}]}), "not SQuAD"),
            (squad, json!({"data": []}), "no question"),
            (hotpotqa, json!({}), "not HotpotQA"),
            (hotpotqa, json!([]), "no question"),
            (hotpotqa, json!([{"question": "", "answer": "a", "context": []}]), "no question"),
            (essays, json!("text"), "an object with \"text\""),
            (essays, json!({"text": " \n"}), "has no word"),
        ] {
            let file = file(&json);
            let error = read(file.path()).unwrap_err().to_string();
            let name = file.path().display().to_string();
            assert!(error.contains(why) && error.contains(&name), "{error}");
            fs::write(file.path(), "{\"data\": [").unwrap();
            assert!(read(file.path()).unwrap_err().to_string().contains("line 1"));
            let gone = file.path().with_extension("gone");
            assert!(matches!(read(&gone), Err(Error::Io { path, .. }) if path == gone));
        }
    }

    #[test]
    fn stand_ins_answer_their_questions_in_one_place() {
        for hops in [false, true] {
            let set = Questions::standin(hops);
            assert_eq!(set, Questions::standin(hops));
            for question in &set.questions {
                let [answer] = &question.answers[..] else { panic!("one answer") };
                let with = set.documents.iter().enumerate().filter(|(_, d)| d.contains(&**answer));
                let with: Vec<usize> = with.map(|(index, _)| index).collect();
                assert!(question.own.iter().any(|own| with.contains(own)));
                assert!(with.len() <= 2, "{question:?}");
                assert_eq!(question.own.len(), 1 + usize::from(hops));
            }
        }
        let essays = Essays(vec!["a".into(), "b".into()]);
        assert_eq!(essays.words(5), ["a", "b", "a", "b", "a"]);
        assert!(Essays::standin(700).0.len() >= 700);
    }
}
