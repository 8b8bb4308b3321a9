//! Models with attention layers: whole = chunked = token by token = forked = saved and loaded, with and
//! without a window; a cache that is bounded; and snapshots that lie.

use crate::common::{self, all_logits, assert_close, fixture, plan, random_tokens};
use longmamba_model::{Error, KV_PAGE, Model, Session, SessionOptions};
use proptest::prelude::*;
use proptest::sample::select;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Name, and how far logits may differ between two splits of a prompt, relative to the largest: five
/// times the worst of some hundred prompts. Zamba2's are the most sensitive to rounding.
const MODELS: [(&str, f32); 3] =
    [("zamba2-hf-2block-rope", 5e-4), ("zamba2-1block", 5e-4), ("original-mamba2attn", 2e-5)];

fn model(name: &str) -> Arc<Model> {
    Model::load(&fixture(name), common::backend()).unwrap()
}

fn options(chunk_len: usize, attention_window: Option<usize>) -> SessionOptions {
    SessionOptions { chunk_len: Some(chunk_len), attention_window, ..Default::default() }
}

/// None, smaller than a page, around one, and larger.
const WINDOWS: [Option<usize>; 8] = [
    None,
    Some(1),
    Some(7),
    Some(KV_PAGE - 1),
    Some(KV_PAGE),
    Some(KV_PAGE + 1),
    Some(300),
    Some(2 * KV_PAGE),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..Default::default() })]

    #[test]
    fn any_split_gives_the_same_logits_and_state(
        (name, rounding) in select(&MODELS[..]),
        window in select(&WINDOWS[..]),
        len in prop_oneof![1usize..40, 240usize..280, 500usize..700],
        chunk_len in 1usize..200,
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..4),
        seed: u64,
    ) {
        let model = model(name);
        let tokens = random_tokens(seed, len);
        let mut whole = model.session(options(1024, window)).unwrap();
        let expected = all_logits(&mut whole, &tokens);
        let mut split = model.session(options(chunk_len, window)).unwrap();
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(len)).chain([0, len]).collect();
        cuts.sort_unstable();
        let mut actual = Vec::new();
        for piece in cuts.windows(2).filter(|piece| piece[0] < piece[1]) {
            actual.extend(all_logits(&mut split, &tokens[piece[0]..piece[1]]));
        }
        assert_close(&actual, &expected, rounding, "split");

        // A fork and a saved copy continue bit for bit; so does the original.
        let file = tempfile::NamedTempFile::new().unwrap();
        split.save(file.path()).unwrap();
        let mut fork = split.fork().unwrap();
        let mut loaded = Session::load(&model, options(chunk_len, window), file.path()).unwrap();
        prop_assert_eq!((split.logits(), split.position()), (loaded.logits(), loaded.position()));
        prop_assert_eq!(split.logits(), fork.logits());
        for token in random_tokens(seed ^ 1, 5) {
            for session in [&mut split, &mut fork, &mut loaded, &mut whole] {
                session.step(token).unwrap();
            }
            prop_assert_eq!(split.logits(), fork.logits());
            prop_assert_eq!(split.logits(), loaded.logits());
            assert_close(whole.logits(), split.logits(), rounding, "continuation");
        }
        for session in [&mut split, &mut fork, &mut loaded] {
            session.prefill(&tokens).unwrap();
        }
        prop_assert_eq!(split.logits(), fork.logits());
        prop_assert_eq!(split.logits(), loaded.logits());
    }
}

/// Across the end of a page and of every window.
#[test]
fn steps_equal_prefill() {
    for (name, rounding) in MODELS {
        let model = model(name);
        let tokens = random_tokens(4, KV_PAGE + 60);
        for window in WINDOWS {
            let expected = all_logits(&mut model.session(options(512, window)).unwrap(), &tokens);
            let mut session = model.session(options(1, window)).unwrap();
            let mut actual = Vec::new();
            for &token in &tokens {
                session.step(token).unwrap();
                actual.extend_from_slice(session.logits());
            }
            assert_close(&actual, &expected, rounding, &format!("{name} {window:?}"));
        }
    }
}

