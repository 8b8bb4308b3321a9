use crate::args::{Lengths, ModelArg};
use crate::device::{DeviceArg, on_device};
use crate::failure::{Failure, Outcome};
use crate::output::{Output, check_writable};
use crate::progress::Bar;
use clap::{Args, ValueEnum};
use longmamba_model::calibrate::{calibrate, windows};
use longmamba_model::policy::{Aggregate, CalibrationSettings, RELEASED_LENGTHS};
use longmamba_model::{Backend, MixerConfig, Text, write_plan};
use serde_json::json;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Make a LongMamba plan: read windows of the training length and watch how channels forget
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  longmamba calibrate path/to/mamba2-1.3b --text book.txt --train-len 2k \
    --out mamba2.plan\n\nThe paper's θ and clamp: 5e-2 and 5 % for Mamba2-1.3B, 1e-30 and 20 % for \
    Mamba-1.4B. Look at `longmamba channels PLAN` before you trust a θ."
)]
pub struct Calibrate {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    device: DeviceArg,
    /// Texts, or folders of .txt files, to take windows from, evenly over all of them
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    text: Vec<PathBuf>,
    /// Tokens of a window: the length the model was trained on [default: as config.json says]
    #[arg(long, value_name = "L", value_parser = crate::args::length)]
    train_len: Option<usize>,
    /// How many windows
    #[arg(long, value_name = "N", default_value = "5")]
    windows: NonZeroUsize,
    /// The share of the largest Δ that is clamped, in percent [default: 5, or 20 for Mamba-1]
    #[arg(long, value_name = "C", allow_negative_numbers = true)]
    clamp: Option<f64>,
    /// How the windows are combined
    #[arg(long, value_enum, default_value = "max")]
    aggregate: AggregateArg,
    /// Channels with a score above it are global [default: 0.05, or 1e-30 for Mamba-1]
    #[arg(long, value_name = "θ", allow_negative_numbers = true)]
    theta: Option<f64>,
    /// The lengths that thresholds are made for [default: the published ones, 1k to 192k; for a
    /// training length below 1000 its doublings up to 64 times]
    #[arg(long, value_name = "N,...")]
    lengths: Option<Lengths>,
    /// The plan file
    #[arg(long, value_name = "PLAN")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AggregateArg {
    /// The largest of each channel
    Max,
    /// The mean of each channel
    Avg,
}

impl Calibrate {
    pub fn run(self, output: &Output) -> Outcome {
        on_device!(self.device.exactly(), |backend| self.on(backend, output))
    }

    fn on<B: Backend>(&self, backend: B, output: &Output) -> Outcome {
        check_writable("--out", &self.out)?;
        let loaded = self.model.load(backend)?;
        let config = loaded.model.config();
        let train_len = self.train_len.or(config.train_len).ok_or_else(|| {
            Failure::input(
                "config.json does not say how long the training sequences were; give --train-len",
            )
        })?;
        let (clamp, theta) = match config.mixer {
            MixerConfig::Mamba1 { .. } => (20.0, 1e-30),
            MixerConfig::Mamba2 { .. } if config.shared.is_some() => (5.0, 1e-5),
            MixerConfig::Mamba2 { .. } => (5.0, 0.05),
        };
        let (clamp, theta) = (self.clamp.unwrap_or(clamp), self.theta.unwrap_or(theta));
        if !(theta >= 0.0 && theta.is_finite()) {
            return Err(Failure::input(format!("--theta is {theta}, must be finite and ≥ 0")));
        }
        let aggregate = match self.aggregate {
            AggregateArg::Max => Aggregate::Max,
            AggregateArg::Avg => Aggregate::Average,
        };
        let lengths = match self.lengths.clone() {
            Some(Lengths(lengths)) => lengths,
            None if train_len >= RELEASED_LENGTHS[0] => RELEASED_LENGTHS.to_vec(),
            None => (0..=6).map(|doublings| train_len << doublings).collect(),
        };
        let settings = CalibrationSettings::new(train_len, clamp, aggregate, lengths)?;

        let tokenizer = loaded.tokenizer()?;
        let texts = loaded.read_texts(&tokenizer, &self.text)?;
        let chosen = spread(&texts, &self.text, train_len, self.windows.get())?;
        let bar = Bar::new(output, "calibrating", chosen.len(), "windows");
        let plan = calibrate(&loaded.model, &chosen, settings, theta, &mut |done| bar.set(done))?;
        drop(bar);
        write_plan(&plan, &self.out)?;

        let report = plan.theta_report();
        let json = json!({
            "model": loaded.name, "plan": self.out, "train_len": train_len, "windows": plan.windows(),
            "clamp_percent": clamp, "aggregate": plan.aggregate().to_string(), "theta": theta,
            "lengths": plan.lengths(), "channels": report.channels, "global": report.global(),
            "near_cliff": report.near_cliff,
        });
        output.result(&json, || {
            let mut text = format!(
                "{}: {} of {} channels are global at θ = {theta:e}\n",
                self.out.display(),
                report.global(),
                report.channels
            );
            if report.near_cliff {
                text += &format!(
                    "θ is near a cliff: {} channels change sides within 12 % of it; see `longmamba channels {}`\n",
                    report.flips_nearby,
                    self.out.display()
                );
            }
            text
        })
    }
}

/// `count` windows of `train_len` tokens, evenly over all of the texts, which are those of `files`.
pub fn spread<'a>(
    texts: &'a [Text],
    files: &[PathBuf],
    train_len: usize,
    count: usize,
) -> Outcome<Vec<&'a [u32]>> {
    let mut chosen: Vec<&[u32]> = Vec::new();
    for (index, (text, file)) in texts.iter().zip(files).enumerate() {
        // The first files have one more where the number does not divide.
        let (count, rest) = (count / texts.len(), count % texts.len());
        let count = count + usize::from(index < rest);
        if count > 0 {
            let ranges = windows(text.tokens.len(), train_len, count)
                .map_err(|e| Failure::input(format!("{}: {e}", file.display())))?;
            chosen.extend(ranges.into_iter().map(|range| &text.tokens[range]));
        }
    }
    Ok(chosen)
}
