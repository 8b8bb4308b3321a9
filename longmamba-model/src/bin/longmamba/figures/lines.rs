//! Something measured against length, a line a series.

use super::{Area, Drawn, FONT, Figure, INK, Look, PALE, text_style};
use longmamba_model::eval::Estimate;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

/// A measured value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Or another [`Axis`].
    pub length: usize,
    pub value: f64,
    pub standard_error: Option<f64>,
}

impl Point {
    pub fn new(length: usize, value: Estimate) -> Self {
        Point { length, value: value.mean, standard_error: value.standard_error }
    }
}

pub struct Series {
    pub name: String,
    pub look: Look,
    pub points: Vec<Point>,
}

/// A value to compare with.
pub struct Level {
    pub name: &'static str,
    pub value: f64,
}

/// What is on the x axis.
pub enum Axis {
    /// The logarithm of a length in this unit.
    Length(String),
    /// How many there are of something, from 0 on.
    Count(&'static str),
}

impl Axis {
    fn place(&self, at: usize) -> f64 {
        match self {
            Axis::Length(_) => (at.max(1) as f64).log2(),
            Axis::Count(_) => at as f64,
        }
    }

    fn title(&self) -> String {
        match self {
            Axis::Length(unit) => format!("length in {unit} (logarithmic)"),
            Axis::Count(what) => (*what).to_owned(),
        }
    }
}

/// One panel, with a tick at each measured place of the x axis.
pub struct LineChart {
    pub title: String,
    pub axis: Axis,
    /// What is on the y axis, with its unit.
    pub value: String,
    /// From and to; `None` takes what there is, on a logarithmic axis where that spans more than a decade.
    pub range: Option<(f64, f64)>,
    pub series: Vec<Series>,
    pub level: Option<Level>,
    /// Places on the x axis with a name, such as training lengths.
    pub marks: Vec<(usize, &'static str)>,
}

/// Panels side by side, with one legend for the series of the first.
pub struct Panels {
    pub title: String,
    pub panels: Vec<LineChart>,
}

const TITLE: u32 = 44;
const LEGEND_ROW: u32 = 26;
const LEGEND_ENTRY: u32 = 250;
const NOTE: u32 = 30;

impl Panels {
    fn legend_columns(&self) -> usize {
        (self.size().0 / LEGEND_ENTRY) as usize
    }

    fn legend_rows(&self) -> usize {
        self.panels.first().map_or(0, |p| p.series.len()).div_ceil(self.legend_columns())
    }

    fn legend<DB>(&self, area: &Area<DB>) -> Drawn
    where
        DB: DrawingBackend,
        DB::ErrorType: 'static,
    {
        let series = self.panels.first().map_or(&[][..], |p| &p.series);
        let columns = self.legend_columns().min(series.len().max(1));
        let left = (self.size().0 as i32 - columns as i32 * LEGEND_ENTRY as i32) / 2 + 16;
        let style = text_style(15, HPos::Left, VPos::Center);
        for (slot, Series { name, look, .. }) in series.iter().enumerate() {
            let x = left + (slot % columns) as i32 * LEGEND_ENTRY as i32;
            let y = 14 + (slot / columns) as i32 * LEGEND_ROW as i32;
            look.line(area, vec![(x, y), (x + 40, y)])?;
            look.mark(area, (x + 20, y))?;
            area.draw_text(name, &style, (x + 48, y))?;
        }
        let points = || self.panels.iter().flat_map(|p| &p.series).flat_map(|s| &s.points);
        if points().all(|point| point.standard_error.is_none()) {
            return Ok(());
        }
        let y = (self.legend_rows() as u32 * LEGEND_ROW + NOTE / 2) as i32;
        let note = "bars: standard error of the mean";
        area.draw_text(
            note,
            &text_style(13, HPos::Center, VPos::Center),
            (self.size().0 as i32 / 2, y),
        )?;
        Ok(())
    }
}

impl Figure for Panels {
    fn size(&self) -> (u32, u32) {
        let width = if self.panels.len() < 2 { 760 } else { 1000 };
        // The legend's rows depend on the width alone.
        let entries = self.panels.first().map_or(0, |p| p.series.len()) as u32;
        (width, TITLE + 380 + entries.div_ceil(width / LEGEND_ENTRY) * LEGEND_ROW + NOTE)
    }

