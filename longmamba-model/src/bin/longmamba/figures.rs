//! Pictures, as SVG or PNG by the ending of the file's name.
//!
//! They are meant to be read on any background, on paper and in grey: white ground, dark ink, and series
//! that differ in stroke and marker, not in colour alone.

mod attention;
mod decay;
mod frame;
mod heat;
mod lines;
mod look;
mod recorded;
mod scores;

pub use attention::{Attention, AttentionPanel};
pub use decay::{Curve, Decay};
pub use heat::HeatMap;
pub use lines::{Axis, Level, LineChart, Panels, Point, Series};
pub use look::Look;
pub use recorded::recorded;
pub use scores::Scores;

use crate::failure::{Failure, Outcome};
use crate::output::{Output, check_writable};
use longmamba_model::write_whole;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};
use serde_json::Value;
use std::error::Error;
use std::path::Path;

/// All of a picture, or a part of it.
pub type Area<DB> = DrawingArea<DB, Shift>;

pub type Drawn = Result<(), Box<dyn Error>>;

/// Something that can be drawn on any kind of canvas.
pub trait Figure {
    /// Width and height in pixels.
    fn size(&self) -> (u32, u32);

    fn draw<DB>(&self, area: &Area<DB>) -> Drawn
    where
        DB: DrawingBackend,
        DB::ErrorType: 'static;
}

const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
const PALE: RGBColor = RGBColor(222, 222, 222);

/// Text of a size in pixels, anchored at a point of it.
fn text_style(size: u32, h: HPos, v: VPos) -> TextStyle<'static> {
    (FONT, size).into_font().color(&INK).pos(Pos::new(h, v))
}

#[derive(Clone, Copy)]
enum Format {
    Svg,
    Png,
}

fn format(flag: &str, path: &Path) -> Outcome<Format> {
    match path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
        Some("svg") => Ok(Format::Svg),
        Some("png") => Ok(Format::Png),
        _ => Err(Failure::input(format!(
            "{flag} {}: a picture's name ends in .svg or .png",
            path.display()
        ))),
    }
}

/// Whether a picture can be written there at the end: better known at the beginning.
pub fn check_target(flag: &str, path: &Path) -> Outcome {
    check_writable(flag, path)?;
    format(flag, path).map(drop)
}

/// Draws a command's result, where that was asked for with `--plot`.
pub fn plot(path: Option<&Path>, result: &Value, output: &Output) -> Outcome {
    let Some(path) = path else { return Ok(()) };
    write("--plot", path, &recorded(result, "this result")?)?;
    output.note(&format!("drawn: {}", path.display()));
    Ok(())
}

/// Draws the figure into a file, whole or not at all.
pub fn write(flag: &str, path: &Path, figure: &impl Figure) -> Outcome {
    let failed = |e: Box<dyn Error>| Failure::input(format!("{flag} {}: {e}", path.display()));
    let bytes = match format(flag, path)? {
        Format::Svg => svg(figure).map(String::into_bytes),
        Format::Png => png(figure),
    };
    Ok(write_whole(path, &bytes.map_err(failed)?)?)
}

/// The picture as text.
pub fn svg(figure: &impl Figure) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    draw_on(SVGBackend::with_string(&mut text, figure.size()), figure)?;
    Ok(text)
}

fn png(figure: &impl Figure) -> Result<Vec<u8>, Box<dyn Error>> {
    let (width, height) = figure.size();
    let mut pixels = vec![0; (width * height * 3) as usize];
    draw_on(BitMapBackend::with_buffer(&mut pixels, (width, height)), figure)?;
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(bytes)
}

fn draw_on<DB>(backend: DB, figure: &impl Figure) -> Drawn
where
    DB: DrawingBackend,
    DB::ErrorType: 'static,
{
    // Also for SVG, where it tells how wide a text will be.
    if register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).is_err() {
        return Err("the built-in font cannot be read".into());
    }
    let root = backend.into_drawing_area();
    root.fill(&WHITE)?;
    figure.draw(&root)?;
    Ok(root.present()?)
}
