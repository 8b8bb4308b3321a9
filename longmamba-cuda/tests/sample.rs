//! Drawing tokens, against sorting on the host in f64.

mod common;
#[path = "common/rows.rs"]
mod rows;

use common::device;
use longmamba_cuda::{Error, NO_TOKEN, NOT_A_NUMBER, Sampling};
use proptest::prelude::*;
use rows::{Random, Stored, assert_same};

/// Probabilities are right to this share of themselves; of a sum, and of a threshold, too.
const TOLERANCE: f64 = 1e-6;

/// Around a block's threads, and the loads that each has at a time.
const COUNTS: [usize; 10] = [1, 2, 31, 127, 128, 129, 1023, 4096, 4097, 9000];

fn argmax(logits: &[f32], count: usize) -> Vec<u32> {
    let device = device();
    let rows = logits.len() / count;
    let stored = Stored::<f32>::new(&device, logits, count, 3);
    let mut tokens = device.zeros(rows).unwrap();
    device.argmax(rows, stored.rows(), count, &mut tokens).unwrap();
    tokens.to_vec().unwrap()
}

fn draw(logits: &[f32], count: usize, sampling: Sampling, uniform: &[f64]) -> Vec<u32> {
    let device = device();
    let stored = Stored::<f32>::new(&device, logits, count, 1);
    let numbers = device.upload(&[&[9.0], uniform].concat()).unwrap();
    let mut tokens = device.zeros(uniform.len()).unwrap();
    let rows = uniform.len();
    device.sample(rows, stored.rows(), count, sampling, &numbers, 1, &mut tokens).unwrap();
    tokens.to_vec().unwrap()
}

/// `draws` of the same logits.
fn draw_many(logits: &[f32], sampling: Sampling, draws: usize) -> Vec<u32> {
    let uniform: Vec<f64> = (0..draws).map(|i| (i as f64 + 0.5) / draws as f64).collect();
    draw(&logits.repeat(draws), logits.len(), sampling, &uniform)
}

/// The tokens in the order in which they lie side by side, and the end of each in [0, 1].
fn line(logits: &[f32], sampling: Sampling) -> Vec<(u32, f64)> {
    let Sampling { temperature, top_k, top_p, min_p } = sampling;
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |l: f32| ((f64::from(l) - f64::from(top)) / f64::from(temperature)).exp();
    let mut kept: Vec<(u32, f64)> = (0..).zip(logits.iter().map(|&l| weight(l))).collect();
    // Stable: of equals the lower id stays first.
    kept.sort_by(|a, b| logits[b.0 as usize].partial_cmp(&logits[a.0 as usize]).unwrap());
    kept.truncate(top_k.unwrap_or(usize::MAX));
    if top_p < 1.0 {
        let wanted = f64::from(top_p) * kept.iter().map(|k| k.1).sum::<f64>();
        let mut mass = 0.0;
        let enough = kept.iter().position(|k| {
            mass += k.1;
            mass >= wanted
        });
        kept.truncate(enough.map_or(usize::MAX, |at| at + 1));
    }
    kept.retain(|k| k.1 >= f64::from(min_p));
    if top_k.is_none_or(|k| k >= logits.len()) && top_p == 1.0 {
        kept.sort_by_key(|k| k.0);
    }
    let mass: f64 = kept.iter().map(|k| k.1).sum();
    let mut end = 0.0;
    kept.iter_mut().for_each(|k| {
        end += k.1 / mass;
        k.1 = end;
    });
    kept
}

/// The token must be the one at that number, or at one so near that rounding decides.
fn assert_drawn(logits: &[f32], sampling: Sampling, uniform: f64, token: u32) {
    let line = line(logits, sampling);
    let at = line.iter().position(|k| k.0 == token);
    let at = at.unwrap_or_else(|| panic!("{sampling:?}: token {token} is not kept"));
    let start = if at == 0 { 0.0 } else { line[at - 1].1 };
    let end = line[at].1;
    assert!(
        start - TOLERANCE <= uniform && uniform <= end + TOLERANCE,
        "{sampling:?}: token {token} lies at {start} to {end}, not at {uniform}"
    );
}

const ALL: Sampling = Sampling { temperature: 1.0, top_k: None, top_p: 1.0, min_p: 0.0 };

