//! Kernels with a mistake in them: barriers left out, words swapped in shared memory. Each is to be
//! noticed, by the emulator's checks or by another result; so the checks can fail. Emulator only.

mod common;

use longmamba_core::{AnyView, DtLimits, View};
use longmamba_cuda::{
    AttentionArgs, Buffer, Device, InputNorm, KvPages, Matrix, NewInputs, Position, Precision,
    Rows, RowsMut, SelectiveScanInputs, SelectiveStepInputs, SsdInputs, StepSequence,
};
use longmamba_cuda_emulator::{Mutation, TestDriver, driver_for_tests};
use std::process::Command;

/// Which workload a child of the test runs.
const WORKLOAD: &str = "LONGMAMBA_TEST_WORKLOAD";
const MUTATION: &str = "LONGMAMBA_EMULATOR_MUTATION";

/// Numbers from -1 to 1, the same each time.
fn values(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(next).collect()
}

fn upload(device: &Device, len: usize, seed: u32) -> Buffer<f32> {
    device.upload(&values(len, seed)).unwrap()
}

fn negative(device: &Device, len: usize, seed: u32) -> Buffer<f32> {
    let values: Vec<f32> = values(len, seed).iter().map(|v| v - 1.01).collect();
    device.upload(&values).unwrap()
}

fn scan(device: &Device) -> Vec<f32> {
    let (len, d_inner, d_state) = (150, 20, 16);
    let [x, dt_raw, z] = [1, 2, 3].map(|seed| upload(device, len * d_inner, seed));
    let [b, c] = [4, 5].map(|seed| upload(device, len * d_state, seed));
    let a = negative(device, d_state * d_inner, 6);
    let mut state = upload(device, d_state * d_inner, 7);
    let mut y = device.zeros(len * d_inner).unwrap();
    let inputs = SelectiveScanInputs {
        batch: 1,
        x: Rows::all(&x, d_inner),
        dt_raw: Rows::all(&dt_raw, d_inner),
        b: Rows::all(&b, d_state),
        c: Rows::all(&c, d_state),
        z: Some(Rows::all(&z, d_inner)),
        a: &a,
        d: None,
        dt_bias: None,
        delta_min: None,
        dt_limits: DtLimits::default(),
        lengths: None,
    };
    device.selective_scan(len, inputs, RowsMut::all(&mut y, d_inner), &mut state, None).unwrap();
    [y.to_vec().unwrap(), state.to_vec().unwrap()].concat()
}

fn ssd(device: &Device, len: usize, precision: Precision) -> Vec<f32> {
    let (heads, head_dim, d_state) = (2, 64, 64);
    let width = heads * head_dim;
    let (x, dt_raw) = (upload(device, len * width, 1), upload(device, len * heads, 2));
    let [b, c] = [3, 4].map(|seed| upload(device, len * d_state, seed));
    let a = negative(device, heads, 5);
    let mut state = upload(device, width * d_state, 6);
    let mut y = device.zeros(len * width).unwrap();
    let inputs = SsdInputs {
        batch: 1,
        heads,
        groups: 1,
        x: Rows::all(&x, width),
        dt_raw: Rows::all(&dt_raw, heads),
        b: Rows::all(&b, d_state),
        c: Rows::all(&c, d_state),
        a: &a,
        d: None,
        dt_bias: None,
        delta_min: None,
        dt_limits: DtLimits::default(),
        lengths: None,
        precision,
    };
    let y_rows = RowsMut::all(&mut y, width);
    device.ssd(len, inputs, y_rows, &mut state, None, &mut Default::default()).unwrap();
    [y.to_vec().unwrap(), state.to_vec().unwrap()].concat()
}

fn product(device: &Device, rows: usize, precision: Precision) -> Vec<f32> {
    let (inputs, outputs) = (200, 70);
    let x = upload(device, rows * inputs, 1);
    let weight = values(outputs * inputs, 2);
    let halves: Vec<_> = weight.iter().map(|&v| half::bf16::from_f32(v)).collect();
    let shape = [outputs, inputs];
    let weight = match precision {
        Precision::Exact => {
            Matrix::upload(device, AnyView::F32(View::new(&weight, shape).unwrap()))
        }
        Precision::Tensor => {
            Matrix::upload(device, AnyView::BF16(View::new(&halves, shape).unwrap()))
        }
    };
    let mut out = device.zeros(rows * outputs).unwrap();
    let (x, to) = (Rows::all(&x, inputs), RowsMut::all(&mut out, outputs));
    device.matmul(rows, x, &weight.unwrap(), None, false, precision, to).unwrap();
    out.to_vec().unwrap()
}

fn norm(device: &Device, layer: bool) -> Vec<f32> {
    let (rows, width) = (3, 1000);
    let [x, weight, bias] = [rows * width, width, width].map(|len| upload(device, len, len as u32));
    let mut out = device.zeros(rows * width).unwrap();
    let (x, to) = (Rows::all(&x, width), RowsMut::all(&mut out, width));
    match layer {
        true => device.layer_norm(rows, x, &weight, &bias, 1e-5, to).unwrap(),
        false => device.rms_norm(rows, x, &weight, 1e-5, to).unwrap(),
    }
    out.to_vec().unwrap()
}

