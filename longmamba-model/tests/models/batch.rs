//! A sequence of a ragged batch gives what it gives alone, and nothing of the others is seen in it.

use crate::common::{self, Shape, assert_close, fixture, plan, random_tokens, shapes};
use longmamba_model::policy::{Lookup, Plan};
use longmamba_model::{Batch, DeltaSums, Error, Model, Session, SessionOptions};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::sync::Arc;

/// Where the models of the tests come from.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Random(Shape),
    Fixture(&'static str),
}

const FIXTURES: [&str; 5] = [
    "zamba2-hf-2block-rope",
    "zamba2-1block",
    "original-mamba2attn",
    "falcon-mamba-hf",
    "original-mamba2-dssm",
];

impl Origin {
    fn model(self) -> Arc<Model> {
        match self {
            Origin::Random(shape) => shape.model(),
            Origin::Fixture(name) => Model::load(&fixture(name), common::backend()).unwrap(),
        }
    }
}

fn origins() -> impl Strategy<Value = Origin> {
    prop_oneof![shapes().prop_map(Origin::Random), select(&FIXTURES[..]).prop_map(Origin::Fixture)]
}

fn options(chunk_len: usize, plan: Option<Arc<Plan>>, window: Option<usize>) -> SessionOptions {
    let lookup = Lookup::Nearest;
    SessionOptions {
        chunk_len: Some(chunk_len),
        plan,
        lookup,
        attention_window: window,
        ..Default::default()
    }
}

impl Origin {
    /// How far logits may differ from those of the sequence alone, relative to the largest: five times
    /// the worst of some thousand sequences. Zamba2's are the most sensitive to rounding.
    fn rounding(self) -> f32 {
        match self {
            Origin::Fixture(name) if name.starts_with("zamba2") => 2e-4,
            _ => 1e-5,
        }
    }
}

/// All that can be seen of a sequence.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    position: usize,
    logits: Vec<f32>,
    sums: Vec<DeltaSums>,
}

fn seen(batch: &Batch, index: usize) -> Seen {
    let layers = 0..batch.model().config().recurrent_layers();
    let sums = layers.map(|layer| batch.delta_sums(index, layer).unwrap());
    let (position, logits) = (batch.position(index), batch.logits(index).to_vec());
    Seen { position, logits, sums: sums.collect() }
}

fn seen_alone(session: &Session) -> Seen {
    let layers = 0..session.model().config().recurrent_layers();
    let sums = layers.map(|layer| session.delta_sums(layer).unwrap());
    Seen { position: session.position(), logits: session.logits().to_vec(), sums: sums.collect() }
}

fn all(batch: &Batch) -> Vec<Seen> {
    (0..batch.len()).map(|index| seen(batch, index)).collect()
}

/// Equal but for rounding. Where a Δ lies within rounding of its threshold a token may be kept in one and
/// dropped in the other, and all that follows differs: then only the count of such tokens is compared.
fn assert_alike(actual: &Seen, expected: &Seen, rounding: f32, what: &str) {
    assert_eq!(actual.position, expected.position, "{what}");
    assert_eq!(actual.sums.len(), expected.sums.len(), "{what}");
    let pairs = || actual.sums.iter().zip(&expected.sums);
    let moved: u64 =
        pairs().flat_map(|(a, e)| a.kept.iter().zip(&e.kept)).map(|(a, e)| a.abs_diff(*e)).sum();
    assert!(moved <= 3, "{what}: {moved} tokens were kept in one and dropped in the other");
    if moved > 0 {
        return;
    }
    assert_close(&actual.logits, &expected.logits, rounding, what);
    for (a, e) in pairs() {
        let sums = [(&a.delta_sum, &e.delta_sum), (&a.kept_sum, &e.kept_sum)];
        for (a, e) in sums.iter().flat_map(|(a, e)| a.iter().zip(e.iter())) {
            let error = (a - e).abs();
            assert!(error <= f64::from(rounding) * e.max(1e-3), "{what}: Σ Δ is {a}, expected {e}");
        }
    }
}

