//! Whole = chunked = token by token = forked = saved and loaded, for random models.

use crate::common::{Shape, VOCAB, all_logits, assert_close, plan, random_tokens, shapes};
use longmamba_model::policy::{Lookup, Plan};
use longmamba_model::{Error, Model, Session, SessionOptions};
use proptest::prelude::*;
use std::sync::Arc;

fn options(chunk_len: usize, plan: Option<Arc<Plan>>) -> SessionOptions {
    SessionOptions {
        chunk_len: Some(chunk_len),
        plan,
        lookup: Lookup::Nearest,
        ..Default::default()
    }
}

/// How far logits may differ between two splits of the same prompt, relative to the largest. Masked
/// sequences may differ by more: where rounding moves a Δ across its threshold a token is lost.
const ROUNDING: f32 = 2e-4;

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..Default::default() })]

    #[test]
    fn any_split_gives_the_same_logits_and_state(
        shape in shapes(),
        len in 1usize..200,
        chunk_len in 1usize..90,
        cuts in proptest::collection::vec(0usize..200, 0..4),
        masked in any::<bool>(),
    ) {
        let model = shape.model();
        let plan = masked.then(|| plan(&model));
        let tokens = random_tokens(shape.seed, len);
        let mut whole = model.session(options(256, plan.clone())).unwrap();
        let expected = all_logits(&mut whole, &tokens);
        prop_assert_eq!(&expected[(len - 1) * VOCAB..], whole.logits());

        let mut split = model.session(options(chunk_len, plan.clone())).unwrap();
        split.prefill_of(len).unwrap();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c % len).chain([0, len]).collect();
        cuts.sort_unstable();
        let mut actual = Vec::new();
        for piece in cuts.windows(2).filter(|p| p[0] < p[1]) {
            actual.extend(all_logits(&mut split, &tokens[piece[0]..piece[1]]));
        }
        assert_close(&actual, &expected, ROUNDING, "split");

        // A fork and a saved copy continue bit for bit; so does the original.
        let file = tempfile::NamedTempFile::new().unwrap();
        split.save(file.path()).unwrap();
        let mut fork = split.fork().unwrap();
        let mut loaded = Session::load(&model, options(chunk_len, plan), file.path()).unwrap();
        prop_assert_eq!(split.logits(), loaded.logits());
        for token in random_tokens(shape.seed ^ 1, 5) {
            for session in [&mut split, &mut fork, &mut loaded, &mut whole] {
                session.step(token).unwrap();
            }
            prop_assert_eq!(split.logits(), fork.logits());
            prop_assert_eq!(split.logits(), loaded.logits());
            assert_close(whole.logits(), split.logits(), ROUNDING, "continuation");
        }
        for layer in 0..shape.layers {
            let (a, b) = (whole.delta_sums(layer).unwrap(), loaded.delta_sums(layer).unwrap());
            prop_assert_eq!(&a.kept, &b.kept);
            prop_assert!(a.kept.iter().all(|&k| k <= len as u64 + 5));
        }
    }

    /// Decode continues prefill: the last tokens one by one, by `step`, as vanilla sees no difference.
    #[test]
    fn steps_equal_prefill(shape in shapes(), len in 2usize..60) {
        let model = shape.model();
        let tokens = random_tokens(shape.seed, len);
        let mut prefilled = model.session(options(64, None)).unwrap();
        let expected = all_logits(&mut prefilled, &tokens);
        let mut stepped = model.session(options(64, None)).unwrap();
        for (t, &token) in tokens.iter().enumerate() {
            stepped.step(token).unwrap();
            assert_close(stepped.logits(), &expected[t * VOCAB..(t + 1) * VOCAB], ROUNDING, "step");
        }
    }
}

fn small() -> Shape {
    Shape {
        mamba2: true,
        seed: 5,
        d_model: 16,
        layers: 2,
        d_state: 16,
        d_conv: 4,
        groups: 1,
        head_dim: 8,
        bias: false,
        tied: true,
    }
}

