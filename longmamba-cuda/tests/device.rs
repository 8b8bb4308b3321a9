//! Devices that will not do, and what is left of one on which a kernel failed: errors, never a panic.

mod common;

use longmamba_cuda::{Buffer, Device, Error, Result, Rows, RowsMut};
use longmamba_cuda_emulator::{TestDriver, driver_for_tests};
use std::process::{Command, Output};

/// Set for the children of these tests: which case they are for.
const CASE: &str = "LONGMAMBA_TEST_CASE";

/// Runs one test of this file in a process of its own, with the emulated driver as the variables make it.
/// `None` where the driver is real, which no variable changes.
fn alone(test: &str, case: &str, variables: &[(&str, &str)]) -> Option<Output> {
    if driver_for_tests().unwrap() == TestDriver::Real {
        println!("skipped: only the emulated driver can be changed");
        return None;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([test, "--exact", "--nocapture"]).env(CASE, case);
    child.env("LONGMAMBA_CUDA", "emulator").envs(variables.iter().copied());
    Some(child.output().unwrap())
}

/// Says the error of opening device 0. Not a test of its own.
#[test]
fn open() {
    if std::env::var_os(CASE).is_some() {
        driver_for_tests().unwrap();
        println!("refused: {}", Device::new(0).unwrap_err());
    }
}

#[test]
fn drivers_and_devices_that_are_too_old_or_missing_are_refused_in_words() {
    for (variable, value, words) in [
        (
            "LONGMAMBA_EMULATOR_DRIVER",
            "11080",
            "the driver supports CUDA 11.8, the kernels need 12.0; update NVIDIA's driver",
        ),
        ("LONGMAMBA_EMULATOR_DEVICES", "0", "there is no CUDA device 0: the driver knows 0"),
        (
            "LONGMAMBA_EMULATOR_SM",
            "70",
            "longmamba PTX emulator has compute capability 7.0, the kernels need 7.5",
        ),
    ] {
        let Some(output) = alone("open", value, &[(variable, value)]) else { return };
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(&format!("refused: {words}\n")), "{value}: {text}");
    }
}

#[test]
fn a_device_past_the_last_is_refused() {
    common::device();
    let count = Device::count().unwrap();
    assert_eq!(Device::new(count).unwrap_err(), Error::NoDevice { ordinal: count, count });
}

/// Columns of a row: few, and so many that a norm of them takes more than [`LIMIT`] instructions.
const SHORT: usize = 32;
const LONG: usize = 200_000;
const LIMIT: &str = "100000";

/// A norm recorded but not yet done, and what it works on.
struct Step {
    x: Buffer<f32>,
    y: Buffer<f32>,
    weight: Buffer<f32>,
}

impl Step {
    fn new(device: &Device) -> Self {
        let [x, weight, y] = [0; 3].map(|_| device.upload(&[1.0; LONG]).unwrap());
        Step { x, y, weight }
    }

    fn norm(&mut self, device: &Device) -> Result<()> {
        let (x, y) = (Rows::all(&self.x, LONG), RowsMut::all(&mut self.y, LONG));
        device.rms_norm(1, x, &self.weight, 1e-5, y)
    }
}

/// What every call says after a kernel failed with `name`.
fn calls_after(name: &str) {
    let device = common::device();
    let mut step = Step::new(&device);
    // Loads the module, which cannot be done while a graph is recorded, with a kernel that works.
    let (ones, mut out) = (device.upload(&[1.0; SHORT]).unwrap(), device.zeros(SHORT).unwrap());
    let (x, to) = (Rows::all(&ones, SHORT), RowsMut::all(&mut out, SHORT));
    device.layer_norm(1, x, &ones, &ones, 1e-5, to).unwrap();
    assert_eq!(out.to_vec().unwrap(), [1.0; SHORT]);
    let mut graph = device.capture(|| step.norm(&device)).unwrap().expect("a launch");

    let mut host = [0.0f32; 4];
    let mut calls = vec![
        ("replay", graph.launch()),
        ("synchronize", device.synchronize()),
        ("replay again", graph.launch()),
        ("launch", step.norm(&device)),
        ("read", out.read(0, &mut host)),
        ("write", out.write(&host, 0)),
        ("copy", out.copy_from(&ones, 0, SHORT, 0)),
        ("clear", out.clear()),
        ("zeros", device.zeros::<f32>(8).map(drop)),
        ("upload", device.upload(&host).map(drop)),
        ("memory", device.memory().map(drop)),
        ("capture", device.capture(|| step.norm(&device)).map(drop)),
    ];
    // Buffers and graphs are freed in a stream that no longer takes work; that is no panic either.
    drop((graph, step));
    calls.push(("after freeing", out.read(0, &mut host)));
    drop((ones, out));
    drop(device);
    for (call, result) in calls {
        match result {
            Err(Error::Driver { name: found, .. }) => assert_eq!(found, name, "{call}"),
            other => panic!("{call}: {other:?}"),
        }
    }
}

#[test]
fn after_a_failed_kernel_every_call_is_an_error() {
    if let Ok(name) = std::env::var(CASE) {
        calls_after(&name);
        println!("all refused");
        return;
    }
    for (name, variable, value) in [
        ("CUDA_ERROR_ILLEGAL_ADDRESS", "LONGMAMBA_EMULATOR_MUTATION", "rms_norm_4 past 0"),
        ("CUDA_ERROR_LAUNCH_FAILED", "LONGMAMBA_EMULATOR_MUTATION", "rms_norm_4 barrier 0"),
        ("CUDA_ERROR_LAUNCH_TIMEOUT", "LONGMAMBA_EMULATOR_LIMIT", LIMIT),
    ] {
        let test = "after_a_failed_kernel_every_call_is_an_error";
        let Some(output) = alone(test, name, &[(variable, value)]) else { return };
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {text}{errors}");
        assert!(text.contains("all refused") && !errors.contains("panicked"), "{text}{errors}");
    }
}
