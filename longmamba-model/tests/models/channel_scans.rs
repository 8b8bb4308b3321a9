//! What a channel's scan read, against the whole model in `f64`.

use crate::common::oracle::{Layer, Model};
use crate::common::{plan, random_tokens, shapes};
use longmamba_model::SessionOptions;
use longmamba_model::eval::channel_scan::{ChannelScan, Place, channel_scans};
use longmamba_model::methods::{DeciMamba, LongMamba, Method, Winsorize};
use longmamba_model::policy::Lookup;
use proptest::prelude::*;
use std::sync::Arc;

/// How far a value may be from the oracle's, relative to the largest of its kind.
const ROUNDING: f64 = 5e-5;
/// Δ must differ by this from what decides over it, relatively, to be told apart in `f32`.
const NEAR: f64 = 5e-5;

/// The scan of a place as the oracle has it; `tokens` are those of the layer's rows.
fn expected(layer: &Layer, channel: usize, total: usize, tokens: &[usize]) -> ChannelScan {
    let (channels, d_state, groups) = (layer.channels(), layer.d_state, layer.groups);
    let (states, group) = (layer.a.len() / channels, channel * groups / channels);
    let mut scan = ChannelScan {
        delta: vec![0.0; total],
        b: vec![0.0; total * d_state],
        c: vec![0.0; total * d_state],
        d_state,
        rates: layer.a[channel * states..][..states].to_vec(),
    };
    let delta = layer.delta();
    for (row, &token) in tokens.iter().enumerate() {
        scan.delta[token] = delta[row * channels + channel] as f32;
        for n in 0..d_state {
            let from = (row * groups + group) * d_state + n;
            scan.b[token * d_state + n] = layer.b[from];
            scan.c[token * d_state + n] = layer.c[from];
        }
    }
    scan
}

fn close(actual: &[f32], expected: &[f32], what: &str) -> Result<(), TestCaseError> {
    prop_assert_eq!(actual.len(), expected.len(), "{}", what);
    let largest = expected.iter().fold(0.0f64, |m, v| m.max(f64::from(*v).abs()));
    for (i, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        // Dropped is dropped.
        prop_assert!(e != 0.0 || a == 0.0, "{what}[{i}] is {a}, expected 0");
        let error = (f64::from(a) - f64::from(e)).abs();
        prop_assert!(error <= ROUNDING * largest, "{what}[{i}] is {a}, expected {e}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..Default::default() })]

    #[test]
    fn scans_are_those_of_the_model(
        shape in shapes(),
        len in 1usize..70,
        chunk_len in 1usize..80,
        kind in 0usize..4,
        channel in any::<prop::sample::Index>(),
    ) {
        let model = shape.model();
        let plan = plan(&model);
        let decimamba = DeciMamba { layers: vec![0], base: 20, beta: 1.0, min_len: 3, last: 5 };
        let method: Option<Arc<dyn Method>> = match kind {
            0 => None,
            1 => Some(Arc::new(LongMamba::new(plan.clone(), Lookup::Nearest, 1.0).unwrap())),
            2 => Some(Arc::new(Winsorize::new(30.0, 60.0).unwrap())),
            _ => Some(Arc::new(decimamba)),
        };
        let channel = channel.index(model.config().mixer.channels());
        let places: Vec<Place> = (0..shape.layers).map(|layer| Place { layer, channel }).collect();
        let prompt = random_tokens(shape.seed, len);
        let chunk_len = Some(chunk_len);
        let options = SessionOptions { method: method.clone(), chunk_len, ..Default::default() };
        let scans = channel_scans(&model, &prompt, &places, true, &options).unwrap();

        let mut near = 1.0f64;
        let mut tokens: Vec<usize> = (0..len).collect();
        let mut all = Vec::new();
        let outcome = Model::new(shape).run_with(&prompt, &mut |layer| {
            let channels = layer.channels();
            match (kind, &method) {
                (1, Some(method)) => {
                    let mut least = vec![0.0; channels];
                    method.thresholds(layer.index, len, &mut least).unwrap();
                    layer.delta_min = Some(least);
                }
                (2, Some(method)) => {
                    let own = layer.a.clone();
                    layer.a = method.rates(layer.index, &|| Ok(own.clone())).unwrap().unwrap_or(own);
                }
                (3, Some(method)) if method.cuts(layer.index, len) => {
                    let delta: Vec<f32> = layer.delta().iter().map(|d| *d as f32).collect();
                    let norm = |row: &[f32]| row.iter().map(|d| f64::from(*d).powi(2)).sum::<f64>();
                    let mut norms: Vec<f64> = delta.chunks(channels).map(norm).collect();
                    norms.sort_by(f64::total_cmp);
                    let gaps = norms.windows(2).map(|w| 1.0 - w[0] / w[1]);
                    near = gaps.fold(near, f64::min);
                    let kept = method.keep(layer.index, len, &delta);
                    all.push(expected(layer, channel, len, &tokens));
                    tokens = kept.clone();
                    return Some(kept);
                }
                _ => {}
            }
            all.push(expected(layer, channel, len, &tokens));
            None
        });
        prop_assume!(near.min(outcome.nearest) > NEAR);
        for ((index, scan), mut expected) in scans.iter().enumerate().zip(all) {
            if kind == 3 && index == 0 {
                // What it cuts in its own layer.
                for token in (0..len).filter(|t| !tokens.contains(t)) {
                    expected.delta[token] = 0.0;
                    let states = token * expected.d_state..(token + 1) * expected.d_state;
                    expected.b[states.clone()].fill(0.0);
                    expected.c[states].fill(0.0);
                }
            }
            if kind == 1 {
                let mut least = vec![0.0; model.config().mixer.channels()];
                method.as_ref().unwrap().thresholds(index, len, &mut least).unwrap();
                let dropped = |d: &&mut f32| **d <= least[channel];
                expected.delta.iter_mut().filter(dropped).for_each(|d| *d = 0.0);
            }
            close(&scan.rates, &expected.rates, "A")?;
            close(&scan.delta, &expected.delta, "delta")?;
            close(&scan.b, &expected.b, "B")?;
            close(&scan.c, &expected.c, "C")?;
            prop_assert_eq!(scan.d_state, expected.d_state);
        }
    }
}