/// A window that no token fills changes no bit; from the first token that it cuts off on it does.
#[test]
fn a_window_is_felt_where_it_ends() {
    for (name, _) in MODELS {
        let model = model(name);
        let (tokens, vocab) = (random_tokens(5, 300), model.config().vocab_size);
        let whole = all_logits(&mut model.session(options(512, None)).unwrap(), &tokens);
        for window in [1, 7, KV_PAGE, 299, 300, 5000] {
            let mut session = model.session(options(512, Some(window))).unwrap();
            let windowed = all_logits(&mut session, &tokens);
            let first = whole.chunks(vocab).zip(windowed.chunks(vocab)).position(|(a, b)| a != b);
            assert_eq!(first, (window < 300).then_some(window), "{name} {window}");
        }
    }
}

#[test]
fn a_window_bounds_the_cache() {
    for (name, _) in MODELS {
        let model = model(name);
        let attention = model.config().attention.unwrap();
        let layers = model.config().attention_layers();
        let page = layers * 2 * KV_PAGE * attention.kv_width() * size_of::<f32>();
        let tokens = random_tokens(6, 3000);
        for (window, chunk_len) in
            [(None, 250), (Some(7), 250), (Some(KV_PAGE), 64), (Some(300), 1), (Some(600), 700)]
        {
            let mut session = model.session(options(chunk_len, window)).unwrap();
            assert_eq!(session.memory().attention, 0);
            let recurrent = session.memory().recurrent;
            let mut most = 0;
            for piece in tokens.chunks(chunk_len.max(50)) {
                session.prefill(piece).unwrap();
                most = most.max(session.memory().attention);
                assert!(session.memory().attention >= page);
            }
            assert_eq!(session.memory().recurrent, recurrent);
            let pages = match window {
                None => 3000usize.div_ceil(KV_PAGE),
                // What one chunk sees, and the rest of the pages at either end.
                Some(window) => (window + chunk_len - 1).div_ceil(KV_PAGE) + 1,
            };
            let what = format!("{name} {window:?} in chunks of {chunk_len}");
            assert!(most <= pages * page, "{what}: {} pages of {pages}", most / page);
            assert!(window.is_some() || most == pages * page, "{what}: it grows");
        }
    }
}

#[test]
fn snapshots_are_bound_to_the_window() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.safetensors");
    for (name, _) in MODELS {
        let model = model(name);
        let plan = plan(&model);
        for plan in [None, Some(plan)] {
            let options = |attention_window| SessionOptions {
                attention_window,
                plan: plan.clone(),
                ..Default::default()
            };
            for saved in [None, Some(7), Some(KV_PAGE)] {
                let mut session = model.session(options(saved)).unwrap();
                session.prefill(&random_tokens(7, 600)).unwrap();
                session.save(&path).unwrap();
                for loaded in [None, Some(6), Some(7), Some(KV_PAGE), Some(KV_PAGE + 1)] {
                    let result = Session::load(&model, options(loaded), &path);
                    match result {
                        Ok(_) => assert_eq!(saved, loaded, "{name}"),
                        Err(error) => {
                            assert!(saved != loaded, "{name} {saved:?}: {error}");
                            assert!(matches!(error, Error::Malformed { .. }), "{error}");
                        }
                    }
                }
            }
        }
    }
}