/// Up to the training length the thresholds are 0 and nothing changes, bit for bit; beyond it the
/// mask drops tokens in global channels and in no others.
#[test]
fn the_plan_filters_only_beyond_the_training_length() {
    for mamba2 in [false, true] {
        let model = Shape { mamba2, ..small() }.model();
        let plan = plan(&model);
        for len in [1, 23, 24, 40, 150] {
            let tokens = random_tokens(3, len);
            let mut vanilla = model.session(options(32, None)).unwrap();
            let mut filtered = model.session(options(32, Some(plan.clone()))).unwrap();
            let (a, b) = (all_logits(&mut vanilla, &tokens), all_logits(&mut filtered, &tokens));
            let dropped: u64 = (0..2)
                .flat_map(|l| filtered.delta_sums(l).unwrap().kept.clone())
                .map(|kept| len as u64 - kept)
                .sum();
            assert_eq!(len <= 24, a == b, "{len}");
            assert_eq!(len <= 24, dropped == 0, "{len}");
            for layer in 0..2 {
                let sums = filtered.delta_sums(layer).unwrap();
                for (channel, &kept) in sums.kept.iter().enumerate() {
                    let global = plan.is_global(layer, channel);
                    assert!(global || kept == len as u64, "a local channel dropped tokens");
                    assert!(sums.kept_sum[channel] <= sums.delta_sum[channel]);
                }
            }
        }
    }
}

#[test]
fn prompts_are_announced_and_checked() {
    let model = small().model();
    let plan = plan(&model);
    let tokens = random_tokens(1, 100);
    let mut session = model.session(options(32, Some(plan.clone()))).unwrap();
    assert!(matches!(session.prefill(&[]), Err(Error::EmptyPrompt)));
    assert!(matches!(session.prefill_of(0), Err(Error::EmptyPrompt)));
    assert!(matches!(session.prefill(&[0, VOCAB as u32]), Err(Error::Token { position: 1, .. })));
    assert_eq!(session.position(), 0);
    session.prefill_of(100).unwrap();
    assert!(session.prefill_of(100).is_err());
    session.prefill(&tokens[..60]).unwrap();
    assert!(matches!(session.step(1), Err(Error::Announced { announced: 100, given: 60, .. })));
    assert!(matches!(session.prefill(&tokens[..41]), Err(Error::Announced { given: 101, .. })));
    session.prefill(&tokens[60..]).unwrap();
    session.step(1).unwrap();
    assert!(session.prefill(&tokens).is_err(), "a filtered prompt cannot grow");

    // Without a plan a conversation may go on.
    let mut open = model.session(options(32, None)).unwrap();
    open.prefill(&tokens).unwrap();
    open.step(1).unwrap();
    open.prefill(&tokens).unwrap();
    assert_eq!(open.position(), 201);

    for bad in [0, 1 << 17] {
        assert!(matches!(model.session(options(bad, None)), Err(Error::Argument(_))));
    }
    let other = Shape { seed: 6, ..small() }.model();
    let message = other.session(options(32, Some(plan))).unwrap_err().to_string();
    assert!(message.contains("plan") && message.contains("model"), "{message}");
}

#[test]
fn snapshots_are_bound_to_model_and_plan() {
    let model = small().model();
    let plan = plan(&model);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.safetensors");
    let mut session = model.session(options(32, Some(plan.clone()))).unwrap();
    session.prefill_of(90).unwrap();
    session.prefill(&random_tokens(2, 40)).unwrap();
    session.save(&path).unwrap();

    // In the middle of a filtered prompt: the thresholds come back with it.
    let mut loaded = Session::load(&model, options(7, Some(plan.clone())), &path).unwrap();
    for s in [&mut session, &mut loaded] {
        s.prefill(&random_tokens(4, 50)).unwrap();
    }
    assert_close(loaded.logits(), session.logits(), ROUNDING, "resumed");
    assert_eq!(loaded.delta_sums(1).unwrap().kept, session.delta_sums(1).unwrap().kept);

    let message = |model: &Arc<Model>, plan| {
        Session::load(model, options(32, plan), &path).unwrap_err().to_string()
    };
    assert!(message(&model, None).contains("no method"));
    let other = Shape { seed: 6, ..small() }.model();
    assert!(message(&other, None).contains("saved with model"));

    let good = std::fs::read(&path).unwrap();
    for cut in [0, 7, 100, good.len() - 1] {
        std::fs::write(&path, &good[..cut]).unwrap();
        assert!(message(&model, Some(plan.clone())).contains("session.safetensors"));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}
