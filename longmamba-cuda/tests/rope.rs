//! Rotary embedding against its formula, with the angles that the processor's kernel takes.

mod common;
#[path = "common/rows.rs"]
mod rows;

use common::device;
use longmamba_core::ViewMut;
use longmamba_cpu::Cpu;
use longmamba_cuda::{Error, Position, Positions, Rotation, RowsMut};
use proptest::prelude::*;
use rows::{Random, Stored, assert_close, assert_same};

/// Sine, cosine, two products and their sum.
const TOLERANCE: f64 = 4e-7;

fn check(rows: usize, heads: usize, rotation: Rotation, position: usize, gap: usize, seed: u64) {
    let device = device();
    let Rotation { head_dim, width, base, interleaved } = rotation;
    let x = Random::new(seed).vec(rows * heads * head_dim, -1.0, 1.0);
    let mut stored = Stored::<f32>::new(&device, &x, heads * head_dim, gap);
    let at = Position::Fixed(position);
    device.rope(rows, stored.rows_mut(), rotation, at).unwrap();
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
    let what = format!("{rows} × {heads}, {rotation:?} at {position}, {gap}");
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
                let rotation = Rotation { head_dim, width, base: 10_000.0, interleaved };
                check(rows, heads, rotation, position, i % 3, i as u64);
            }
        }
    }
}

/// Where an angle is many turns, and a base whose frequencies rise.
#[test]
fn far_positions() {
    for position in [4_000_000, 16_777_215, 1 << 30] {
        for base in [10_000.0, 1e6, 0.5] {
            let rotation = Rotation { head_dim: 32, width: 32, base, interleaved: false };
            check(5, 2, rotation, position, 0, 3);
        }
    }
}

#[test]
fn a_nan_stays_in_its_pair() {
    let device = device();
    let mut x = vec![1.0; 32];
    x[3] = f32::NAN;
    let mut stored = Stored::<f32>::new(&device, &x, 32, 0);
    let rotation = Rotation { head_dim: 16, width: 16, base: 1e4, interleaved: false };
    device.rope(1, stored.rows_mut(), rotation, Position::Fixed(5)).unwrap();
    let bad: Vec<usize> = (0..32).filter(|&i| stored.values()[i].is_nan()).collect();
    assert_eq!(bad, [3, 11]);
}

#[test]
fn arguments_are_checked() {
    let device = device();
    let mut x = Stored::<f32>::new(&device, &[1.0; 24], 12, 0);
    let good = Rotation { head_dim: 6, width: 4, base: 1e4, interleaved: true };
    let start = Position::Fixed(0);
    for head_dim in [0, 5, 24] {
        let result = device.rope(2, x.rows_mut(), Rotation { head_dim, ..good }, start);
        assert!(matches!(result, Err(Error::Argument(_))), "{head_dim}");
    }
    for width in [3, 8] {
        let result = device.rope(2, x.rows_mut(), Rotation { width, ..good }, start);
        assert!(matches!(result, Err(Error::Argument(_))), "{width}");
    }
    for (far, position) in [
        (good, usize::MAX),
        (good, 1 << 40),
        (Rotation { base: f32::NAN, ..good }, 0),
        (Rotation { base: 0.0, ..good }, 1),
    ] {
        let result = device.rope(2, x.rows_mut(), far, Position::Fixed(position));
        assert!(matches!(result, Err(Error::Unsupported { .. })), "{far:?}: {result:?}");
    }
    let mut stored = Positions::new(&device, 2).unwrap();
    stored.set([1, 1 << 40].into_iter()).unwrap();
    let far = device.rope(2, x.rows_mut(), good, Position::Stored(&stored, 1));
    assert!(matches!(far, Err(Error::Unsupported { .. })), "{far:?}");
    let none = device.rope(2, x.rows_mut(), good, Position::Stored(&stored, 2));
    assert!(matches!(none, Err(Error::Argument(_))), "{none:?}");
    let many = stored.set([0; 3].into_iter());
    assert!(matches!(many, Err(Error::Argument(_))), "{many:?}");
    assert_eq!([0, 1, 2].map(|i| stored.get(i)), [Some(1), Some(1 << 40), None]);
    assert_same("untouched", &x.values(), &[1.0; 24]);
}

/// A replay rotates by the position that is stored by then. Where the host could not refuse an angle, there
/// are NaNs, and no angle that is not true.
#[test]
fn a_replay_follows_the_stored_position() {
    let device = device();
    let rotation = Rotation { head_dim: 8, width: 6, base: 1e4, interleaved: false };
    let values = Random::new(4).vec(48, -1.0, 1.0);
    let given = device.upload(&values).unwrap();
    let mut x = device.upload(&values).unwrap();
    let mut positions = Positions::new(&device, 3).unwrap();
    let mut graph = None;
    for (step, position) in [7, 7, 8, 1000, 2, 1 << 41].into_iter().enumerate() {
        positions.set([99, position, 98].into_iter()).unwrap();
        let mut work = || {
            x.copy_from(&given, 0, 48, 0)?;
            device.rope(2, RowsMut::all(&mut x, 24), rotation, Position::Stored(&positions, 1))
        };
        match step {
            0 => work().unwrap(),
            1 => graph = device.capture(work).unwrap(),
            _ => {}
        }
        if let Some(graph) = &mut graph {
            graph.launch().unwrap();
        }
        let actual = x.to_vec().unwrap();
        if position == 1 << 41 {
            // The first pair's frequency is 1; the others turn more slowly.
            let rotated = actual.chunks(8).map(|head| [head[0], head[3]]);
            assert!(rotated.flatten().all(f32::is_nan), "{actual:?}");
            assert!(actual.chunks(8).all(|head| head[6].is_finite() && head[7].is_finite()));
            continue;
        }
        let mut expected = device.upload(&values).unwrap();
        let to = RowsMut::all(&mut expected, 24);
        device.rope(2, to, rotation, Position::Fixed(position)).unwrap();
        assert_same(&format!("at {position}"), &actual, &expected.to_vec().unwrap());
    }
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
        let rotation = Rotation { head_dim, width, base: 10_000.0, interleaved };
        check(rows, heads, rotation, position, gap, position as u64);
    }
}
