//! A grid of shares: length against depth.

use super::{Area, Drawn, FONT, Figure, INK, text_style};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Panels side by side, one a method, of the same lengths and depths.
pub struct HeatMap {
    pub title: String,
    /// What a length counts.
    pub unit: String,
    pub lengths: Vec<usize>,
    /// `None`: anywhere.
    pub depths: Vec<Option<f64>>,
    /// A name, and `value[length][depth]`, 0 to 1; `None` where nothing was measured.
    pub panels: Vec<(String, Vec<Vec<Option<f64>>>)>,
}

const TITLE: u32 = 44;
/// Of a page.
const WIDTH: u32 = 1200;
const CELL: (i32, i32) = (58, 34);
const LEFT: i32 = 74;
const TOP: i32 = 30;
const BOTTOM: i32 = 56;

/// White for 0 to dark blue for 1: darker is more, in grey as well.
pub fn shade(value: f64) -> RGBColor {
    let mix = |from: f64, to: f64| (from + (to - from) * value.clamp(0.0, 1.0)).round() as u8;
    RGBColor(mix(247.0, 8.0), mix(251.0, 48.0), mix(255.0, 107.0))
}

impl HeatMap {
    /// Width and height of a panel.
    fn panel_size(&self) -> (u32, u32) {
        let width = LEFT + CELL.0 * self.lengths.len() as i32 + 16;
        let height = TOP + CELL.1 * self.depths.len() as i32 + BOTTOM;
        (width as u32, height as u32)
    }

    /// Columns and rows of panels: about as wide as a page.
    fn grid(&self) -> (usize, usize) {
        let panels = self.panels.len().max(1);
        let columns = (WIDTH / self.panel_size().0).max(1) as usize;
        // The same number of rows with as few columns as it takes.
        let rows = panels.div_ceil(columns);
        (panels.div_ceil(rows), rows)
    }
}

impl Figure for HeatMap {
    fn size(&self) -> (u32, u32) {
        let ((width, height), (columns, rows)) = (self.panel_size(), self.grid());
        ((width * columns as u32).max(420), TITLE + height * rows as u32)
    }

    fn draw<DB>(&self, area: &Area<DB>) -> Drawn
    where
        DB: DrawingBackend,
        DB::ErrorType: 'static,
    {
        let (width, _) = self.size();
        let (title, rest) = area.split_vertically(TITLE);
        let middle = (width as i32 / 2, TITLE as i32 / 2 + 4);
        title.draw_text(&self.title, &text_style(19, HPos::Center, VPos::Center), middle)?;
        let (columns, rows) = self.grid();
        let areas = rest.split_evenly((rows, columns));
        for (area, (name, values)) in areas.iter().zip(&self.panels) {
            self.panel(area, name, values)?;
        }
        Ok(())
    }
}

impl HeatMap {
    fn panel<DB>(&self, area: &Area<DB>, name: &str, values: &[Vec<Option<f64>>]) -> Drawn
    where
        DB: DrawingBackend,
        DB::ErrorType: 'static,
    {
        let corner =
            |column: usize, row: usize| (LEFT + CELL.0 * column as i32, TOP + CELL.1 * row as i32);
        let centre = corner(self.lengths.len(), 0).0 / 2 + LEFT / 2;
        area.draw_text(name, &text_style(15, HPos::Center, VPos::Center), (centre, TOP / 2))?;
        for (column, values) in values.iter().enumerate() {
            for (row, value) in values.iter().enumerate() {
                let (from, to) = (corner(column, row), corner(column + 1, row + 1));
                let at = ((from.0 + to.0) / 2, (from.1 + to.1) / 2);
                let Some(value) = value else {
                    area.draw_text("–", &text_style(14, HPos::Center, VPos::Center), at)?;
                    continue;
                };
                area.draw(&Rectangle::new([from, to], shade(*value).filled()))?;
                let ink = if *value > 0.5 { WHITE } else { INK };
                let style =
                    (FONT, 14).into_font().color(&ink).pos(Pos::new(HPos::Center, VPos::Center));
                area.draw_text(&format!("{value:.2}"), &style, at)?;
            }
        }
        let last = corner(self.lengths.len(), self.depths.len());
        area.draw(&Rectangle::new([corner(0, 0), last], INK.stroke_width(1)))?;
        let label = text_style(13, HPos::Right, VPos::Center);
        for (row, depth) in self.depths.iter().enumerate() {
            let depth = depth.map_or("any".into(), |depth| format!("{depth:.2}"));
            area.draw_text(&depth, &label, (LEFT - 8, corner(0, row).1 + CELL.1 / 2))?;
        }
        let label = text_style(13, HPos::Center, VPos::Top);
        for (column, length) in self.lengths.iter().enumerate() {
            let at = (corner(column, 0).0 + CELL.0 / 2, last.1 + 8);
            area.draw_text(&length.to_string(), &label, at)?;
        }
        let name = format!("length in {}", self.unit);
        area.draw_text(&name, &text_style(14, HPos::Center, VPos::Center), (centre, last.1 + 38))?;
        let turned = (FONT, 14).into_font().transform(FontTransform::Rotate270).color(&INK);
        let turned = turned.pos(Pos::new(HPos::Center, VPos::Center));
        let at = (16, (TOP + last.1) / 2);
        area.draw_text("depth (0: at the start)", &turned, at)?;
        Ok(())
    }
}
