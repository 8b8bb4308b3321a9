use crate::args::{Lengths, Method, ModelArg, PlanArgs, first_tokens};
use crate::device::{DeviceArg, on_device};
use crate::failure::{Failure, Outcome};
use crate::figures;
use crate::output::{Output, Table};
use crate::progress::Bar;
use clap::Args;
use longmamba_model::Backend;
use longmamba_model::eval::channel_scan::channel_scans;
use longmamba_model::eval::decay::{CumulativeDecay, sampled_global};
use serde_json::json;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Cumulative decay of global channels: what is left of their state as a text is read
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  longmamba decay builtin:mamba2-tiny --text book.txt --lengths 256,2k \
    --plot decay.png\n\n\
    exp(A · sum of Δ up to a token), with Δ = 0 where the method drops the token. Mamba-1 has an A a state: \
    as in LongMamba's scores, each token's decay is their mean. Past the training length the model as it is \
    goes on forgetting; LongMamba should stop about where the training length ended."
)]
pub struct Decay {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    device: DeviceArg,
    /// What is read, from its first token
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Lengths in tokens, ascending, as in 256,2k
    #[arg(long, value_name = "N,...")]
    lengths: Lengths,
    /// Recurrent layer, from 0 [default: all]
    #[arg(long, value_name = "L")]
    layer: Option<usize>,
    /// How many of the global channels
    #[arg(long, value_name = "N", default_value = "6")]
    channels: NonZeroUsize,
    /// Which to run, of those that `longmamba methods` lists [default: vanilla and longmamba]
    #[arg(long, value_delimiter = ',', value_name = "METHOD,...")]
    method: Vec<Method>,
    /// Draw the decay against the tokens
    #[arg(long, value_name = "FILE.svg|FILE.png")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    plan: PlanArgs,
}

/// Points of a curve, at most.
const POINTS: usize = 256;

impl Decay {
    pub fn run(self, output: &Output) -> Outcome {
        on_device!(self.device, |backend| self.on(backend, output))
    }

    fn on<B: Backend>(&self, backend: B, output: &Output) -> Outcome {
        if let Some(path) = &self.plot {
            figures::check_target("--plot", path)?;
        }
        let loaded = self.model.load(backend)?;
        let methods = self.plan.methods(&self.method, &loaded)?;
        let plan = self.plan.plan(&loaded)?.ok_or_else(|| {
            Failure::input(
                "a plan says which channels are global; make one with `longmamba calibrate` and give it \
                 with --plan",
            )
        })?;
        let places = sampled_global(&plan, self.layer, self.channels.get());
        if places.is_empty() {
            let of = self.layer.map_or("the model".into(), |layer| format!("layer {layer}"));
            return Err(Failure::input(format!(
                "no channel of {of} is global at θ = {:e}; take another --layer or --theta",
                plan.theta()
            )));
        }
        let tokens = first_tokens(&loaded, &self.text, &self.lengths)?;
        let total = self.lengths.0.iter().sum::<usize>() * methods.len();
        let bar = Bar::new(output, "reading", total, "tokens");
        let mut curves = Vec::new();
        for &length in &self.lengths.0 {
            for (method, options) in &methods {
                let scans =
                    channel_scans(&loaded.model, &tokens[..length], &places, false, options)?;
                for (scan, place) in scans.iter().zip(&places) {
                    curves.push((
                        method.clone(),
                        length,
                        *place,
                        CumulativeDecay::new(scan, POINTS),
                    ));
                }
                bar.add(length);
            }
        }
        drop(bar);
        let json = json!({
            "evaluation": "decay", "model": loaded.name, "theta": plan.theta(),
            "train_len": plan.train_len(), "global": plan.theta_report().global(),
            "rows": curves.iter().map(|(method, length, place, decay)| json!({
                "method": method, "length": length, "layer": place.layer, "channel": place.channel,
                "log10_decay": decay.log10.last(),
            })).collect::<Vec<_>>(),
            "curves": curves.iter().map(|(method, length, place, decay)| json!({
                "method": method, "length": length, "layer": place.layer, "channel": place.channel,
                "tokens": decay.tokens, "log10": decay.log10,
            })).collect::<Vec<_>>(),
        });
        figures::plot(self.plot.as_deref(), &json, output)?;
        output.result(&json, || {
            let header = ["method", "length", "layer", "channel", "log10 of the decay"];
            let mut table = Table::new(1, header);
            for (method, length, place, decay) in &curves {
                table.row([
                    method.name().to_owned(),
                    length.to_string(),
                    place.layer.to_string(),
                    place.channel.to_string(),
                    decay.log10.last().map_or("–".into(), |d| format!("{d:.2}")),
                ]);
            }
            table.text()
        })
    }
}
