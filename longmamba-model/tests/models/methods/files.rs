//! Factors: how they are tuned, kept in files and bound to models; and methods that are made from text.

use super::{SHAPE, options, scales};
use crate::common::{Shape, plan, random_tokens};
use longmamba_model::Error;
use longmamba_model::SessionOptions;
use longmamba_model::methods::{
    Context, DeciMamba, MambaExtend, Method, Modulation, Scaled, Scales, Tuning, build, tune,
};
use longmamba_model::policy::Lookup;
use std::path::Path;
use std::sync::Arc;

#[test]
fn tuning_finds_factors_that_are_no_worse() {
    let model = SHAPE.model();
    let windows: Vec<Vec<u32>> = (0..2).map(|w| random_tokens(70 + w, 40)).collect();
    let windows: Vec<&[u32]> = windows.iter().map(Vec::as_slice).collect();
    let tuning = tune::TuneOptions { steps: 4, labels: 8, seed: 5, ..Default::default() };
    for scaled in [Scaled::Delta, Scaled::Rates] {
        let find = |options| tune::tune(&model, scaled, &windows, options, &|_| {}).unwrap();
        let found = find(&tuning);
        assert_eq!(found, find(&tuning));
        assert_eq!(found.path().len(), 5);
        assert_eq!(found.path()[0].factors, [1.0; 2]);
        let best = found.path().iter().min_by(|a, b| a.nll.total_cmp(&b.nll)).unwrap();
        assert_eq!(best.factors, found.factors());
        assert!(best.nll < found.path()[0].nll, "four random steps, and not one was down");

        // The loss is what it says: −ln of the labels' probabilities, by hand.
        let options = |scales| -> SessionOptions {
            let method: Arc<dyn Method> = match scaled {
                Scaled::Delta => Arc::new(MambaExtend::new(scales).unwrap()),
                Scaled::Rates => Arc::new(Modulation::new(scales).unwrap()),
            };
            options(method, 256)
        };
        let mut sum = 0.0;
        for window in &windows {
            let mut session = model.session(options(found.clone())).unwrap();
            session
                .prefill_scored(window, 31..39, |at, logits| {
                    let all: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
                    sum += all.ln() - f64::from(logits[window[at + 1] as usize]);
                })
                .unwrap();
        }
        assert!((sum / 16.0 - best.nll).abs() < 1e-9, "{} for {}", sum / 16.0, best.nll);
    }
    let short = tune::TuneOptions { labels: 40, ..tuning };
    let error = tune::tune(&model, Scaled::Delta, &windows, &short, &|_| {}).unwrap_err();
    assert!(error.to_string().contains("longer than the 40 labels"), "{error}");
}

