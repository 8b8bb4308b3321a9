//! Whole kernels as the compiler writes them, against plain Rust.

mod common;

use common::Device;
use half::bf16;
use longmamba_cuda_emulator::{Config, FaultKind, Launch, Params};

const BASIC: &str = include_str!("ptx/basic.ptx");
const REDUCE: &str = include_str!("ptx/reduce.ptx");

fn close(got: f32, wanted: f64, tolerance: f64) {
    let error = (f64::from(got) - wanted).abs();
    assert!(error <= tolerance * wanted.abs().max(1.0), "{got} instead of {wanted}");
}

#[test]
fn mathematical_functions() {
    let device = Device::new(BASIC);
    let n = 300;
    let x: Vec<f32> = (0..n).map(|i| (i as f32 - 150.0) * 0.0173).collect();
    let (inputs, y) = (device.floats(&x), device.zeros(n * 64));
    let params = Params::new().u64(inputs).u64(y).u32(n as u32);
    device.run("functions", Launch::linear(5, 64), params).expect("runs");
    let y = device.read_floats(y, 16 * n);
    for (x, y) in x.iter().zip(y.chunks(16)) {
        let v = f64::from(*x);
        let scaled = f64::from(1e6_f32 * x);
        let wanted = [
            v.exp(),
            v.exp(),
            (f64::from(x.abs() + 1e-3)).ln(),
            v.abs().ln_1p(),
            v.tanh(),
            v.sin(),
            scaled.cos(),
            v.abs().sqrt(),
            1.0 / f64::from(x.abs() + 0.1).sqrt(),
            v / 7.1_f32 as f64,
            v / 3.0,
            v.abs().powf(1.7_f32.into()),
            f64::from((x * 10.0).round_ties_even() + x.floor() + x.ceil() + x.trunc()),
            v.max(0.5) + v.min(-0.5),
            erf(v),
            v.exp() + (v.abs() + 2.0).ln() + v.sin(),
        ];
        for (got, wanted) in y.iter().zip(wanted) {
            close(*got, wanted, 2e-6);
        }
    }
}

/// The error function by its series, which converges for the arguments here.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..100 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn calls_tables_local_arrays_and_a_struct() {
    let device = Device::new(BASIC);
    let (n, threads) = (200_i32, 128_usize);
    let x: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
    let (inputs, y) = (device.floats(&x), device.zeros(n as usize * 4));
    let (scale, tag, shift) = (0.25_f32, [1_u8, 2, 3], 3.5_f64);
    let params = Params::new()
        .u64(inputs)
        .u64(y)
        .u32(n as u32)
        .f32(scale)
        .raw(&tag, 1)
        .raw(&shift.to_le_bytes(), 8);
    // The struct is aligned to eight bytes, its size is a multiple of that.
    device.run("basic", Launch::linear(2, threads as u32).shared(512), params).expect("runs");
    let y = device.read_floats(y, n as usize);
    let table = [1.0, 2.0, 3.0, 4.5, -1e-3_f32];
    for i in 0..n as usize {
        let (block, thread) = (i / threads, i % threads);
        let next = block * threads + (thread + 1) % threads;
        let mut v = x.get(next).copied().unwrap_or(0.0) + table[thread % 5];
        v += scale * ((thread * 3) & 63) as f32 + f32::from(tag[i % 3]);
        let mut iterated = v;
        for step in 0..n % 7 {
            iterated = iterated * 0.5 + 0.25 / (1.0 + step as f32);
        }
        v = iterated + v * (i % 9) as f32 + scale;
        let kept = (0..40).filter(|j| (j * 7 + i) % 40 == n as usize % 40).max().expect("one");
        v += v * kept as f32;
        v = match i % 6 {
            0 => v + 1.0,
            1 => v * 2.0,
            2 => -v,
            3 => v - shift as f32,
            4 => v * v,
            _ => 0.5,
        };
        close(y[i], v.into(), 1e-5);
    }
    let (counter, size) = device.module.variable("counter").expect("is there");
    assert_eq!((device.words(counter, 1)[0], size), (7 + n as u32, 4));
    let (slots, _) = device.module.variable("slots").expect("is there");
    assert_eq!(device.read_floats(slots, 3)[2], 42.0);
}