    fn draw<DB>(&self, area: &Area<DB>) -> Drawn
    where
        DB: DrawingBackend,
        DB::ErrorType: 'static,
    {
        let (width, _) = self.size();
        let (title, rest) = area.split_vertically(TITLE);
        let (panels, legend) = rest.split_vertically(380);
        let style = text_style(20, HPos::Center, VPos::Center);
        title.draw_text(&self.title, &style, (width as i32 / 2, TITLE as i32 / 2 + 4))?;
        for (area, panel) in
            panels.split_evenly((1, self.panels.len().max(1))).iter().zip(&self.panels)
        {
            panel.draw(area)?;
        }
        self.legend(&legend)
    }
}

/// The y axis.
#[derive(Clone, Copy)]
struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Scale {
    fn of(chart: &LineChart) -> Self {
        if let Some((low, high)) = chart.range {
            return Scale { low, high, logarithmic: false };
        }
        let points = || chart.series.iter().flat_map(|s| &s.points);
        let highest = points().map(|p| p.value).fold(f64::MIN_POSITIVE, f64::max);
        let lowest = points().map(|p| p.value).fold(highest, f64::min);
        if lowest > 0.0 && highest / lowest > 10.0 {
            let (low, high) = (lowest.log10() - 0.1, highest.log10() + 0.1);
            return Scale { low, high, logarithmic: true };
        }
        let error = |p: &Point| p.standard_error.unwrap_or(0.0);
        let highest = points().map(|p| p.value + error(p)).fold(highest, f64::max);
        let lowest = points().map(|p| p.value - error(p)).fold(lowest, f64::min);
        let spread = (highest - lowest).max(highest.abs() * 0.05).max(f64::MIN_POSITIVE);
        Scale {
            low: (lowest - 0.2 * spread).min(lowest),
            high: highest + 0.2 * spread,
            logarithmic: false,
        }
    }

    fn place(self, value: f64) -> f64 {
        let place = if self.logarithmic { value.max(f64::MIN_POSITIVE).log10() } else { value };
        place.clamp(self.low, self.high)
    }

    /// Round values, ascending: 1, 2 and 5 of each decade, or of that kind of step; and how they are written.
    fn ticks(self) -> Vec<(f64, String)> {
        if self.logarithmic {
            let decades = self.low.floor() as i32..=self.high.ceil() as i32;
            let sparse = self.high - self.low > 3.0;
            let of_decade: &[f64] = if sparse { &[1.0] } else { &[1.0, 2.0, 5.0] };
            let all = decades.flat_map(|d| of_decade.iter().map(move |m| m * 10f64.powi(d)));
            let within = all.filter(|v| (self.low..=self.high).contains(&v.log10()));
            return within.map(|value| (value, shown(value, value))).collect();
        }
        let rough = (self.high - self.low) / 6.0;
        let decade = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * decade).into_iter().find(|&s| s >= rough);
        let step = step.unwrap_or(10.0 * decade);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        (first..=last).map(|i| i as f64 * step).map(|value| (value, shown(value, step))).collect()
    }
}

/// With as many decimals as a multiple of `step` has.
fn shown(value: f64, step: f64) -> String {
    match value.abs() {
        v if v >= 1e5 => format!("{value:.0e}"),
        // Rounding must not make 0.001 one of 0.00099.
        _ => format!("{value:.*}", (-(step.log10() + 1e-9).floor()).clamp(0.0, 9.0) as usize),
    }
}

impl LineChart {
    fn lengths(&self) -> Vec<usize> {
        let mut all: Vec<usize> =
            self.series.iter().flat_map(|s| &s.points).map(|p| p.length).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn draw<DB>(&self, area: &Area<DB>) -> Drawn
    where
        DB: DrawingBackend,
        DB::ErrorType: 'static,
    {
        let x = |length: usize| self.axis.place(length);
        let lengths = self.lengths();
        let (first, last) =
            (lengths.first().map_or(0.0, |&l| x(l)), lengths.last().map_or(1.0, |&l| x(l)));
        let margin = ((last - first) * 0.05).max(0.25);
        let scale = Scale::of(self);
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, (FONT, 15).into_font().color(&INK))
            .margin(8)
            .margin_right(24)
            .x_label_area_size(50)
            .y_label_area_size(66)
            .build_cartesian_2d(first - margin..last + margin, scale.low..scale.high)?;
        chart.configure_mesh().disable_mesh().x_labels(0).y_labels(0).axis_style(INK).draw()?;
        let plane = chart.as_coord_spec().clone();
        self.axes(area, &plane, (first - margin, last + margin), scale)?;

        let pixel = |at: (f64, f64)| place(&plane, area, at);
        let small = text_style(13, HPos::Left, VPos::Top);
        let mut marks = self.marks.clone();
        marks.dedup();
        for (length, name) in marks {
            let at = x(length).clamp(first - margin, last + margin);
            let (top, bottom) = (pixel((at, scale.high)), pixel((at, scale.low)));
            area.draw(&plotters::element::DashedPathElement::new(vec![top, bottom], 2, 4, INK))?;
            area.draw_text(name, &small, (top.0 + 5, top.1 + 3))?;
        }
        if let Some(Level { name, value }) = self.level {
            let ends = [first - margin, last + margin].map(|x| pixel((x, scale.place(value))));
            area.draw(&plotters::element::DashedPathElement::new(ends.to_vec(), 2, 4, INK))?;
            area.draw_text(name, &small, (ends[0].0 + 5, ends[0].1 + 3))?;
        }
        for Series { look, points, .. } in &self.series {
            let at = |p: &Point, value: f64| pixel((x(p.length), scale.place(value)));
            for point in points {
                if let Some(error) = point.standard_error {
                    let ends = [point.value - error, point.value + error].map(|v| at(point, v));
                    area.draw(&PathElement::new(ends, look.colour.stroke_width(1)))?;
                }
            }
            let line: Vec<(i32, i32)> = points.iter().map(|p| at(p, p.value)).collect();
            look.line(area, line.clone())?;
            for at in line {
                look.mark(area, at)?;
            }
        }
        Ok(())
    }

