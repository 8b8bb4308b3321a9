//! Cumulative decay of channels: figure 4 of the LongMamba paper.

use super::frame::{Axes, Frame, token_ticks};
use super::{Area, Drawn, Figure, INK, Look, PALE, text_style};
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};
use serde::Deserialize;

/// A panel a length, a look a method, a line a channel.
pub struct Decay {
    pub title: String,
    /// Channels with a higher score are global.
    pub theta: f64,
    /// The training length.
    pub trained: usize,
    pub curves: Vec<Curve>,
}

/// What `longmamba decay --json` has of one channel.
#[derive(Debug, Deserialize)]
pub struct Curve {
    method: String,
    length: usize,
    /// How many were read.
    tokens: Vec<usize>,
    /// log10 of what is left.
    log10: Vec<f64>,
}

const TITLE: i32 = 44;
const SIZE: (i32, i32) = (300, 280);
const LEFT: i32 = 84;
const TOP: i32 = 34;
const PANEL: (i32, i32) = (LEFT + SIZE.0 + 26, TOP + SIZE.1 + 58);
const LEGEND_ROW: i32 = 26;
/// Orders of magnitude that are shown at most: less is as good as nothing.
const DECADES: f64 = 10.0;

impl Decay {
    fn methods(&self) -> Vec<&str> {
        let mut all: Vec<&str> = Vec::new();
        for curve in &self.curves {
            if !all.contains(&&*curve.method) {
                all.push(&curve.method);
            }
        }
        all
    }

    fn lengths(&self) -> Vec<usize> {
        let mut all: Vec<usize> = self.curves.iter().map(|c| c.length).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whole orders of magnitude on the y axis.
    fn decades(&self) -> f64 {
        let least = self.curves.iter().flat_map(|c| &c.log10).copied().fold(0.0, f64::min);
        (-least).ceil().clamp(1.0, DECADES)
    }

    fn panel<DB>(&self, area: &Area<DB>, frame: Frame, length: usize) -> Drawn
    where
        DB: DrawingBackend,
        DB::ErrorType: 'static,
    {
        let decades = self.decades();
        let x = |tokens: usize| tokens as f64 / length.max(1) as f64;
        let y = |log10: f64| -log10 / decades;
        let ticks = (0..=decades as i32).map(|d| (y(f64::from(-d)), format!("1e{}", -d)));
        let ticks: Vec<(f64, String)> =
            ticks.map(|(share, text)| (share, text.replace("1e0", "1"))).collect();
        for (share, _) in &ticks {
            area.draw(&PathElement::new([frame.at(0.0, *share), frame.at(1.0, *share)], PALE))?;
        }
        let small = text_style(13, HPos::Left, VPos::Bottom);
        let dotted = |ends: Vec<(i32, i32)>| DashedPathElement::new(ends, 2, 4, INK);
        if self.trained <= length {
            let top = frame.at(x(self.trained), 0.0);
            area.draw(&dotted(vec![top, frame.at(x(self.trained), 1.0)]))?;
            // On the side that has room.
            let (side, gap) =
                if x(self.trained) > 0.5 { (HPos::Right, -5) } else { (HPos::Left, 5) };
            let at = frame.at(x(self.trained), 0.94);
            area.draw_text(
                "training length",
                &text_style(13, side, VPos::Bottom),
                (at.0 + gap, at.1),
            )?;
        }
        let theta = self.theta.log10();
        if theta <= 0.0 && theta >= -decades {
            let ends = vec![frame.at(0.0, y(theta)), frame.at(1.0, y(theta))];
            area.draw_text("θ", &small, (ends[0].0 + 6, ends[0].1 - 2))?;
            area.draw(&dotted(ends))?;
        }
        // The first, which is dashed, goes over the second: where they are the same both are seen.
        for (number, method) in self.methods().into_iter().enumerate().rev() {
            let look = Look::new(number, 0);
            for curve in self.curves.iter().filter(|c| c.method == method && c.length == length) {
                let points = curve.tokens.iter().zip(&curve.log10);
                // What goes out of the frame ends there.
                let within = points.take_while(|(_, log10)| **log10 >= -decades);
                let line = within.map(|(&tokens, &log10)| frame.at(x(tokens), y(log10)));
                let line: Vec<(i32, i32)> =
                    std::iter::once(frame.at(0.0, 0.0)).chain(line).collect();
                look.line(area, line)?;
            }
        }
        let axes = Axes {
            title: &format!("{length} tokens"),
            x: "tokens read",
            y: "share left of the state before the text",
            x_ticks: token_ticks(length),
            y_ticks: ticks,
        };
        frame.axes(area, &axes)
    }
}

impl Figure for Decay {
    fn size(&self) -> (u32, u32) {
        let width = (PANEL.0 * self.lengths().len() as i32).max(520);
        let legend = LEGEND_ROW * (self.methods().len() as i32 + 1);
        (width as u32, (TITLE + PANEL.1 + legend) as u32)
    }

    fn draw<DB>(&self, area: &Area<DB>) -> Drawn
    where
        DB: DrawingBackend,
        DB::ErrorType: 'static,
    {
        let (width, _) = self.size();
        let style = text_style(19, HPos::Center, VPos::Center);
        area.draw_text(&self.title, &style, (width as i32 / 2, TITLE / 2 + 4))?;
        for (column, length) in self.lengths().into_iter().enumerate() {
            let left = LEFT + PANEL.0 * column as i32;
            let frame = Frame { left, top: TITLE + TOP, width: SIZE.0, height: SIZE.1 };
            self.panel(area, frame, length)?;
        }
        let style = text_style(14, HPos::Left, VPos::Center);
        let mut y = TITLE + PANEL.1 + 8;
        for (number, method) in self.methods().into_iter().enumerate() {
            Look::new(number, 0).line(area, vec![(LEFT, y), (LEFT + 40, y)])?;
            area.draw_text(method, &style, (LEFT + 50, y))?;
            y += LEGEND_ROW;
        }
        area.draw_text("a line a channel", &text_style(13, HPos::Left, VPos::Center), (LEFT, y))?;
        Ok(())
    }
}
