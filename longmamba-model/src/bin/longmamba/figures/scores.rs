//! The scores of a plan's channels, and where θ is among them.

use super::{Area, Drawn, FONT, Figure, INK, PALE, text_style};
use longmamba_model::policy::Histogram;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

pub struct Scores {
    pub title: String,
    /// Of log10 of the scores.
    pub histogram: Histogram,
    /// Of those of global channels, in the same bins.
    pub global_histogram: Histogram,
    pub theta: f64,
    pub global: usize,
    pub channels: usize,
}

const BAR: RGBColor = RGBColor(120, 160, 200);
const GLOBAL: RGBColor = RGBColor(0, 70, 130);

impl Figure for Scores {
    fn size(&self) -> (u32, u32) {
        (760, 420)
    }

    fn draw<DB>(&self, area: &Area<DB>) -> Drawn
    where
        DB: DrawingBackend,
        DB::ErrorType: 'static,
    {
        let Histogram { low, high, ref counts, below, .. } = self.histogram;
        let width = (high - low) / counts.len().max(1) as f64;
        // What is below the first bin has a bar of its own, left of the axis' beginning.
        let start = low - 2.0 * width;
        let most = counts.iter().copied().max().unwrap_or(0).max(below).max(1) as f64;
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, (FONT, 18).into_font().color(&INK))
            .margin(10)
            .margin_right(24)
            .x_label_area_size(50)
            .y_label_area_size(64)
            .build_cartesian_2d(start..high, 0.0..most * 1.15)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_desc("score: what is left of a channel's memory after a training length, log10")
            .y_desc("channels")
            .x_label_formatter(&|x| if *x < low { String::new() } else { format!("{x:.0}") })
            .y_label_formatter(&|y| format!("{y:.0}"))
            .label_style((FONT, 13).into_font().color(&INK))
            .axis_desc_style((FONT, 14).into_font().color(&INK))
            .axis_style(INK)
            .bold_line_style(PALE)
            .light_line_style(TRANSPARENT)
            .draw()?;
        let bars = |of: &Histogram| -> Vec<(f64, usize)> {
            let counts = of.counts.iter().enumerate().map(|(i, &n)| (low + i as f64 * width, n));
            std::iter::once((start, of.below)).chain(counts).collect()
        };
        for (of, colour) in [(&self.histogram, BAR), (&self.global_histogram, GLOBAL)] {
            chart.draw_series(bars(of).into_iter().filter(|(_, n)| *n > 0).map(
                |(from, count)| {
                    let gap = 0.06 * width;
                    let corners = [(from + gap, 0.0), (from + width - gap, count as f64)];
                    Rectangle::new(corners, colour.filled())
                },
            ))?;
        }
        let theta = self.theta.log10().clamp(low, high);
        chart.draw_series(DashedLineSeries::new(
            [(theta, 0.0), (theta, most * 1.15)],
            6,
            4,
            INK.stroke_width(2),
        ))?;
        let right = theta - start > 0.6 * (high - start);
        let (side, gap) =
            if right { (HPos::Right, -width / 4.0) } else { (HPos::Left, width / 4.0) };
        let style = text_style(14, side, VPos::Top);
        let text =
            format!("θ = {:e}: {} of {} are global (dark)", self.theta, self.global, self.channels);
        chart.draw_series([Text::new(text, (theta + gap, most * 1.13), style)])?;
        if below > 0 {
            let style = text_style(13, HPos::Center, VPos::Bottom);
            let at = (start + width / 2.0, below as f64 + most * 0.01);
            chart.draw_series([Text::new("less", at, style)])?;
        }
        Ok(())
    }
}
