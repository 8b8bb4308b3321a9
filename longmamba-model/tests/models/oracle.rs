//! The whole model in `f64` against a session.

use crate::common::oracle::{DeltaMin, Model, Outcome};
use crate::common::{Shape, VOCAB, plan, random_tokens, shapes};
use longmamba_model::policy::Lookup;
use longmamba_model::{Session, SessionOptions};
use proptest::prelude::*;
use proptest::sample::Index;

/// How far a logit may be from the oracle's, relative to the largest of its position: five times the
/// worst of some thousand models.
const ROUNDING: f64 = 2e-5;

/// A Δ this near to its threshold, relatively, may be kept by one and dropped by the other. Those that
/// would be equal but for rounding are 1e-5 apart: see `policy::TIE`.
const NEAR: f64 = 5e-6;

fn assert_agrees(session: &Session, logits: &[f32], expected: &Outcome, what: &str) {
    assert_eq!(logits.len(), expected.logits.len(), "{what}");
    for (t, (a, e)) in logits.chunks(VOCAB).zip(expected.logits.chunks(VOCAB)).enumerate() {
        let largest = e.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        for (i, (&a, &e)) in a.iter().zip(e).enumerate() {
            let error = (f64::from(a) - e).abs();
            // Written so that NaN fails.
            assert!(error <= ROUNDING * largest, "{what}: token {t}, [{i}] is {a}, expected {e}");
        }
    }
    for (layer, scan) in expected.scans.iter().enumerate() {
        let sums = session.delta_sums(layer).unwrap();
        assert_eq!(sums.kept, scan.kept, "{what}: layer {layer}");
        let pairs = [(&sums.delta_sum, &scan.delta_sum), (&sums.kept_sum, &scan.kept_sum)];
        for (a, e) in pairs.iter().flat_map(|(a, e)| a.iter().zip(e.iter())) {
            assert!((a - e).abs() <= ROUNDING * e.max(1e-3), "{what}: Σ Δ is {a}, expected {e}");
        }
    }
}

/// Logits of every position, of a prompt that is given in pieces.
fn read(session: &mut Session, tokens: &[u32], cuts: &[Index]) -> Vec<f32> {
    let len = tokens.len();
    session.prefill_of(len).unwrap();
    let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(len)).chain([0, len]).collect();
    cuts.sort_unstable();
    let mut all = Vec::new();
    for cut in cuts.windows(2).filter(|cut| cut[0] < cut[1]) {
        let piece = &tokens[cut[0]..cut[1]];
        session
            .prefill_scored(piece, 0..piece.len(), |_, logits| all.extend_from_slice(logits))
            .unwrap();
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..Default::default() })]

    #[test]
    fn a_session_agrees_with_the_oracle(
        shape in shapes(),
        len in 1usize..90,
        chunk_len in 1usize..100,
        cuts in proptest::collection::vec(any::<Index>(), 0..4),
    ) {
        let tokens = random_tokens(shape.seed ^ 5, len);
        let options = SessionOptions { chunk_len: Some(chunk_len), ..Default::default() };
        let mut session = shape.model().session(options).unwrap();
        let logits = read(&mut session, &tokens, &cuts);
        let expected = Model::new(shape).run(&tokens, None);
        assert_agrees(&session, &logits, &expected, "prefill");
    }

    /// A prompt, and steps after it.
    #[test]
    fn steps_agree_with_the_oracle(shape in shapes(), len in 0usize..20, steps in 1usize..12) {
        let tokens = random_tokens(shape.seed ^ 6, len + steps);
        let mut session = shape.model().session(SessionOptions::default()).unwrap();
        let mut logits = if len > 0 { read(&mut session, &tokens[..len], &[]) } else { Vec::new() };
        for &token in &tokens[len..] {
            session.step(token).unwrap();
            logits.extend_from_slice(session.logits());
        }
        let expected = Model::new(shape).run(&tokens, None);
        assert_agrees(&session, &logits, &expected, "steps");
    }

    /// With a plan: Δ at or below its threshold counts as 0, by the length of the whole prompt.
    #[test]
    fn a_filtered_session_agrees_with_the_oracle(
        shape in shapes(),
        len in 1usize..200,
        chunk_len in 1usize..100,
        cuts in proptest::collection::vec(any::<Index>(), 0..4),
        scale in prop_oneof![Just(1.0f32), 0.3f32..1.5],
    ) {
        let (model, tokens) = (shape.model(), random_tokens(shape.seed ^ 7, len));
        let plan = plan(&model);
        let channels = model.config().mixer.channels();
        let delta_min: Vec<DeltaMin> = (0..shape.layers)
            .map(|layer| {
                let mut out = vec![0.0; channels];
                plan.delta_min(layer, len, Lookup::Nearest, scale, &mut out).unwrap();
                out
            })
            .collect();
        let expected = Model::new(shape).run(&tokens, Some(&delta_min));
        prop_assume!(expected.nearest > NEAR);
        let options = SessionOptions {
            chunk_len: Some(chunk_len),
            plan: Some(plan),
            lookup: Lookup::Nearest,
            threshold_scale: scale,
            ..Default::default()
        };
        let mut session = model.session(options).unwrap();
        let logits = read(&mut session, &tokens, &cuts);
        assert_agrees(&session, &logits, &expected, "filtered");
    }
}

/// The comparison can fail, and the filter does something: thresholds tell the two apart.
#[test]
fn the_filter_is_seen_in_the_oracle() {
    for mamba2 in [false, true] {
        let shape = Shape {
            mamba2,
            seed: 3,
            d_model: 16,
            layers: 2,
            d_state: 16,
            d_conv: 4,
            groups: 2,
            head_dim: 8,
            bias: true,
            tied: false,
        };
        let (model, tokens) = (shape.model(), random_tokens(4, 150));
        let plan = plan(&model);
        let channels = model.config().mixer.channels();
        let mut delta_min = vec![vec![0.0; channels]; 2];
        for (layer, out) in delta_min.iter_mut().enumerate() {
            plan.delta_min(layer, 150, Lookup::Nearest, 1.0, out).unwrap();
        }
        let oracle = Model::new(shape);
        let (plain, filtered) = (oracle.run(&tokens, None), oracle.run(&tokens, Some(&delta_min)));
        let dropped = |out: &Outcome| -> u64 {
            out.scans.iter().flat_map(|scan| &scan.kept).map(|kept| 150 - kept).sum()
        };
        assert_eq!(dropped(&plain), 0);
        assert!(dropped(&filtered) > 1000, "{}", dropped(&filtered));
        let apart = plain.logits.iter().zip(&filtered.logits).map(|(a, b)| (a - b).abs());
        assert!(apart.fold(0.0, f64::max) > 0.1);
    }
}