fn attention(device: &Device, rows: usize) -> Vec<f32> {
    let (heads, head_dim, seen) = (2, 32, 150);
    let width = heads * head_dim;
    let [keys, values] = [1, 2].map(|seed| upload(device, seen * width, seed));
    let q = upload(device, rows * width, 3);
    let mut pages = KvPages::new(device, heads, head_dim).unwrap();
    pages.arrange(0, 1, 0).unwrap();
    let (keys, values) = (Rows::all(&keys, width), Rows::all(&values, width));
    pages.fill(seen, keys, values, Position::Fixed(0)).unwrap();
    let mut out = device.zeros(rows * width).unwrap();
    let args = AttentionArgs {
        q: Rows::all(&q, width),
        heads,
        pages: &pages,
        position: Position::Fixed(seen - rows),
        window: usize::MAX,
        scale: 0.2,
    };
    let to = RowsMut::all(&mut out, width);
    device.attention(rows, args, to, &mut Default::default()).unwrap();
    out.to_vec().unwrap()
}

fn f32_matrix(device: &Device, shape: [usize; 2], seed: u32) -> Matrix {
    let weight = values(shape[0] * shape[1], seed);
    Matrix::upload(device, AnyView::F32(View::new(&weight, shape).unwrap())).unwrap()
}

fn normed(device: &Device) -> Vec<f32> {
    let (rows, inputs, outputs, width) = (3, 1200, 30, 4);
    let (x, norm) = (upload(device, rows * inputs, 1), upload(device, inputs, 2));
    let matrix = f32_matrix(device, [outputs, inputs], 3);
    let channels = outputs / 2;
    let taps = upload(device, width * channels, 4);
    let mut histories = [5, 6, 7].map(|seed| upload(device, (width - 1) * channels, seed));
    let mut out = device.zeros(rows * outputs).unwrap();
    let mut convolved = device.zeros(rows * channels).unwrap();
    let norm = InputNorm { weight: &norm, group: inputs / 2, eps: 1e-5 };
    let conv = NewInputs {
        first: 5,
        width,
        weight: &taps,
        bias: None,
        silu: true,
        out: RowsMut::all(&mut convolved, channels),
    };
    let (x, to) = (Rows::all(&x, inputs), RowsMut::all(&mut out, outputs));
    let all = histories.iter_mut();
    device.normed_matmul_conv1d(rows, x, norm, &matrix, None, to, conv, all).unwrap();
    let [a, b, c] = histories.map(|history| history.to_vec().unwrap());
    [out.to_vec().unwrap(), convolved.to_vec().unwrap(), a, b, c].concat()
}

fn selective_step(device: &Device) -> Vec<f32> {
    let (d_inner, d_state, dt_rank) = (40, 20, 6);
    let [x, z] = [1, 2].map(|seed| upload(device, d_inner, seed));
    let [b, c] = [3, 4].map(|seed| upload(device, d_state, seed));
    let (low, matrix) = (upload(device, dt_rank, 5), f32_matrix(device, [d_inner, dt_rank], 6));
    let a = negative(device, d_state * d_inner, 7);
    let mut state = upload(device, d_state * d_inner, 8);
    let [mut y, mut raw] = [(); 2].map(|()| device.zeros(d_inner).unwrap());
    let inputs = SelectiveStepInputs {
        x: Rows::all(&x, d_inner),
        low: Rows::all(&low, dt_rank),
        b: Rows::all(&b, d_state),
        c: Rows::all(&c, d_state),
        z: Rows::all(&z, d_inner),
        norms: None,
        dt_proj: &matrix,
        a: &a,
        d: None,
        dt_bias: None,
        dt_limits: DtLimits::default(),
    };
    let sequence = StepSequence { state: &mut state, delta_min: None, sums: None };
    let (to_raw, to) = (RowsMut::all(&mut raw, d_inner), RowsMut::all(&mut y, d_inner));
    device.selective_step(1, inputs, to_raw, to, [sequence]).unwrap();
    [y.to_vec().unwrap(), raw.to_vec().unwrap(), state.to_vec().unwrap()].concat()
}

fn ssd_step(device: &Device) -> Vec<f32> {
    let (heads, head_dim, d_state) = (2, 40, 64);
    let width = heads * head_dim;
    let [x, z] = [1, 2].map(|seed| upload(device, width, seed));
    let dt_raw = upload(device, heads, 3);
    let [b, c] = [4, 5].map(|seed| upload(device, d_state, seed));
    let a = negative(device, heads, 6);
    let mut state = upload(device, width * d_state, 7);
    let mut y = device.zeros(width).unwrap();
    let inputs = SsdInputs {
        batch: 1,
        heads,
        groups: 1,
        x: Rows::all(&x, width),
        dt_raw: Rows::all(&dt_raw, heads),
        b: Rows::all(&b, d_state),
        c: Rows::all(&c, d_state),
        a: &a,
        d: None,
        dt_bias: None,
        delta_min: None,
        dt_limits: DtLimits::default(),
        lengths: None,
        precision: Precision::Exact,
    };
    let sequence = StepSequence { state: &mut state, delta_min: None, sums: None };
    let (z, to) = (Rows::all(&z, width), RowsMut::all(&mut y, width));
    device.ssd_step(inputs, z, to, [sequence]).unwrap();
    [y.to_vec().unwrap(), state.to_vec().unwrap()].concat()
}

