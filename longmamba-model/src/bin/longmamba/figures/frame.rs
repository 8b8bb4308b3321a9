//! A panel's frame: where shares of its axes lie in pixels, its ticks and names.

use super::{Area, Drawn, FONT, INK, text_style};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub left: i32,
    pub top: i32,
    pub width: i32,
    pub height: i32,
}

/// What stands around a frame.
pub struct Axes<'a> {
    pub title: &'a str,
    pub x: &'a str,
    pub y: &'a str,
    /// Shares of the axes, and how they are written.
    pub x_ticks: Vec<(f64, String)>,
    /// From the top.
    pub y_ticks: Vec<(f64, String)>,
}

/// Begin, middle and end of so many tokens.
pub fn token_ticks(tokens: usize) -> Vec<(f64, String)> {
    let at = |share: f64| (share, ((tokens as f64 * share) as usize).to_string());
    [0.0, 0.5, 1.0].map(at).to_vec()
}

impl Frame {
    /// The pixel at shares of the width, from the left, and of the height, from the top.
    pub fn at(&self, x: f64, y: f64) -> (i32, i32) {
        let place = |first: i32, len: i32, share: f64| {
            first + (f64::from(len) * share.clamp(0.0, 1.0)).round() as i32
        };
        (place(self.left, self.width, x), place(self.top, self.height, y))
    }

    pub fn axes<DB>(&self, area: &Area<DB>, axes: &Axes<'_>) -> Drawn
    where
        DB: DrawingBackend,
        DB::ErrorType: 'static,
    {
        area.draw(&Rectangle::new([self.at(0.0, 0.0), self.at(1.0, 1.0)], INK.stroke_width(1)))?;
        let centred = |size| text_style(size, HPos::Center, VPos::Center);
        let (middle, bottom) = self.at(0.5, 1.0);
        area.draw_text(axes.title, &centred(15), (middle, self.top - 16))?;
        area.draw_text(axes.x, &centred(14), (middle, bottom + 38))?;
        let label = text_style(13, HPos::Center, VPos::Top);
        for (share, text) in &axes.x_ticks {
            let at = self.at(*share, 1.0);
            area.draw(&PathElement::new([at, (at.0, at.1 + 5)], INK))?;
            area.draw_text(text, &label, (at.0, at.1 + 8))?;
        }
        let label = text_style(13, HPos::Right, VPos::Center);
        for (share, text) in &axes.y_ticks {
            let at = self.at(0.0, *share);
            area.draw(&PathElement::new([at, (at.0 - 5, at.1)], INK))?;
            area.draw_text(text, &label, (at.0 - 8, at.1))?;
        }
        let turned = (FONT, 14).into_font().transform(FontTransform::Rotate270).color(&INK);
        let turned = turned.pos(Pos::new(HPos::Center, VPos::Center));
        area.draw_text(axes.y, &turned, (self.left - 62, self.at(0.0, 0.5).1))?;
        Ok(())
    }
}
