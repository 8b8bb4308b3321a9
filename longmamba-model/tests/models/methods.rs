//! Every training-free method against the whole model in `f64`, changed in the most obvious way.

mod files;

use crate::common::oracle::{Layer, Model, Outcome};
use crate::common::{self, Shape, VOCAB, fixture, plan, random_tokens, shapes};
use longmamba_model::methods::{
    DeciMamba, Lamb, LongMamba, MambaExtend, Method, Modulation, Point, Scaled, Scales, Tuning,
    Winsorize,
};
use longmamba_model::policy::{Lookup, Plan};
use longmamba_model::{Batch, Error, Session, SessionOptions};
use proptest::prelude::*;
use std::sync::Arc;

/// How far a logit may be from the oracle's, relative to the largest of its position. Δ that was rewritten
/// is rounded once more than in `oracle.rs`.
const ROUNDING: f64 = 5e-5;
/// Two quantities that a choice is made by must differ by this, relatively, to be told apart in `f32`.
const NEAR: f64 = 5e-5;

const SHAPE: Shape = Shape {
    mamba2: true,
    seed: 3,
    d_model: 16,
    layers: 2,
    d_state: 8,
    d_conv: 4,
    groups: 2,
    head_dim: 4,
    bias: false,
    tied: true,
};

fn scales(shape: Shape, scaled: Scaled, factors: Vec<f32>) -> Scales {
    let tuning = Tuning { length: 50, windows: 2, labels: 10, seed: 7 };
    let path = vec![Point { factors: factors.clone(), nll: 1.5 }];
    Scales::new(scaled, shape.model().fingerprint().clone(), factors, tuning, path).unwrap()
}

fn options(method: Arc<dyn Method>, chunk_len: usize) -> SessionOptions {
    SessionOptions { method: Some(method), chunk_len: Some(chunk_len), ..Default::default() }
}

/// Logits of the last `last` tokens of the prompt and of all steps after it. `pieces`: the prompt is given
/// in pieces of this length.
fn read(
    session: &mut Session,
    prompt: &[u32],
    steps: &[u32],
    last: usize,
    piece: usize,
) -> Vec<f32> {
    let mut all = Vec::new();
    session.prefill_of(prompt.len()).unwrap();
    let from = prompt.len() - last;
    for (index, tokens) in prompt.chunks(piece).enumerate() {
        let first = index * piece;
        let wanted = from.saturating_sub(first).min(tokens.len())..tokens.len();
        session.prefill_scored(tokens, wanted, |_, logits| all.extend_from_slice(logits)).unwrap();
    }
    for &token in steps {
        session.step(token).unwrap();
        all.extend_from_slice(session.logits());
    }
    assert_eq!(all.len(), (last + steps.len()) * VOCAB);
    all
}

/// The logits at the end of the oracle's, as many as there are.
fn assert_agrees(logits: &[f32], expected: &Outcome, what: &str) {
    let expected = &expected.logits[expected.logits.len() - logits.len()..];
    for (t, (a, e)) in logits.chunks(VOCAB).zip(expected.chunks(VOCAB)).enumerate() {
        let largest = e.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        for (i, (&a, &e)) in a.iter().zip(e).enumerate() {
            let error = (f64::from(a) - e).abs();
            // Written so that NaN fails.
            assert!(error <= ROUNDING * largest, "{what}: row {t}, [{i}] is {a}, expected {e}");
        }
    }
}

