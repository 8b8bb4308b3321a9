//! Mamba-1, Mamba-2, Falcon-Mamba and Zamba2 language models on long contexts, without a framework.
//!
//! Load a checkpoint, read a prompt of any length in constant memory, generate. With a calibrated
//! LongMamba plan (arXiv 2504.16053) a model keeps what it read far past its training length.
//!
//! * [`Model`] — a checkpoint of any public format, its weights used in place from the memory map.
//! * [`hub`] — models by their id in the local Hugging Face cache.
//! * [`Session`] — the state of one sequence: chunked prefill, steps, forks, snapshots. [`Batch`] — of
//!   several, of any lengths.
//! * [`calibrate`] and [`policy::Plan`] — which channels are global, and what they may forget.
//!   [`import_plan`](fn@import_plan) — the tables that the paper's authors publish.
//! * [`generate`](fn@generate), [`Sampler`] and [`Tokenizer`] — from text to text.
//! * [`eval`] and [`verify`] — perplexity, recall, passkeys, RULER, LongBench, their scores, latency, hidden
//!   attention; and reference logits.
//! * [`Backend`] — what a device must be able to do; [`CpuBackend`] is one, `CudaBackend` another.
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
//! No global state, no printing, and no panic on bad input.
//!
//! # Loading
//! [`Model::load`] takes a folder with `config.json` and the weights, or a file of weights beside its
//! `config.json`. The format is recognised, never asked for:
//!
//! | config | weights | families |
//! |---|---|---|
//! | Hugging Face transformers | `model.safetensors`, or shards with `model.safetensors.index.json`; `pytorch_model.bin`, whole or in shards | `mamba`, `mamba2`, `falcon_mamba`, `zamba2` |
//! | the state-spaces repository's (`d_model`, `n_layer`, `ssm_cfg`) | `pytorch_model.bin` (zip or legacy), or the same names in safetensors | Mamba-1, Mamba-2 and their hybrids with attention |
//!
//! f32, f16 and bf16 weights stay as the file has them; activations, sums and states are `f32`. They are
//! looked over for NaN, and, on the CPU, copied to large pages where memory allows it, or else used where they lie in
//! the memory map; [`LoadOptions`] has a say in both. A `.bin` file is a
//! pickle, which is a program: the reader here knows the few instructions that a dictionary of tensors
//! needs, runs none of them, and refuses every other by its name. [`convert`](fn@convert) writes any of
//! these as one safetensors file.
//!
//! ```no_run
//! use longmamba_model::{CpuBackend, Model, hub};
//! let folder = hub::find("state-spaces/mamba-130m-hf")?; // or a path
//! let model = Model::load(&folder, CpuBackend::new(None)?)?;
//! println!("{} parameters in {} layers", model.weights().parameters, model.config().layers.len());
//! # Ok::<(), longmamba_model::Error>(())
//! ```
//!
//! # Sessions and state
//! A [`Session`] owns what the model remembers of one sequence: the convolutions' last inputs, the SSM
//! states, and in hybrid models the keys and values of the attention layers. It can be moved on in any
//! way, and these agree within rounding (2e-4 of the largest logit, 5e-4 in Zamba2, as property tests have
//! it over models, lengths and splits): the whole prompt at once, chunks of any sizes, token by token with
//! [`Session::step`]. These agree bit for bit: a session, its [`fork`](Session::fork), and the same
//! session [saved](Session::save) and [loaded](Session::load), also in another process. A [`Batch`] reads
//! prompts of different lengths without padding. The recurrent state has a fixed size; the attention
//! cache grows with the sequence unless [`SessionOptions::attention_window`] bounds it, and
//! [`Session::memory`] says what both take.
//!
#![cfg_attr(feature = "builtin", doc = "```")]
#![cfg_attr(not(feature = "builtin"), doc = "```ignore")]
//! use longmamba_model::{Batch, CpuBackend, Session, SessionOptions, builtin};
//!
//! let model = builtin::find("mamba2-tiny").expect("it is built in").model(CpuBackend::new(None)?)?;
//! let bytes = |text: &str| text.bytes().map(u32::from).collect::<Vec<_>>();
//!
//! // A prefix is read once and continued twice.
//! let mut first = model.session(SessionOptions::default())?;
//! first.prefill(&bytes("It was a dark and "))?;
//! let mut second = first.fork()?;
//! first.prefill(&bytes("stormy"))?;
//! second.prefill(&bytes("silent"))?;
//!
//! // A snapshot is continued where it was left, bit for bit.
//! let file = std::env::temp_dir().join(format!("dark-{}.session", std::process::id()));
//! first.save(&file)?;
//! let mut resumed = Session::load(&model, SessionOptions::default(), &file)?;
//! first.step(b' '.into())?;
//! resumed.step(b' '.into())?;
//! assert_eq!(first.logits(), resumed.logits());
//! # std::fs::remove_file(&file).ok();
//!
//! // Several prompts in one go.
//! let mut batch = Batch::new(model, SessionOptions::default(), 2)?;
//! batch.prefill(&[&bytes("Call me"), &bytes("It is a truth universally")])?;
//! batch.step(&[Some(b' '.into()), None])?;
//! assert_eq!((batch.position(0), batch.position(1)), (8, 25));
//! # Ok::<(), longmamba_model::Error>(())
//! ```
//!
//! # Methods
//! [`methods`] has LongMamba and other training-free methods behind one trait: DeciMamba, MambaExtend, Mamba
//! Modulation, winsorization of A, LAMB. A session takes any of them as [`SessionOptions::method`]; what each
//! needs, and whether it can read a prompt in chunks, is said there.
//!
//! # On a GPU
//! With the feature `cuda` there is `CudaBackend`, for NVIDIA's GPUs of compute capability 7.5 and later; it
//! needs their driver and nothing else. Everything here works on it as on the processor, and snapshots and
//! plans move freely between the two. Where weights have 16 bits, prompts go through the tensor cores, which
//! round activations to that type; `CudaBackend::with_precision` computes in `f32` throughout, and
//! `CudaBackend::with_cublas_lt` gives products to NVIDIA's library where it is installed. Without a
//! driver or a device, `CudaBackend::new` returns an error.
//!
//! # Errors
//! Every fallible function returns [`Error`], one enum for the crate. Its variants say what kind of thing
//! is wrong (a missing tensor, a shape, a pickle that wants more than data, a prompt longer than was
//! announced), its fields which file, tensor, token or argument it is, and its text is one sentence that
//! says both, and where it can, what to do. A call that is refused for its arguments leaves the session as it
//! was, and no file is left half written.
//!
#![cfg_attr(feature = "builtin", doc = "```")]
#![cfg_attr(not(feature = "builtin"), doc = "```ignore")]
//! use longmamba_model::{CpuBackend, Error, Model, SessionOptions, builtin};
//!
//! let error = Model::load("no/such/folder".as_ref(), CpuBackend::new(None)?).unwrap_err();
//! assert!(matches!(&error, Error::Io { path, .. } if path.ends_with("config.json")));
//!
//! let model = builtin::find("mamba2-tiny").expect("it is built in").model(CpuBackend::new(None)?)?;
//! let mut session = model.session(SessionOptions::default())?;
//! let error = session.prefill(&[1, 999]).unwrap_err();
//! assert_eq!(error.to_string(), "token id 999 at position 1 is outside the vocabulary of 256");
//! assert_eq!(session.position(), 0);
//! # Ok::<(), longmamba_model::Error>(())
//! ```
//!
//! # Features
//! All are off by default. `cli`: the `longmamba` command. `builtin`: two small trained models and their
//! plans, 1.4 MB. `tokenizers`: reads `tokenizer.json`. `cuda`: models on NVIDIA's GPUs. `download`: fetches models into the local Hugging
//! Face cache. `zh`: scores the Chinese data sets of LongBench, with a dictionary of 5 MB.

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
mod free_memory;
mod generate;
pub mod hub;
mod import_plan;
mod json;
mod large;
mod layer;
mod load;
pub mod methods;
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

#[cfg(feature = "cuda")]
pub use backend::CudaBackend;
pub use backend::{
    Activation, AttentionInputs, Backend, Columns, ColumnsMut, Conv, CpuBackend, CpuBuffer,
    CpuMatrix, DeltaSums, GatedProjection, KV_PAGE, Linear, Norm, NormedConv, Position, Profile,
    Purpose, Recurrence, ScanInputs, SelectScan, Spent, SsdStageInputs, Stage, StepMemory,
};
pub use batch::Batch;
pub use checkpoint::{Checkpoint, LoadOptions, Placement, TensorInfo};
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
pub use longmamba_cpu::{Cpu, Quantization, limits};
#[cfg(feature = "cuda")]
pub use longmamba_cuda::Precision;
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
