//! The measurements of a GPU run, on the emulator of one where there is none: sizes are tiny, times mean
//! nothing, but every kernel is launched, checked and recorded.
#![cfg(feature = "cuda")]

use longmamba_benches::gpu::{Options, run};
use longmamba_cuda_emulator::driver_for_tests;
use serde_json::Value;

#[test]
fn every_kernel_is_checked_and_timed() {
    println!("{}", driver_for_tests().unwrap());
    let json = std::env::temp_dir().join(format!("gpu-rows-{}.jsonl", std::process::id()));
    let options = Options { quick: true, json: Some(json.clone()), ..Options::default() };
    let done = run(&options);
    let text = std::fs::read_to_string(&json).unwrap();
    std::fs::remove_file(&json).ok();
    done.unwrap();

    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let rows: Vec<&Value> = lines.iter().filter(|line| line["kernel"].is_string()).collect();
    for kernel in [
        "selective_scan",
        "selective_scan, filtered",
        "selective_scan step",
        "ssd exact",
        "ssd tensor",
        "ssd tensor, filtered",
        "ssd step",
        "causal_conv1d",
        "matmul",
        "matmul exact",
        "matmul tensor",
        "rms_norm",
        "gated_rms_norm",
        "gate gelu",
        "rope",
        "attention",
        "argmax",
        "normed matmul conv1d",
        "normed matmul",
        "normed matmul, stage by stage",
        "selective_scan step, projected",
        "ssd step, gated",
    ] {
        let row = rows.iter().find(|row| row["kernel"] == kernel).expect(kernel);
        assert_eq!(row["replayed_us"].is_number(), kernel != "attention", "{row}");
        for number in ["median_us", "floor_us", "floor_share", "error"] {
            assert!(row[number].as_f64().is_some_and(|n| n >= 0.0), "{kernel}: {number} in {row}");
        }
    }
    assert_eq!(lines.last().unwrap()["failed"], 0);
    assert_eq!(lines.last().unwrap()["measured"], rows.len());
}
