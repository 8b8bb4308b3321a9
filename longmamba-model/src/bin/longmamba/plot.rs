use crate::failure::{Failure, Outcome};
use crate::figures;
use crate::output::Output;
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Draw a recorded result
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  longmamba ppl builtin:mamba2-tiny --text book.txt --lengths 256,1k,8k --json > ppl.json\n  \
    longmamba plot ppl.json --out ppl.svg\n\n\
    Perplexity and latency against length, a map of passkeys by length and depth, hidden attention, or \
    cumulative decay. The same pictures come from --plot of those commands. White ground, and series that differ in stroke and marker: they can be read \
    in light, in dark and in grey."
)]
pub struct Plot {
    /// What ppl, passkey, latency, attention or decay printed with --json
    #[arg(value_name = "RESULT.json")]
    result: PathBuf,
    /// The picture
    #[arg(long, value_name = "FILE.svg|FILE.png")]
    out: PathBuf,
}

/// A result in a file.
pub fn read(path: &Path) -> Outcome<Value> {
    let fail = |why: String| Failure::input(format!("{}: {why}", path.display()));
    let text = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
    serde_json::from_slice(&text).map_err(|e| fail(format!("no JSON: {e}")))
}

impl Plot {
    pub fn run(self, output: &Output) -> Outcome {
        figures::check_target("--out", &self.out)?;
        let result = read(&self.result)?;
        let figure = figures::recorded(&result, &self.result.display().to_string())?;
        figures::write("--out", &self.out, &figure)?;
        output.result(&json!({ "drawn": self.out.display().to_string() }), || {
            format!("drawn: {}\n", self.out.display())
        })
    }
}