#[test]
fn sum_by_shuffles_and_atomics() {
    let device = Device::new(REDUCE);
    let x: Vec<f32> = (0..5000).map(|i| (i as f32 * 0.01).cos()).collect();
    let (inputs, out) = (device.floats(&x), device.zeros(4));
    let params = Params::new().u64(inputs).u64(out).u32(5000);
    device.run("sum", Launch::linear(7, 256), params).expect("runs");
    close(device.read_floats(out, 1)[0], x.iter().map(|x| f64::from(*x)).sum(), 1e-4);
}

#[test]
fn the_last_block_sees_the_others() {
    let device = Device::new(REDUCE);
    let x: Vec<f32> = (0..320).map(|i| i as f32).collect();
    let (inputs, parts) = (device.floats(&x), device.zeros(40));
    let (done, out) = (device.zeros(4), device.zeros(4));
    let params = Params::new().u64(inputs).u64(parts).u64(done).u64(out);
    device.run("last_block", Launch::linear(10, 32), params).expect("runs");
    assert_eq!(device.read_floats(out, 1)[0], 320.0 * 319.0 / 2.0);
}

#[test]
fn votes() {
    let device = Device::new(REDUCE);
    let x: Vec<u32> = (0..32).map(|i| i * 37 % 100).collect();
    let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
    let (inputs, out) = (device.upload(&bytes), device.zeros(32 * 32));
    device.run("votes", Launch::linear(1, 32), Params::new().u64(inputs).u64(out)).expect("runs");
    let out = device.words(out, 256);
    let mask = |f: &dyn Fn(u32) -> bool| {
        (0..32).fold(0_u32, |mask, lane| mask | u32::from(f(x[lane as usize])) << lane)
    };
    for (lane, out) in out.chunks(8).enumerate() {
        let v = x[lane];
        let up = if lane % 8 >= 3 { x[lane - 3] } else { v };
        let wanted = [
            mask(&|x| x & 1 == 1),
            x.iter().any(|x| *x > 90).into(),
            1,
            mask(&|x| x % 4 == v % 4),
            x.iter().sum(),
            x.iter().max().expect("some") - 50,
            up,
            x[lane / 16 * 16 + 5],
        ];
        assert_eq!(out, wanted, "lane {lane}");
    }
}

#[test]
fn atomics() {
    let device = Device::new(REDUCE);
    let (u, s, w) = (device.zeros(24), device.zeros(8), device.zeros(16));
    let (f, d) = (device.zeros(4), device.zeros(8));
    device.emulator.fill(u + 8, &[0xff], 4).expect("is there");
    let params = Params::new().u64(u).u64(s).u64(w).u64(f).u64(d);
    device.run("atomics", Launch::linear(8, 96), params).expect("runs");
    let n = 768_u32;
    let sum = n * (n - 1) / 2;
    assert_eq!(device.words(u, 6), [sum, n - 1, 0, u32::MAX, n % 10, n]);
    assert_eq!(device.words(s, 2), [-100_i32 as u32, n - 101]);
    let wide = u64::from(sum) << 20;
    assert_eq!(device.words(w, 4), [wide as u32, (wide >> 32) as u32, 77, 0]);
    assert_eq!(device.read_floats(f, 1)[0], 0.5 * n as f32);
    assert_eq!(device.words(d, 2)[1], ((0.25 * f64::from(n)).to_bits() >> 32) as u32);
}

