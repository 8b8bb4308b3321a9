//! A model's answers.

use super::Sample;
use crate::backend::Backend;
use crate::generate::{GenerateOptions, decode};
use crate::model::Model;
use crate::sample::{SampleOptions, Sampler};
use crate::session::SessionOptions;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::sync::Arc;

/// How prompts are read and answers written. By default as LongMamba's code does, but for spaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PredictOptions {
    /// The middle of longer prompts is [cut out](cut_middle); `None` for no limit.
    pub max_prompt: Option<usize>,
    /// An answer of `samsum` ends before its second line, as in LongBench's own code; it has one token at
    /// least.
    pub samsum_newline: bool,
    /// Answers go through [`clean_up_spaces`], as LongMamba's tokenizer has it.
    pub clean_up_spaces: bool,
}

/// An answer, with what it is scored against: a line as LongBench writes them, and two numbers more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The answer.
    pub pred: String,
    /// The right ones.
    pub answers: Vec<String>,
    /// Among what classes it is, where it is one.
    pub all_classes: Option<Vec<String>>,
    /// How long the text is, as LongBench counts.
    pub length: u64,
    /// Tokens of the prompt as it was read.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub new_tokens: usize,
}

/// Has a model answer greedily, without special tokens or a chat template, until it ends its text or the
/// sample's number of tokens is reached.
///
/// # Errors
/// As [`Session::prefill`](crate::Session::prefill), [`decode`](fn@crate::decode) and [`cut_middle`].
pub fn predict<B: Backend>(
    model: &Arc<Model<B>>,
    tokenizer: &Tokenizer,
    sample: &Sample,
    options: PredictOptions,
    session: &SessionOptions,
) -> Result<Prediction> {
    let mut prompt = tokenizer.encode(sample.prompt.as_bytes())?;
    if let Some(most) = options.max_prompt
        && let Some(shorter) = cut_middle(tokenizer, &prompt, most)?
    {
        prompt = shorter;
    }
    let mut session = model.session(session.clone())?;
    session.prefill(&prompt)?;

    let mut until = GenerateOptions::new(model, sample.max_new);
    let mut new = Vec::new();
    if options.samsum_newline && sample.dataset.name == "samsum" {
        until.stop.extend(tokenizer.encode(b"\n")?.last());
        // The first token may be none of those that end an answer.
        let banned = SampleOptions { banned: until.stop.clone(), ..SampleOptions::default() };
        let token = Sampler::new(banned)?.sample(session.logits())?;
        new.push(token);
        session.step(token)?;
        until.max_new -= 1;
    }
    let mut greedy = Sampler::new(SampleOptions::default())?;
    decode(&mut session, &mut greedy, &until, |token| {
        new.push(token);
        ControlFlow::Continue(())
    })?;
    let text = tokenizer.decode(&new)?;
    Ok(Prediction {
        pred: if options.clean_up_spaces { clean_up_spaces(&text) } else { text },
        answers: sample.answers.clone(),
        all_classes: sample.all_classes.clone(),
        length: sample.length,
        prompt_tokens: prompt.len(),
        new_tokens: new.len(),
    })
}

/// Of more than `most` tokens, the first ⌊most/2⌋ and as many from the end, turned to text, put together
/// and turned to tokens again, as LongBench does; so they may be a few more or less. `None` where there
/// are no more.
///
/// # Errors
/// [`Error::Argument`] where `most` is below 2; [`Error::Tokenizer`].
pub fn cut_middle(tokenizer: &Tokenizer, tokens: &[u32], most: usize) -> Result<Option<Vec<u32>>> {
    let half = most / 2;
    if half == 0 {
        return Err(Error::argument(format!(
            "prompts are cut to {most} tokens, must be at least 2"
        )));
    }
    if tokens.len() <= most {
        return Ok(None);
    }
    let (first, last) = (&tokens[..half], &tokens[tokens.len() - half..]);
    let text = tokenizer.decode(first)? + &tokenizer.decode(last)?;
    tokenizer.encode(text.as_bytes()).map(Some)
}

/// Takes out the spaces before `.`, `?`, `!`, `,`, `n't`, `'m`, `'s`, `'ve` and `'re`, and those around a
/// lone `'`: the option `clean_up_tokenization_spaces` of Hugging Face's tokenizers.
pub fn clean_up_spaces(text: &str) -> String {
    // One after the other, in this order.
    const CHANGES: [(&str, &str); 10] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    CHANGES.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}