#[test]
fn the_most_likely_is_the_first_of_the_largest() {
    for count in COUNTS {
        let mut random = Random::new(count as u64);
        let mut logits = random.vec(5 * count, -9.0, 9.0);
        // Equals: far apart, all, and negative.
        logits[count..2 * count].fill(-3.5);
        (logits[2 * count + count / 2], logits[3 * count - 1]) = (10.0, 10.0);
        logits[3 * count..4 * count].iter_mut().for_each(|l| *l -= 20.0);
        logits[4 * count..].fill(f32::NEG_INFINITY);
        let expected: Vec<u32> = logits
            .chunks(count)
            .map(|row| {
                let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                row.iter().position(|&l| l == best).unwrap() as u32
            })
            .collect();
        assert_eq!(argmax(&logits, count), expected, "{count}");
        let drawn = draw(&logits, count, Sampling::default(), &[0.5; 5]);
        assert_eq!(drawn[..4], expected[..4], "{count}");
        assert_eq!(drawn[4], NO_TOKEN);
    }
    assert_eq!(argmax(&[-0.0, 0.0, 0.0, -0.0, 1.0, f32::INFINITY], 2), [0, 0, 1]);
}

#[test]
fn what_is_no_number_is_reported() {
    for at in [0, 5, 1023, 1024, 1500] {
        for (bad, found) in [
            (f32::NAN, [NOT_A_NUMBER; 2]),
            (-f32::NAN, [NOT_A_NUMBER; 2]),
            (f32::INFINITY, [at, NOT_A_NUMBER]),
        ] {
            let mut logits = vec![0.5; 1501];
            logits[at as usize] = bad;
            let drawn = draw(&logits, 1501, ALL, &[0.3])[0];
            assert_eq!([argmax(&logits, 1501)[0], drawn], found);
        }
    }
}

#[test]
fn the_filters_keep_exactly_their_set() {
    let logits = [0.05f32, 0.4, 0.1, 0.3, 0.15].map(f32::ln);
    let keeps = |logits: &[f32], sampling| {
        let mut tokens = draw_many(logits, sampling, 60);
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    };
    assert_eq!(keeps(&logits, ALL), [0, 1, 2, 3, 4]);
    assert_eq!(keeps(&logits, Sampling { top_k: Some(1), ..ALL }), [1]);
    assert_eq!(keeps(&logits, Sampling { top_k: Some(3), ..ALL }), [1, 3, 4]);
    assert_eq!(keeps(&logits, Sampling { top_k: Some(99), ..ALL }), [0, 1, 2, 3, 4]);
    assert_eq!(keeps(&logits, Sampling { top_p: 0.3, ..ALL }), [1]);
    assert_eq!(keeps(&logits, Sampling { top_p: 0.69, ..ALL }), [1, 3]);
    assert_eq!(keeps(&logits, Sampling { top_p: 0.71, ..ALL }), [1, 3, 4]);
    assert_eq!(keeps(&logits, Sampling { min_p: 0.3, ..ALL }), [1, 3, 4]);
    assert_eq!(keeps(&logits, Sampling { min_p: 1.0, ..ALL }), [1]);
    // top-p works on what top-k left: 0.4 of 0.7 is more than half.
    assert_eq!(keeps(&logits, Sampling { top_k: Some(2), top_p: 0.5, ..ALL }), [1]);
    // Of equals the lower ids stay.
    assert_eq!(keeps(&[0.0; 4], Sampling { top_k: Some(2), ..ALL }), [0, 1]);
    assert_eq!(keeps(&[0.0; 4], Sampling { top_p: 0.5, ..ALL }), [0, 1]);
    assert_eq!(keeps(&[-1.0, 2.0, -1.0, 2.0, 2.0], Sampling { top_p: 0.6, ..ALL }), [1, 3]);
}

#[test]
fn draws_lie_where_their_numbers_do() {
    let mut random = Random::new(3);
    for (i, count) in COUNTS.into_iter().enumerate() {
        let spread = [0.1, 3.0, 12.0, 60.0][i % 4];
        let logits = random.vec(count, -spread, spread);
        for sampling in [
            ALL,
            Sampling { temperature: 0.7, min_p: 0.02, ..ALL },
            Sampling { top_k: Some(40), ..ALL },
            Sampling { temperature: 1.5, top_p: 0.9, ..ALL },
            Sampling { temperature: 0.3, top_k: Some(count / 2 + 1), top_p: 0.8, min_p: 0.01 },
        ] {
            let uniform = [0.0, 0.37, f64::from(random.uniform(0.0, 1.0)), 1.0 - f64::EPSILON];
            let drawn = draw(&logits.repeat(4), count, sampling, &uniform);
            for (&uniform, &token) in uniform.iter().zip(&drawn) {
                assert_drawn(&logits, sampling, uniform, token);
            }
        }
    }
}