fn argmax(device: &Device) -> Vec<f32> {
    let columns = 3000;
    let logits = upload(device, columns, 1);
    let mut out = device.zeros(1).unwrap();
    device.argmax(1, Rows::all(&logits, columns), columns, &mut out).unwrap();
    vec![out.to_vec().unwrap()[0] as f32]
}

/// The workload, the kernel that it is for, and the file that the kernel is in.
const KERNELS: [(&str, &str, &str); 13] = [
    ("scan", "selective_scan_8_f32", "scan"),
    ("ssd", "ssd_recurrent_n128_f32", "ssd"),
    ("ssd segments", "ssd_segment_n64_f32", "ssd"),
    ("ssd tensor", "ssd_scan_n64_f32", "ssd"),
    ("few rows", "few_rows_f32_4", "matmul"),
    ("product", "exact_f32_64", "matmul"),
    ("product tensor", "tensor_bf16_64", "matmul"),
    ("layer norm", "layer_norm_4", "norm"),
    ("attention", "attention_tile_64", "attention"),
    ("argmax", "argmax", "sample"),
    ("normed", "normed_rows_f32_4", "normed"),
    ("selective step", "selective_step_projected_f32", "step"),
    ("ssd step", "ssd_step_gated_n128", "step"),
];

/// Not a test of its own: what the children of the test below do.
#[test]
fn workload() {
    let Ok(name) = std::env::var(WORKLOAD) else { return };
    let device = common::device();
    let result = match &*name {
        "scan" => scan(&device),
        "ssd" => ssd(&device, 150, Precision::Exact),
        "ssd tensor" => ssd(&device, 150, Precision::Tensor),
        "ssd segments" => ssd(&device, 1100, Precision::Tensor),
        "few rows" => product(&device, 3, Precision::Exact),
        "product" => product(&device, 70, Precision::Exact),
        "product tensor" => product(&device, 70, Precision::Tensor),
        "layer norm" => norm(&device, true),
        "attention" => attention(&device, 40),
        "argmax" => argmax(&device),
        "normed" => normed(&device),
        "selective step" => selective_step(&device),
        "ssd step" => ssd_step(&device),
        other => panic!("there is no workload {other}"),
    };
    let bits: Vec<String> = result.iter().map(|v| format!("{:08x}", v.to_bits())).collect();
    println!("result {}", bits.concat());
}

/// The result of a workload, or `None` where it failed.
fn run(workload: &str, mutation: Option<&str>) -> Option<String> {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["workload", "--exact", "--nocapture"]).env(WORKLOAD, workload);
    child.env_remove(MUTATION).env("LONGMAMBA_CUDA", "emulator");
    if let Some(mutation) = mutation {
        child.env(MUTATION, mutation);
    }
    let output = child.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let result = text.lines().find_map(|line| line.strip_prefix("result "))?;
    output.status.success().then(|| result.to_owned())
}

#[test]
fn mistakes_are_noticed() {
    if driver_for_tests().unwrap() == TestDriver::Real {
        println!("skipped: a GPU does not look for mistakes");
        return;
    }
    let (mut survivors, mut tried) = (Vec::new(), 0);
    for (workload, kernel, file) in KERNELS {
        let path = format!("{}/ptx/compute_80/{file}.ptx", env!("CARGO_MANIFEST_DIR"));
        let ptx = std::fs::read_to_string(path).unwrap();
        let right = run(workload, None).expect("the kernel as it is works");
        let (barriers, offsets): (Vec<_>, Vec<_>) =
            Mutation::all(&ptx, kernel).into_iter().partition(|m| m.contains("barrier"));
        assert!(!barriers.is_empty(), "{kernel}: another workload is needed");
        let mut noticed = 0;
        // Every barrier, and some of the accesses.
        let every = offsets.len().div_ceil(6).max(1);
        for mutation in barriers.into_iter().chain(offsets.into_iter().step_by(every)) {
            tried += 1;
            if run(workload, Some(&mutation)).as_ref() == Some(&right) {
                survivors.push(mutation);
            } else if mutation.contains("barrier") {
                noticed += 1;
            }
        }
        assert!(noticed > 0, "{kernel}: no missing barrier was noticed");
    }
    println!("{tried} mistakes, {} not noticed: {survivors:?}", survivors.len());
    // Some do no harm: a barrier in front of the first use of memory that a loop uses again, an access in
    // a branch that these sizes do not take.
    assert!(tried > 60 && survivors.len() * 5 <= tried, "not noticed: {survivors:?}");
}
