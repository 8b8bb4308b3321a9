//! Where an evaluation keeps what is done, and which part of it is this machine's.

use crate::failure::Outcome;
use clap::Args;
use longmamba_model::eval::run::{Run, Settings, Shard};
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
    pub fn open(&self, settings: &Settings) -> Outcome<Run> {
        Ok(match &self.run {
            Some(folder) => Run::open(folder, settings, self.shard)?,
            None => Run::in_memory(self.shard),
        })
    }

    pub fn shard(&self) -> Shard {
        self.shard
    }
}
