use crate::args::{Lengths, Method, ModelArg, PlanArgs, first_tokens};
use crate::device::{DeviceArg, on_device};
use crate::failure::{Failure, Outcome};
use crate::figures;
use crate::output::{Output, Table};
use crate::progress::Bar;
use clap::Args;
use longmamba_model::Backend;
use longmamba_model::eval::attention_map::{AttentionMap, FLOOR};
use longmamba_model::eval::channel_scan::{Place, channel_scans};
use longmamba_model::eval::decay::most_global;
use serde_json::json;
use std::path::PathBuf;

/// Hidden attention of a channel: what its scan takes from each earlier token, and how far back it sees
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  longmamba attention builtin:mamba2-tiny --text book.txt --lengths 256,2k \
    --plot attention.png\n\n\
    For tokens s ≤ t: |C_t · (product of the decays of s+1 to t) · Δ_s B_s|, as a share of the largest. The \
    receptive field of t reaches back to the farthest s whose share is above 1/1000. A map has at most 128 \
    rows, each with every token before it, and 128 columns, each with the largest of its tokens."
)]
pub struct Attention {
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
    /// Recurrent layer, from 0 [default: that of the channel with the highest score in the plan]
    #[arg(long, value_name = "L")]
    layer: Option<usize>,
    /// Channel, or head in Mamba-2, from 0 [default: the one with the highest score in the plan]
    #[arg(long, value_name = "C", requires = "layer")]
    channel: Option<usize>,
    /// Which to run, of those that `longmamba methods` lists [default: vanilla, and longmamba where there is
    /// a plan]
    #[arg(long, value_delimiter = ',', value_name = "METHOD,...")]
    method: Vec<Method>,
    /// Draw the maps, with the outline of the receptive field
    #[arg(long, value_name = "FILE.svg|FILE.png")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    plan: PlanArgs,
}

/// Rows and columns of a map, at most.
const CELLS: usize = 128;

impl Attention {
    pub fn run(self, output: &Output) -> Outcome {
        on_device!(self.device, |backend| self.on(backend, output))
    }

    fn on<B: Backend>(&self, backend: B, output: &Output) -> Outcome {
        if let Some(path) = &self.plot {
            figures::check_target("--plot", path)?;
        }
        let loaded = self.model.load(backend)?;
        let methods = self.plan.methods(&self.method, &loaded)?;
        let plan = self.plan.plan(&loaded)?;
        let place = match (self.layer, self.channel, &plan) {
            (Some(layer), Some(channel), _) => Place { layer, channel },
            (layer, _, Some(plan)) => most_global(plan, layer).ok_or_else(|| {
                let layers = plan.layers().len();
                Failure::input(format!("--layer: the model has {layers} layers that recur, from 0"))
            })?,
            (_, _, None) => {
                return Err(Failure::input(
                    "without a plan no channel is known to be global; give --layer and --channel, or --plan",
                ));
            }
        };
        let tokens = first_tokens(&loaded, &self.text, &self.lengths)?;
        let total = self.lengths.0.iter().sum::<usize>() * methods.len();
        let bar = Bar::new(output, "reading", total, "tokens");
        let mut maps = Vec::new();
        for &length in &self.lengths.0 {
            for (method, options) in &methods {
                let text = &tokens[..length];
                let scans = channel_scans(&loaded.model, text, &[place], true, options)?;
                for scan in &scans {
                    maps.push((method.clone(), AttentionMap::new(scan, CELLS)?));
                }
                bar.add(length);
            }
        }
        drop(bar);
        let json = json!({
            "evaluation": "attention", "model": loaded.name, "layer": place.layer,
            "channel": place.channel, "floor": FLOOR,
            "global": plan.map(|plan| plan.is_global(place.layer, place.channel)),
            "rows": maps.iter().map(|(method, map)| json!({
                "method": method, "length": map.tokens, "receptive_field": map.reach.last(),
                "longest_receptive_field": longest(map),
            })).collect::<Vec<_>>(),
            "maps": maps.iter().map(|(method, map)| json!({
                "method": method, "length": map.tokens, "queries": map.queries, "keys": map.keys,
                "log10": map.log10.iter().map(|row| rounded(row)).collect::<Vec<_>>(),
                "reach": map.reach,
            })).collect::<Vec<_>>(),
        });
        figures::plot(self.plot.as_deref(), &json, output)?;
        output.result(&json, || {
            let shown = |reach: Option<usize>| reach.map_or("–".into(), |r| r.to_string());
            let header = ["method", "length", "receptive field at the end", "longest"];
            let mut table = Table::new(1, header);
            for (method, map) in &maps {
                table.row([
                    method.name().to_owned(),
                    map.tokens.to_string(),
                    shown(map.reach.last().copied().flatten()),
                    shown(longest(map)),
                ]);
            }
            format!("layer {}, channel {}; in tokens\n{}", place.layer, place.channel, table.text())
        })
    }
}

fn longest(map: &AttentionMap) -> Option<usize> {
    map.reach.iter().copied().flatten().max()
}

/// Three decimals, which is more than a picture shows.
fn rounded(row: &[f64]) -> Vec<f64> {
    row.iter().map(|v| (v * 1e3).round() / 1e3).collect()
}
