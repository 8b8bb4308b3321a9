//! Copies from the host that are so large that they go through page-locked memory, piece by piece.

mod common;

use half::{bf16, f16};
use longmamba_core::{AnyView, DType, Element, View};
use longmamba_cuda::{Device, Error, Matrix, RowsMut};
use std::process::Command;

/// Bytes of one of the two pieces.
const PIECE: usize = 16 << 20;
/// Set for a child of these tests.
const CHILD: &str = "LONGMAMBA_TEST_CASE";

/// Numbers that tell where in a tensor they are, and that 16 bits can hold.
fn number(at: usize) -> f32 {
    (at * 7 % 251) as f32 - 125.0
}

/// Uploads `[outputs, inputs]` and looks at rows around the ends of pieces.
fn matrix<T: Element>(device: &Device, shape: [usize; 2]) {
    let [outputs, inputs] = shape;
    let values: Vec<T> = (0..outputs * inputs).map(|at| T::from_f32(number(at))).collect();
    let view = match T::DTYPE {
        DType::F32 => AnyView::F32(View::new(bytemuck::cast_slice(&values), shape).unwrap()),
        DType::F16 => AnyView::F16(View::new(bytemuck::cast_slice(&values), shape).unwrap()),
        DType::BF16 => AnyView::BF16(View::new(bytemuck::cast_slice(&values), shape).unwrap()),
    };
    let matrix = Matrix::upload(device, view).unwrap();
    let bytes = inputs.next_multiple_of(16 / size_of::<T>()) * size_of::<T>();
    let mut rows = vec![0, outputs - 1];
    for end in (PIECE..outputs * bytes).step_by(PIECE) {
        rows.extend([end.div_ceil(bytes) - 1, (end.div_ceil(bytes)).min(outputs - 1)]);
    }
    rows.dedup();
    let tokens: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
    let tokens = device.upload(&tokens).unwrap();
    let mut out = device.zeros(rows.len() * inputs).unwrap();
    matrix.gather_rows(&tokens, rows.len(), RowsMut::all(&mut out, inputs)).unwrap();
    let out = out.to_vec().unwrap();
    for (row, values) in rows.iter().zip(out.chunks_exact(inputs)) {
        let wrong = (0..inputs).find(|c| values[*c] != number(row * inputs + c));
        assert_eq!(wrong, None, "{shape:?}, row {row}");
    }
}

fn buffer(device: &Device, len: usize) {
    let values: Vec<f32> = (0..len).map(number).collect();
    let buffer = device.upload(&values).unwrap();
    assert!(buffer.to_vec().unwrap() == values, "{len} numbers");
}

fn everything(device: &Device) {
    // More than three pieces, so that each is used again; with and without zeros between the rows.
    matrix::<f16>(device, [80_001, 330]);
    matrix::<bf16>(device, [80_000, 336]);
    matrix::<f32>(device, [40_000, 330]);
    // Exactly two pieces.
    matrix::<f16>(device, [2 * PIECE / 2048, 1024]);
    for len in [(1 << 18) - 1, 1 << 18, PIECE / 4, PIECE / 4 + 1, 3 * PIECE / 4 + 5] {
        buffer(device, len);
    }
}

#[test]
fn what_is_copied_in_pieces_arrives_whole() {
    let device = common::device();
    everything(&device);
    // Numbers of other sizes.
    let values: Vec<[u32; 3]> = (0..2_000_000).map(|at| [at, at + 1, at + 2]).collect();
    assert!(device.upload(&values).unwrap().to_vec().unwrap() == values);
    device.free_staging();
    device.free_staging();
    matrix::<bf16>(&device, [20_000, 332]);
}

/// Copies of several threads take turns.
#[test]
fn threads_share_the_pieces() {
    let device = common::device();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let device = &device;
            scope.spawn(move || matrix::<f16>(device, [70_000 + thread, 330]));
        }
    });
}

#[test]
fn a_large_copy_is_no_part_of_a_graph() {
    let device = common::device();
    let recorded = device.capture(|| device.upload(&[1.0; 1 << 20]).map(drop)).map(drop);
    assert_eq!(recorded, Err(Error::NotRecordable { what: "a copy from the host" }));
}

/// Where no memory can be page-locked, copies go without; where there is just enough, it is given back
/// when asked for, and with the device.
#[test]
fn page_locked_memory_is_optional_and_given_back() {
    if std::env::var_os(CHILD).is_some() {
        let device = common::device();
        everything(&device);
        if std::env::var("LONGMAMBA_EMULATOR_PINNED").is_ok_and(|bytes| bytes != "0") {
            let context = cudarc::driver::CudaContext::new(0).unwrap();
            // SAFETY: never looked into.
            let pinned = || unsafe { context.alloc_pinned::<u8>(PIECE) };
            pinned().expect_err("all that there is, is in use");
            device.free_staging();
            pinned().unwrap();
            let other = Device::new(0).unwrap();
            buffer(&other, 1 << 20);
            pinned().expect_err("all that there is, is in use");
            drop(other);
            pinned().unwrap();
        }
        println!("all arrived");
        return;
    }
    for bytes in [0, 2 * PIECE + PIECE / 2] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["page_locked_memory_is_optional_and_given_back", "--exact", "--nocapture"]);
        child.env(CHILD, "").env("LONGMAMBA_CUDA", "emulator");
        child.env("LONGMAMBA_EMULATOR_PINNED", bytes.to_string());
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("all arrived"), "{bytes}: {text}{errors}");
    }
}
