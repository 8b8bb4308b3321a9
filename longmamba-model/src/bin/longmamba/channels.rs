use crate::args::read_any_plan;
use crate::failure::{Failure, Outcome};
use crate::figures::{self, Scores};
use crate::output::{Output, Table};
use clap::Args;
use longmamba_model::policy::{ChannelScore, Gap, Histogram, Plan, THETA_MULTIPLES, ThetaReport};
use serde_json::json;
use std::f64::consts::LN_10;
use std::path::PathBuf;

/// A plan's channels: scores per layer, how many are global, how near θ is to a cliff
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  longmamba channels builtin:mamba2-tiny --theta 0.01\n\n\
    A channel is global where its score, what is left of its memory after a training length, exceeds θ. \
    One channel more or less can decide whether long texts are read at all: choose θ in a wide gap.")]
pub struct Channels {
    /// A plan file, or builtin:mamba2-tiny, builtin:mamba1-tiny
    #[arg(value_name = "PLAN")]
    plan: String,
    /// Another θ than the plan's
    #[arg(long, value_name = "θ", allow_negative_numbers = true)]
    theta: Option<f64>,
    /// Draw the histogram of scores
    #[arg(long, value_name = "FILE.svg|FILE.png")]
    plot: Option<PathBuf>,
}

/// Bins of the histogram, at most.
const BINS: usize = 24;
/// Gaps in the table, at most: the widest.
const GAPS: usize = 12;
/// Decades of the histogram, at most: scores below are as good as nothing.
const DECADES: f64 = 48.0;

impl Channels {
    pub fn run(self, output: &Output) -> Outcome {
        if let Some(path) = &self.plot {
            figures::check_target("--plot", path)?;
        }
        let mut plan = read_any_plan(&self.plan)?;
        if let Some(theta) = self.theta {
            plan = plan.with_theta(theta).map_err(|e| Failure::input(format!("--theta: {e}")))?;
        }
        let report = plan.theta_report();
        let histogram = histogram(&plan);
        if let Some(path) = &self.plot {
            let scores = Scores {
                title: format!("Scores of the channels of {}", self.plan),
                global_histogram: Histogram::new(
                    scores(&plan, |layer, channel| plan.is_global(layer, channel)),
                    histogram.low,
                    histogram.high,
                    histogram.counts.len(),
                ),
                histogram: histogram.clone(),
                theta: report.theta,
                global: report.global(),
                channels: report.channels,
            };
            figures::write("--plot", path, &scores)?;
            output.note(&format!("drawn: {}", path.display()));
        }
        let layers: Vec<_> =
            (0..plan.layers().len()).map(|layer| Layer::new(&plan, layer)).collect();
        let all = Gap::all(scores(&plan, |_, _| true));
        let cliffs = all.iter().filter(|gap| gap.near_cliff()).count();
        let found = all.len();
        let gaps = widest(all);
        let json = json!({
            "plan": self.plan, "model": plan.fingerprint().to_string(), "train_len": plan.train_len(),
            "windows": plan.windows(), "clamp_percent": plan.clamp_percent(),
            "aggregate": plan.aggregate().to_string(), "lengths": plan.lengths(),
            "theta": report.theta, "channels": report.channels, "global": report.global(),
            "layers": layers.iter().map(|l| json!({
                "global": l.global, "channels": l.sorted.len(), "log10_min": l.quantile(0.0),
                "log10_median": l.quantile(0.5), "log10_max": l.quantile(1.0),
                "log10_scores": l.scores,
            })).collect::<Vec<_>>(),
            "below": report.below.map(place), "above": report.above.map(place),
            "decades_to_nearest": report.decades_to_nearest, "near_cliff": report.near_cliff,
            "flips_nearby": report.flips_nearby, "suggestion": report.suggestion,
            "global_at_multiples": THETA_MULTIPLES.iter().zip(report.global_at_multiples)
                .map(|(m, n)| json!({"theta": m * report.theta, "global": n})).collect::<Vec<_>>(),
            "histogram": { "log10_low": histogram.low, "log10_high": histogram.high,
                "counts": histogram.counts, "below": histogram.below },
            "gaps": gaps.iter().map(|g| json!({
                "theta": g.theta(), "global": g.global, "log10_low": g.low / LN_10,
                "log10_high": g.high / LN_10, "near_cliff": g.near_cliff(),
            })).collect::<Vec<_>>(),
            "gaps_found": found, "gaps_near_cliff": cliffs,
        });
        output.result(&json, || {
            text(&self.plan, &plan, &report, &layers, &histogram)
                + &gap_table(&gaps, [cliffs, found], &report)
        })
    }
}

