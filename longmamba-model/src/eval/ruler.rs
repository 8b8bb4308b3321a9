//! RULER (Hsieh et al., arXiv 2404.06654): thirteen kinds of questions on contexts of any length.
//!
//! [`Generator`] makes the samples of a [`Task`] as the official generators do: the same parameters, the
//! same places for needles, as much context as fits the length with the model's own tokenizer. The words
//! are this library's own; [`Templates::read`] takes others. Essays, SQuAD and HotpotQA are read from the
//! caller's files ([`Sources`]); a stand-in takes the place of what is missing. [`read_samples`] reads what the
//! official generators wrote.
//!
//! Two things are otherwise than in the official code. A sample depends on its own number and the seed
//! alone, so that any part of a run can be made again; and a length that has no room for the smallest
//! sample is an error, not an endless loop.

mod answer;
mod common;
mod fit;
mod frequent;
mod haystack;
mod jsonl;
mod make;
mod niah;
mod qa;
mod source;
mod task;
mod template;
mod variables;
mod words;

pub use answer::{Answer, answer};
pub use jsonl::{Sample, read_samples, write_samples};
pub use make::{Count, Generator};
pub use source::{Essays, Questions, Sources};
pub use task::{Haystack, Kind, Niah, Source, TASKS, Task, Word};
pub use template::Templates;
