//! Hidden attention of a channel, and how far back it sees: figures 1 and 5 of the LongMamba paper.

use super::frame::{Axes, Frame, token_ticks};
use super::heat::shade;
use super::{Area, Drawn, Figure, INK, text_style};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};
use serde::Deserialize;

/// A row of panels a method, a column a length.
pub struct Attention {
    pub title: String,
    pub panels: Vec<AttentionPanel>,
}

/// What `longmamba attention --json` has of one map; tokens count from 0.
#[derive(Debug, Deserialize)]
pub struct AttentionPanel {
    method: String,
    length: usize,
    /// The token of each row.
    queries: Vec<usize>,
    /// The first token of each column.
    keys: Vec<usize>,
    /// `[row][column]`, −3 to 0.
    log10: Vec<Vec<f64>>,
    /// Of each row, in tokens.
    reach: Vec<Option<usize>>,
}

const TITLE: i32 = 44;
const SIDE: i32 = 256;
const LEFT: i32 = 84;
const TOP: i32 = 34;
const PANEL: (i32, i32) = (LEFT + SIDE + 22, TOP + SIDE + 58);
const BAR: i32 = LEFT + 40;
const LEGEND: i32 = 56;
/// Orders of magnitude that are shown.
const DECADES: f64 = 3.0;
/// So that neighbours can be one rectangle.
const SHADES: f64 = 24.0;
/// Of the outline.
const STEPS: usize = 32;
const OUTLINE: RGBColor = RGBColor(213, 94, 0);

impl Attention {
    /// Each of them once, in the order in which they come.
    fn methods(&self) -> Vec<&str> {
        let mut all: Vec<&str> = Vec::new();
        for panel in &self.panels {
            if !all.contains(&&*panel.method) {
                all.push(&panel.method);
            }
        }
        all
    }

    fn lengths(&self) -> Vec<usize> {
        let mut all: Vec<usize> = self.panels.iter().map(|p| p.length).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl Figure for Attention {
    fn size(&self) -> (u32, u32) {
        let (columns, rows) = (self.lengths().len() as i32, self.methods().len() as i32);
        let width = (PANEL.0 * columns + BAR).max(640);
        (width as u32, (TITLE + PANEL.1 * rows + LEGEND) as u32)
    }

    fn draw<DB>(&self, area: &Area<DB>) -> Drawn
    where
        DB: DrawingBackend,
        DB::ErrorType: 'static,
    {
        let (methods, lengths) = (self.methods(), self.lengths());
        let (width, height) = self.size();
        let (width, height) = (width as i32, height as i32);
        let style = text_style(19, HPos::Center, VPos::Center);
        area.draw_text(&self.title, &style, (width / 2, TITLE / 2 + 4))?;
        let frame = |column: i32, row: i32| Frame {
            left: LEFT + PANEL.0 * column,
            top: TITLE + TOP + PANEL.1 * row,
            width: SIDE,
            height: SIDE,
        };
        for panel in &self.panels {
            let column = lengths.iter().position(|&l| l == panel.length).unwrap_or(0);
            let row = methods.iter().position(|m| *m == panel.method).unwrap_or(0);
            panel.draw(area, frame(column as i32, row as i32))?;
        }
        bar(area, frame(lengths.len() as i32, 0))?;
        let (x, y) = (LEFT, height - LEGEND + 12);
        outline(area, vec![(x, y), (x + 40, y)])?;
        let style = text_style(13, HPos::Left, VPos::Center);
        let note = |text, line: i32| area.draw_text(text, &style, (x + 50, y + 19 * line));
        note("outline: the receptive field, back to the farthest token above 1/1000 of the", 0)?;
        note("largest attention, over each 32nd of the text; white: less than that", 1)?;
        Ok(())
    }
}

/// A line that is seen on white and on dark.
fn outline<DB>(area: &Area<DB>, points: Vec<(i32, i32)>) -> Drawn
where
    DB: DrawingBackend,
    DB::ErrorType: 'static,
{
    area.draw(&PathElement::new(points.clone(), WHITE.stroke_width(4)))?;
    area.draw(&PathElement::new(points, OUTLINE.stroke_width(2)))?;
    Ok(())
}

/// What the shades mean.
fn bar<DB>(area: &Area<DB>, frame: Frame) -> Drawn
where
    DB: DrawingBackend,
    DB::ErrorType: 'static,
{
    let frame = Frame { left: frame.left + 4, width: 16, ..frame };
    let steps = SHADES as i32;
    for step in 0..steps {
        let [from, to] = [step, step + 1].map(|s| f64::from(s) / SHADES);
        let corners = [frame.at(0.0, 1.0 - to), frame.at(1.0, 1.0 - from)];
        area.draw(&Rectangle::new(corners, shade(to).filled()))?;
    }
    let decades = DECADES as i32;
    let tick = |decade: i32| (f64::from(decade) / DECADES, (-decade).to_string());
    let axes = Axes {
        title: "",
        x: "",
        y: "log10 of |attention| ÷ its largest",
        x_ticks: Vec::new(),
        y_ticks: (0..=decades).map(tick).collect(),
    };
    frame.axes(area, &axes)
}

impl AttentionPanel {
    fn draw<DB>(&self, area: &Area<DB>, frame: Frame) -> Drawn
    where
        DB: DrawingBackend,
        DB::ErrorType: 'static,
    {
        let share = |token: usize| token as f64 / self.length.max(1) as f64;
        let level = |log10: f64| ((1.0 + log10 / DECADES) * SHADES).ceil().clamp(0.0, SHADES);
        let column = |index: usize| self.keys.get(index).map_or(1.0, |&key| share(key));
        let mut top = 0.0;
        for (values, &query) in self.log10.iter().zip(&self.queries) {
            let bottom = share(query.saturating_add(1));
            let mut start = 0;
            for same in values.chunk_by(|a, b| level(*a) == level(*b)) {
                let (end, level) = (start + same.len(), level(same[0]));
                if level > 0.0 {
                    // Columns may go past the row's own token.
                    let corners =
                        [frame.at(column(start), top), frame.at(column(end).min(bottom), bottom)];
                    area.draw(&Rectangle::new(corners, shade(level / SHADES).filled()))?;
                }
                start = end;
            }
            top = bottom;
        }
        area.draw(&PathElement::new([frame.at(0.0, 0.0), frame.at(1.0, 1.0)], INK))?;
        let mut steps = Vec::new();
        let mut top = 0.0;
        // The farthest of several rows: their own ups and downs would be a blot.
        let rows: Vec<_> = self.reach.iter().zip(&self.queries).collect();
        for rows in rows.chunks(rows.len().div_ceil(STEPS).max(1)) {
            let key = |&(reach, query): &(&Option<usize>, &usize)| {
                query.saturating_sub(reach.unwrap_or(0))
            };
            let farthest = share(rows.iter().map(key).min().unwrap_or(0));
            let bottom = share(rows.last().map_or(0, |(_, query)| query.saturating_add(1)));
            steps.extend([frame.at(farthest, top), frame.at(farthest, bottom)]);
            top = bottom;
        }
        if steps.len() > 1 {
            outline(area, steps)?;
        }
        let axes = Axes {
            title: &format!("{}, {} tokens", self.method, self.length),
            x: "token that is attended to",
            y: "token that attends",
            x_ticks: token_ticks(self.length),
            y_ticks: token_ticks(self.length),
        };
        frame.axes(area, &axes)
    }
}
