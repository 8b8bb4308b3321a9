//! Plan files: whole ones come back the same, broken ones are errors.
#![cfg(feature = "plan-file")]

use longmamba_core::policy::{
    Aggregate, CalibrationSettings, Fingerprint, LayerTable, PLAN_VERSION, Plan, PlanParts,
};
use longmamba_core::{Error, PlanError};
use proptest::prelude::*;
use std::ops::Range;

fn plans() -> impl Strategy<Value = Plan> {
    let log_score = prop_oneof![Just(f64::NEG_INFINITY), Just(0.0), -1e5..0.0f64];
    let threshold = prop_oneof![Just(0.0f32), 0.0f32..10.0, Just(f32::MIN_POSITIVE / 2.0)];
    let sizes = (1usize..4, 1usize..5, prop::collection::btree_set(1usize..300_000, 1..5));
    sizes.prop_flat_map(move |(layers, channels, lengths)| {
        let scores = prop::collection::vec(log_score.clone(), channels);
        let thresholds = prop::collection::vec(threshold.clone(), channels * lengths.len());
        let layer = (scores, thresholds)
            .prop_map(|(log_scores, thresholds)| LayerTable { log_scores, thresholds });
        let settings =
            (1usize..5000, 1e-3..100.0f64, any::<bool>()).prop_map(move |(l, c, max)| {
                let aggregate = if max { Aggregate::Max } else { Aggregate::Average };
                CalibrationSettings::new(l, c, aggregate, lengths.iter().copied().collect())
                    .unwrap()
            });
        let fingerprint = (any::<String>(), any::<String>())
            .prop_map(move |(family, digest)| Fingerprint { family, layers, channels, digest });
        let theta = prop_oneof![Just(0.0), Just(1e-30), 0.0..2.0f64];
        let counts = (1usize..1000, any::<usize>());
        (fingerprint, settings, counts, theta, prop::collection::vec(layer, layers)).prop_map(
            |(fingerprint, settings, (windows, min_total_len), theta, layers)| {
                Plan::new(PlanParts {
                    fingerprint,
                    settings,
                    windows,
                    theta,
                    min_total_len,
                    layers,
                })
                .unwrap()
            },
        )
    })
}

proptest! {
    // A failure prints its case; tests/ has no place for files of them.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_plan_comes_back_bit_by_bit(plan in plans()) {
        let bytes = plan.to_bytes();
        prop_assert_eq!(&plan.to_bytes(), &bytes);
        prop_assert_eq!(&plan.clone().to_bytes(), &bytes);
        let back = Plan::from_bytes(&bytes).unwrap();
        prop_assert_eq!(&back, &plan);
        prop_assert_eq!(back.to_bytes(), bytes);
    }

    #[test]
    fn damage_is_an_error_or_another_plan_but_no_panic(
        plan in plans(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..=255), 1..6),
        header_only in any::<bool>(),
        end in any::<prop::sample::Index>(),
        tail in prop::collection::vec(any::<u8>(), 0..9),
    ) {
        let whole = plan.to_bytes();
        let mut bytes = whole.clone();
        let range = if header_only { 700.min(whole.len()) } else { whole.len() };
        for (at, flip) in flips {
            bytes[at.index(range)] ^= flip;
        }
        if let Ok(plan) = Plan::from_bytes(&bytes) {
            prop_assert_eq!(Plan::from_bytes(&plan.to_bytes()), Ok(plan));
        }
        prop_assert!(Plan::from_bytes(&whole[..end.index(whole.len())]).is_err());
        let longer = [&whole[..], &tail[..]].concat();
        prop_assert_eq!(Plan::from_bytes(&longer).is_err(), !tail.is_empty());
        prop_assert!(Plan::from_bytes(&tail).is_err());
    }
}

/// Two layers, three channels, two lengths.
fn plan() -> Plan {
    let layer = LayerTable { log_scores: vec![-1.0, -2.0, -3.0], thresholds: vec![0.5; 6] };
    Plan::new(PlanParts {
        fingerprint: Fingerprint {
            family: "mamba2".into(),
            layers: 2,
            channels: 3,
            digest: "abc".into(),
        },
        settings: CalibrationSettings::new(10, 5.0, Aggregate::Max, vec![20, 40]).unwrap(),
        windows: 5,
        theta: 0.05,
        min_total_len: 10,
        layers: vec![layer.clone(), layer],
    })
    .unwrap()
}

/// A safetensors file of this header and `data` bytes of 0.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// The header of [`plan`]'s file, and where it lies.
fn header() -> (String, Range<usize>) {
    let bytes = plan().to_bytes();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (String::from_utf8(bytes[8..8 + len].to_vec()).unwrap(), 8..8 + len)
}

/// [`plan`]'s file with one part of the header replaced.
fn edited(from: &str, to: &str) -> Vec<u8> {
    let (text, range) = header();
    assert!(text.contains(from), "{from} is not in {text}");
    let mut bytes = file(&text.replacen(from, to, 1), 0);
    bytes.extend_from_slice(&plan().to_bytes()[range.end..]);
    bytes
}

#[track_caller]
fn malformed(bytes: &[u8], expected: &str) {
    match Plan::from_bytes(bytes) {
        Err(Error::Plan(PlanError::Malformed(why))) if why.contains(expected) => {}
        other => panic!("expected {expected:?}, got {other:?}"),
    }
}

