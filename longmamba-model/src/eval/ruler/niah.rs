//! Needles in a haystack: values of keys, told in a long text.

use super::fit::Sizes;
use super::haystack::{among_lines, among_sentences};
use super::make::{Draw, Prompt};
use super::source::Essays;
use super::task::{Haystack, Niah, Word};
use super::template::{NiahTemplate, fill};
use super::words::{Fresh, Words};
use crate::Result;
use fastrand::Rng;
use std::borrow::Cow;

/// Makes the samples of a task of this kind.
#[derive(Debug)]
pub(super) struct Needles<'a> {
    pub task: Niah,
    pub template: &'a NiahTemplate,
    pub words: Words,
    /// Read by tasks whose haystack they are.
    pub essays: Cow<'a, Essays>,
    /// Lines that a haystack of lines grows by.
    pub unit: usize,
    /// Shuffles the needles, in every sample the same way.
    pub order: Rng,
}

/// Words that a haystack of essays grows by.
const ESSAY_UNIT: usize = 500;

impl Draw for Needles<'_> {
    fn sizes(&self) -> Sizes {
        let unit = match self.task.haystack {
            Haystack::Essays => ESSAY_UNIT,
            Haystack::Noise | Haystack::Needles => self.unit,
        };
        Sizes { least: unit, step: 1, shrink: unit }
    }

    fn draw(&self, size: usize, _index: usize, random: &mut Rng) -> Result<Prompt> {
        let Niah { haystack, key, value, values, queries, .. } = self.task;
        let (mut keys, mut all_values) = (Fresh::default(), Fresh::default());
        // A key, and its values.
        let mut fact = |values: usize, random: &mut Rng| {
            let key = keys.draw(|attempt| self.words.draw(key, attempt, random));
            let value = |_| all_values.draw(|attempt| self.words.draw(value, attempt, random));
            (key, (0..values).map(value).collect::<Vec<_>>())
        };
        let facts: Vec<_> = (0..self.task.all_keys()).map(|_| fact(values, random)).collect();
        let mut needles: Vec<String> = facts
            .iter()
            .flat_map(|(key, values)| values.iter().map(|value| self.needle(key, value)))
            .collect();
        self.order.clone().shuffle(&mut needles);
        let context = match haystack {
            Haystack::Noise => {
                among_lines(&vec![self.template.noise.clone(); size], &needles, random)
            }
            Haystack::Needles => {
                let mut others = Vec::with_capacity(size);
                for _ in 0..size {
                    let (key, values) = fact(1, random);
                    others.push(self.needle(&key, &values.concat()));
                }
                among_lines(&others, &needles, random)
            }
            Haystack::Essays => among_sentences(&self.essays.words(size), &needles, random),
        };
        let mut asked = random.choose_multiple(facts, queries);
        random.shuffle(&mut asked);
        let names: Vec<&str> = asked.iter().map(|(key, _)| key.as_str()).collect();
        let query = enumerated(&names);
        let one = values * queries == 1;
        let fill = |sentence: &str| {
            let (sentence, kind) = match one {
                true => (singular(sentence), self.plural().trim_end_matches('s')),
                false => (sentence.to_owned(), self.plural()),
            };
            let filled =
                [("context", context.as_str()), ("query", &query), ("type_needle_v", kind)];
            fill(&sentence, &filled)
        };
        Ok(Prompt {
            input: fill(&self.template.template),
            answer_prefix: fill(&self.template.answer_prefix),
            outputs: asked.iter().flat_map(|(_, values)| values.clone()).collect(),
        })
    }
}

impl Needles<'_> {
    fn plural(&self) -> &'static str {
        match self.task.value {
            Word::Words => "words",
            Word::Number => "numbers",
            Word::Uuid => "uuids",
        }
    }

    fn needle(&self, key: &str, value: &str) -> String {
        let values = [("key", key), ("value", value), ("type_needle_v", self.plural())];
        fill(&self.template.needle, &values)
    }
}

/// A sentence about several values, made one about a single value.
fn singular(sentence: &str) -> String {
    let rules = [("Some", "A"), ("are all", "is"), ("are", "is"), ("answers", "answer")];
    rules.iter().fold(sentence.to_owned(), |sentence, (from, to)| sentence.replace(from, to))
}

/// `a`, or `a, b, and c`.
fn enumerated(names: &[&str]) -> String {
    match names {
        [first @ .., last] if !first.is_empty() => format!("{}, and {last}", first.join(", ")),
        names => names.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_for_one_and_names_for_many() {
        assert_eq!(singular("Some are here. What are all answers?"), "A is here. What is answer?");
        assert_eq!(enumerated(&[]), "");
        assert_eq!(enumerated(&["a"]), "a");
        assert_eq!(enumerated(&["a", "b"]), "a, and b");
        assert_eq!(enumerated(&["a", "b", "c", "d"]), "a, b, c, and d");
    }
}
