//! Results on stdout, notes on stderr, files written whole or not at all.

use crate::failure::{Failure, Outcome};
use longmamba_model::eval::Estimate;
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::path::Path;

#[derive(Debug)]
pub struct Output {
    pub json: bool,
    /// Whether somebody watches stderr.
    pub talk: bool,
}

impl Output {
    pub fn new(json: bool, quiet: bool) -> Self {
        Output { json, talk: !quiet && std::io::stderr().is_terminal() }
    }

    /// Writes to stdout at once.
    pub fn print(&self, text: &str) -> Outcome {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::stdout)
    }

    /// One JSON object on a line; numbers that JSON has no word for become null.
    pub fn print_json(&self, value: &impl Serialize) -> Outcome {
        let text = serde_json::to_string(value)
            .map_err(|e| Failure::input(format!("the result cannot be written as JSON: {e}")))?;
        self.print(&(text + "\n"))
    }

    /// The JSON object, or the text, whichever was asked for.
    pub fn result(&self, json: &impl Serialize, text: impl FnOnce() -> String) -> Outcome {
        if self.json { self.print_json(json) } else { self.print(&text()) }
    }

    /// Something that is good to know, for whoever watches.
    pub fn note(&self, text: &str) {
        if self.talk {
            eprintln!("{text}");
        }
    }
}

/// Whether a file can be written there at the end: better known at the beginning.
pub fn check_writable(flag: &str, path: &Path) -> Outcome {
    let refuse = |why: String| Err(Failure::Input(format!("{flag} {}: {why}", path.display())));
    if path.is_dir() {
        return refuse("is a folder; give a file name".into());
    }
    if path.file_name().is_none() {
        return refuse("is no file name".into());
    }
    match path.parent().filter(|p| !p.as_os_str().is_empty()) {
        Some(folder) if !folder.is_dir() => {
            refuse(format!("there is no folder {}; make it first", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Columns of text. All but the first `left` are aligned right.
#[derive(Debug)]
pub struct Table {
    left: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<S: ToString>(left: usize, header: impl IntoIterator<Item = S>) -> Self {
        Table { left, rows: vec![header.into_iter().map(|s| s.to_string()).collect()] }
    }

    pub fn row<S: ToString>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(|s| s.to_string()).collect());
    }

    pub fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let gap = if column == 0 { "" } else { "  " };
                line += &match column < self.left {
                    true => format!("{gap}{cell:<width$}"),
                    false => format!("{gap}{cell:>width$}"),
                };
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// `1.95 ± 0.04`
pub fn with_error(estimate: Estimate, decimals: usize) -> String {
    let mean = format!("{:.decimals$}", estimate.mean);
    estimate.standard_error.map_or(mean.clone(), |e| format!("{mean} ± {e:.decimals$}"))
}

/// A count with a unit: `0.32 M`, `12.4 k`.
pub fn count(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.2} G", v / 1e9),
        v if v >= 1e5 => format!("{:.2} M", v / 1e6),
        v if v >= 1e3 => format!("{:.1} k", v / 1e3),
        v => format!("{v:.0}"),
    }
}
