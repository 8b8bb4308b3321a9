use crate::args::ModelArg;
use crate::device::{DeviceArg, on_device};
use crate::failure::{Failure, Outcome};
use crate::output::{Output, Table};
use crate::progress::Bar;
use clap::Args;
use longmamba_model::Backend;
use longmamba_model::verify::{Tolerance, verify};
use serde_json::json;
use std::path::PathBuf;

/// Compare a model's logits with a reference's, whole and in chunks
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  longmamba verify path/to/model --golden reference.safetensors\n\n\
    The file has caseN.input_ids i64 [batch, len], caseN.logits f32 [batch, len, vocab], and for the \
    greedy continuation greedy.prompt i64 [1, len] and greedy.tokens i64 [1, n].\n\
    Exit code 1: something differs."
)]
pub struct Verify {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    device: DeviceArg,
    /// Reference logits [default: golden.safetensors in the model's folder]
    #[arg(long, value_name = "FILE")]
    golden: Option<PathBuf>,
    /// Besides the whole prompt, read it in chunks of so many tokens
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,7,64,1000",
        value_parser = crate::args::length)]
    chunks: Vec<usize>,
    /// What an error may be, whatever the logit
    #[arg(long, value_name = "X", default_value_t = Tolerance::default().absolute, allow_negative_numbers = true)]
    atol: f32,
    /// What it may be besides, as a share of the logit
    #[arg(long, value_name = "X", default_value_t = Tolerance::default().relative, allow_negative_numbers = true)]
    rtol: f32,
}

impl Verify {
    pub fn run(self, output: &Output) -> Outcome {
        on_device!(self.device.exactly(), |backend| self.on(backend, output))
    }

    fn on<B: Backend>(&self, backend: B, output: &Output) -> Outcome {
        for (flag, value) in [("--atol", self.atol), ("--rtol", self.rtol)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Failure::input(format!("{flag} is {value}, must be finite and ≥ 0")));
            }
        }
        let loaded = self.model.load(backend)?;
        let beside = || Some(loaded.folder()?.join("golden.safetensors"));
        let Some(golden) = self.golden.clone().or_else(beside) else {
            return Err(Failure::input(
                "built-in models have no folder; give the reference with --golden",
            ));
        };
        let tolerance = Tolerance { absolute: self.atol, relative: self.rtol };
        let bar = Bar::new(output, "comparing", 0, "cases");
        let report = verify(&loaded.model, &golden, &self.chunks, tolerance, &mut |done, all| {
            bar.set_length(all);
            bar.set(done);
        })?;
        drop(bar);
        let json = json!({
            "model": loaded.name, "golden": golden, "passed": report.passed(), "report": report
        });
        output.result(&json, || {
            let mut table =
                Table::new(2, ["case", "chunks of", "logits", "worst error", "of allowance", ""]);
            for case in &report.cases {
                table.row([
                    case.name.clone(),
                    case.chunk.map_or("whole".into(), |c| c.to_string()),
                    case.logits.to_string(),
                    format!("{:.2e}", case.worst_error),
                    format!("{:.3}", case.worst_ratio),
                    if case.passed { "ok" } else { "FAILED" }.into(),
                ]);
            }
            let mut text = table.text();
            if let Some(greedy) = &report.greedy {
                let same =
                    greedy.expected.iter().zip(&greedy.actual).take_while(|(e, a)| e == a).count();
                let verdict = if greedy.passed { "ok" } else { "FAILED" };
                text += &format!(
                    "\ngreedy: {same} of {} tokens the same  {verdict}\n",
                    greedy.expected.len()
                );
            }
            let Tolerance { absolute, relative } = report.tolerance;
            text += &format!("allowed: {absolute:e} + {relative:e} · |expected|\n");
            text
        })?;
        if report.passed() { Ok(()) } else { Err(Failure::Compared) }
    }
}
