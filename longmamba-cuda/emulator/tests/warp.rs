//! What is for several threads together: named barriers, matrix fragments, lanes that part.

mod common;

use common::Device;
use half::f16;
use longmamba_cuda_emulator::{FaultKind, Launch, Params};

const WARP: &str = include_str!("ptx/warp.ptx");

#[test]
fn warps_hand_over_by_named_barriers() {
    let device = Device::new(WARP);
    let y = device.zeros(256);
    let params = |wrong| Params::new().u64(y).u32(wrong);
    device.run("named_barriers", Launch::linear(1, 128), params(0)).expect("runs");
    let wanted: Vec<f32> = (0..64).map(|i| 300.0 + 3.0 * (63 - i) as f32).collect();
    assert_eq!(device.read_floats(y, 64), wanted);
    let fault = device.fault("named_barriers", Launch::linear(1, 128), params(1));
    assert!(matches!(fault, FaultKind::Race { .. } | FaultKind::Barrier { .. }), "{fault:?}");
}

#[test]
fn barriers_that_count() {
    let device = Device::new(WARP);
    let y = device.zeros(400);
    device.run("reducing_barriers", Launch::linear(1, 100), Params::new().u64(y)).expect("runs");
    assert_eq!(device.words(y, 100), [34 + 10000; 100]);
}

#[test]
fn fragments_of_matrices() {
    let device = Device::new(WARP);
    let input: Vec<u8> = (0..256_u16).flat_map(|i| (i * 251 + 3).to_le_bytes()).collect();
    let element = |matrix: usize, row: usize, column: usize| {
        u32::from((matrix * 64 + row * 8 + column) as u16 * 251 + 3)
    };
    let (input, x, y, z) =
        (device.upload(&input), device.zeros(512), device.zeros(256), device.zeros(128));
    let params = Params::new().u64(input).u64(x).u64(y).u64(z);
    device.run("fragments", Launch::linear(1, 32), params).expect("runs");
    let (x, y, z) = (device.words(x, 128), device.words(y, 64), device.words(z, 32));
    for lane in 0..32 {
        let (row, column) = (lane / 4, lane % 4 * 2);
        for matrix in 0..4 {
            let wanted = element(matrix, row, column) | element(matrix, row, column + 1) << 16;
            assert_eq!(x[matrix * 32 + lane], wanted);
            if matrix < 2 {
                let wanted = element(matrix, column, row) | element(matrix, column + 1, row) << 16;
                assert_eq!(y[matrix * 32 + lane], wanted);
            }
        }
        assert_eq!(z[lane], y[lane]);
    }
}

/// Rows and columns of the elements that a lane holds, in the order of the manual.
fn a16(lane: usize, i: usize) -> (usize, usize) {
    let row = if i % 4 < 2 { lane / 4 } else { lane / 4 + 8 };
    (row, lane % 4 * 2 + (i & 1) + if i >= 4 { 8 } else { 0 })
}

fn b16(lane: usize, i: usize) -> (usize, usize) {
    (lane % 4 * 2 + (i & 1) + if i >= 2 { 8 } else { 0 }, lane / 4)
}

fn c(lane: usize, i: usize) -> (usize, usize) {
    (if i < 2 { lane / 4 } else { lane / 4 + 8 }, lane % 4 * 2 + (i & 1))
}

