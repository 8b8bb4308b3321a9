//! Mamba-1 and Mamba-2 language models on long contexts, without a framework.
//!
//! Load a checkpoint, read a prompt of any length in constant memory, generate. With a calibrated
//! LongMamba plan a model keeps what it read far past its training length.

mod backend;
#[cfg(feature = "builtin")]
pub mod builtin;
pub mod calibrate;
mod checkpoint;
mod config;
mod error;
pub mod eval;
mod files;
mod generate;
mod json;
mod mixer;
mod mmap;
mod model;
mod plan_io;
mod sample;
mod session;
mod snapshot;
mod tokenizer;
pub mod verify;
mod workspace;

pub use backend::{
    Backend, Columns, Conv, CpuBackend, DeltaSums, Linear, Recurrence, ScanInputs, SsdStageInputs,
};
pub use checkpoint::LoadOptions;
pub use config::{Config, MixerConfig, TokenizerKind};
pub use error::{Error, Result};
pub use files::write_whole;
pub use generate::{Ended, GenerateOptions, Generated, Timing, decode, generate, prefill_file};
pub use longmamba_core::policy;
pub use longmamba_cpu::Cpu;
pub use model::{Model, WeightCount};
pub use plan_io::{read_plan, write_plan};
pub use sample::{SampleOptions, Sampler, most_likely};
pub use session::{Session, SessionOptions};
pub use tokenizer::{Text, TextStream, Tokenizer};
