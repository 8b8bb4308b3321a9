//! The norms against the oracle.

mod common;
#[path = "common/rows.rs"]
mod rows;

use common::device;
use longmamba_core::{View, oracle};
use longmamba_cuda::{Buffer, Device, Error};
use proptest::prelude::*;
use rows::{Random, Stored, assert_close};

/// Around a warp, what a thread and a block keep in registers, aligned and not, and beyond.
const WIDTHS: [usize; 15] = [1, 3, 4, 31, 33, 64, 127, 128, 513, 768, 2047, 2049, 2560, 8192, 8196];

/// A sum of squares, a root, a division and two products.
const TOLERANCE: f64 = 1e-6;

const EPS: f32 = 1e-5;

struct Problem {
    rows: usize,
    width: usize,
    x: Vec<f32>,
    z: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Problem {
    fn new(rows: usize, width: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        Problem {
            rows,
            width,
            x: random.vec(rows * width, -3.0, 5.0),
            z: random.vec(rows * width, -6.0, 6.0),
            weight: random.vec(width, -2.0, 2.0),
            bias: random.vec(width, -2.0, 2.0),
        }
    }

    /// `x` and `z` as rows with gaps, room for the output, `weight` and `bias`.
    fn upload(
        &self,
        device: &Device,
        gap: usize,
    ) -> (Stored<f32>, Stored<f32>, Stored<f32>, [Buffer<f32>; 2]) {
        let stored = |values: &[f32], gap| Stored::new(device, values, self.width, gap);
        let vectors = [&self.weight, &self.bias].map(|v| device.upload(v).unwrap());
        (stored(&self.x, gap), stored(&self.z, 0), stored(&vec![7.0; self.x.len()], gap), vectors)
    }

    fn view(&self) -> View<'_, f32, 2> {
        View::new(&self.x, [self.rows, self.width]).unwrap()
    }

    fn check_rms(&self, device: &Device, gap: usize) {
        let (x, _, mut out, [weight, _]) = self.upload(device, gap);
        device.rms_norm(self.rows, x.rows(), &weight, EPS, out.rows_mut()).unwrap();
        let expected = oracle::rms_norm(&self.view(), &self.weight, EPS);
        let what = format!("rms {} × {}, {gap}", self.rows, self.width);
        assert_close(&what, &out.values(), &expected, 0.0, TOLERANCE);
    }

    fn check_layer(&self, device: &Device, gap: usize) {
        let (x, _, mut out, [weight, bias]) = self.upload(device, gap);
        device.layer_norm(self.rows, x.rows(), &weight, &bias, EPS, out.rows_mut()).unwrap();
        let mut expected = Vec::new();
        for row in self.x.chunks(self.width) {
            let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / row.len() as f64;
            let square = |&v: &f32| (f64::from(v) - mean).powi(2);
            let var = row.iter().map(square).sum::<f64>() / row.len() as f64;
            let scale = 1.0 / (var + f64::from(EPS)).sqrt();
            expected.extend(
                row.iter().zip(&self.weight).zip(&self.bias).map(|((&v, &w), &b)| {
                    (f64::from(v) - mean) * scale * f64::from(w) + f64::from(b)
                }),
            );
        }
        let what = format!("layer {} × {}, {gap}", self.rows, self.width);
        assert_close(&what, &out.values(), &expected, TOLERANCE, TOLERANCE);
    }

    fn check_gated(&self, device: &Device, group: usize, gap: usize) {
        let (x, z, mut out, [weight, _]) = self.upload(device, gap);
        let to = out.rows_mut();
        device.gated_rms_norm(self.rows, x.rows(), z.rows(), &weight, group, EPS, to).unwrap();
        let z = View::new(&self.z, [self.rows, self.width]).unwrap();
        let expected = oracle::gated_rms_norm(&self.view(), &z, &self.weight, group, EPS);
        let what = format!("gated {} × {} by {group}, {gap}", self.rows, self.width);
        assert_close(&what, &out.values(), &expected, 0.0, 2.0 * TOLERANCE);
    }
}

#[test]
fn every_width_agrees_with_the_oracle() {
    let device = device();
    for (i, width) in WIDTHS.into_iter().enumerate() {
        for (rows, gap) in [(1, 4), (3, i % 5)] {
            let problem = Problem::new(rows, width, width as u64);
            problem.check_rms(&device, gap);
            problem.check_layer(&device, gap);
            problem.check_gated(&device, width, gap);
        }
    }
}