/// The largest difference.
fn apart(a: &Outcome, b: &Outcome) -> f64 {
    let last = a.logits.len().min(b.logits.len());
    let end = |o: &Outcome| o.logits[o.logits.len() - last..].to_vec();
    end(a).iter().zip(end(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// A percentile as the textbook has it: linear between the neighbours of rank p·(n − 1).
fn percentile(values: &[f32], percent: f64) -> f64 {
    let mut sorted: Vec<f64> = values.iter().map(|&v| v.into()).collect();
    sorted.sort_by(f64::total_cmp);
    let rank = percent / 100.0 * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    low + (high - low) * (rank - rank.floor())
}

/// The rows that DeciMamba keeps, and how near its choice was. `rows` of Δ are of the prompt.
fn largest_norms(layer: &Layer, rows: usize, keep: usize, last: usize) -> (Vec<usize>, f64) {
    let channels = layer.channels();
    let norm = |row: &[f64]| row.iter().map(|d| d * d).sum::<f64>().sqrt();
    let norms: Vec<f64> = layer.delta().chunks(channels).map(norm).collect();
    let mut order: Vec<usize> = (0..rows.saturating_sub(last)).collect();
    order.sort_by(|&a, &b| norms[b].total_cmp(&norms[a]));
    let gap = match order.len() > keep && keep > 0 {
        true => 1.0 - norms[order[keep]] / norms[order[keep - 1]],
        false => 1.0,
    };
    let chosen = &order[..keep.min(order.len())];
    let kept = |row: &usize| chosen.contains(row) || *row + last >= rows;
    ((0..layer.len).filter(kept).collect(), gap)
}

/// LAMB by the definition of hidden attention: sets Δ of what is dropped to 0. How near its choices were.
fn filter_by_attention(layer: &mut Layer, plan: &Plan, rows: usize, queries: usize) -> f64 {
    let (channels, d_state, groups) = (layer.channels(), layer.d_state, layer.groups);
    let (delta, first) = (layer.delta(), rows.saturating_sub(queries));
    let per_state = layer.a.len() > channels;
    let mut near = 1.0f64;
    for channel in (0..channels).filter(|&c| plan.is_global(layer.index, c)) {
        let a = |n: usize| -> f64 {
            layer.a[if per_state { channel * d_state + n } else { channel }].into()
        };
        let group = channel / (channels / groups);
        let at = |values: &[f32], t: usize, n: usize| -> f64 {
            values[(t * groups + group) * d_state + n].into()
        };
        let of = |t: usize| delta[t * channels + channel];
        let attention = |t: usize, s: usize| -> f64 {
            let decayed = |n: usize| {
                let decay: f64 = (s + 1..=t).map(|k| (of(k) * a(n)).exp()).product();
                at(&layer.c, t, n) * decay * of(s) * at(&layer.b, s, n)
            };
            (0..d_state).map(decayed).sum()
        };
        let weight = |s: usize| -> f64 { (first..rows).map(|t| attention(t, s).abs()).sum() };
        let weights: Vec<f64> = (0..first).map(weight).collect();
        let decay = |t: usize| -> f64 {
            let states = if per_state { d_state } else { 1 };
            let mean: f64 = (0..states).map(|n| (of(t) * a(n)).exp()).sum();
            (mean / states as f64).ln()
        };
        let mut order: Vec<usize> = (0..first).collect();
        order.sort_by(|&x, &y| weights[y].total_cmp(&weights[x]));
        let least = plan.layers()[layer.index].log_scores[channel];
        let mut sum: f64 = (first..rows).map(decay).sum();
        let mut kept = 0;
        for &token in &order {
            sum += decay(token);
            near = near.min((sum / least - 1.0).abs());
            if sum < least {
                break;
            }
            kept += 1;
        }
        if kept > 0 && kept < first {
            near = near.min(1.0 - weights[order[kept]] / weights[order[kept - 1]]);
        }
        for &token in &order[kept..] {
            layer.dt_raw[token * channels + channel] = f32::NEG_INFINITY;
        }
    }
    near
}

#[test]
fn what_changes_nothing_is_vanilla_bit_for_bit() {
    for mamba2 in [false, true] {
        let shape = Shape { mamba2, ..SHAPE };
        let model = shape.model();
        let (prompt, steps) = (random_tokens(1, 60), random_tokens(2, 4));
        let mut vanilla =
            model.session(SessionOptions { chunk_len: Some(60), ..Default::default() }).unwrap();
        let expected = read(&mut vanilla, &prompt, &steps, 60, 60);
        let none = plan(&model).as_ref().clone().with_theta(1e9).unwrap();
        let ones = |scaled| scales(shape, scaled, vec![1.0; shape.layers]);
        let config = model.config();
        let methods: Vec<Arc<dyn Method>> = vec![
            Arc::new(LongMamba::new(Arc::new(none.clone()), Lookup::Nearest, 1.0).unwrap()),
            Arc::new(MambaExtend::new(ones(Scaled::Delta)).unwrap()),
            Arc::new(Modulation::new(ones(Scaled::Rates)).unwrap()),
            Arc::new(Winsorize::new(0.0, 100.0).unwrap()),
            Arc::new(DeciMamba { base: 60, last: 1, ..DeciMamba::new(config) }),
            Arc::new(Lamb::new(Arc::new(none), 4, true).unwrap()),
        ];
        for method in methods {
            let name = method.name();
            let mut session = model.session(options(method, 60)).unwrap();
            let logits = read(&mut session, &prompt, &steps, 60, 60);
            assert!(logits == expected, "{name}, mamba2: {mamba2}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..Default::default() })]

    /// Δ ← s·Δ is, in the equations, A ← s·A and B ← s·B.
    #[test]
    fn mamba_extend_scales_delta(
        shape in shapes(),
        len in 1usize..70,
        chunk_len in 1usize..80,
        piece in 1usize..80,
        first in 0.2f32..2.0,
        second in 0.2f32..2.0,
    ) {
        let factors = [first, second][..shape.layers].to_vec();
        let method = MambaExtend::new(scales(shape, Scaled::Delta, factors.clone())).unwrap();
        let (prompt, steps) = (random_tokens(shape.seed, len), random_tokens(4, 3));
        let mut session = shape.model().session(options(Arc::new(method), chunk_len)).unwrap();
        let logits = read(&mut session, &prompt, &steps, len, piece);
        let all = [&prompt[..], &steps].concat();
        let expected = Model::new(shape).run_with(&all, &mut |layer| {
            let factor = factors[layer.index];
            layer.a.iter_mut().for_each(|a| *a *= factor);
            layer.b.iter_mut().for_each(|b| *b *= factor);
            None
        });
        assert_agrees(&logits, &expected, "mambaextend");
    }

    #[test]
    fn modulation_scales_a(
        shape in shapes(),
        len in 1usize..70,
        chunk_len in 1usize..80,
        piece in 1usize..80,
        first in 0.2f32..2.0,
        second in 0.2f32..2.0,
    ) {
        let factors = [first, second][..shape.layers].to_vec();
        let method = Modulation::new(scales(shape, Scaled::Rates, factors.clone())).unwrap();
        let (prompt, steps) = (random_tokens(shape.seed, len), random_tokens(4, 3));
        let mut session = shape.model().session(options(Arc::new(method), chunk_len)).unwrap();
        let logits = read(&mut session, &prompt, &steps, len, piece);
        let all = [&prompt[..], &steps].concat();
        let expected = Model::new(shape).run_with(&all, &mut |layer| {
            layer.a.iter_mut().for_each(|a| *a *= factors[layer.index]);
            None
        });
        assert_agrees(&logits, &expected, "modulation");
    }

    #[test]
    fn winsorize_clips_a(
        shape in shapes(),
        len in 1usize..70,
        chunk_len in 1usize..80,
        piece in 1usize..80,
        low in 0.0f64..50.0,
        high in 50.0f64..100.0,
    ) {
        let method = Winsorize::new(low, high).unwrap();
        let (prompt, steps) = (random_tokens(shape.seed, len), random_tokens(4, 3));
        let mut session = shape.model().session(options(Arc::new(method), chunk_len)).unwrap();
        let logits = read(&mut session, &prompt, &steps, len, piece);
        let all = [&prompt[..], &steps].concat();
        let expected = Model::new(shape).run_with(&all, &mut |layer| {
            let (low, high) = (percentile(&layer.a, low), percentile(&layer.a, high));
            layer.a.iter_mut().for_each(|a| *a = f64::from(*a).clamp(low, high) as f32);
            None
        });
        assert_agrees(&logits, &expected, "winsorize");
    }

    /// What comes after the prompt sees the short sequence, and is kept.
    #[test]
    fn decimamba_keeps_the_largest_norms(
        shape in shapes(),
        len in 1usize..70,
        chunk_len in 1usize..80,
        base in 1usize..60,
        last in 1usize..20,
        both in any::<bool>(),
    ) {
        let (beta, min_len) = (0.5, 3);
        let layers = if both { (0..shape.layers).collect() } else { vec![shape.layers - 1] };
        let method = DeciMamba { layers: layers.clone(), base, beta, min_len, last };
        let (prompt, steps) = (random_tokens(shape.seed, len), random_tokens(4, 3));
        let mut session = shape.model().session(options(Arc::new(method), chunk_len)).unwrap();
        let logits = read(&mut session, &prompt, &steps, last.min(len), len);
        let all = [&prompt[..], &steps].concat();
        let mut near = 1.0f64;
        let expected = Model::new(shape).run_with(&all, &mut |layer| {
            let s = layers.iter().position(|&l| l == layer.index)?;
            let rows = layer.len - steps.len();
            let keep = [base, base / 2][s].min(rows.saturating_sub(last)).max(min_len);
            let (kept, gap) = largest_norms(layer, rows, keep, last);
            near = near.min(gap);
            Some(kept)
        });
        prop_assume!(near > NEAR);
        assert_agrees(&logits, &expected, "decimamba");
    }

    #[test]
    fn lamb_keeps_what_is_attended_to(
        shape in shapes(),
        len in 1usize..60,
        chunk_len in 1usize..80,
        queries in 1usize..9,
    ) {
        let model = shape.model();
        let plan = plan(&model);
        let method = Lamb::new(plan.clone(), queries, true).unwrap();
        let (prompt, steps) = (random_tokens(shape.seed, len), random_tokens(4, 3));
        let mut session = model.session(options(Arc::new(method), chunk_len)).unwrap();
        let logits = read(&mut session, &prompt, &steps, len, len);
        let all = [&prompt[..], &steps].concat();
        let (mut near, mut kept) = (1.0f64, Vec::new());
        let expected = Model::new(shape).run_with(&all, &mut |layer| {
            if len > plan.train_len() {
                near = near.min(filter_by_attention(layer, &plan, len, queries));
            }
            let channels = layer.channels();
            let column = |c: usize| layer.dt_raw.iter().skip(c).step_by(channels);
            let count = |c: usize| column(c).filter(|raw| raw.is_finite()).count() as u64;
            kept.push((0..channels).map(count).collect::<Vec<_>>());
            None
        });
        prop_assume!(near > NEAR);
        assert_agrees(&logits, &expected, "lamb");
        for (layer, kept) in kept.iter().enumerate() {
            prop_assert_eq!(&session.delta_sums(layer).unwrap().kept, kept);
        }
    }
}

/// So that the tests above compare something: each method moves the logits.
#[test]
fn every_method_does_something() {
    for mamba2 in [false, true] {
        let shape = Shape { mamba2, ..SHAPE };
        let (oracle, plan) = (Model::new(shape), plan(&shape.model()));
        let tokens = random_tokens(5, 60);
        let plain = oracle.run(&tokens, None);
        let dropped = oracle.run_with(&tokens, &mut |layer| {
            (layer.index == 1).then(|| largest_norms(layer, 60, 10, 5).0)
        });
        assert_eq!(dropped.tokens.len(), 15);
        assert!(apart(&plain, &dropped) > 1e-2, "decimamba: {}", apart(&plain, &dropped));
        let mut masked = 0;
        let filtered = oracle.run_with(&tokens, &mut |layer| {
            filter_by_attention(layer, &plan, 60, 4);
            masked += layer.dt_raw.iter().filter(|raw| raw.is_infinite()).count();
            None
        });
        assert!(masked > 100 && apart(&plain, &filtered) > 1e-2, "lamb: {masked} masked");

        let lamb = Lamb::new(plan.clone(), 4, true).unwrap();
        let mut session = shape.model().session(options(Arc::new(lamb), 60)).unwrap();
        session.prefill(&tokens).unwrap();
        let kept: u64 = (0..2).flat_map(|l| session.delta_sums(l).unwrap().kept).sum();
        let all = 60 * 2 * shape.model().config().mixer.channels() as u64;
        assert_eq!(kept, all - masked as u64, "mamba2: {mamba2}");
    }
}

fn decimamba(base: usize, last: usize) -> Arc<dyn Method> {
    Arc::new(DeciMamba { layers: vec![1], base, beta: 0.5, min_len: 1, last })
}

#[test]
fn the_chunk_length_is_no_matter_to_methods_that_look_at_all() {
    let model = SHAPE.model();
    let tokens = random_tokens(8, 90);
    let lamb: Arc<dyn Method> = Arc::new(Lamb::new(plan(&model), 4, true).unwrap());
    for method in [decimamba(20, 10), lamb] {
        let mut results = [7, 90, 500].map(|chunk_len| {
            let mut session = model.session(options(method.clone(), chunk_len)).unwrap();
            read(&mut session, &tokens, &[1, 2, 3], 10, 90)
        });
        results.sort_by(|a, b| a[0].total_cmp(&b[0]));
        assert!(results[0] == results[1] && results[1] == results[2], "{}", method.name());
    }
}

#[test]
fn a_part_of_a_prompt_is_refused_and_leaves_the_session_as_it_was() {
    let model = SHAPE.model();
    let tokens = random_tokens(8, 90);
    let mut session = model.session(options(decimamba(20, 10), 32)).unwrap();
    session.prefill_of(90).unwrap();
    let error = session.prefill(&tokens[..40]).unwrap_err();
    assert!(matches!(error, Error::Whole { method: "decimamba", announced: 90, given: 40 }));
    assert!(error.to_string().contains("give all to one prefill call"), "{error}");
    assert_eq!(session.position(), 0);
    session.prefill(&tokens).unwrap();
    assert_eq!(session.position(), 90);
    assert!(matches!(session.prefill(&[1]), Err(Error::Announced { .. })));
    session.step(1).unwrap();

    let error = Batch::new(model, options(decimamba(20, 10), 32), 2).unwrap_err().to_string();
    assert!(error.contains("one whole prompt at a time"), "{error}");
}

#[test]
fn logits_of_tokens_that_may_be_dropped_are_refused() {
    let model = SHAPE.model();
    let tokens = random_tokens(8, 90);
    let ask = |method: Arc<dyn Method>, from: usize| {
        let mut session = model.session(options(method, 32)).unwrap();
        let mut seen = Vec::new();
        session.prefill_scored(&tokens, from..90, |token, _| seen.push(token)).map(|()| seen)
    };
    assert_eq!(ask(decimamba(20, 10), 80).unwrap(), (80..90).collect::<Vec<_>>());
    let error = ask(decimamba(20, 10), 79).unwrap_err();
    assert!(matches!(error, Error::Dropped { sure: 10, total: 90, token: 79, .. }), "{error}");
    // Where all are kept, all may be asked for.
    assert_eq!(ask(decimamba(80, 10), 0).unwrap().len(), 90);
    assert!(ask(decimamba(79, 10), 0).is_err());
}

#[test]
fn decimamba_refuses_what_it_cannot_do() {
    let model = SHAPE.model();
    let good = DeciMamba::new(model.config());
    assert!(model.session(options(Arc::new(good.clone()), 32)).is_ok());
    for (bad, why) in [
        (DeciMamba { layers: vec![2], ..good.clone() }, "there is no layer 2"),
        (DeciMamba { layers: vec![], ..good.clone() }, "strictly ascending"),
        (DeciMamba { layers: vec![1, 1], ..good.clone() }, "strictly ascending"),
        (DeciMamba { beta: 1.5, ..good.clone() }, "beta is 1.5"),
        (DeciMamba { beta: f64::NAN, ..good.clone() }, "beta is NaN"),
        (DeciMamba { base: 0, ..good.clone() }, "at least 1"),
        (DeciMamba { last: 0, ..good.clone() }, "at least 1"),
    ] {
        let error = model.session(options(Arc::new(bad), 32)).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let hybrid =
        longmamba_model::Model::load(&fixture("zamba2-1block"), common::backend()).unwrap();
    let error = hybrid.session(options(Arc::new(DeciMamba::new(hybrid.config())), 32)).unwrap_err();
    assert!(error.to_string().contains("attention layers"), "{error}");
}

#[test]
fn a_method_and_a_plan_are_one_too_many() {
    let model = SHAPE.model();
    let options = SessionOptions {
        plan: Some(plan(&model)),
        method: Some(Arc::new(Winsorize::default())),
        ..Default::default()
    };
    let error = model.session(options).unwrap_err().to_string();
    assert!(error.contains("both a plan") && error.contains("winsorize"), "{error}");
}

#[test]
fn a_snapshot_belongs_to_its_method() {
    let model = SHAPE.model();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.session");
    let extend = |factor| -> SessionOptions {
        let scales = scales(SHAPE, Scaled::Delta, vec![factor; 2]);
        options(Arc::new(MambaExtend::new(scales).unwrap()), 32)
    };
    let mut session = model.session(extend(0.5)).unwrap();
    session.prefill(&random_tokens(1, 50)).unwrap();
    session.save(&file).unwrap();
    let mut forked = session.fork().unwrap();
    let mut loaded = Session::load(&model, extend(0.5), &file).unwrap();
    session.step(3).unwrap();
    forked.step(3).unwrap();
    loaded.step(3).unwrap();
    assert_eq!(session.logits(), loaded.logits());
    assert_eq!(session.logits(), forked.logits());
    for other in [extend(0.25), SessionOptions::default()] {
        let error = Session::load(&model, other, &file).unwrap_err().to_string();
        assert!(error.contains("saved with method"), "{error}");
    }
}