/// Prompts of sequences, and the pieces in which they are given: `[calls]` of `[sequences]`.
fn pieces<'a>(prompts: &'a [Vec<u32>], calls: usize, cuts: &[Index]) -> Vec<Vec<&'a [u32]>> {
    let mut all = vec![Vec::new(); calls];
    for (i, prompt) in prompts.iter().enumerate() {
        let mut ends: Vec<usize> = (1..calls)
            .map(|call| cuts[(i * calls + call) % cuts.len()].index(prompt.len() + 1))
            .chain([0, prompt.len()])
            .collect();
        ends.sort_unstable();
        for (call, ends) in ends.windows(2).enumerate() {
            all[call].push(&prompt[ends[0]..ends[1]]);
        }
    }
    // A call that gives nothing is an error.
    all.retain(|call| call.iter().any(|piece| !piece.is_empty()));
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..Default::default() })]

    /// Prompts of any lengths in any number of calls, then steps in which some wait.
    #[test]
    fn every_sequence_is_as_it_is_alone(
        origin in origins(),
        mut lens in proptest::collection::vec(prop_oneof![3 => 1usize..60, 1 => Just(0)], 1..6),
        chunk_len in 1usize..90,
        calls in 1usize..5,
        cuts in proptest::collection::vec(any::<Index>(), 7),
        steps in proptest::collection::vec(any::<[bool; 5]>(), 0..5),
        masked in any::<bool>(),
        window in prop_oneof![Just(None), (1usize..40).prop_map(Some)],
        seed: u64,
    ) {
        let model = origin.model();
        let plan = masked.then(|| plan(&model));
        if masked {
            // The thresholds of a prompt in parts need its length, so every sequence has a prompt.
            lens.iter_mut().for_each(|len| *len = (*len).max(1));
        }
        let prompts: Vec<_> =
            lens.iter().enumerate().map(|(i, &len)| random_tokens(seed ^ i as u64, len)).collect();
        let mut batch =
            Batch::new(model.clone(), options(chunk_len, plan.clone(), window), lens.len()).unwrap();
        if masked {
            batch.prefill_of(&lens).unwrap();
        }
        for call in pieces(&prompts, calls, &cuts) {
            batch.prefill(&call).unwrap();
        }
        let mut alone = Vec::new();
        for prompt in &prompts {
            let mut session = model.session(options(256, plan.clone(), window)).unwrap();
            if !prompt.is_empty() {
                session.prefill(prompt).unwrap();
            }
            alone.push(session);
        }
        let compare = |batch: &Batch, alone: &[Session], when: &str| {
            for (i, session) in alone.iter().enumerate() {
                let what = format!("{origin:?} {when}, sequence {i}");
                assert_alike(&seen(batch, i), &seen_alone(session), origin.rounding(), &what);
            }
        };
        compare(&batch, &alone, "after the prompt");
        for (t, steps) in steps.iter().enumerate() {
            let tokens: Vec<Option<u32>> = (0..lens.len())
                .map(|i| steps[i].then(|| random_tokens(seed ^ (7 + i as u64), t + 1)[t]))
                .collect();
            batch.step(&tokens).unwrap();
            for (session, token) in alone.iter_mut().zip(&tokens) {
                token.iter().for_each(|&token| session.step(token).unwrap());
            }
        }
        compare(&batch, &alone, "after the steps");
        // Without a plan any prompt may go on while others wait.
        if !masked {
            let more = [12usize, 0, 1, 30, 3].map(|len| random_tokens(seed ^ 3, len));
            let more: Vec<&[u32]> = more[..lens.len()].iter().map(Vec::as_slice).collect();
            batch.prefill(&more).unwrap();
            for (session, more) in alone.iter_mut().zip(&more).filter(|(_, m)| !m.is_empty()) {
                session.prefill(more).unwrap();
            }
            compare(&batch, &alone, "after more of the prompt");
        }
        let memory = alone.iter().map(|session| session.memory().recurrent).sum::<usize>();
        prop_assert_eq!(batch.memory().recurrent, memory);
    }

    /// The tokens of another sequence change no bit of this one, nor does its plan.
    #[test]
    fn other_sequences_are_not_seen(
        origin in origins(),
        lens in proptest::collection::vec(1usize..50, 2..6),
        chunk_len in 1usize..90,
        other in any::<Index>(),
        masked in any::<bool>(),
        seed: u64,
    ) {
        let model = origin.model();
        let plan = masked.then(|| plan(&model));
        let other = other.index(lens.len());
        let run = |salt: u64| {
            let salt = |i: usize| seed ^ i as u64 ^ if i == other { salt } else { 0 };
            let prompts: Vec<_> =
                lens.iter().enumerate().map(|(i, &len)| random_tokens(salt(i), len)).collect();
            let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
            let options = options(chunk_len, plan.clone(), None);
            let mut batch = Batch::new(model.clone(), options, lens.len()).unwrap();
            batch.prefill(&prompts).unwrap();
            for step in 0..3 {
                let token = |i: usize| random_tokens(salt(i) ^ 99, 3)[step];
                batch.step(&(0..lens.len()).map(|i| Some(token(i))).collect::<Vec<_>>()).unwrap();
            }
            all(&batch)
        };
        let (one, two) = (run(0), run(1 << 40));
        for i in (0..lens.len()).filter(|&i| i != other) {
            prop_assert_eq!(&one[i], &two[i]);
        }
        prop_assert!(one[other].sums != two[other].sums, "the other sequence is another");
    }

    /// A batch of one is a session, to the bit.
    #[test]
    fn one_sequence_is_a_session(
        origin in origins(), len in 1usize..80, chunk_len in 1usize..90, cut in any::<Index>(),
        masked in any::<bool>(), seed: u64,
    ) {
        let model = origin.model();
        let options = options(chunk_len, masked.then(|| plan(&model)), None);
        let tokens = random_tokens(seed, len);
        let (first, second) = tokens.split_at(1 + cut.index(len));
        let mut batch = Batch::new(model.clone(), options.clone(), 1).unwrap();
        let mut session = model.session(options).unwrap();
        batch.prefill_of(&[len]).unwrap();
        session.prefill_of(len).unwrap();
        for piece in [first, second].into_iter().filter(|piece| !piece.is_empty()) {
            batch.prefill(&[piece]).unwrap();
            session.prefill(piece).unwrap();
        }
        prop_assert_eq!(seen(&batch, 0), seen_alone(&session));
        for token in random_tokens(seed ^ 1, 3) {
            batch.step(&[Some(token)]).unwrap();
            session.step(token).unwrap();
        }
        prop_assert_eq!(seen(&batch, 0), seen_alone(&session));
        prop_assert_eq!(batch.memory(), session.memory());
    }

    /// From 12 rows on a row of a product does not depend on the others, nor does it below 12: in one
    /// chunk, sequences of at least 12 tokens, and then steps of fewer than 12 sequences, give the bits
    /// that they give alone, in any order.
    #[test]
    fn long_prompts_have_the_bits_of_their_own_session(
        origin in origins(),
        lens in proptest::collection::vec(12usize..50, 1..6),
        turn in any::<Index>(),
        masked in any::<bool>(),
        seed: u64,
    ) {
        let model = origin.model();
        let options = options(256, masked.then(|| plan(&model)), None);
        let prompts: Vec<_> =
            lens.iter().enumerate().map(|(i, &len)| random_tokens(seed ^ i as u64, len)).collect();
        let mut order: Vec<usize> = (0..lens.len()).collect();
        order.rotate_left(turn.index(lens.len()));
        order.reverse();
        let mut batch = Batch::new(model.clone(), options.clone(), lens.len()).unwrap();
        batch.prefill(&order.iter().map(|&i| &prompts[i][..]).collect::<Vec<_>>()).unwrap();
        let tokens = |t: u32| order.iter().map(|&i| Some(i as u32 * 7 + t)).collect::<Vec<_>>();
        batch.step(&tokens(0)).unwrap();
        batch.step(&tokens(1)).unwrap();
        for (at, &i) in order.iter().enumerate() {
            let mut session = model.session(options.clone()).unwrap();
            session.prefill(&prompts[i]).unwrap();
            session.step(i as u32 * 7).unwrap();
            session.step(i as u32 * 7 + 1).unwrap();
            prop_assert_eq!(seen(&batch, at), seen_alone(&session));
        }
    }
}

