//! The measurements of a GPU run, on the emulator of one where there is none: sizes are tiny, times mean
//! nothing, but every kernel is launched, checked and recorded.
#![cfg(feature = "cuda")]

use longmamba_benches::gpu::{Options, run};
use longmamba_cuda_emulator::{driver_for_tests, preload};
use serde_json::Value;
use std::process::Command;

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
        assert!(row["replayed_us"].is_number(), "{row}");
        for number in ["median_us", "floor_us", "floor_share", "error"] {
            assert!(row[number].as_f64().is_some_and(|n| n >= 0.0), "{kernel}: {number} in {row}");
        }
    }
    assert_eq!(lines.last().unwrap()["failed"], 0);
    assert_eq!(lines.last().unwrap()["measured"], rows.len());
}

/// Beside our own products, of the same types; through the emulator's stand-in for the library.
#[test]
#[cfg(unix)]
fn products_by_cublas_lt_are_timed_where_asked_for() {
    let library = preload().unwrap();
    let folder = std::env::temp_dir().join(format!("gpu-libraries-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    for name in ["libcuda.so", "libcuda.so.1", "libcublasLt.so.12"] {
        std::os::unix::fs::symlink(&library, folder.join(name)).unwrap();
    }
    let mut gpu = Command::new(env!("CARGO_BIN_EXE_gpu"));
    gpu.args(["--quick", "--cublaslt", "matmul"]).env("LD_LIBRARY_PATH", &folder);
    let output = gpu.output().unwrap();
    std::fs::remove_dir_all(&folder).ok();
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{table}{}", String::from_utf8_lossy(&output.stderr));
    for kernel in ["matmul exact, cuBLASLt", "matmul tensor, cuBLASLt"] {
        assert!(table.contains(kernel), "{kernel}: {table}");
    }
}
