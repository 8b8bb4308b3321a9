//! Rotary embedding against its formula, with the angles that the processor's kernel takes.

mod common;
#[path = "common/rows.rs"]
mod rows;

use common::device;
use longmamba_core::ViewMut;
use longmamba_cpu::Cpu;
use longmamba_cuda::{Error, Rotation};
use proptest::prelude::*;
use rows::{Random, Stored, assert_close, assert_same};

/// Sine, cosine, two products and their sum.
const TOLERANCE: f64 = 4e-7;

fn check(rows: usize, heads: usize, rotation: Rotation, gap: usize, seed: u64) {
    let device = device();
    let Rotation { head_dim, width, base, interleaved, position } = rotation;
    let x = Random::new(seed).vec(rows * heads * head_dim, -1.0, 1.0);
    let mut stored = Stored::<f32>::new(&device, &x, heads * head_dim, gap);
    device.rope(rows, stored.rows_mut(), rotation).unwrap();
    let mut expected = x.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    for (at, head) in expected.chunks_mut(head_dim).enumerate() {
        for pair in 0..width / 2 {
            let frequency = 1.0 / base.powf((2 * pair) as f32 / width as f32);
            let angle = f64::from((position + at / heads) as f32 * frequency);
            let (i, j) =
                if interleaved { (2 * pair, 2 * pair + 1) } else { (pair, pair + width / 2) };
            let (u, v) = (head[i], head[j]);
            head[i] = u * angle.cos() - v * angle.sin();
            head[j] = v * angle.cos() + u * angle.sin();
        }
    }
    let what = format!("{rows} × {heads}, {rotation:?}, {gap}");
    assert_close(&what, &stored.values(), &expected, TOLERANCE, TOLERANCE);

    let shape = [rows, heads * head_dim];
    let mut on_cpu = x;
    let given = longmamba_cpu::Rotation { head_dim, width, base, interleaved, position };
    Cpu::new().rope(ViewMut::new(&mut on_cpu, shape).unwrap(), given).unwrap();
    let on_cpu: Vec<f64> = on_cpu.into_iter().map(f64::from).collect();
    assert_close(&what, &stored.values(), &on_cpu, TOLERANCE, TOLERANCE);
}

#[test]
fn every_shape_agrees_with_the_formula() {
    // Up to two launches' worth of pairs.
    for (i, (head_dim, width)) in
        [(1, 0), (2, 2), (5, 4), (64, 64), (80, 32), (160, 160), (224, 224), (300, 258)]
            .into_iter()
            .enumerate()
    {
        for (rows, heads) in [(0, 2), (1, 1), (1, 7), (3, 4), (33, 3)] {
            for interleaved in [false, true] {
                let position = [0, 1, 1000, 131_072][i % 4];
                let rotation = Rotation { head_dim, width, base: 10_000.0, interleaved, position };
                check(rows, heads, rotation, i % 3, i as u64);
            }
        }
    }
}

/// Where an angle is many turns, and a base whose frequencies rise.
#[test]
fn far_positions() {
    for position in [4_000_000, 16_777_215, 1 << 30] {
        for base in [10_000.0, 1e6, 0.5] {
            let rotation = Rotation { head_dim: 32, width: 32, base, interleaved: false, position };
            check(5, 2, rotation, 0, 3);
        }
    }
}

#[test]
fn a_nan_stays_in_its_pair() {
    let device = device();
    let mut x = vec![1.0; 32];
    x[3] = f32::NAN;
    let mut stored = Stored::<f32>::new(&device, &x, 32, 0);
    let rotation = Rotation { head_dim: 16, width: 16, base: 1e4, interleaved: false, position: 5 };
    device.rope(1, stored.rows_mut(), rotation).unwrap();
    let bad: Vec<usize> = (0..32).filter(|&i| stored.values()[i].is_nan()).collect();
    assert_eq!(bad, [3, 11]);
}

#[test]
fn arguments_are_checked() {
    let device = device();
    let mut x = Stored::<f32>::new(&device, &[1.0; 24], 12, 0);
    let good = Rotation { head_dim: 6, width: 4, base: 1e4, interleaved: true, position: 0 };
    for head_dim in [0, 5, 24] {
        let result = device.rope(2, x.rows_mut(), Rotation { head_dim, ..good });
        assert!(matches!(result, Err(Error::Argument(_))), "{head_dim}");
    }
    for width in [3, 8] {
        let result = device.rope(2, x.rows_mut(), Rotation { width, ..good });
        assert!(matches!(result, Err(Error::Argument(_))), "{width}");
    }
    for far in [
        Rotation { position: usize::MAX, ..good },
        Rotation { position: 1 << 40, ..good },
        Rotation { base: f32::NAN, ..good },
        Rotation { base: 0.0, position: 1, ..good },
    ] {
        let result = device.rope(2, x.rows_mut(), far);
        assert!(matches!(result, Err(Error::Unsupported { .. })), "{far:?}: {result:?}");
    }
    assert_same("untouched", &x.values(), &[1.0; 24]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_shape(
        rows in 0usize..20,
        heads in 1usize..6,
        half in 0usize..70,
        rest in 0usize..9,
        interleaved: bool,
        position in 0usize..200_000,
        gap in 0usize..5,
    ) {
        let (head_dim, width) = ((2 * half + rest).max(1), 2 * half);
        let rotation = Rotation { head_dim, width, base: 10_000.0, interleaved, position };
        check(rows, heads, rotation, gap, position as u64);
    }
}
