//! Where an evaluation keeps what is done, and which part of it is this machine's.

use crate::args::Method;
use crate::failure::Outcome;
use clap::Args;
use longmamba_model::SessionOptions;
use longmamba_model::eval::run::{Run, Settings, Shard};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(next_help_heading = "Long runs")]
pub struct RunArgs {
    /// Keep every sample that is done in this folder; the same command goes on where it was killed
    #[arg(long, value_name = "FOLDER")]
    run: Option<PathBuf>,
    /// Do every N-th sample from number I on: 0/4 to 3/4 share the work among four machines
    #[arg(long, value_name = "I/N", default_value_t = Shard::WHOLE)]
    shard: Shard,
}

impl RunArgs {
    /// Of an evaluation that cannot be shared among machines.
    pub fn whole(run: Option<PathBuf>) -> Self {
        RunArgs { run, shard: Shard::WHOLE }
    }

    pub fn open(&self, settings: &Settings) -> Outcome<Run> {
        Ok(match &self.run {
            Some(folder) => {
                let command: Vec<String> = std::env::args().collect();
                Run::open(folder, &settings.clone().noting("command", command), self.shard)?
            }
            None => Run::in_memory(self.shard),
        })
    }

    /// As [`RunArgs::open`], for an evaluation of methods on texts: what is measured is the same only where
    /// they are.
    pub fn open_for_texts(
        &self,
        settings: Settings,
        methods: &[(Method, SessionOptions)],
        texts: &[&[u32]],
    ) -> Outcome<Run> {
        let mut digest = Sha256::new();
        for text in texts {
            digest.update((text.len() as u64).to_le_bytes());
            text.iter().for_each(|token| digest.update(token.to_le_bytes()));
        }
        let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        self.open(&with_methods(settings, methods)?.with("texts", digest))
    }

    pub fn shard(&self) -> Shard {
        self.shard
    }
}

/// The settings, with the methods and what each was made with.
pub fn with_methods(settings: Settings, methods: &[(Method, SessionOptions)]) -> Outcome<Settings> {
    let settings_of = |(method, options): &(Method, SessionOptions)| {
        Ok(json!({ "name": method.name(), "settings": options.settings()? }))
    };
    let all: Vec<Value> = methods.iter().map(settings_of).collect::<Outcome<_>>()?;
    Ok(settings.with("methods", all))
}
