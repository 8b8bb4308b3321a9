//! Devices that will not do, buffers of another device, and what is left of a device on which a kernel
//! failed: errors, never a panic.

mod common;

use longmamba_core::{AnyView, DtLimits, View};
use longmamba_cuda::{
    Buffer, ChannelSums, Device, Error, Matrix, Precision, Result, Rows, RowsMut,
    SelectiveScanInputs,
};
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
        ("CUDA_ERROR_LAUNCH_FAILED", "LONGMAMBA_EMULATOR_MUTATION", "rms_norm_4 barrier 1"),
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

/// Gives calls of `ours`, at each place where a buffer can stand, one of `theirs`.
fn mixed(ours: &Device, theirs: &Device) {
    let ones = |device: &Device| device.upload(&[1.0f32; SHORT]).unwrap();
    let (our, their, mut out, mut foreign) = (ones(ours), ones(theirs), ones(ours), ones(theirs));
    let norm = |x: &Buffer<f32>, weight: &Buffer<f32>, out: &mut Buffer<f32>| {
        ours.rms_norm(1, Rows::all(x, SHORT), weight, 1e-5, RowsMut::all(out, SHORT))
    };
    let scan = |lengths: &Device, sums: &Device| {
        let one = ours.zeros(1).unwrap();
        let row = Rows::all(&one, 1);
        let (mut y, mut state) = (ours.zeros(1).unwrap(), ours.zeros(1).unwrap());
        let [mut delta_sum, mut kept_sum] = [0; 2].map(|_| ours.zeros(1).unwrap());
        let (mut kept, lengths) = (sums.zeros(1).unwrap(), lengths.zeros(1).unwrap());
        let inputs = SelectiveScanInputs {
            batch: 1,
            x: row,
            dt_raw: row,
            b: row,
            c: row,
            z: None,
            a: &one,
            d: None,
            dt_bias: None,
            delta_min: None,
            dt_limits: DtLimits::default(),
            lengths: Some(&lengths),
        };
        let sums =
            ChannelSums { delta_sum: &mut delta_sum, kept_sum: &mut kept_sum, kept: &mut kept };
        ours.selective_scan(1, inputs, RowsMut::all(&mut y, 1), &mut state, Some(sums))
    };
    let product = |device: &Device| {
        let values = [1.0; SHORT * SHORT];
        let values = AnyView::F32(View::new(&values, [SHORT, SHORT]).unwrap());
        let weight = Matrix::upload(device, values).unwrap();
        let mut out = ones(ours);
        let (x, to) = (Rows::all(&our, SHORT), RowsMut::all(&mut out, SHORT));
        ours.matmul(1, x, &weight, None, false, Precision::Exact, to)
    };
    // The same calls with buffers of a clone, which is the same device.
    let clone = ours.clone();
    norm(&our, &ones(&clone), &mut out).unwrap();
    scan(&clone, &clone).unwrap();
    product(&clone).unwrap();
    out.copy_from(&ones(&clone), 0, SHORT, 0).unwrap();

    for (place, result) in [
        ("rows to read", norm(&their, &our, &mut out)),
        ("a whole buffer", norm(&our, &their, &mut out)),
        ("rows to write", norm(&our, &our, &mut foreign)),
        ("an option", scan(theirs, ours)),
        ("sums", scan(ours, theirs)),
        ("a weight", product(theirs)),
        ("a copy", out.copy_from(&their, 0, SHORT, 0)),
        ("a graph", ours.capture(|| norm(&their, &our, &mut out)).map(drop)),
    ] {
        assert_eq!(result, Err(Error::OtherDevice), "{place}");
    }
    // Nothing was done, and both go on.
    assert_eq!(foreign.to_vec().unwrap(), [1.0; SHORT]);
    norm(&our, &our, &mut out).unwrap();
    theirs.synchronize().unwrap();
}

#[test]
fn buffers_of_another_device_are_refused() {
    let ours = common::device();
    if std::env::var_os(CASE).is_some() {
        mixed(&ours, &Device::new(1).unwrap());
        println!("two devices");
        return;
    }
    // Two streams of one device are out of step with each other, too.
    mixed(&ours, &Device::new(0).unwrap());
    let variables = [("LONGMAMBA_EMULATOR_DEVICES", "2")];
    let Some(output) = alone("buffers_of_another_device_are_refused", "", &variables) else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("two devices"), "{text}{errors}");
}