#[test]
fn factors_survive_a_file() {
    let scales = scales(SHAPE, Scaled::Rates, vec![0.1, 3.0]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.factors");
    scales.write(&path).unwrap();
    assert_eq!(Scales::read(&path).unwrap(), scales);
    assert_eq!(std::fs::read(&path).unwrap(), scales.to_bytes().unwrap());
}

#[test]
fn factors_of_another_model_or_method_are_refused() {
    let scales = scales(SHAPE, Scaled::Rates, vec![0.1, 3.0]);
    let error = MambaExtend::new(scales.clone()).unwrap_err().to_string();
    assert!(error.contains("of method modulation, not of mambaextend"), "{error}");
    let other = Shape { seed: 4, ..SHAPE }.model();
    let method: Arc<dyn Method> = Arc::new(Modulation::new(scales).unwrap());
    let error = other.session(options(method, 32)).unwrap_err();
    assert!(
        matches!(&error, Error::OtherModel { differ, .. } if differ == &["weights"]),
        "{error}"
    );
    assert!(error.to_string().contains("tune this model"), "{error}");
}

#[test]
fn hostile_files_of_factors_are_errors() {
    let good = scales(SHAPE, Scaled::Delta, vec![0.5, 0.25]).to_bytes().unwrap();
    let read = |bytes: &[u8]| Scales::from_bytes(Arc::new(bytes.to_vec()), Path::new("a.factors"));
    assert!(read(&good).is_ok());
    for len in 0..good.len() {
        assert!(read(&good[..len]).is_err(), "cut to {len} bytes");
    }
    // A changed byte is an error, or other factors that are in order, or nothing that matters.
    for at in 0..good.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= change;
            if let Ok(scales) = read(&bad) {
                assert!(scales.factors().iter().all(|&f| f > 0.0 && f <= 1e3), "byte {at}");
            }
        }
    }
    let replaced = |from: &str, to: &str| {
        let text: Vec<u8> = good.clone();
        let at = text.windows(from.len()).position(|w| w == from.as_bytes()).expect(from);
        assert_eq!(from.len(), to.len());
        let mut bad = text;
        bad[at..at + to.len()].copy_from_slice(to.as_bytes());
        read(&bad).unwrap_err().to_string()
    };
    for (from, to, why) in [
        (r#"\"version\":1"#, r#"\"version\":9"#, "format version 9"),
        (r#"\"version\":1"#, r#"\"version\":0"#, "format version 0"),
        (r#"\"layers\":2"#, r#"\"layers\":7"#, "tensor factors has shape"),
        ("longmamba factors", "longmamba faktors", "expected \"longmamba factors\""),
        (r#"\"delta\""#, r#"\"gamma\""#, "unknown variant"),
        (r#"\"seed\""#, r#"\"sead\""#, "unknown field"),
        ("longmamba.factors", "longmamba.faktors", "no metadata entry"),
        ("path.nll", "path.nil", "path.nll"),
    ] {
        let error = replaced(from, to);
        assert!(error.starts_with("a.factors: ") && error.contains(why), "{error}");
    }
    // What does not belong there.
    let (_, header) = safetensors::SafeTensors::read_metadata(&good).unwrap();
    let file = safetensors::SafeTensors::deserialize(&good).unwrap();
    let mut tensors = file.tensors();
    tensors.push(("more".to_owned(), file.tensor("factors").unwrap()));
    let more = safetensors::serialize(tensors, header.metadata().clone()).unwrap();
    let error = read(&more).unwrap_err();
    assert!(matches!(&error, Error::SurplusTensor { tensor, .. } if tensor == "more"), "{error}");

    let model = SHAPE.model().fingerprint().clone();
    let tuning = Tuning { length: 1, windows: 1, labels: 1, seed: 0 };
    let make = |factors: Vec<f32>| {
        Scales::new(Scaled::Delta, model.clone(), factors, tuning.clone(), Vec::new())
    };
    assert!(make(vec![1.0]).is_err());
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY, 1001.0] {
        assert!(make(vec![1.0, bad]).unwrap_err().to_string().contains("layer 1"));
    }
}

#[test]
fn methods_are_made_from_text() {
    let model = SHAPE.model();
    let plan = plan(&model);
    let scales =
        [scales(SHAPE, Scaled::Delta, vec![0.5; 2]), scales(SHAPE, Scaled::Rates, vec![0.5; 2])];
    let full = Context {
        config: model.config(),
        plan: Some(plan),
        lookup: Lookup::Nearest,
        threshold_scale: 1.0,
        scales: &scales,
    };
    let bare = Context { plan: None, scales: &[], ..full.clone() };
    assert!(build("vanilla", &bare).unwrap().is_none());
    for name in ["longmamba", "decimamba", "mambaextend", "modulation", "winsorize", "lamb"] {
        let method = build(name, &full).unwrap().unwrap();
        assert_eq!(method.name(), name);
        assert!(model.session(options(method, 32)).is_ok());
    }
    let identity = |text| build(text, &full).unwrap().unwrap().identity();
    let own = identity("decimamba:layers=0+1:base=7:beta=0.25:min=3:last=9");
    let made = DeciMamba { layers: vec![0, 1], base: 7, beta: 0.25, min_len: 3, last: 9 };
    assert_eq!(own, made.identity());
    assert_ne!(identity("winsorize:low=5"), identity("winsorize"));
    assert_ne!(identity("lamb:queries=5"), identity("lamb"));
    assert_ne!(identity("lamb:decay=false"), identity("lamb"));
    assert_ne!(identity("longmamba:scale=2"), identity("longmamba"));
    for (text, why) in [
        ("", "there is no method \"\""),
        ("megamamba", "there are vanilla, longmamba, decimamba"),
        ("vanilla:low=3", "it has none"),
        ("winsorize:lou=3", "no setting \"lou\"; it has low, high"),
        ("winsorize:low", "write key=value"),
        ("winsorize:low=3:low=4", "low is set twice"),
        ("winsorize:low=x", "low=x"),
        ("winsorize:low=60:high=40", "in order"),
        ("decimamba:layers=1+x", "layers=x"),
        ("lamb:queries=0", "at least 1"),
        ("longmamba:scale=-1", "threshold_scale is -1"),
    ] {
        let error = build(text, &full).unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
    for (text, why) in [
        ("longmamba", "needs a plan"),
        ("lamb", "needs a plan"),
        ("mambaextend", "longmamba tune --method mambaextend"),
        ("modulation", "--method-file"),
    ] {
        let error = build(text, &bare).unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
}
