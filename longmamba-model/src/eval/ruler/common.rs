//! Common words: a numbered list in which ten words come again more often than all others.

use super::fit::Sizes;
use super::make::{Draw, Prompt};
use super::template::{WordsTemplate, fill};
use super::words::{Fresh, Words};
use crate::Result;
use fastrand::Rng;

/// Words that are asked for.
const COMMON: usize = 10;

/// Makes the samples of this task.
#[derive(Debug)]
pub(super) struct CommonWords<'a> {
    pub template: &'a WordsTemplate,
    pub words: Words,
    /// Shuffles the list, in every sample the same way.
    pub order: Rng,
    pub example: List,
    pub list: List,
}

/// How often the words of a list come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct List {
    /// Distinct words, for lists that have no size of their own.
    pub words: usize,
    /// How often a common word comes.
    pub common: usize,
    /// How often another word comes.
    pub uncommon: usize,
}

impl List {
    /// The list of the example, and of the sample, in samples of at most `length` tokens.
    pub fn pair(length: usize) -> (List, List) {
        let list = |words, common, uncommon| List { words, common, uncommon };
        match length {
            0..4096 => (list(20, 3, 1), list(0, 6, 1)),
            _ => (list(40, 10, 3), list(0, 30, 3)),
        }
    }
}

impl CommonWords<'_> {
    fn ask(&self, list: List, words: usize, random: &mut Rng) -> Prompt {
        let mut fresh = Fresh::default();
        let mut distinct: Vec<String> = Vec::with_capacity(words);
        while distinct.len() < words {
            let word = fresh.draw(|attempt| self.words.word(attempt, random));
            // A common word inside another would be found in an answer that does not have it.
            let common = &distinct[..distinct.len().min(COMMON)];
            if !common.iter().any(|c| c.contains(&word) || word.contains(c)) {
                distinct.push(word);
            }
        }
        let (common, uncommon) = distinct.split_at(COMMON.min(words));
        let mut all = vec![common; list.common].concat();
        all.extend(vec![uncommon; list.uncommon].concat());
        self.order.clone().shuffle(&mut all);
        let numbered: Vec<String> =
            all.iter().zip(1..).map(|(word, number)| format!("{number}. {word}")).collect();
        Prompt {
            input: fill(&self.template.template, &[("context", &numbered.join(" "))]),
            answer_prefix: self.template.answer_prefix.clone(),
            outputs: common.to_vec(),
        }
    }
}

impl Draw for CommonWords<'_> {
    fn sizes(&self) -> Sizes {
        Sizes { least: COMMON, step: 1, shrink: COMMON }
    }

    fn draw(&self, size: usize, _index: usize, random: &mut Rng) -> Result<Prompt> {
        let example = self.ask(self.example, self.example.words, random);
        let Prompt { input, answer_prefix, outputs } = self.ask(self.list, size, random);
        let answer: String =
            example.outputs.iter().zip(1..).map(|(word, n)| format!(" {n}. {word}")).collect();
        let input = format!("{}{}{answer}\n{input}", example.input, example.answer_prefix);
        Ok(Prompt { input, answer_prefix, outputs })
    }
}
