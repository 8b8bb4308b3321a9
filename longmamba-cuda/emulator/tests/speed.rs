//! How fast the interpreter is; prints, asserts nothing.

mod common;

use common::Device;
use longmamba_cuda_emulator::{Config, Launch, Params};

#[test]
fn speed() {
    let config = Config { threads: 1, ..Config::default() };
    let device = Device::with(config, include_str!("ptx/basic.ptx"));
    let y = device.zeros(32 * 128 * 4);
    let begun = std::time::Instant::now();
    let params = Params::new().u64(y).u32(300);
    let count = device.run("work", Launch::linear(32, 128), params).expect("runs");
    let time = begun.elapsed().as_secs_f64();
    println!("work: {:.0} million thread instructions a second", count as f64 / time / 1e6);
}

#[test]
fn speed_of_the_matrix_product() {
    let config = Config { threads: 1, ..Config::default() };
    let device = Device::with(config, include_str!("ptx/gemm.ptx"));
    let n = 256_usize;
    let (a, b) = (device.zeros(n * n * 2), device.zeros(n * n * 2));
    let c = device.zeros(n * n * 4);
    let size = n as u32;
    let params = Params::new().u64(a).u64(b).u64(c).u32(size).u32(size).u32(size);
    let launch = Launch { grid: [size / 32, size / 32, 1], block: [128, 1, 1], shared: 0 };
    let begun = std::time::Instant::now();
    let count = device.run("gemm", launch, params).expect("runs");
    let time = begun.elapsed().as_secs_f64();
    println!(
        "gemm: {:.0} million thread instructions a second, {:.2} Gflop/s",
        count as f64 / time / 1e6,
        2.0 * (n * n * n) as f64 / time / 1e9
    );
}
