//! `--device cuda`: on the emulator of a GPU, and where there is none.

use crate::folder::{Folder, fixture, longmamba};
use serde_json::Value;
use std::os::unix::fs::symlink;
use std::process::{Command, Output};

/// What a driver is called.
const DRIVER: [&str; 2] = ["libcuda.so", "libcuda.so.1"];
/// What versions 12 and 13 of the library of products are called.
const CUBLAS_LT: [&str; 2] = ["libcublasLt.so.12", "libcublasLt.so.13"];

/// A folder where the emulated driver is found.
fn emulator() -> Folder {
    let library = longmamba_cuda_emulator::preload().unwrap();
    let folder = Folder::new();
    for name in DRIVER {
        symlink(&library, folder.path(name)).unwrap();
    }
    folder
}

/// Runs the command with the driver of the first of the folders that has one, before the machine's.
fn with_drivers(folders: &[&Folder], variables: &[(&str, &str)], args: &[&str]) -> Output {
    let folders: Vec<String> = folders.iter().map(|folder| folder.path("")).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_longmamba"));
    command.args(args).env("LD_LIBRARY_PATH", folders.join(":"));
    command.envs(variables.iter().copied()).output().unwrap()
}

/// Runs the command where the emulated driver is the one that is found.
fn emulated(variables: &[(&str, &str)], args: &[&str]) -> Output {
    with_drivers(&[&emulator()], variables, args)
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

/// One of each family, as any user would run it.
#[test]
fn every_family_is_verified_on_the_device() {
    for model in ["mamba-hf-options", "original-mamba2-norm-first", "zamba2-hf-options"] {
        let verify = ["verify", &fixture(model), "--chunks", "64", "--json", "--device", "cuda"];
        let output = emulated(&[], &verify);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{model}: {errors}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&report["passed"], &report["report"]["greedy"]["passed"]),
            (&true.into(), &true.into())
        );
    }
}

/// A small one. It is computed exactly on either, so that the models write the same prose.
#[test]
fn the_demo_runs_on_the_device() {
    let demo = |device: &str| {
        let args = ["demo", "--lengths", "1", "--samples", "1", "--json", "--device", device];
        // The checks for races are those of other tests, and take longest.
        let output = emulated(&[("LONGMAMBA_EMULATOR_RACES", "0")], &args);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let models = json["models"].as_array().unwrap().iter();
        let rows = models.flat_map(|model| model["rows"].as_array().unwrap());
        rows.map(|row| (row["bits_per_byte"].as_f64().unwrap(), row["passkey"].clone())).collect()
    };
    let (cuda, cpu): (Vec<_>, Vec<_>) = (demo("cuda"), demo("cpu"));
    assert_eq!(cuda.len(), 4);
    for (cuda, cpu) in cuda.iter().zip(&cpu) {
        assert!((cuda.0 - cpu.0).abs() < 5e-3 && cuda.1 == cpu.1, "{cuda:?}, {cpu:?}");
    }
}

/// The stand-in for the library is in the emulated driver's own file.
#[test]
fn products_by_cublas_lt() {
    let library = longmamba_cuda_emulator::preload().unwrap();
    let folder = emulator();
    for name in CUBLAS_LT {
        symlink(&library, folder.path(name)).unwrap();
    }
    let model = fixture("mamba2-hf-sharded");
    let trace = [("LONGMAMBA_EMULATOR_TRACE", "1")];
    let verify = ["verify", &model, "--chunks", "7", "--matmul", "cublaslt", "--device", "cuda"];
    let output = with_drivers(&[&folder], &trace, &verify);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert!(errors.contains("emulator: cuBLASLt"), "it was not asked");

    // No library, as for the driver below.
    let none = Folder::new();
    for name in CUBLAS_LT {
        none.write(name, "");
    }
    let missing = with_drivers(&[&none, &emulator()], &[], &verify);
    refused(&missing, "cuBLASLt cannot be loaded from libcublasLt.so.12 or libcublasLt.so.13");
    refused(&longmamba(&verify[..6]), "--matmul cublaslt is for --device cuda");
}

#[test]
fn quantised_weights_are_for_the_cpu() {
    let ppl = |more: &[&str]| {
        let text = Folder::new();
        text.write("text", "the lamp was lit and the door was shut ".repeat(9));
        let text = text.path("text");
        let args = ["ppl", "builtin:mamba2-tiny", "--text", &text, "--lengths", "256", "--json"];
        emulated(&[], &[&args[..], more].concat())
    };
    let bits = |weights: &str| {
        let output = ppl(&["--weights", weights]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let all = ["as-is", "int8", "int4"].map(bits);
    assert!(all[0] != all[1] && all[1] != all[2], "the same with other weights");
    let on_cuda = ppl(&["--weights", "int8", "--device", "cuda"]);
    refused(&on_cuda, "--weights int8 and int4 are for --device cpu");
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
    let old = [("LONGMAMBA_EMULATOR_DRIVER", "11080")];
    refused(&emulated(&old, &verify("cuda")), "supports CUDA 11.8, the kernels need 12.0");
    // Less than the weights take.
    let small = [("LONGMAMBA_EMULATOR_MEMORY", "100000")];
    refused(&emulated(&small, &verify("cuda")), "out of memory");
    for (device, cause) in [("gpu", "is no device"), ("cuda:one", "no device number")] {
        let output = longmamba(&verify(device));
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2));
        assert!(message.contains(cause), "{message}");
    }
}

#[test]
fn without_a_driver_the_cpu_is_what_is_left() {
    let model = fixture("mamba2-hf-sharded");
    // No library, which ends the loader's search even where there is one further on, as the machine's.
    let none = Folder::new();
    for name in DRIVER {
        none.write(name, "");
    }
    let folders = [&none, &emulator()];
    let verify =
        |device: &str| with_drivers(&folders, &[], &["verify", &model, "--device", device]);
    refused(&verify("cuda"), "no CUDA driver was found (libcuda.so.1)");
    assert_eq!(verify("cpu").status.code(), Some(0));
}
