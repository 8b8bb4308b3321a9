//! Questions on documents, among many other documents.

use super::fit::Sizes;
use super::make::{Draw, Prompt};
use super::source::{Question, Questions};
use super::template::{QaTemplate, fill};
use crate::{Error, Result};
use fastrand::Rng;
use std::borrow::Cow;
use std::collections::HashSet;

/// Documents that a sample grows by.
const UNIT: usize = 10;

/// Makes the samples of a task of this kind; sample i asks question i.
#[derive(Debug)]
pub(super) struct Documents<'a> {
    pub name: &'static str,
    pub template: &'a QaTemplate,
    pub questions: Cow<'a, Questions>,
    /// Shuffles the documents, in every sample the same way.
    pub order: Rng,
}

impl Draw for Documents<'_> {
    fn sizes(&self) -> Sizes {
        Sizes { least: UNIT, step: 1, shrink: UNIT }
    }

    fn samples(&self) -> Option<usize> {
        Some(self.questions.len())
    }

    fn draw(&self, size: usize, index: usize, random: &mut Rng) -> Result<Prompt> {
        let Some(question) = self.questions.questions.get(index) else {
            return Err(Error::argument(format!(
                "{} has {} questions, so there is no sample {index}; ask for fewer samples",
                self.name,
                self.questions.len()
            )));
        };
        let mut chosen = self.choose(question, size, random);
        self.order.clone().shuffle(&mut chosen);
        let documents: Vec<String> = chosen
            .iter()
            .zip(1..)
            .map(|(&document, number)| {
                let (number, text) = (number.to_string(), &self.questions.documents[document]);
                fill(&self.template.document, &[("key", &number), ("value", text)])
            })
            .collect();
        let values = [("context", &*documents.join("\n\n")), ("query", &question.text)];
        Ok(Prompt {
            input: fill(&self.template.template, &values),
            answer_prefix: fill(&self.template.answer_prefix, &values),
            outputs: question.answers.clone(),
        })
    }
}

impl Documents<'_> {
    /// The question's own documents, as many near ones as there is room for, then any others; more than
    /// there are begin again.
    fn choose(&self, question: &Question, size: usize, random: &mut Rng) -> Vec<usize> {
        let mut chosen = question.own.clone();
        let room = |chosen: &Vec<usize>| size.saturating_sub(chosen.len());
        chosen.extend(random.choose_multiple(question.near.iter().copied(), room(&chosen)));
        let used: HashSet<usize> = chosen.iter().copied().collect();
        let others = (0..self.questions.documents.len()).filter(|index| !used.contains(index));
        chosen.extend(random.choose_multiple(others, room(&chosen)));
        for index in 0..room(&chosen) {
            chosen.push(chosen[index]);
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_documents_then_near_ones_then_others_then_again() {
        let template =
            QaTemplate { template: "".into(), answer_prefix: "".into(), document: "".into() };
        let question =
            Question { text: "".into(), answers: vec![], own: vec![2], near: vec![0, 4] };
        let documents = vec![String::new(); 6];
        let questions = Questions { documents, questions: vec![question.clone()] };
        let questions = Cow::Borrowed(&questions);
        let task = Documents { name: "qa", template: &template, questions, order: Rng::new() };
        let mut random = Rng::with_seed(1);
        for size in 0..20 {
            let chosen = task.choose(&question, size, &mut random);
            assert_eq!(chosen.len(), size.max(1));
            assert_eq!(chosen[0], 2);
            let near = chosen.iter().take(3).filter(|i| [0, 4].contains(i)).count();
            assert_eq!(near, size.saturating_sub(1).min(2));
            let distinct: HashSet<_> = chosen.iter().collect();
            assert_eq!(distinct.len(), size.clamp(1, 6));
        }
        let error = task.draw(10, 1, &mut random).unwrap_err().to_string();
        assert!(error.contains("qa has 1 questions") && error.contains("sample 1"), "{error}");
    }
}