#[test]
fn what_is_wrong_is_named() {
    assert_eq!(Plan::from_bytes(&edited("mamba2", "mamba2")), Ok(plan()));
    malformed(b"", "0 bytes");
    malformed(&u64::MAX.to_le_bytes(), "header of 18446744073709551615 bytes");
    malformed(&file("[]", 0), "header");
    malformed(&file(&" ".repeat(2 << 20), 0), "too long");
    malformed(&file(&"[".repeat(1 << 19), 0), "header");
    malformed(&file("{}", 0), "no metadata entry");
    malformed(&file("{\"__metadata__\":{\"format\":\"pt\"}}", 0), "no metadata entry");
    malformed(&edited("\"longmamba.plan\":", "\"a\":\"b\",\"longmamba.plan\":"), "\"a\"");
    malformed(&edited("longmamba plan", "longmamba plot"), "longmamba plot");
    malformed(&edited("\\\"version\\\":1", "\\\"version\\\":0"), "version 0");
    malformed(&edited("\\\"version\\\":1", "\\\"version\\\":-1"), "integer `-1`");
    malformed(&edited("\\\"windows\\\"", "\\\"panes\\\""), "panes");
    malformed(&edited("\\\"max\\\"", "\\\"mix\\\""), "mix");
    malformed(&edited("\\\"0.05\\\"", "\\\"low\\\""), "theta");
    malformed(&edited("\\\"layers\\\":2", "\\\"layers\\\":3"), "[2, 3], expected F64 [3, 3]");
    malformed(&edited("[20,40]", "[20]"), "[2, 2, 3], expected F32 [2, 1, 3]");
    malformed(&edited("\"dtype\":\"F64\"", "\"dtype\":\"I64\""), "I64 [2, 3], expected F64");
    malformed(&edited("\"thresholds\"", "\"threshold\""), "no tensor \"thresholds\"");
    let surplus = "{\"more\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},\"__meta";
    malformed(&edited("{\"__meta", surplus), "\"more\"");
}

#[test]
fn values_that_make_no_plan_are_named() {
    let version = PlanError::Version { found: 2, supported: PLAN_VERSION };
    assert_eq!(
        Plan::from_bytes(&edited("\\\"version\\\":1", "\\\"version\\\":2")),
        Err(version.into())
    );
    // A later version may look quite different.
    let (text, _) = header();
    let json = "{\\\"format\\\":\\\"longmamba plan\\\",\\\"version\\\":9}";
    let end = text.find("}\"},").unwrap();
    let start = text.find("\"{").unwrap();
    let later = format!("{}{json}{}", &text[..start + 1], &text[end + 1..]);
    let found = Plan::from_bytes(&file(&later, 96));
    assert!(matches!(found, Err(Error::Plan(PlanError::Version { found: 9, .. }))), "{found:?}");

    let lengths = Err(PlanError::Lengths { index: 1 }.into());
    assert_eq!(Plan::from_bytes(&edited("[20,40]", "[20,20]")), lengths);
    for (from, to, name) in [
        ("\\\"0.05\\\"", "\\\"NaN\\\"", "theta"),
        ("\\\"0.05\\\"", "\\\"-1\\\"", "theta"),
        ("\\\"5\\\"", "\\\"inf\\\"", "clamp_percent"),
        ("\\\"windows\\\":5", "\\\"windows\\\":0", "windows"),
        ("\\\"train_len\\\":10", "\\\"train_len\\\":0", "train_len"),
    ] {
        match Plan::from_bytes(&edited(from, to)) {
            Err(Error::Value { tensor, .. }) => assert_eq!(tensor, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let (_, range) = header();
    let tensors = [
        (0, &f64::NAN.to_le_bytes()[..], "log_scores"),
        (5 * 8, &1f64.to_le_bytes()[..], "log_scores"),
        (6 * 8, &f32::NAN.to_le_bytes()[..], "thresholds"),
        (6 * 8 + 11 * 4, &(-1f32).to_le_bytes()[..], "thresholds"),
    ];
    for (at, value, name) in tensors {
        let mut bytes = plan().to_bytes();
        bytes[range.end + at..][..value.len()].copy_from_slice(value);
        match Plan::from_bytes(&bytes) {
            Err(Error::Value { tensor, .. }) => assert_eq!(tensor, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn absurd_sizes_are_not_believed() {
    // No elements, and as many layers as can be counted.
    let (text, _) = header();
    let max = usize::MAX.to_string();
    let text = text
        .replace("[2,3],\"data_offsets\":[0,48]", &format!("[{max},0],\"data_offsets\":[0,0]"))
        .replace("[2,2,3],\"data_offsets\":[48,96]", &format!("[{max},2,0],\"data_offsets\":[0,0]"))
        .replace(
            "\\\"layers\\\":2,\\\"channels\\\":3",
            &format!("\\\"layers\\\":{max},\\\"channels\\\":0"),
        );
    assert!(Plan::from_bytes(&file(&text, 0)).is_err());
    malformed(&file(&text.replace(&max, "7"), 0), "7 layers of 0 channels");
    // Eight tensors whose sizes add up to almost 2^64 bytes.
    let size = (1u64 << 61) - 1;
    let tensor = |i: u64| {
        let (start, end) = (i * size, (i + 1) * size);
        format!("\"t{i}\":{{\"dtype\":\"U8\",\"shape\":[{size}],\"data_offsets\":[{start},{end}]}}")
    };
    let tensors: Vec<String> = (0..8).map(tensor).collect();
    malformed(
        &file(&format!("{{{}}}", tensors.join(",")), 0),
        "18446744073709551608 bytes of data",
    );
    for bad in ["[0,1,0]", "[5,4]", "[0,18446744073709551616]", "[-1,4]"] {
        let text = format!("{{\"t\":{{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":{bad}}}}}");
        malformed(&file(&text, 4), "header");
    }
}