    /// Grid, ticks, and what the axes are.
    fn axes<DB>(&self, area: &Area<DB>, plane: &Plane, ends: (f64, f64), scale: Scale) -> Drawn
    where
        DB: DrawingBackend,
        DB::ErrorType: 'static,
    {
        let pixel = |at: (f64, f64)| place(plane, area, at);
        let label = text_style(14, HPos::Right, VPos::Center);
        for (tick, text) in scale.ticks() {
            let (from, to) =
                (pixel((ends.0, scale.place(tick))), pixel((ends.1, scale.place(tick))));
            area.draw(&PathElement::new([from, to], PALE))?;
            area.draw_text(&text, &label, (from.0 - 7, from.1))?;
        }
        let label = text_style(13, HPos::Center, VPos::Top);
        let mut free = i32::MIN;
        for length in self.lengths() {
            let at = pixel((self.axis.place(length), scale.low));
            area.draw(&PathElement::new([at, (at.0, at.1 + 5)], INK))?;
            let text = length.to_string();
            let (width, _) = area.estimate_text_size(&text, &label)?;
            // Where two would overlap the first stays.
            if at.0 - width as i32 / 2 >= free {
                area.draw_text(&text, &label, (at.0, at.1 + 8))?;
                free = at.0 + width as i32 / 2 + 8;
            }
        }
        let (width, height) = area.dim_in_pixel();
        let name = text_style(14, HPos::Center, VPos::Center);
        area.draw_text(&self.axis.title(), &name, (width as i32 / 2 + 25, height as i32 - 16))?;
        let turned = (FONT, 14).into_font().transform(FontTransform::Rotate270).color(&INK);
        let turned = turned.pos(plotters::style::text_anchor::Pos::new(HPos::Center, VPos::Center));
        area.draw_text(&self.value, &turned, (16, height as i32 / 2))?;
        Ok(())
    }
}

type Plane = Cartesian2d<RangedCoordf64, RangedCoordf64>;

/// Where that is in pixels of `area`.
fn place<DB: DrawingBackend>(plane: &Plane, area: &Area<DB>, at: (f64, f64)) -> (i32, i32) {
    let (left, top) = area.get_base_pixel();
    let (x, y) = plotters::coord::CoordTranslate::translate(plane, &at);
    (x - left, y - top)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(low: f64, high: f64, logarithmic: bool) -> Vec<String> {
        Scale { low, high, logarithmic }.ticks().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(0.0, 1.0, false), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(ticks(2.04, 2.31, false), ["2.05", "2.10", "2.15", "2.20", "2.25", "2.30"]);
        assert_eq!(ticks(0.9, 4.2, true), ["10", "100", "1000", "10000"]);
        assert_eq!(ticks(0.95, 2.1, true), ["10", "20", "50", "100"]);
        assert_eq!(ticks(-2.1, 0.5, true), ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1", "2"]);
        assert_eq!(ticks(0.0, 90.0, false), ["0", "20", "40", "60", "80"]);
        assert_eq!(ticks(0.0, 6e6, false)[1..3], ["1e6", "2e6"]);
    }

    #[test]
    fn a_wide_range_is_logarithmic() {
        let point = |value| Point { length: 10, value, standard_error: None };
        let chart = |values: &[f64]| LineChart {
            title: String::new(),
            axis: Axis::Count(""),
            value: String::new(),
            range: None,
            series: vec![Series {
                name: String::new(),
                look: Look::new(0, 0),
                points: values.iter().copied().map(point).collect(),
            }],
            level: None,
            marks: Vec::new(),
        };
        assert!(Scale::of(&chart(&[8.0, 7959.0])).logarithmic);
        assert!(!Scale::of(&chart(&[8.0, 9.0])).logarithmic);
        // Nothing, or nothing but zeros, has an axis too.
        for values in [&[][..], &[0.0, 0.0]] {
            let scale = Scale::of(&chart(values));
            assert!(scale.low < scale.high && !scale.logarithmic);
        }
    }
}
