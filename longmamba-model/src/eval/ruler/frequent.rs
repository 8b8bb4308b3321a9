//! Frequent words: code words whose frequencies follow a power law.

use super::fit::Sizes;
use super::make::{Draw, Prompt};
use super::template::{WordsTemplate, fill};
use super::words::{Fresh, letters};
use crate::Result;
use fastrand::Rng;
use std::f64::consts::PI;

/// Letters of a code word.
const LETTERS: usize = 6;

/// Stands for the most frequent word, which is not asked for.
const DOTS: &str = "...";

/// The ranks that are asked for are 2 to this one.
const LAST_RANK: usize = 4;

/// Makes the samples of this task.
#[derive(Debug)]
pub(super) struct FrequentWords<'a> {
    pub template: &'a WordsTemplate,
    /// Tokens of a sample without its answer.
    pub tokens: usize,
}

/// How often the word of `rank` comes among `words`: ⌊words · rank^−2 / ζ(2)⌋.
fn count(words: usize, rank: usize) -> usize {
    (words as f64 / (rank * rank) as f64 / (PI * PI / 6.0)) as usize
}

impl Draw for FrequentWords<'_> {
    /// The official sizes: a sixth of the tokens, and thirty-second parts of them more or less.
    fn sizes(&self) -> Sizes {
        let step = (self.tokens / 32).max(1);
        let middle = self.tokens / 6;
        Sizes { least: middle - (middle / step).min(5) * step, step, shrink: step }
    }

    fn draw(&self, size: usize, _index: usize, random: &mut Rng) -> Result<Prompt> {
        // Fewer words than that would not tell which ranks are asked for.
        let clear = |&size: &usize| count(size, LAST_RANK) > count(size, LAST_RANK + 1);
        let size = (size..).find(clear).unwrap_or(size);
        let vocabulary = (self.tokens / 50).max(LAST_RANK);
        let mut fresh = Fresh::default();
        let mut words: Vec<String> = vec![DOTS.into()];
        words.resize_with(vocabulary, || fresh.draw(|_| letters(LETTERS, b'a', random)));
        let mut coded: Vec<&str> = words
            .iter()
            .zip(1..)
            .flat_map(|(word, rank)| std::iter::repeat_n(word.as_str(), count(size, rank)))
            .collect();
        random.shuffle(&mut coded);
        Ok(Prompt {
            input: fill(&self.template.template, &[("context", &coded.join(" "))]),
            answer_prefix: self.template.answer_prefix.clone(),
            outputs: words[1..LAST_RANK].to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_hand() {
        // 6 / π² of 1000 is 607.9; a fourth, a ninth, a sixteenth of it.
        assert_eq!([1, 2, 3, 4].map(|rank| count(1000, rank)), [607, 151, 67, 37]);
        assert_eq!(count(1, 1), 0);
    }

    #[test]
    fn sizes_are_whole_steps_around_the_middle() {
        let template = WordsTemplate { template: "{context}".into(), answer_prefix: "".into() };
        for tokens in [0, 1, 5, 31, 200, 974, 1998, 131_022] {
            let task = FrequentWords { template: &template, tokens };
            let Sizes { least, step, .. } = task.sizes();
            assert_eq!((tokens / 6 - least) % step, 0);
            let prompt = task.draw(least, 0, &mut Rng::with_seed(1)).unwrap();
            let times = |word: &str| prompt.input.split(' ').filter(|w| *w == word).count();
            let asked: Vec<usize> = prompt.outputs.iter().map(|w| times(w)).collect();
            assert!(asked.len() == 3 && asked.is_sorted_by(|a, b| a >= b) && asked[2] > 0);
        }
    }
}
