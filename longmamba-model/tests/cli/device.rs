//! `--device cuda`: on the emulator of a GPU, and where there is none.

use crate::folder::{Folder, fixture, longmamba};
use serde_json::Value;
use std::os::unix::fs::symlink;
use std::process::{Command, Output};

/// Runs the command where the emulated driver is the one that is found.
fn emulated(variables: &[(&str, &str)], args: &[&str]) -> Output {
    let library = longmamba_cuda_emulator::preload().unwrap();
    let folder = Folder::new();
    for name in ["libcuda.so", "libcuda.so.1"] {
        symlink(&library, folder.path(name)).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_longmamba"));
    command.args(args).env("LD_LIBRARY_PATH", folder.path(""));
    command.envs(variables.iter().copied()).output().unwrap()
}

#[track_caller]
fn refused(output: &Output, cause: &str) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(output.stdout.is_empty());
    assert!(message.starts_with("error: ") && message.contains(cause), "{message}");
}

#[test]
fn a_model_runs_on_the_device() {
    let model = fixture("mamba2-hf-sharded");
    let output = emulated(&[], &["verify", &model, "--device", "cuda", "--chunks", "7", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["passed"], true);

    let generate = |device: &str, sampling: &[&str]| {
        let args = ["generate", "builtin:mamba1-tiny", "--prompt", "The lamp was lit, and"];
        let args =
            [&args[..], &["--max-new", "8", "--json", "--device", device], sampling].concat();
        let output = emulated(&[], &args);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["text"].clone()
    };
    let greedy = generate("cpu", &[]);
    assert_eq!(generate("cuda", &[]), greedy);
    let filters = ["--top-k", "50", "--top-p", "0.98", "--min-p", "0.001", "--seed", "3"];
    let sampling = [&["--temperature", "1.5"][..], &filters].concat();
    let drawn = generate("cpu", &sampling);
    assert_eq!(generate("cuda", &sampling), drawn);
    assert_ne!(drawn, greedy);
}

#[test]
fn a_device_that_will_not_do_is_refused_in_words() {
    let model = fixture("mamba2-hf-sharded");
    let verify = |device: &'static str| ["verify", model.as_str(), "--device", device];
    let none = [("LONGMAMBA_EMULATOR_DEVICES", "0")];
    refused(&emulated(&none, &verify("cuda")), "no CUDA device 0: the driver knows 0");
    refused(&emulated(&[], &verify("cuda:1")), "no CUDA device 1: the driver knows 1");
    let old = [("LONGMAMBA_EMULATOR_SM", "70")];
    refused(&emulated(&old, &verify("cuda")), "has compute capability 7.0, the kernels need 7.5");
    // Less than the weights take.
    let small = [("LONGMAMBA_EMULATOR_MEMORY", "100000")];
    refused(&emulated(&small, &verify("cuda")), "out of memory");
    for (device, cause) in [("gpu", "is no device"), ("cuda:one", "no device number")] {
        let output = longmamba(&verify(device));
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2));
        assert!(message.contains(cause), "{message}");
    }
    // Without any driver, where the test's machine has none.
    if std::env::var_os("LONGMAMBA_CUDA").is_none()
        && longmamba_cuda_emulator::driver_for_tests().unwrap()
            == longmamba_cuda_emulator::TestDriver::Emulator
    {
        refused(&longmamba(&verify("cuda")), "no CUDA driver was found");
    }
}
