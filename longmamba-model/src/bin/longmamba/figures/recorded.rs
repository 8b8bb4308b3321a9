//! The pictures of results, from the JSON that the commands print with `--json`.

use super::{
    Attention, AttentionPanel, Axis, Curve, Decay, Drawn, Figure, HeatMap, LineChart, Look, Panels,
    Point, Series,
};
use crate::failure::{Failure, Outcome};
use crate::figures::Area;
use plotters::prelude::DrawingBackend;
use serde::Deserialize;
use serde_json::Value;

/// What a command printed.
#[derive(Debug, Deserialize)]
#[serde(tag = "evaluation", rename_all = "lowercase")]
enum Result {
    Ppl { model: String, rows: Vec<PplRow> },
    Passkey { model: String, unit: String, rows: Vec<PasskeyRow> },
    Latency { model: String, rows: Vec<LatencyRow> },
    Attention { model: String, layer: usize, channel: usize, maps: Vec<AttentionPanel> },
    Decay { model: String, theta: f64, train_len: usize, curves: Vec<Curve> },
    Theta { model: String, rows: Vec<ThetaRow> },
}

#[derive(Debug, Deserialize)]
struct PplRow {
    method: String,
    length: usize,
    perplexity: f64,
    nll_standard_error: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct PasskeyRow {
    method: String,
    length: usize,
    depth: Option<f64>,
    score: f64,
    standard_error: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct LatencyRow {
    method: String,
    length: usize,
    median_seconds: f64,
}

#[derive(Debug, Deserialize)]
struct ThetaRow {
    clamp_percent: f64,
    global: usize,
    stopped: bool,
    chosen: bool,
    lengths: Vec<ThetaLength>,
}

#[derive(Debug, Deserialize)]
struct ThetaLength {
    length: usize,
    nll: f64,
}

/// A picture of a result.
pub enum Recorded {
    Lines(Panels),
    Heat(HeatMap),
    Attention(Attention),
    Decay(Decay),
}

impl Figure for Recorded {
    fn size(&self) -> (u32, u32) {
        match self {
            Recorded::Lines(figure) => figure.size(),
            Recorded::Heat(figure) => figure.size(),
            Recorded::Attention(figure) => figure.size(),
            Recorded::Decay(figure) => figure.size(),
        }
    }

    fn draw<DB>(&self, area: &Area<DB>) -> Drawn
    where
        DB: DrawingBackend,
        DB::ErrorType: 'static,
    {
        match self {
            Recorded::Lines(figure) => figure.draw(area),
            Recorded::Heat(figure) => figure.draw(area),
            Recorded::Attention(figure) => figure.draw(area),
            Recorded::Decay(figure) => figure.draw(area),
        }
    }
}

/// The picture of a result, with what it came from in messages.
pub fn recorded(result: &Value, from: &str) -> Outcome<Recorded> {
    let result = Result::deserialize(result).map_err(|e| {
        Failure::input(format!(
            "{from}: no result that can be drawn, which ppl, passkey, latency, attention, decay and tune --method \
             longmamba give: {e}"
        ))
    })?;
    Ok(match result {
        Result::Ppl { model, rows } => Recorded::Lines(perplexity(&model, &rows)),
        Result::Passkey { model, rows, .. } if rows.iter().all(|row| row.depth.is_none()) => {
            Recorded::Lines(passkey_anywhere(&model, &rows))
        }
        Result::Passkey { model, unit, rows } => Recorded::Heat(passkey(&model, unit, &rows)),
        Result::Latency { model, rows } => Recorded::Lines(latency(&model, &rows)),
        Result::Attention { model, layer, channel, maps } => {
            let title = format!("{model}: hidden attention of layer {layer}, channel {channel}");
            Recorded::Attention(Attention { title, panels: maps })
        }
        Result::Decay { model, theta, train_len, curves } => Recorded::Decay(Decay {
            title: format!("{model}: cumulative decay of global channels"),
            theta,
            trained: train_len,
            curves,
        }),
        Result::Theta { model, rows } => Recorded::Lines(theta(&model, rows)),
    })
}

/// Figure 3 of the paper.
fn perplexity(model: &str, rows: &[PplRow]) -> Panels {
    let point = |row: &PplRow| {
        let (length, value) = (row.length, row.perplexity);
        // To first order: the perplexity is exp(nll).
        let standard_error = row.nll_standard_error.map(|e| e * value);
        (row.method.clone(), Point { length, value, standard_error })
    };
    one_panel(
        format!("Perplexity of {model} against length"),
        Axis::Length("tokens".into()),
        "of the last tokens of each window (less is better)",
        "perplexity",
        rows.iter().map(point),
    )
}

fn latency(model: &str, rows: &[LatencyRow]) -> Panels {
    let point = |row: &LatencyRow| {
        let (length, value) = (row.length, row.median_seconds);
        (row.method.clone(), Point { length, value, standard_error: None })
    };
    one_panel(
        format!("{model}: time until the first new token"),
        Axis::Length("tokens".into()),
        "median (less is better)",
        "seconds",
        rows.iter().map(point),
    )
}

fn passkey_anywhere(model: &str, rows: &[PasskeyRow]) -> Panels {
    let point = |row: &PasskeyRow| {
        let (length, value, standard_error) = (row.length, row.score, row.standard_error);
        (row.method.clone(), Point { length, value, standard_error })
    };
    let mut figure = one_panel(
        format!("{model}: what it finds of what it was told"),
        Axis::Length("tokens".into()),
        "told anywhere in the prompt, asked at its end",
        "share found",
        rows.iter().map(point),
    );
    figure.panels[0].range = Some((0.0, 1.0));
    figure
}

/// What was read to the end, a series a length. Several choices of a clamp are several series.
fn theta(model: &str, mut rows: Vec<ThetaRow>) -> Panels {
    rows.sort_by_key(|row| row.global);
    let clamped = rows.iter().any(|row| row.clamp_percent != rows[0].clamp_percent);
    let name = |row: &ThetaRow, length: usize| match clamped {
        true => format!("{length} tokens, clamp {} %", row.clamp_percent),
        false => format!("{length} tokens"),
    };
    let points = |row: &ThetaRow| -> Vec<(String, Point)> {
        let point = |l: &ThetaLength| {
            let point = Point { length: row.global, value: l.nll, standard_error: None };
            (name(row, l.length), point)
        };
        row.lengths.iter().map(point).collect()
    };
    let mut panels = one_panel(
        format!("{model}: how many channels should be global"),
        Axis::Count("global channels"),
        "held-out text (less is better)",
        "nll in nats",
        rows.iter().filter(|row| !row.stopped).flat_map(points),
    );
    let chosen = rows.iter().filter(|row| row.chosen).map(|row| (row.global, "chosen"));
    panels.panels[0].marks = chosen.collect();
    panels
}

/// A series a method, in the order in which they come.
fn one_panel(
    title: String,
    axis: Axis,
    subtitle: &str,
    value: &str,
    points: impl Iterator<Item = (String, Point)>,
) -> Panels {
    let mut series: Vec<Series> = Vec::new();
    for (name, point) in points {
        match series.iter_mut().find(|s| s.name == name) {
            Some(series) => series.points.push(point),
            None => {
                let look = Look::new(series.len(), 0);
                series.push(Series { name, look, points: vec![point] });
            }
        }
    }
    let chart = LineChart {
        title: subtitle.into(),
        axis,
        value: value.into(),
        range: None,
        series,
        level: None,
        marks: Vec::new(),
    };
    Panels { title, panels: vec![chart] }
}

/// A panel a method.
fn passkey(model: &str, unit: String, rows: &[PasskeyRow]) -> HeatMap {
    let mut lengths: Vec<usize> = rows.iter().map(|row| row.length).collect();
    lengths.sort_unstable();
    lengths.dedup();
    // `None`, anywhere, is the only one where it is there.
    let mut depths: Vec<Option<f64>> = rows.iter().map(|row| row.depth).collect();
    depths.sort_by(|a, b| a.unwrap_or(0.0).total_cmp(&b.unwrap_or(0.0)));
    depths.dedup();
    let mut methods: Vec<&String> = Vec::new();
    for row in rows {
        if !methods.contains(&&row.method) {
            methods.push(&row.method);
        }
    }
    let score = |method: &String, length: usize, depth: Option<f64>| {
        let mut found =
            rows.iter().filter(|r| (&r.method, r.length, r.depth) == (method, length, depth));
        found.next().map(|row| row.score)
    };
    let panel = |method: &String| {
        let column = |&length: &usize| depths.iter().map(|&d| score(method, length, d)).collect();
        (method.clone(), lengths.iter().map(column).collect())
    };
    HeatMap {
        title: format!("{model}: what it finds of what it was told"),
        unit,
        panels: methods.into_iter().map(panel).collect(),
        depths,
        lengths,
    }
}