/// The scores of a layer, log10.
struct Layer {
    global: usize,
    scores: Vec<f64>,
    sorted: Vec<f64>,
}

impl Layer {
    fn new(plan: &Plan, layer: usize) -> Self {
        let scores: Vec<f64> = plan.layers()[layer].log_scores.iter().map(|s| s / LN_10).collect();
        let mut sorted = scores.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let global = (0..scores.len()).filter(|&channel| plan.is_global(layer, channel)).count();
        Layer { global, scores, sorted }
    }

    /// The lower of two in the middle.
    fn quantile(&self, share: f64) -> f64 {
        let last = self.sorted.len().saturating_sub(1);
        self.sorted.get((share * last as f64) as usize).copied().unwrap_or(f64::NAN)
    }
}

/// Of the channels that `chosen` says, given a layer and a channel of it.
fn scores(plan: &Plan, chosen: impl Fn(usize, usize) -> bool) -> impl Iterator<Item = f64> {
    plan.layers().iter().enumerate().flat_map(move |(layer, table)| {
        let scores = table.log_scores.iter().enumerate();
        let chosen = scores.filter(|&(channel, _)| chosen(layer, channel)).map(|(_, &s)| s);
        chosen.collect::<Vec<_>>()
    })
}

fn histogram(plan: &Plan) -> Histogram {
    let scores = || scores(plan, |_, _| true);
    let lowest = scores().map(|s| (s / LN_10).floor()).fold(-1.0, f64::min);
    let decades = (-lowest).min(DECADES);
    // Whole numbers of decades a bin, or of bins a decade.
    let wide = (decades / BINS as f64).ceil().max(1.0);
    let bins = if decades * 2.0 <= BINS as f64 { decades * 2.0 } else { (decades / wide).ceil() };
    let low = if decades * 2.0 <= BINS as f64 { -decades } else { -bins * wide };
    Histogram::new(scores(), low, 0.0, bins as usize)
}

/// The widest gaps, by ascending numbers of global channels.
fn widest(mut gaps: Vec<Gap>) -> Vec<Gap> {
    gaps.sort_by(|a, b| b.decades().total_cmp(&a.decades()));
    gaps.truncate(GAPS);
    gaps.sort_by_key(|gap| gap.global);
    gaps
}

/// How many channels are global with a θ in each of the widest gaps.
fn gap_table(gaps: &[Gap], [cliffs, all]: [usize; 2], report: &ThetaReport) -> String {
    let mut table = Table::new(0, ["θ", "from", "to", "global", ""]);
    for gap in gaps {
        let here = if gap.global == report.global() { "θ of the plan" } else { "" };
        table.row([
            score(f64::midpoint(gap.low, gap.high) / LN_10),
            score(gap.low / LN_10),
            score(gap.high / LN_10),
            gap.global.to_string(),
            if gap.near_cliff() { format!("cliff {here}") } else { here.to_owned() },
        ]);
    }
    format!(
        "\nthe widest gaps between scores, with θ in the middle ({cliffs} of {all} gaps are so narrow that even \
         there a score is within 12 %):\n{}",
        table.text()
    )
}

fn place(score: ChannelScore) -> serde_json::Value {
    let log10 = score.log_score / LN_10;
    json!({ "log10_score": log10, "layer": score.layer, "channel": score.channel })
}