/// So many that each thread has several packs of columns.
#[test]
fn many_rows_agree_with_the_oracle() {
    let device = device();
    for (width, gap) in [(768, 4), (769, 1), (96, 0)] {
        let problem = Problem::new(300, width, width as u64);
        problem.check_rms(&device, gap);
        problem.check_layer(&device, gap);
        problem.check_gated(&device, width, gap);
    }
}

#[test]
fn groups_agree_with_the_oracle() {
    let device = device();
    for (width, group) in [(12, 1), (12, 3), (256, 64), (260, 130), (4096, 2048), (4098, 2049)] {
        for rows in [1, 5] {
            Problem::new(rows, width, width as u64).check_gated(&device, group, 4);
        }
    }
}

/// In f32 the sum of squares of such rows has no digit of the variance.
#[test]
fn layer_norm_with_a_large_mean() {
    let mut problem = Problem::new(3, 1000, 5);
    problem.x.iter_mut().for_each(|x| *x = (*x * 64.0).round() / 64.0 + 8192.0);
    problem.check_layer(&device(), 0);
}

#[test]
fn a_nan_is_seen_in_its_group_only() {
    let device = device();
    let mut problem = Problem::new(2, 64, 6);
    problem.x[64 + 33] = f32::NAN;
    let (x, z, mut out, [weight, bias]) = problem.upload(&device, 1);
    let bad = |values: Vec<f32>| -> Vec<usize> {
        (0..values.len()).filter(|&i| values[i].is_nan()).collect()
    };
    let row: Vec<usize> = (64..128).collect();
    device.rms_norm(2, x.rows(), &weight, EPS, out.rows_mut()).unwrap();
    assert_eq!(bad(out.values()), row);
    device.layer_norm(2, x.rows(), &weight, &bias, EPS, out.rows_mut()).unwrap();
    assert_eq!(bad(out.values()), row);
    device.gated_rms_norm(2, x.rows(), z.rows(), &weight, 16, EPS, out.rows_mut()).unwrap();
    assert_eq!(bad(out.values()), (96..112).collect::<Vec<_>>());
}

#[test]
fn no_rows_and_no_columns() {
    let device = device();
    for (rows, width) in [(0, 8), (3, 0), (0, 0)] {
        let empty = device.zeros(0).unwrap();
        let weight = device.upload(&vec![1.0; width]).unwrap();
        let mut to = device.zeros(0).unwrap();
        let x = longmamba_cuda::Rows::all(&empty, width);
        let out = longmamba_cuda::RowsMut::all(&mut to, width);
        device.rms_norm(rows, x, &weight, EPS, out).unwrap();
    }
}

#[test]
fn arguments_are_checked() {
    let device = device();
    let problem = Problem::new(2, 12, 8);
    let (x, z, mut out, [weight, _]) = problem.upload(&device, 0);
    let short = device.upload(&[1.0; 11]).unwrap();
    let argument = |result: Result<(), Error>| assert!(matches!(result, Err(Error::Argument(_))));
    argument(device.rms_norm(2, x.rows(), &short, EPS, out.rows_mut()));
    argument(device.rms_norm(3, x.rows(), &weight, EPS, out.rows_mut()));
    argument(device.layer_norm(2, x.rows(), &weight, &short, EPS, out.rows_mut()));
    for eps in [-1e-6, f32::NAN, f32::INFINITY] {
        argument(device.rms_norm(2, x.rows(), &weight, eps, out.rows_mut()));
    }
    for group in [0, 5, 24] {
        let to = out.rows_mut();
        argument(device.gated_rms_norm(2, x.rows(), z.rows(), &weight, group, EPS, to));
    }
    assert!(out.values().iter().all(|&v| v == 7.0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_shape(rows in 1usize..12, groups in 1usize..5, group in 1usize..300, gap in 0usize..9, seed: u64) {
        let device = device();
        let problem = Problem::new(rows, groups * group, seed);
        problem.check_rms(&device, gap);
        problem.check_layer(&device, gap);
        problem.check_gated(&device, group, gap);
    }
}
