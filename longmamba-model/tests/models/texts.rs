//! On novels that the built-in models have not seen: bits per byte and recall are those that the
//! reference implementation reports, within the spread of both. The novels are not part of the
//! repository; without them the test says so.
#![cfg(feature = "builtin")]

use crate::common;
use longmamba_model::eval::Estimate;
use longmamba_model::eval::perplexity::{Windows, perplexity};
use longmamba_model::eval::recall::{RecallTask, recall};
use longmamba_model::{SessionOptions, Tokenizer, builtin};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Model, bytes, method; bits per byte and recall of the reference, each with its standard error.
type Case = (&'static str, usize, &'static str, (f64, f64), (f64, f64));

const REFERENCE: [Case; 8] = [
    ("mamba2-tiny", 2048, "vanilla", (1.95, 0.05), (0.31, 0.03)),
    ("mamba2-tiny", 2048, "longmamba", (1.95, 0.05), (0.62, 0.03)),
    ("mamba2-tiny", 8192, "vanilla", (1.98, 0.05), (0.11, 0.02)),
    ("mamba2-tiny", 8192, "longmamba", (2.00, 0.05), (0.57, 0.03)),
    ("mamba1-tiny", 2048, "vanilla", (2.03, 0.09), (0.45, 0.03)),
    ("mamba1-tiny", 2048, "longmamba", (1.95, 0.08), (0.51, 0.04)),
    ("mamba1-tiny", 8192, "vanilla", (2.10, 0.06), (0.35, 0.04)),
    ("mamba1-tiny", 8192, "longmamba", (2.00, 0.06), (0.48, 0.04)),
];

fn within(ours: Estimate, (mean, error): (f64, f64)) -> bool {
    // Three standard errors of the difference, and the rounding of the report.
    let spread = ours.standard_error.unwrap_or(0.0).hypot(error);
    (ours.mean - mean).abs() <= 3.0 * spread + 0.01
}

#[test]
fn novels_give_what_the_reference_reports() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/texts");
    let Ok(files) = std::fs::read_dir(&folder) else {
        // Not `println!`: the harness hides that where a test passes, and a skip must be seen.
        writeln!(std::io::stderr(), "SKIPPED: {} is not there", folder.display()).unwrap();
        return;
    };
    let mut files: Vec<_> = files.map(|f| f.unwrap().path()).collect();
    files.sort();
    let books: Vec<Vec<u8>> = files.iter().map(|f| std::fs::read(f).unwrap()).collect();
    let slices: Vec<&[u8]> = books.iter().map(Vec::as_slice).collect();
    for (name, length, method, bits, share) in REFERENCE {
        let builtin = builtin::find(name).unwrap();
        let model = builtin.model(common::backend()).unwrap();
        let tokenizer = Tokenizer::for_model(model.config(), model.path()).unwrap();
        let texts: Vec<_> = books.iter().map(|b| tokenizer.encode_text(b).unwrap()).collect();
        let plan = (method == "longmamba").then(|| Arc::new(builtin.plan().unwrap()));
        let options = SessionOptions { plan, ..Default::default() };
        let windows = Windows { windows: 8, ..Windows::new(length) };
        let ppl = perplexity(&model, &texts, windows, &options, &|_| {}).unwrap();
        let prompts = RecallTask::new(length).prompts(&slices, 24, 11).unwrap();
        let recalled = recall(&model, &prompts, &options, &|_| {}).unwrap().right;
        let measured = ppl.bits_per_byte.unwrap();
        let show = |e: Estimate| format!("{:.2} ± {:.2}", e.mean, e.standard_error.unwrap());
        println!(
            "{name} {length} {method}: {} bits a byte (reference {bits:?}), recall {} ({share:?})",
            show(measured),
            show(recalled)
        );
        assert!(within(measured, bits), "{name} {length} {method}: bits per byte");
        assert!(within(recalled, share), "{name} {length} {method}: recall");
    }
}