fn every_fixture() -> impl Iterator<Item = (&'static str, Arc<Model>)> {
    FIXTURES.into_iter().map(|name| (name, Origin::Fixture(name).model()))
}

/// A batch of three with prompts of 20, 5 and 33 tokens.
fn three(model: &Arc<Model>, options: &SessionOptions) -> Batch {
    let mut batch = Batch::new(model.clone(), options.clone(), 3).unwrap();
    let prompts = [20, 5, 33].map(|len| random_tokens(len as u64, len));
    batch.prefill(&prompts.each_ref().map(Vec::as_slice)).unwrap();
    batch
}

#[test]
fn a_fork_continues_on_its_own() {
    for (name, model) in every_fixture() {
        for plan in [None, Some(plan(&model))] {
            let mut batch = three(&model, &options(32, plan, Some(9)));
            let before = all(&batch);
            let fork = batch.fork(1).unwrap();
            assert_eq!((fork, batch.len()), (3, 4));
            assert_eq!(all(&batch)[..3], before, "{name}");
            assert_eq!(seen(&batch, 3), before[1], "{name}");
            // The same steps at different times: neither sees the other's.
            for token in [3, 8] {
                batch.step(&[None, Some(token), None, None]).unwrap();
            }
            let stepped = seen(&batch, 1);
            assert_eq!(seen(&batch, 3), before[1], "{name}");
            for token in [3, 8] {
                batch.step(&[None, None, None, Some(token)]).unwrap();
            }
            assert_eq!(seen(&batch, 3), stepped, "{name}");
            batch.step(&[None, None, None, Some(1)]).unwrap();
            assert_eq!(seen(&batch, 1), stepped, "{name}");
            assert_eq!((seen(&batch, 0), seen(&batch, 2)), (before[0].clone(), before[2].clone()));
        }
    }
}