fn gemm(ptx: &str, kernel: &str, config: Config, [m, n, k]: [usize; 3]) -> Result<(), FaultKind> {
    let device = Device::with(config, ptx);
    let value = |i: usize| bf16::from_f32((i * 7919 % 1000) as f32 / 500.0 - 1.0);
    let bytes = |count: usize, first: usize| -> Vec<u8> {
        (0..count).flat_map(|i| value(i + first).to_le_bytes()).collect()
    };
    let (a, b) = (device.upload(&bytes(m * k, 0)), device.upload(&bytes(n * k, 31)));
    let c = device.emulator.alloc((m * n * 4) as u64).expect("there is room");
    let params = Params::new().u64(a).u64(b).u64(c).u32(m as u32).u32(n as u32).u32(k as u32);
    let grid = [n.div_ceil(32) as u32, m.div_ceil(32) as u32, 1];
    let launch = Launch { grid, block: [128, 1, 1], shared: 0 };
    match device.run(kernel, launch, params) {
        Ok(_) => {}
        Err(longmamba_cuda_emulator::LaunchError::Fault(fault)) => {
            println!("{fault}");
            return Err(fault.kind);
        }
        Err(other) => panic!("{other}"),
    }
    let c = device.read_floats(c, m * n);
    for row in 0..m {
        for column in 0..n {
            let wanted: f64 = (0..k)
                .map(|i| value(row * k + i).to_f64() * value(31 + column * k + i).to_f64())
                .sum();
            close(c[row * n + column], wanted, 1e-5);
        }
    }
    Ok(())
}

#[test]
fn matrix_product_on_tensor_cores() {
    let ptx = include_str!("ptx/gemm.ptx");
    gemm(ptx, "gemm", Config::default(), [70, 50, 128]).expect("no fault");
    gemm(ptx, "gemm", Config { threads: 1, ..Config::default() }, [32, 32, 32]).expect("no fault");
}

#[test]
fn matrix_product_without_a_wait() {
    let ptx = include_str!("ptx/gemm_missing_wait.ptx");
    let fault = gemm(ptx, "gemm_missing_wait", Config::default(), [32, 32, 128]);
    assert!(matches!(fault, Err(FaultKind::Pending { .. })), "{fault:?}");
}

#[test]
fn matrix_product_without_a_barrier() {
    let ptx = include_str!("ptx/gemm_missing_barrier.ptx");
    let fault = gemm(ptx, "gemm_missing_barrier", Config::default(), [32, 32, 128]);
    assert!(matches!(fault, Err(FaultKind::Race { .. } | FaultKind::Pending { .. })), "{fault:?}");
}

#[test]
fn threads_of_the_host_do_not_change_results() {
    let run = |threads: usize| {
        let device = Device::with(Config { threads, ..Config::default() }, BASIC);
        let y = device.zeros(64 * 128 * 4);
        let params = Params::new().u64(y).u32(50);
        let count = device.run("work", Launch::linear(64, 128), params).expect("runs");
        (count, device.words(y, 64 * 128))
    };
    assert_eq!(run(1), run(3));
}

/// The text without the n-th line that contains a word, or none where there are not as many.
fn without(ptx: &str, word: &str, n: usize) -> Option<String> {
    let (at, _) = ptx.lines().enumerate().filter(|(_, line)| line.contains(word)).nth(n)?;
    let kept = ptx.lines().enumerate().filter(|(line, _)| *line != at);
    Some(kept.map(|(_, line)| format!("{line}\n")).collect())
}

#[test]
fn every_barrier_and_every_wait_is_missed() {
    let ptx = include_str!("ptx/gemm.ptx");
    // Of the waits for all groups the compiler left copies that no number of steps reaches.
    for word in ["bar.sync", "cp.async.wait_group 1"] {
        let mut n = 0;
        while let Some(text) = without(ptx, word, n) {
            // Seven steps take the loop of four at a time once and that of the rest; eight the
            // first one twice.
            let missed = [224, 256]
                .map(|k| gemm(&text, "gemm", Config::default(), [32, 32, k]).is_err())
                .contains(&true);
            assert!(missed, "{word} number {n} is not missed");
            n += 1;
        }
        assert!(n > 0, "no {word}");
    }
}