#[test]
fn shapes_of_matrix_products() {
    let device = Device::new(WARP);
    // Bits that are reasonable numbers both as two f16 and as one f32.
    let bits = |i: usize| 0x3c00_3800_u32 + (i as u32 * 0x0003_0045) % 0x0400_0400;
    let a: Vec<u32> = (0..128).map(bits).collect();
    let b: Vec<u32> = (0..64).map(|i| bits(i + 777) ^ (i as u32 & 1) << 31).collect();
    let sums: Vec<f32> = (0..128).map(|i| i as f32 * 0.25 - 10.0).collect();
    let bytes = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    let params = Params::new().u64(device.upload(&bytes(&a))).u64(device.upload(&bytes(&b)));
    let (d, e, f) = (device.zeros(512), device.zeros(512), device.zeros(256));
    let params = params.u64(device.floats(&sums)).u64(d).u64(e).u64(f);
    device.run("shapes", Launch::linear(1, 32), params).expect("runs");
    let half = |words: &[u32], lane: usize, i: usize| {
        f16::from_bits((words[i / 2 * 32 + lane] >> (i % 2 * 16)) as u16).to_f64()
    };
    let single = |bits: u32| f64::from(f32::from_bits(bits & 0xffff_e000));
    let (mut small, mut tf32, mut full) = ([[0.0; 8]; 16], [[0.0; 8]; 16], [[0.0; 8]; 16]);
    let mut left = [[[0.0; 16]; 16]; 3];
    let mut right = [[[0.0; 8]; 16]; 3];
    for lane in 0..32 {
        for i in 0..8 {
            let (row, k) = a16(lane, i);
            left[2][row][k] = half(&a, lane, i);
            if i < 4 {
                left[0][row][k] = half(&a, lane, i);
                left[1][lane / 4 + i % 2 * 8][lane % 4 + i / 2 * 4] = single(a[i * 32 + lane]);
                let (k, column) = b16(lane, i);
                right[2][k][column] = half(&b, lane, i);
            }
            if i < 2 {
                let (k, column) = b16(lane, i);
                right[0][k][column] = half(&b, lane, i);
                right[1][lane % 4 + i * 4][lane / 4] = single(b[i * 32 + lane]);
            }
        }
    }
    for (index, out) in [&mut small, &mut tf32, &mut full].into_iter().enumerate() {
        for (row, out) in out.iter_mut().enumerate() {
            for (column, out) in out.iter_mut().enumerate() {
                *out = (0..16).map(|k| left[index][row][k] * right[index][k][column]).sum();
            }
        }
    }
    let (d, e, f) = (device.read_floats(d, 128), device.read_floats(e, 128), device.words(f, 64));
    for lane in 0..32 {
        for i in 0..4 {
            let (row, column) = c(lane, i);
            let start = f64::from(sums[i * 32 + lane]);
            let near = |got: f64, wanted: f64, tolerance: f64| {
                assert!(
                    (got - wanted).abs() <= tolerance * wanted.abs().max(1.0),
                    "{got} {wanted}"
                );
            };
            near(d[i * 32 + lane].into(), small[row][column] + start, 1e-5);
            near(e[i * 32 + lane].into(), tf32[row][column] + start, 1e-5);
            near(half(&f, lane, i), full[row][column], 1e-3);
        }
    }
}

#[test]
fn bytes_vectors_and_generic_addresses() {
    let device = Device::new(WARP);
    let bytes: Vec<u8> = (0..128).map(|i| (i * 5 % 251) as u8).collect();
    let quads: Vec<f32> = (0..128).map(|i| i as f32 * 0.125).collect();
    let (b, q, y) = (device.upload(&bytes), device.floats(&quads), device.zeros(256));
    let params = Params::new().u64(b).u64(q).u64(y);
    device.run("addresses", Launch::linear(1, 32), params).expect("runs");
    let out = device.words(y, 64);
    for i in 0..32 {
        let from = match i % 3 {
            0 => (i % 4) as f32 * 0.5,
            1 => 0.0,
            _ => quads[4 * i + 1],
        };
        let sum: f32 = (0..4).map(|k| (k + 1) as f32 * f32::from(bytes[4 * i + k])).sum();
        let wanted = from + sum + quads[4 * i] + quads[4 * i + 2] + quads[4 * i + 3];
        assert_eq!(f32::from_bits(out[i]), wanted, "thread {i}");
        assert_eq!(out[32 + i], (-(i as i32)) as u32 & 0xffff | (i as u32) << 16);
    }
}

#[test]
fn lanes_part_and_meet_again() {
    let device = Device::new(WARP);
    let y = device.zeros(128);
    device.run("parting", Launch::linear(1, 32), Params::new().u64(y)).expect("runs");
    let steps: Vec<u32> = (0..32_u32)
        .map(|mut n| {
            let mut steps = 0;
            while n != 0 {
                n = if n % 2 == 1 { n - 1 } else { n / 2 };
                steps += 1;
                if steps <= 3 {
                    steps += 100;
                }
            }
            steps
        })
        .collect();
    let odd = steps.iter().filter(|steps| *steps % 2 == 1).count() as u32;
    for (lane, got) in device.words(y, 32).into_iter().enumerate() {
        let other = if lane % 4 == 0 { 100_000 * (lane as u32 ^ 4) } else { 0 };
        assert_eq!(got, steps[lane] + 1000 * odd + other, "lane {lane}");
    }
}

#[test]
fn threads_that_wait_in_a_loop_get_what_they_wait_for() {
    let device = Device::new(WARP);
    for other in [1, 31, 40] {
        let y = device.zeros(4);
        let params = Params::new().u64(y).u32(other);
        device.run("waiting", Launch::linear(1, 64), params).expect("ends");
        assert_eq!(device.words(y, 1), [7], "waiting for thread {other}");
    }
}
