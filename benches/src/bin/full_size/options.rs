//! What the command was asked for.

use crate::weights;
use clap::Parser;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser};
use std::error::Error;
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Device {
    Cpu,
    /// Counted from 0.
    Cuda(usize),
}

/// Models of published shapes with random weights: written to disk in bf16, loaded and timed.
///
/// Prints a table; each prompt length of each shape has a row.
#[derive(Debug, Parser)]
pub struct Options {
    /// Where checkpoints are written to, up to 5.6 GB each
    pub folder: PathBuf,
    /// All but the tiny one where none is given
    #[arg(value_name = "SHAPE", value_parser = PossibleValuesParser::new(weights::all().map(|(name, _)| name)))]
    shapes: Vec<String>,
    /// cpu, cuda or, counted from 0, cuda:N
    #[arg(long, default_value = "cpu", value_parser = device)]
    pub device: Device,
    /// Tokens of a prompt; may be given several times
    #[arg(long = "prompt", value_name = "TOKENS", default_value = "512", value_parser = at_least_one())]
    pub prompts: Vec<usize>,
    /// Tokens after a prompt
    #[arg(long, value_name = "TOKENS", default_value = "16", value_parser = at_least_one())]
    pub steps: usize,
    /// Tokens that go through the layers together
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one())]
    pub chunk: Option<usize>,
    /// How often each figure is taken; the median counts
    #[arg(long, value_name = "N", default_value = "1", value_parser = at_least_one())]
    pub repeats: usize,
    /// Also read each prompt with LongMamba's filter on, in turn, and say how much longer that takes
    #[arg(long)]
    pub filter: bool,
    /// Leave the checkpoints there
    #[arg(long)]
    pub keep: bool,
    /// Also print what each stage takes beside what it would take at this machine's limits (CPU only)
    #[arg(long)]
    pub profile: bool,
    /// Also write each row as a line of JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Options {
    pub fn wants(&self, shape: &str) -> bool {
        let all = self.shapes.is_empty() && shape != weights::TINY.0;
        all || self.shapes.iter().any(|wanted| wanted == shape)
    }
}

fn device(text: &str) -> Result<Device, Box<dyn Error + Send + Sync>> {
    match text.split_once(':') {
        None if text == "cpu" => Ok(Device::Cpu),
        None if text == "cuda" => Ok(Device::Cuda(0)),
        Some(("cuda", number)) => Ok(Device::Cuda(number.parse()?)),
        _ => Err("there are cpu, cuda and cuda:N".into()),
    }
}

fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}
