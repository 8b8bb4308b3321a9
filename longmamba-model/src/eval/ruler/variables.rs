//! Variable tracking: a chain of variables, each set to the one before it.

use super::fit::{Sizes, fit};
use super::haystack::among_lines;
use super::make::{Count, Draw, Prompt};
use super::template::{VariablesTemplate, fill};
use super::words::{Fresh, letters};
use crate::Result;
use fastrand::Rng;

/// Variables of the chain: one gets a number, the others get it from it in four hops.
const CHAIN: usize = 5;

/// Letters of a variable in a sample, and in its example.
const NAME: usize = 5;
const EXAMPLE_NAME: usize = 3;

/// Tokens of the example, without its answer. Where not even its smallest haystack has so few, it
/// takes more.
const EXAMPLE_TOKENS: usize = 500;

/// Makes the samples of this task.
#[derive(Debug)]
pub(super) struct Variables<'a> {
    template: &'a VariablesTemplate,
    /// Lines that the haystack grows by.
    unit: usize,
    /// The places of the example's chain, the same in all samples.
    example: Rng,
    example_size: usize,
}

impl<'a> Variables<'a> {
    /// Fits the example to its length.
    pub fn new(
        template: &'a VariablesTemplate,
        unit: usize,
        example: Rng,
        count: Count<'_>,
    ) -> Result<Self> {
        let mut this = Variables { template, unit, example, example_size: unit };
        let probe = |size| {
            let names = Names::draw(EXAMPLE_NAME, &mut this.example.clone());
            let prompt = this.ask(&names, size, &mut this.example.clone());
            count(&(prompt.input + &prompt.answer_prefix))
        };
        if let Some(size) = fit(this.sizes(), EXAMPLE_TOKENS, probe)? {
            this.example_size = size;
        }
        Ok(this)
    }

    fn ask(&self, names: &Names, size: usize, random: &mut Rng) -> Prompt {
        let template = self.template;
        let sources = [&names.number].into_iter().chain(&names.variables);
        let set: Vec<String> = names
            .variables
            .iter()
            .zip(sources)
            .enumerate()
            .map(|(index, (key, value))| {
                let sentence = if index == 0 { &template.assign } else { &template.copy };
                fill(sentence, &[("key", key), ("value", value)])
            })
            .collect();
        let context = among_lines(&vec![template.noise.clone(); size], &set, random);
        let count = CHAIN.to_string();
        let values = [("context", &*context), ("query", &*names.number), ("num_v", &*count)];
        Prompt {
            input: fill(&template.template, &values),
            answer_prefix: fill(&template.answer_prefix, &values),
            outputs: names.variables.clone(),
        }
    }
}

/// The number, and the variables that have it.
struct Names {
    number: String,
    variables: Vec<String>,
}

impl Names {
    fn draw(length: usize, random: &mut Rng) -> Self {
        let mut fresh = Fresh::default();
        let mut variable = |_| fresh.draw(|_| letters(length, b'A', random));
        let variables = (0..CHAIN).map(&mut variable).collect();
        Names { variables, number: random.u32(10_000..=99_998).to_string() }
    }
}

impl Draw for Variables<'_> {
    fn sizes(&self) -> Sizes {
        Sizes { least: self.unit, step: 1, shrink: self.unit }
    }

    fn draw(&self, size: usize, _index: usize, random: &mut Rng) -> Result<Prompt> {
        let names = Names::draw(NAME, random);
        let mut others = Names::draw(EXAMPLE_NAME, random);
        while others.number == names.number {
            others = Names::draw(EXAMPLE_NAME, random);
        }
        let example = self.ask(&others, self.example_size, &mut self.example.clone());
        let Prompt { input, answer_prefix, outputs } = self.ask(&names, size, random);
        let input = format!(
            "{}{} {}\n\n{input}",
            example.input,
            example.answer_prefix,
            example.outputs.join(" ")
        );
        Ok(Prompt { input, answer_prefix, outputs })
    }
}