/// Temperatures at the ends of what f32 holds, and logits so far apart that their difference is infinite.
#[test]
fn extremes() {
    let logits = [1.0, 3.0, f32::MAX, f32::MIN, f32::NEG_INFINITY];
    assert_eq!(draw(&logits, 5, ALL, &[0.999]), [2]);
    let cold = Sampling { temperature: 1e-30, ..ALL };
    assert_eq!(draw(&[1.0, 1.0 + f32::EPSILON, 0.0], 3, cold, &[0.999]), [1]);
    assert_eq!(draw(&[1.0, 1.0, 0.0], 3, cold, &[0.999]), [1]);
    let hot = Sampling { temperature: 1e30, ..ALL };
    assert_eq!(draw_many(&[-5.0, f32::NEG_INFINITY, 5.0], hot, 4), [0, 0, 2, 2]);
    assert_eq!(draw(&[f32::NEG_INFINITY; 3], 3, ALL, &[0.5]), [NO_TOKEN]);
    // More are asked for than can be drawn.
    let sampling = Sampling { top_k: Some(2), ..ALL };
    assert_eq!(draw(&[f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY], 3, sampling, &[0.9]), [1]);
}

#[test]
fn banned_tokens_are_never_drawn() {
    let device = device();
    let logits = [1.0, 9.0, f32::NAN, 2.0, f32::INFINITY, 5.0, 1.0, 2.0];
    let mut stored = Stored::<f32>::new(&device, &logits, 4, 3);
    let banned = device.upload(&[1, 2, 0, 99, 1]).unwrap();
    device.ban(2, stored.rows_mut(), &banned).unwrap();
    let out = f32::NEG_INFINITY;
    assert_same(
        "banned",
        &stored.values(),
        &[out, out, f32::NAN, 2.0, f32::INFINITY, out, out, 2.0],
    );
    let none = device.upload(&[]).unwrap();
    device.ban(2, stored.rows_mut(), &none).unwrap();
    device.ban(0, stored.rows_mut(), &banned).unwrap();
}

#[test]
fn arguments_are_checked() {
    let device = device();
    let logits = Stored::<f32>::new(&device, &[1.0; 8], 4, 0);
    let mut tokens = device.upload(&[7, 7]).unwrap();
    let uniform = device.upload(&[0.5; 2]).unwrap();
    let argument = |result: Result<(), Error>| assert!(matches!(result, Err(Error::Argument(_))));
    for count in [0, 5] {
        argument(device.argmax(2, logits.rows(), count, &mut tokens));
    }
    argument(device.argmax(3, logits.rows(), 4, &mut tokens));
    argument(device.sample(2, logits.rows(), 4, ALL, &uniform, 1, &mut tokens));
    for bad in [
        Sampling { temperature: -1.0, ..ALL },
        Sampling { temperature: f32::NAN, ..ALL },
        Sampling { top_k: Some(0), ..ALL },
        Sampling { top_p: 0.0, ..ALL },
        Sampling { top_p: 1.1, ..ALL },
        Sampling { min_p: f32::NAN, ..ALL },
    ] {
        argument(device.sample(2, logits.rows(), 4, bad, &uniform, 0, &mut tokens));
    }
    device.sample(0, logits.rows(), 4, ALL, &uniform, 2, &mut tokens).unwrap();
    assert_eq!(tokens.to_vec().unwrap(), [7, 7]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_draw(
        // Few values, so that there are many equals.
        logits in prop::collection::vec(prop_oneof![-8.0f32..8.0, (-3i8..4).prop_map(f32::from)], 1..900),
        temperature in 0.2f32..3.0,
        top_k in prop::option::of(1usize..100),
        top_p in prop_oneof![Just(1.0f32), 0.01f32..0.999],
        min_p in prop_oneof![Just(0.0f32), 0.0f32..0.5],
        uniform in 0.0f64..1.0,
    ) {
        let sampling = Sampling { temperature, top_k, top_p, min_p };
        let token = draw(&logits, logits.len(), sampling, &[uniform])[0];
        assert_drawn(&logits, sampling, uniform, token);
    }
}
