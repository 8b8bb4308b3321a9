//! The demo's picture: recall and bits per byte against length.

use crate::args::Method;
use crate::demo::{Measured, Row, shown};
use crate::failure::{Failure, Outcome};
use longmamba_model::eval::Estimate;
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const SIZE: (u32, u32) = (1000, 470);
const TITLE: u32 = 44;
const LEGEND: u32 = 62;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
const PALE: RGBColor = RGBColor(222, 222, 222);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// How a line looks. Method and model differ in stroke and marker too, not in colour alone.
#[derive(Clone, Copy)]
struct Look {
    colour: RGBColor,
    dashed: bool,
    triangle: bool,
}

impl Look {
    /// Of method number `slot` of those that were run.
    fn of(method: &str, slot: usize, model: usize) -> Self {
        const OTHERS: [RGBColor; 5] = [
            RGBColor(0, 158, 115),
            RGBColor(204, 121, 167),
            RGBColor(230, 159, 0),
            RGBColor(86, 180, 233),
            RGBColor(0, 0, 0),
        ];
        let (colour, dashed) = match method {
            Method::VANILLA => (RGBColor(213, 94, 0), true),
            Method::LONGMAMBA => (RGBColor(0, 90, 160), false),
            _ => (OTHERS[slot % OTHERS.len()], false),
        };
        Look { colour, dashed, triangle: model % 2 == 1 }
    }

    /// Vanilla's markers are hollow: white inside.
    fn fill(self) -> ShapeStyle {
        if self.dashed { WHITE.filled() } else { self.colour.filled() }
    }
}

