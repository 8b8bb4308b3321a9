use crate::failure::{Failure, Outcome};
use crate::figures::{self, recorded};
use crate::output::{Output, check_writable};
use crate::plot::read;
use clap::Args;
use longmamba_model::write_whole;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// One page with the tables, pictures and settings of recorded results
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  longmamba ppl builtin:mamba2-tiny --text book.txt --lengths 256,1k,8k --run novel\n  \
    longmamba report novel --out report.html\n\n\
    The page is one file that needs nothing else. RUN is a folder of --run whose evaluation is complete, or a \
    file with what a command printed with --json."
)]
pub struct Report {
    /// Folders of runs, or results as JSON
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// The page
    #[arg(long, value_name = "FILE.html")]
    out: PathBuf,
}

const STYLE: &str = "\
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid #8884; padding: .2rem .8rem; text-align: right; vertical-align: top }
th:first-child, td:first-child, .settings td { text-align: left }
svg { max-width: 100%; height: auto; border: 1px solid #8884; border-radius: 4px }
code { font-size: .9em; overflow-wrap: anywhere }";

impl Report {
    pub fn run(self, output: &Output) -> Outcome {
        check_writable("--out", &self.out)?;
        let mut sections = String::new();
        for run in &self.runs {
            section(run, &mut sections)?;
        }
        let page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>LongMamba: results</title>\n\
             <style>\n{STYLE}\n</style>\n<h1>LongMamba: results</h1>\n{sections}</html>\n"
        );
        write_whole(&self.out, page.as_bytes())?;
        let out = self.out.display().to_string();
        output.result(&json!({ "report": out }), || format!("written: {out}\n"))
    }
}

/// A result, and the settings it was begun with, where it has a folder.
fn load(run: &Path) -> Outcome<(Value, Option<Value>)> {
    if !run.is_dir() {
        return Ok((read(run)?, None));
    }
    let result = run.join("result.json");
    if !result.is_file() {
        return Err(Failure::input(format!(
            "{}: no result.json; an evaluation writes it to its --run folder when all is done",
            run.display()
        )));
    }
    Ok((read(&result)?, Some(read(&run.join("settings.json"))?)))
}

fn section(run: &Path, page: &mut String) -> Outcome {
    let (result, settings) = load(run)?;
    let Value::Object(fields) = &result else {
        return Err(Failure::input(format!("{}: no result of a command", run.display())));
    };
    put(page, format_args!("<section>\n<h2>{}</h2>\n", escaped(&run.display().to_string())));
    // What has no picture has its table.
    if let Ok(figure) = recorded(&result, "") {
        let svg = figures::svg(&figure)
            .map_err(|e| Failure::input(format!("{}: cannot be drawn: {e}", run.display())))?;
        put(page, format_args!("<figure>{svg}</figure>\n"));
    }
    let (tables, plain): (Map<_, _>, Map<_, _>) =
        fields.clone().into_iter().partition(|(_, value)| rows(value).is_some());
    for (name, value) in &tables {
        put(page, format_args!("<h3>{}</h3>\n", escaped(name)));
        table(rows(value).unwrap_or_default(), page);
    }
    put(page, format_args!("<h3>settings</h3>\n<table class=\"settings\">\n"));
    for (name, value) in &plain {
        setting(name, value, page);
    }
    for part in ["run", "begun"] {
        let part = settings.as_ref().and_then(|s| s.get(part)).and_then(Value::as_object);
        for (name, value) in part.into_iter().flatten() {
            setting(name, value, page);
        }
    }
    put(page, format_args!("</table>\n</section>\n"));
    Ok(())
}

/// A list of objects.
fn rows(value: &Value) -> Option<Vec<&Map<String, Value>>> {
    let rows: Option<Vec<_>> = value.as_array()?.iter().map(Value::as_object).collect();
    rows.filter(|rows| !rows.is_empty())
}

fn table(rows: Vec<&Map<String, Value>>, page: &mut String) {
    // Those that say which row it is come first.
    let first = ["method", "task", "dataset", "length", "depth"];
    let mut columns: Vec<&String> = Vec::new();
    for name in rows.iter().flat_map(|row| row.keys()) {
        if !columns.contains(&name) {
            columns.push(name);
        }
    }
    columns.sort_by_key(|name| first.iter().position(|f| f == name).unwrap_or(first.len()));
    put(page, format_args!("<table>\n<tr>"));
    for name in &columns {
        put(page, format_args!("<th>{}</th>", escaped(&name.replace('_', " "))));
    }
    for row in rows {
        put(page, format_args!("</tr>\n<tr>"));
        for name in &columns {
            put(page, format_args!("<td>{}</td>", escaped(&shown(row.get(*name)))));
        }
    }
    put(page, format_args!("</tr>\n</table>\n"));
}

fn setting(name: &str, value: &Value, page: &mut String) {
    let (name, value) = (escaped(&name.replace('_', " ")), escaped(&shown(Some(value))));
    put(page, format_args!("<tr><td>{name}</td><td><code>{value}</code></td></tr>\n"));
}

/// Four digits of a number with a fraction, text as it is, anything else as JSON.
fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "–".into(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) if number.is_f64() => {
            let value = number.as_f64().unwrap_or(f64::NAN);
            let digits = 3 - value.abs().max(1e-9).log10().floor() as i32;
            format!("{value:.*}", digits.clamp(0, 6) as usize)
        }
        // What a picture is made of, not what is read.
        Some(Value::Array(values)) if values.len() > 20 => format!("{} values", values.len()),
        Some(other) => other.to_string(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = page.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits() {
        let shown = |value: Value| shown(Some(&value));
        assert_eq!(shown(json!(7959.123)), "7959");
        assert_eq!(shown(json!(2.0 / 3.0)), "0.6667");
        assert_eq!(shown(json!(12.345)), "12.35");
        assert_eq!(shown(json!(0.0)), "0.000000");
        assert_eq!(
            (shown(json!(3)), shown(json!("<b>")), shown(json!(null))),
            ("3".into(), "<b>".into(), "–".into())
        );
        assert_eq!(escaped("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
