//! Mamba-1 and Mamba-2 language models on long contexts, without a framework.
//!
//! Load a checkpoint, read a prompt of any length in constant memory, generate. With a calibrated
//! LongMamba plan (arXiv 2504.16053) a model keeps what it read far past its training length.
//!
//! * [`Model`] — a Hugging Face folder of the `mamba` or `mamba2` family, its weights used in place from
//!   the memory map.
//! * [`Session`] — the state of one sequence: chunked prefill, steps, forks, snapshots.
//! * [`calibrate`] and [`policy::Plan`] — which channels are global, and what they may forget.
//! * [`generate`](fn@generate), [`Sampler`] and [`Tokenizer`] — from text to text.
//! * [`eval`] and [`verify`] — perplexity, recall, passkeys, and reference logits.
//! * [`Backend`] — what a device must be able to do; [`CpuBackend`] is one.
//!
#![cfg_attr(feature = "builtin", doc = "```")]
#![cfg_attr(not(feature = "builtin"), doc = "```ignore")]
//! use longmamba_model::{CpuBackend, SessionOptions, builtin, most_likely};
//! use std::sync::Arc;
//!
//! let small = builtin::find("mamba2-tiny").expect("it is built in");
//! let model = small.model(CpuBackend::new(None)?)?;
//! // A token of this model is a byte. The prompt tells it a fact, and asks for it at the end.
//! let prompt: Vec<u32> = b"She had <K=m>said so. The <K=".iter().map(|&b| b.into()).collect();
//! let options = SessionOptions { plan: Some(Arc::new(small.plan()?)), ..Default::default() };
//! let mut session = model.session(options)?;
//! session.prefill(&prompt)?;
//! let (token, _margin) = most_likely(session.logits())?;
//! assert_eq!(token, u32::from(b'm'));
//! # Ok::<(), longmamba_model::Error>(())
//! ```
//!
//! No global state, no printing, and no panic on bad input: every [`Error`] names the file, the tensor or
//! the argument at fault.
//!
//! # Features
//! All are off by default. `cli`: the `longmamba` command. `builtin`: two small trained models and their
//! plans, 1.4 MB. `tokenizers`: reads `tokenizer.json`. `download`: fetches models into the local Hugging
//! Face cache.

mod attention;
mod backend;
mod batch;
#[cfg(feature = "builtin")]
pub mod builtin;
mod cache;
pub mod calibrate;
mod checkpoint;
mod config;
mod convert;
mod error;
pub mod eval;
mod files;
mod generate;
pub mod hub;
mod import_plan;
mod json;
mod layer;
mod load;
mod mixer;
mod mmap;
mod model;
mod names;
mod plan_io;
mod read;
mod sample;
mod sequence;
mod session;
mod shared;
mod snapshot;
mod tokenizer;
mod torch;
pub mod verify;
mod workspace;

pub use backend::{
    Activation, AttentionInputs, Backend, Columns, ColumnsMut, Conv, CpuBackend, DeltaSums,
    KV_PAGE, Linear, Norm, Recurrence, ScanInputs, SsdStageInputs,
};
pub use batch::Batch;
pub use checkpoint::{Checkpoint, LoadOptions, TensorInfo};
pub use config::{
    AttentionConfig, Config, Format, GateKind, LayerKind, MixerConfig, NormKind, Rope,
    SharedConfig, TokenizerKind,
};
pub use convert::{Converted, convert};
pub use error::{Error, Result};
pub use files::write_whole;
pub use generate::{Ended, GenerateOptions, Generated, Timing, decode, generate, prefill_file};
pub use import_plan::{ImportSettings, import_plan};
pub use longmamba_core::{DType, policy};
pub use longmamba_cpu::Cpu;
pub use model::{Model, WeightCount};
pub use plan_io::{read_plan, write_plan};
pub use sample::{SampleOptions, Sampler, most_likely};
pub use sequence::StateMemory;
pub use session::{Session, SessionOptions};
pub use tokenizer::{Text, TextStream, Tokenizer};

/// Compiles the program in the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