/// `0.0123`, and `1e-35` where that is shorter.
fn score(log10: f64) -> String {
    match log10 {
        v if v >= -3.0 => format!("{:.4}", 10f64.powf(v)),
        // Below the smallest f64 too.
        v if v.is_finite() => {
            // 9.97 would print as 10.0.
            let exponent = (v + 0.002).floor();
            format!("{:.1}e{exponent}", 10f64.powf(v - exponent).max(1.0))
        }
        _ => "0".into(),
    }
}

fn text(
    name: &str,
    plan: &Plan,
    report: &ThetaReport,
    layers: &[Layer],
    histogram: &Histogram,
) -> String {
    let theta = report.theta;
    let mut text = format!(
        "{name}: {}\n{} windows of {} tokens, clamp {} %, {} of the windows; thresholds for {} lengths, {} to {}\n\n",
        plan.fingerprint(),
        plan.windows(),
        plan.train_len(),
        plan.clamp_percent(),
        plan.aggregate(),
        plan.lengths().len(),
        plan.lengths().first().copied().unwrap_or(0),
        plan.lengths().last().copied().unwrap_or(0),
    );
    let mut table =
        Table::new(0, ["layer", "global", "channels", "lowest", "median", "highest score"]);
    for (index, layer) in layers.iter().enumerate() {
        let [low, median, high] = [0.0, 0.5, 1.0].map(|q| score(layer.quantile(q)));
        table.row([
            index.to_string(),
            layer.global.to_string(),
            layer.sorted.len().to_string(),
            low,
            median,
            high,
        ]);
    }
    table.row(["all".into(), report.global().to_string(), report.channels.to_string()]);
    text += &table.text();

    text += &format!("\nscores, by powers of ten:\n{:>12} {:>8} {:>8}\n", "", "channels", "above");
    let most = histogram.counts.iter().copied().max().unwrap_or(0).max(histogram.below).max(1);
    let width = (histogram.high - histogram.low) / histogram.counts.len().max(1) as f64;
    // How many are global with a θ at the bin's lower end.
    let mut above = histogram.counts.iter().sum::<usize>() + histogram.below + histogram.above;
    let all = above;
    let mut bin = |from: String, count: usize, above: usize, mark: &str| {
        // A count of 1 is seen, however many there are elsewhere.
        let bar = "█".repeat((count * 40).div_ceil(most));
        text += format!("{from:>12} {count:>8} {above:>8} {mark:>2} {bar}").trim_end();
        text.push('\n');
    };
    bin(format!("below {}", power(histogram.low)), histogram.below, all, "");
    above -= histogram.below;
    let log_theta = theta.log10();
    for (index, &count) in histogram.counts.iter().enumerate() {
        let from = histogram.low + index as f64 * width;
        let here = log_theta >= from && log_theta < from + width;
        bin(format!("from {}", power(from)), count, above, if here { "θ" } else { "" });
        above -= count;
    }

    text += &format!(
        "\nθ = {theta:e}: {} of {} channels are global\n",
        report.global(),
        report.channels
    );
    let mut counts = Table::new(
        1,
        std::iter::once("at θ =".to_owned())
            .chain(THETA_MULTIPLES.iter().map(|m| format!("{:.1e}", m * theta))),
    );
    counts.row(
        std::iter::once("global".to_owned())
            .chain(report.global_at_multiples.map(|n| n.to_string())),
    );
    text += &counts.text();
    for (side, at) in [("below", report.below), ("above", report.above)] {
        if let Some(at) = at {
            let value = score(at.log_score / LN_10);
            text +=
                &format!("nearest {side}: {value}, layer {}, channel {}\n", at.layer, at.channel);
        }
    }
    text += &match (report.near_cliff, report.suggestion) {
        (false, _) => format!(
            "no cliff within 12 % of θ; the nearest score is a factor of {:.2} away\n",
            10f64.powf(report.decades_to_nearest)
        ),
        (true, suggestion) => format!(
            "NEAR A CLIFF: {} channels change sides within 12 % of θ{}\n",
            report.flips_nearby,
            suggestion
                .map_or(String::new(), |s| format!("; the widest gap nearby is around {s:.2e}"))
        ),
    };
    text
}

fn power(log10: f64) -> String {
    format!("1e{log10:.1}").replace(".0", "")
}