/// Writes the snapshot in `good` to `path` with another header and other tensors.
fn rewrite(
    good: &[u8],
    path: &Path,
    header: impl FnOnce(&mut serde_json::Value),
    tensor: impl Fn(&str, &mut Vec<usize>, &mut Vec<u8>),
) {
    let (_, metadata) = SafeTensors::read_metadata(good).unwrap();
    let mut texts: HashMap<String, String> = metadata.metadata().clone().unwrap();
    let mut json = serde_json::from_str(&texts["session"]).unwrap();
    header(&mut json);
    texts.insert("session".into(), json.to_string());
    let file = SafeTensors::deserialize(good).unwrap();
    let mut parts = Vec::new();
    for (name, view) in file.tensors() {
        let (mut shape, mut data) = (view.shape().to_vec(), view.data().to_vec());
        tensor(&name, &mut shape, &mut data);
        parts.push((name, view.dtype(), shape, data));
    }
    let views = parts.iter().map(|(name, dtype, shape, data)| {
        (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    std::fs::write(path, safetensors::serialize(views, Some(texts)).unwrap()).unwrap();
}

/// Whatever a snapshot says of itself, it is an error that names the file, or a session that works.
#[test]
fn snapshots_that_lie_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.safetensors");
    let nothing = |_: &str, _: &mut Vec<usize>, _: &mut Vec<u8>| {};
    for (name, _) in MODELS {
        let model = model(name);
        for window in [None, Some(300)] {
            let mut session = model.session(options(64, window)).unwrap();
            session.prefill(&random_tokens(8, 900)).unwrap();
            session.save(&path).unwrap();
            let good = std::fs::read(&path).unwrap();
            let load = || Session::load(&model, options(64, window), &path);
            let refused = |what: &str| {
                let error = load().err().unwrap_or_else(|| panic!("{name} {window:?}: {what}"));
                let typed = matches!(
                    error,
                    Error::Malformed { .. }
                        | Error::TensorShape { .. }
                        | Error::MissingTensor { .. }
                        | Error::SurplusTensor { .. }
                        | Error::NonFinite { .. }
                );
                assert!(typed, "{name} {what}: {error:?}");
                assert!(
                    error.to_string().contains("session.safetensors"),
                    "{name} {what}: {error}"
                );
            };

            rewrite(&good, &path, |_| {}, nothing);
            assert_eq!(load().unwrap().logits(), session.logits(), "rewriting itself is harmless");

            for cut in [0, 7, 8, 300, good.len() / 2, good.len() - 1] {
                std::fs::write(&path, &good[..cut]).unwrap();
                refused("truncated");
            }
            for (field, value) in [
                ("position", "899"),
                ("position", "0"),
                ("position", "901"),
                ("position", "18446744073709551615"),
                ("position", "-1"),
                ("attention_first", "1"),
                ("attention_first", "256"),
                ("attention_first", "1024"),
                ("attention_first", "18446744073709551360"),
                ("version", "3"),
                ("model", "\"another\""),
                ("format", "\"another\""),
                ("plan", "\"0123456789abcdef\""),
            ] {
                let value: serde_json::Value = serde_json::from_str(value).unwrap();
                let mut same = false;
                let change = |header: &mut serde_json::Value| {
                    same = header[field] == value;
                    header[field] = value.clone();
                };
                rewrite(&good, &path, change, nothing);
                if !same {
                    refused(&format!("{field} {value}"));
                }
            }
            // Keys, values and pages that agree with each other, but are not all that a token sees.
            let width = model.config().attention.unwrap().kv_width() * size_of::<f32>();
            for rows in [1, 100] {
                rewrite(
                    &good,
                    &path,
                    |header| {
                        let position = header["position"].as_u64().unwrap();
                        let first = (position - rows) / KV_PAGE as u64 * KV_PAGE as u64;
                        header["attention_first"] = (first + KV_PAGE as u64).into();
                        header["position"] = (first + KV_PAGE as u64 + rows).into();
                    },
                    |name, shape, data| {
                        if name.ends_with(".keys") || name.ends_with(".values") {
                            shape[0] = rows as usize;
                            data.truncate(rows as usize * width);
                        }
                    },
                );
                refused("pages from too late a position");
            }
            // At the end of what a position can be, in agreement with itself.
            rewrite(
                &good,
                &path,
                |header| {
                    let rows = header["position"].as_u64().unwrap()
                        - header["attention_first"].as_u64().unwrap();
                    header["attention_first"] = (u64::MAX - 1023).into();
                    header["position"] = (u64::MAX - 1023 + rows).into();
                },
                nothing,
            );
            refused("a position near the largest number");
            for part in ["keys", "values"] {
                for change in [-1, 1] {
                    rewrite(
                        &good,
                        &path,
                        |_| {},
                        |name, shape, data| {
                            if name == format!("attention.1.{part}") {
                                shape[0] = shape[0].checked_add_signed(change).unwrap();
                                data.resize(shape[0] * width, 0);
                            }
                        },
                    );
                    refused("another number of rows");
                }
                rewrite(
                    &good,
                    &path,
                    |_| {},
                    |name, _, data| {
                        if name == format!("attention.0.{part}") {
                            data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
                        }
                    },
                );
                refused("NaN");
            }
        }
    }
    // A snapshot of another model.
    let (one, two) = (model(MODELS[0].0), model(MODELS[2].0));
    let mut session = one.session(options(64, None)).unwrap();
    session.prefill(&[1, 2, 3]).unwrap();
    session.save(&path).unwrap();
    let error = Session::load(&two, options(64, None), &path).unwrap_err();
    assert!(error.to_string().contains("saved with model"), "{error}");
}
