//! How a series looks: it must be told from the others without colours too.

use super::{Area, Drawn};
use plotters::element::DashedPathElement;
use plotters::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    Circle,
    Triangle,
    Square,
    Diamond,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub colour: RGBColor,
    /// Dash and gap in pixels.
    pub dash: Option<(i32, i32)>,
    pub marker: Marker,
    pub hollow: bool,
}

/// Colours that also differ in brightness, and for those with the most common kinds of colour blindness.
const COLOURS: [RGBColor; 7] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 90, 160),
    RGBColor(0, 140, 100),
    RGBColor(150, 70, 130),
    RGBColor(176, 130, 0),
    RGBColor(60, 60, 60),
    RGBColor(70, 160, 210),
];
const DASHES: [Option<(i32, i32)>; 4] = [Some((7, 5)), None, Some((2, 4)), Some((14, 4))];
const MARKERS: [Marker; 4] = [Marker::Circle, Marker::Triangle, Marker::Square, Marker::Diamond];

impl Look {
    /// Of the series with this number, in a group, such as a model, with that one.
    pub fn new(series: usize, group: usize) -> Self {
        Look {
            colour: COLOURS[series % COLOURS.len()],
            dash: DASHES[series % DASHES.len()],
            marker: MARKERS[(series / 2 + group) % MARKERS.len()],
            hollow: series.is_multiple_of(2),
        }
    }

    /// A line in pixels.
    pub fn line<DB>(self, area: &Area<DB>, points: Vec<(i32, i32)>) -> Drawn
    where
        DB: DrawingBackend,
        DB::ErrorType: 'static,
    {
        let stroke = self.colour.stroke_width(2);
        match self.dash {
            Some((dash, gap)) => area.draw(&DashedPathElement::new(points, dash, gap, stroke))?,
            None => area.draw(&PathElement::new(points, stroke))?,
        }
        Ok(())
    }

    /// A marker around a point in pixels.
    pub fn mark<DB>(self, area: &Area<DB>, at: (i32, i32)) -> Drawn
    where
        DB: DrawingBackend,
        DB::ErrorType: 'static,
    {
        let (outer, inner) = (self.colour.filled(), WHITE.filled());
        for (size, style) in [(6, outer), (4, inner)].into_iter().take(1 + usize::from(self.hollow))
        {
            match self.marker {
                Marker::Circle => area.draw(&Circle::new(at, size - 1, style))?,
                corners => area.draw(&Polygon::new(corners.around(at, size), style))?,
            }
        }
        Ok(())
    }
}

impl Marker {
    fn around(self, (x, y): (i32, i32), size: i32) -> Vec<(i32, i32)> {
        let corners: &[(i32, i32)] = match self {
            Marker::Triangle => &[(0, -8), (7, 5), (-7, 5)],
            Marker::Square | Marker::Circle => &[(-5, -5), (5, -5), (5, 5), (-5, 5)],
            Marker::Diamond => &[(0, -7), (7, 0), (0, 7), (-7, 0)],
        };
        corners.iter().map(|(dx, dy)| (x + dx * size / 6, y + dy * size / 6)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_differ_without_colours() {
        let plain = |l: Look| (l.dash, l.marker, l.hollow);
        let looks: Vec<_> = (0..7).map(|series| Look::new(series, 0)).collect();
        for (i, a) in looks.iter().enumerate() {
            for b in &looks[..i] {
                assert_ne!(plain(*a), plain(*b));
                assert_ne!(a.colour, b.colour);
            }
        }
        // And the same method of two models.
        assert_ne!(Look::new(1, 0).marker, Look::new(1, 1).marker);
    }
}