#[test]
fn sessions_come_and_go() {
    for (name, model) in every_fixture() {
        let options = options(32, None, None);
        let mut session = model.session(options.clone()).unwrap();
        session.prefill(&random_tokens(77, 41)).unwrap();
        let mut twin = session.fork().unwrap();
        let mut batch = three(&model, &options);
        let before = all(&batch);
        assert_eq!(batch.push(session).unwrap(), 3);
        assert_eq!(seen(&batch, 3), seen_alone(&twin), "{name}");
        batch.step(&[None, None, None, Some(5)]).unwrap();
        twin.step(5).unwrap();
        assert_eq!(seen(&batch, 3), seen_alone(&twin), "{name}");

        // Out of the middle: those after it move up, and all go on as they were.
        let mut removed = batch.remove(1).unwrap();
        assert_eq!(seen_alone(&removed), before[1], "{name}");
        assert_eq!(batch.len(), 3);
        assert_eq!(all(&batch), [before[0].clone(), before[2].clone(), seen_alone(&twin)]);
        let mut whole = three(&model, &options);
        whole.step(&[None, Some(9), None]).unwrap();
        removed.step(9).unwrap();
        assert_eq!(seen_alone(&removed), seen(&whole, 1), "{name}");
        batch.step(&[None, None, Some(6)]).unwrap();
        twin.step(6).unwrap();
        assert_eq!(seen(&batch, 2), seen_alone(&twin), "{name}");
        // A conversation of a model without a plan goes on in the batch.
        batch.prefill(&[&[], &[], &[1, 2, 3]]).unwrap();
        assert_eq!(batch.position(2), 46);
    }
}

#[test]
fn sessions_that_read_otherwise_are_refused() {
    let model = Origin::Fixture("original-mamba2attn").model();
    let plan = plan(&model);
    let mut batch = Batch::new(model.clone(), options(32, Some(plan.clone()), Some(9)), 1).unwrap();
    let mut message = |session: Session| batch.push(session).unwrap_err().to_string();
    let again = Origin::Fixture("original-mamba2attn").model();
    let other = again.session(options(32, None, Some(9))).unwrap();
    assert!(message(other).contains("another model"));
    let good = options(8, Some(plan.clone()), Some(9));
    for bad in [
        options(32, None, Some(9)),
        options(32, Some(plan.clone()), None),
        options(32, Some(plan), Some(10)),
        SessionOptions { lookup: Lookup::Interpolated, ..good.clone() },
        SessionOptions { threshold_scale: 2.0, ..good.clone() },
        SessionOptions { filter_decode: true, ..good.clone() },
    ] {
        let error = message(model.session(bad.clone()).unwrap());
        assert!(error.contains("another method or window"), "{bad:?}: {error}");
    }
    // The length of the chunks is the batch's own.
    assert_eq!(batch.push(model.session(good).unwrap()).unwrap(), 1);
    assert_eq!(batch.len(), 2);
}

