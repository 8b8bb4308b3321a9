//! What the command was asked for.

use crate::{Result, weights};
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Device {
    Cpu,
    /// Counted from 0.
    Cuda(usize),
}

#[derive(Debug)]
pub struct Options {
    /// Where checkpoints are written to.
    pub folder: PathBuf,
    /// All where empty.
    shapes: Vec<String>,
    pub device: Device,
    /// Tokens of the prompts; each has a row.
    pub prompts: Vec<usize>,
    /// Tokens after a prompt.
    pub steps: usize,
    /// Tokens that go through the layers together.
    pub chunk: Option<usize>,
    /// How often each figure is taken; the median counts.
    pub repeats: usize,
    /// Also with LongMamba's filter.
    pub filter: bool,
    pub keep: bool,
    /// Also what each stage takes, on the CPU.
    pub profile: bool,
    pub json: Option<PathBuf>,
}

impl Options {
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut options = Options {
            folder: PathBuf::new(),
            shapes: Vec::new(),
            device: Device::Cpu,
            prompts: Vec::new(),
            steps: 16,
            chunk: None,
            repeats: 1,
            filter: false,
            keep: false,
            profile: false,
            json: None,
        };
        let mut words = Vec::new();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--device" => options.device = device(&value()?)?,
                "--prompt" => options.prompts.push(at_least_one(&value()?)?),
                "--steps" => options.steps = at_least_one(&value()?)?,
                "--chunk" => options.chunk = Some(at_least_one(&value()?)?),
                "--repeats" => options.repeats = at_least_one(&value()?)?,
                "--json" => options.json = Some(value()?.into()),
                "--filter" => options.filter = true,
                "--keep" => options.keep = true,
                "--profile" => options.profile = true,
                flag if flag.starts_with('-') => return Err(format!("no option {flag}").into()),
                _ => words.push(argument),
            }
        }
        if options.prompts.is_empty() {
            options.prompts.push(512);
        }
        let Some((folder, shapes)) = words.split_first() else {
            return Err("give the folder that checkpoints are written to".into());
        };
        options.folder = folder.into();
        options.shapes = shapes.to_vec();
        Ok(options)
    }

    pub fn wants(&self, shape: &str) -> bool {
        let all = self.shapes.is_empty() && shape != weights::TINY.0;
        all || self.shapes.iter().any(|wanted| wanted == shape)
    }

    /// A shape that was asked for and that there is not.
    pub fn unknown_shape(&self) -> Option<&str> {
        let known = |shape: &String| weights::all().any(|(name, _)| name == shape);
        self.shapes.iter().find(|shape| !known(shape)).map(String::as_str)
    }
}

fn device(text: &str) -> Result<Device> {
    match text.split_once(':') {
        None if text == "cpu" => Ok(Device::Cpu),
        None if text == "cuda" => Ok(Device::Cuda(0)),
        Some(("cuda", number)) => Ok(Device::Cuda(number.parse()?)),
        _ => Err(format!("{text:?} is no device; there are cpu, cuda and cuda:N").into()),
    }
}

fn at_least_one(text: &str) -> Result<usize> {
    match text.parse()? {
        0 => Err("at least 1".into()),
        number => Ok(number),
    }
}