/// A panel: what is on its y axis.
struct Panel {
    title: &'static str,
    unit: &'static str,
    value: fn(&Row) -> Estimate,
    /// A level to compare with, and its name.
    level: Option<(f64, &'static str)>,
    range: (f64, f64),
}

/// The picture as SVG text.
pub fn svg(models: &[Measured]) -> Outcome<String> {
    let mut text = String::new();
    draw(models, &mut text)
        .map_err(|e| Failure::input(format!("the plot cannot be drawn: {e}")))?;
    Ok(text)
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(models: &[Measured], text: &mut String) -> Drawn {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (title, rest) = root.split_vertically(TITLE);
    let (panels, legend) = rest.split_vertically(SIZE.1 - TITLE - LEGEND);
    let style = (FONT, 21).into_font().color(&INK).pos(Pos::new(HPos::Center, VPos::Center));
    title.draw_text(
        "Reading far past the training length, without and with LongMamba",
        &style,
        (SIZE.0 as i32 / 2, TITLE as i32 / 2 + 4),
    )?;

    let highest =
        models.iter().flat_map(|m| &m.rows).map(|r| r.bits_per_byte.mean).fold(0.0, f64::max);
    let all = [
        Panel {
            title: "Recall: share of 5 facts known at the end",
            unit: "share right",
            value: |row| row.recall,
            level: Some((1.0 / 16.0, "chance (1/16)")),
            range: (0.0, 1.0),
        },
        Panel {
            title: "Prediction: bits per byte of the last 100 bytes (less is better)",
            unit: "bits per byte",
            value: |row| row.bits_per_byte,
            level: None,
            range: (0.0, (highest * 1.25).max(1.0).ceil()),
        },
    ];
    for (area, panel) in panels.split_evenly((1, 2)).iter().zip(&all) {
        draw_panel(area, panel, models)?;
    }
    draw_legend(&legend, models)?;
    root.present()?;
    Ok(())
}

fn draw_panel(area: &Area<'_>, panel: &Panel, models: &[Measured]) -> Drawn {
    // log2 of the length.
    let x = |row: &Row| (row.length as f64).log2();
    let lengths = || models.iter().flat_map(|m| &m.rows).map(x);
    let (low, high) = (lengths().fold(f64::INFINITY, f64::min), lengths().fold(0.0, f64::max));
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, (FONT, 16).into_font().color(&INK))
        .margin(8)
        .margin_right(24)
        .x_label_area_size(46)
        .y_label_area_size(58)
        .build_cartesian_2d(low - 0.25..high + 0.25, panel.range.0..panel.range.1)?;
    chart
        .configure_mesh()
        .x_labels((high - low) as usize + 1)
        .x_label_formatter(&|x| format!("{:.0}", x.exp2()))
        .x_desc("prompt length in bytes (doubling)")
        .y_desc(panel.unit)
        .y_labels(6)
        .y_label_formatter(&|y| format!("{y:.1}"))
        .label_style((FONT, 14).into_font().color(&INK))
        .axis_desc_style((FONT, 15).into_font().color(&INK))
        .axis_style(INK)
        .bold_line_style(PALE)
        .light_line_style(TRANSPARENT)
        .draw()?;

    let small = (FONT, 13).into_font().color(&INK);
    let mut lines: Vec<usize> = models.iter().map(|m| m.train_len).collect();
    lines.dedup();
    for train_len in lines {
        let x = (train_len as f64).log2();
        chart.draw_series(DashedLineSeries::new(
            [(x, panel.range.0), (x, panel.range.1)],
            2,
            4,
            INK.into(),
        ))?;
        let top = panel.range.1 - 0.02 * (panel.range.1 - panel.range.0);
        chart.draw_series([Text::new("training length", (x + 0.06, top), small.clone())])?;
    }
    if let Some((level, name)) = panel.level {
        let line = [(low - 0.25, level), (high + 0.25, level)];
        chart.draw_series(DashedLineSeries::new(line, 2, 4, INK.into()))?;
        let at = (low - 0.2, level - 0.01);
        chart.draw_series([Text::new(name, at, small)])?;
    }
    for (index, model) in models.iter().enumerate() {
        for (slot, method) in model.methods().into_iter().enumerate() {
            let look = Look::of(method, slot, index);
            let points: Vec<(f64, Estimate)> =
                model.of(method).map(|row| (x(row), (panel.value)(row))).collect();
            let line = points.iter().map(|(x, e)| (*x, e.mean));
            let stroke = look.colour.stroke_width(2);
            match look.dashed {
                true => chart.draw_series(DashedLineSeries::new(line.clone(), 7, 5, stroke))?,
                false => chart.draw_series(LineSeries::new(line.clone(), stroke))?,
            };
            let bars = points.iter().filter_map(|(x, e)| Some((*x, e.mean, e.standard_error?)));
            chart.draw_series(bars.map(|(x, mean, error)| {
                PathElement::new(
                    [(x, mean - error), (x, mean + error)],
                    look.colour.stroke_width(1),
                )
            }))?;
            let markers: Vec<(f64, f64)> = line.collect();
            if look.triangle {
                chart.draw_series(
                    markers.iter().map(|&at| TriangleMarker::new(at, 7, look.colour.filled())),
                )?;
                if look.dashed {
                    chart.draw_series(
                        markers.iter().map(|&at| TriangleMarker::new(at, 4, look.fill())),
                    )?;
                }
            } else {
                chart.draw_series(
                    markers.iter().map(|&at| Circle::new(at, 5, look.colour.filled())),
                )?;
                if look.dashed {
                    chart.draw_series(markers.iter().map(|&at| Circle::new(at, 3, look.fill())))?;
                }
            }
        }
    }
    Ok(())
}

/// One entry a line, in a row below the panels.
fn draw_legend(area: &Area<'_>, models: &[Measured]) -> Drawn {
    let style = (FONT, 15).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
    let entries: Vec<(String, Look)> = models
        .iter()
        .enumerate()
        .flat_map(|(index, model)| {
            model.methods().into_iter().enumerate().map(move |(slot, method)| {
                let name = format!("{}, {}", model.name, shown(method));
                (name, Look::of(method, slot, index))
            })
        })
        .collect();
    let width = SIZE.0 as i32 / entries.len().max(1) as i32;
    for (slot, (name, look)) in entries.into_iter().enumerate() {
        let (x, y) = (slot as i32 * width + 16, 18);
        let (ends, middle) = ([(x, y), (x + 40, y)], (x + 20, y));
        let stroke = look.colour.stroke_width(2);
        match look.dashed {
            true => area.draw(&DashedPathElement::new(ends, 7, 5, stroke))?,
            false => area.draw(&PathElement::new(ends, stroke))?,
        }
        if look.triangle {
            area.draw(&TriangleMarker::new(middle, 7, look.colour.filled()))?;
            area.draw(&TriangleMarker::new(middle, if look.dashed { 4 } else { 7 }, look.fill()))?;
        } else {
            area.draw(&Circle::new(middle, 5, look.colour.filled()))?;
            area.draw(&Circle::new(middle, if look.dashed { 3 } else { 5 }, look.fill()))?;
        }
        area.draw_text(&name, &style, (x + 48, y))?;
    }
    let small = (FONT, 13).into_font().color(&INK).pos(Pos::new(HPos::Center, VPos::Center));
    area.draw_text("bars: standard error of the mean", &small, (SIZE.0 as i32 / 2, 46))?;
    Ok(())
}