/// Each refused call leaves no trace: what comes after it has the bits of a batch that never saw it.
#[test]
fn errors_leave_the_batch_as_it_was() {
    for (name, model) in every_fixture() {
        let vocab = model.config().vocab_size as u32;
        for plan in [None, Some(plan(&model))] {
            let filtered = plan.is_some();
            let options = options(16, plan, None);
            let new = || Batch::new(model.clone(), options.clone(), 3).unwrap();
            let (mut batch, mut twin) = (new(), new());
            let (a, b, c) = (random_tokens(1, 30), random_tokens(2, 14), random_tokens(3, 50));
            let fresh = all(&batch);

            // Before any prompt is known: above all, no length may be taken from a refused call.
            let bad: Vec<u32> = c.iter().copied().chain([vocab]).collect();
            let error = batch.prefill(&[&a[..7], &b, &bad]);
            assert!(matches!(error, Err(Error::Token { position: 50, .. })), "{name} {error:?}");
            for prompts in [&[&a[..], &b][..], &[&a, &b, &c, &a], &[]] {
                assert!(matches!(batch.prefill(prompts), Err(Error::Argument(_))), "{name}");
            }
            assert!(matches!(batch.prefill(&[&[], &[], &[]]), Err(Error::EmptyPrompt)), "{name}");
            assert!(matches!(batch.prefill_of(&[30, 14]), Err(Error::Argument(_))), "{name}");
            let error = batch.step(&[Some(1), Some(2), Some(vocab)]);
            assert!(matches!(error, Err(Error::Token { .. })), "{name} {error:?}");
            assert!(matches!(batch.step(&[Some(1)]), Err(Error::Argument(_))), "{name}");
            assert_eq!(all(&batch), fresh, "{name}");

            // In the middle of the last prompt.
            for batch in [&mut batch, &mut twin] {
                batch.prefill_of(&[30, 14, 50]).unwrap();
                batch.prefill(&[&a, &b, &c[..20]]).unwrap();
            }
            let half = all(&batch);
            assert_eq!(half, all(&twin), "{name}");
            let error = batch.step(&[Some(1), Some(2), Some(3)]);
            let expected = matches!(error, Err(Error::Announced { announced: 50, given: 20, .. }));
            assert!(expected, "{name} {error:?}");
            let error = batch.prefill_of(&[30, 14, 50]);
            assert!(matches!(error, Err(Error::Announced { .. })), "{name} {error:?}");
            if filtered {
                let error = batch.prefill(&[&[], &[], &c[..31]]);
                let expected = matches!(error, Err(Error::Announced { given: 51, .. }));
                assert!(expected, "{name} {error:?}");
            }
            assert_eq!(all(&batch), half, "{name}");

            for batch in [&mut batch, &mut twin] {
                batch.prefill(&[&[], &[], &c[20..]]).unwrap();
            }
            let whole = all(&batch);
            let error = batch.step(&[Some(1), None, Some(vocab)]);
            assert!(matches!(error, Err(Error::Token { .. })), "{name} {error:?}");
            // Nothing to read is no error of a step: all wait.
            batch.step(&[None, None, None]).unwrap();
            assert_eq!(all(&batch), whole, "{name}");
            for batch in [&mut batch, &mut twin] {
                batch.step(&[Some(1), None, Some(2)]).unwrap();
            }
            assert_eq!(all(&batch), all(&twin), "{name}");
        }
    }
}

#[test]
fn a_batch_may_be_empty() {
    let model = Origin::Fixture("original-mamba2-dssm").model();
    let mut batch = Batch::new(model.clone(), options(16, None, None), 0).unwrap();
    assert!(batch.is_empty() && batch.memory().recurrent == 0);
    batch.step(&[]).unwrap();
    assert!(matches!(batch.prefill(&[]), Err(Error::EmptyPrompt)));
    assert!(matches!(Batch::new(model, options(0, None, None), 0), Err(Error::Argument(_))));
}

/// A length of 0 announces nothing, and one that is refused leaves the others unannounced.
#[test]
fn prompts_are_announced_all_or_none() {
    let model = Model::load(&fixture("mamba2-hf"), common::backend()).unwrap();
    let mut batch = Batch::new(model, SessionOptions::default(), 3).unwrap();
    batch.prefill_of(&[0, 0, 9]).unwrap();
    // The third is announced already.
    assert!(matches!(batch.prefill_of(&[5, 7, 9]), Err(Error::Announced { .. })));
    batch.prefill_of(&[5, 7, 0]).unwrap();
    batch.prefill(&[&[1; 5], &[2; 7], &[3; 9]]).unwrap();
    batch.step(&[Some(1), Some(1), Some(1)]).unwrap();
    assert_eq!([0, 1, 2].map(|i| batch.position(i)), [6, 8, 10]);
}
