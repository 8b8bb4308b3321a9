use super::*;
use crate::Tokenizer;
use serde_json::{Value, json};
use std::fs;
use tempfile::TempDir;

const PROMPTS: &str =
    r#"{"trec": "Sort {context}: {input}", "qasper": "{context} | {input}", "other": "{x}"}"#;
const LENGTHS: &str = r#"{"trec": 3, "qasper": 7, "other": 0}"#;

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn line(dataset: &str, input: &str) -> Value {
    json!({
        "input": input, "context": "the {input}", "answers": ["yes"], "length": 12,
        "dataset": dataset, "language": "en", "all_classes": ["yes", "no"], "_id": "1",
    })
}

fn trec() -> &'static Dataset {
    Dataset::find("trec").unwrap()
}

#[test]
fn a_copy_is_read_from_either_folder() {
    let text = format!("{}\n{}\n", line("trec", "why"), line("trec_e", "how"));
    let config = [("config/dataset2prompt.json", PROMPTS), ("config/dataset2maxlen.json", LENGTHS)];
    let files = [("data/trec_e.jsonl", &*text), ("data/qasper.jsonl", "")];
    let copy = folder(&[&config[..], &files].concat());
    let elsewhere = folder(&config);
    let data = copy.path().join("data");
    for (folder, config) in [
        (copy.path(), None),
        (&*data, None),
        (&*data, Some(elsewhere.path().to_owned())),
        (&*data, Some(elsewhere.path().join("config"))),
    ] {
        let bench = LongBench::open(folder, config.as_deref()).unwrap();
        let names = |edition| bench.datasets(edition).iter().map(|d| d.name).collect::<Vec<_>>();
        assert_eq!((names(Edition::E), names(Edition::Whole)), (vec!["trec"], vec!["qasper"]));
        let samples = bench.samples(trec(), Edition::E).unwrap();
        let expected = |index, prompt: &str| Sample {
            index,
            dataset: trec(),
            prompt: prompt.into(),
            max_new: 3,
            answers: vec!["yes".into()],
            all_classes: Some(vec!["yes".into(), "no".into()]),
            length: 12,
        };
        let expected = [expected(0, "Sort the {input}: why"), expected(1, "Sort the {input}: how")];
        assert_eq!(samples, expected);
    }
}

#[test]
fn what_is_missing_is_named() {
    let config = [("dataset2prompt.json", PROMPTS), ("dataset2maxlen.json", LENGTHS)];
    let nothing = folder(&[("data/trec.jsonl", "")]);
    let error = LongBench::open(nothing.path(), None).unwrap_err().to_string();
    assert!(
        error.starts_with("dataset2prompt.json with dataset2maxlen.json is not here"),
        "{error}"
    );
    assert!(error.contains("put the folder config"), "{error}");
    let error = LongBench::open(&nothing.path().join("no"), None).unwrap_err().to_string();
    assert!(error.contains("/no: "), "{error}");
    let half = folder(&config[..1]);
    let error = LongBench::open(half.path(), Some(half.path())).unwrap_err();
    assert!(matches!(error, Error::FileNotFound { .. }));

    let copy = folder(&config);
    let bench = LongBench::open(copy.path(), None).unwrap();
    let error = |dataset, edition| {
        bench.samples(Dataset::find(dataset).unwrap(), edition).unwrap_err().to_string()
    };
    assert!(error("trec", Edition::E).starts_with("trec_e.jsonl is not here"));
    assert!(error("trec", Edition::Whole).starts_with("trec.jsonl is not here"));
    assert!(error("samsum", Edition::E).contains("samsum has no prompt"));
}

#[test]
fn bad_settings_are_named() {
    let refusal = |prompts: &str, lengths: &str| {
        let copy = folder(&[("dataset2prompt.json", prompts), ("dataset2maxlen.json", lengths)]);
        LongBench::open(copy.path(), None).unwrap_err().to_string()
    };
    for (prompts, lengths, cause) in [
        ("{", LENGTHS, "dataset2prompt.json: EOF"),
        (PROMPTS, "[]", "dataset2maxlen.json: invalid type"),
        (PROMPTS, r#"{"trec": "3"}"#, "dataset2maxlen.json: invalid type"),
        (PROMPTS, r#"{"trec": 0}"#, "dataset2maxlen.json: trec: 0 new tokens"),
        (PROMPTS, r#"{"trec": 99999999}"#, "99999999 new tokens, must be 1 to 65536"),
        (r#"{"trec": 3}"#, LENGTHS, "dataset2prompt.json: invalid type"),
        (r#"{"trec": "{answer}"}"#, LENGTHS, "json: trec: the prompt has \"{answer}\""),
    ] {
        let error = refusal(prompts, lengths);
        assert!(error.contains(cause), "{cause}: {error}");
    }
}

#[test]
fn bad_lines_are_named() {
    let good = line("trec", "why").to_string();
    let with = |change: fn(&mut Value)| {
        let mut line = line("trec", "why");
        change(&mut line);
        line.to_string()
    };
    let refusal = |text: &str| {
        let copy = folder(&[
            ("dataset2prompt.json", PROMPTS),
            ("dataset2maxlen.json", LENGTHS),
            ("trec.jsonl", text),
        ]);
        let bench = LongBench::open(copy.path(), None).unwrap();
        bench.samples(trec(), Edition::Whole).unwrap_err().to_string()
    };
    for (second, cause) in [
        ("{".into(), "EOF"),
        ("7".into(), "invalid type"),
        (with(|l| l["input"] = json!(7)), "expected a string"),
        (with(|l| drop(l.as_object_mut().unwrap().remove("context"))), "missing field `context`"),
        (with(|l| l["answers"] = json!("yes")), "expected a sequence"),
        (with(|l| l["length"] = json!(1.5)), "floating point"),
        (with(|l| l["all_classes"] = json!([1])), "expected a string"),
        (with(|l| l["dataset"] = json!("qasper")), "of the data set \"qasper\", not of trec"),
        (with(|l| l["all_classes"] = Value::Null), "all_classes is null"),
        (with(|l| l["dataset"] = json!("unknown")), "of the data set \"unknown\""),
    ] {
        let error = refusal(&format!("{good}\n{second}"));
        assert!(error.contains("trec.jsonl: line 2: "), "{second}: {error}");
        assert!(error.contains(cause), "{second}: {error}");
    }
    assert!(refusal("\n \n").contains("trec.jsonl: there is no sample"));
}

#[test]
fn the_middle_is_cut_out() {
    let tokenizer = Tokenizer::bytes();
    let cut = |text: &str, most| {
        let tokens = tokenizer.encode(text.as_bytes()).unwrap();
        let cut = cut_middle(&tokenizer, &tokens, most).unwrap();
        cut.map(|tokens| tokenizer.decode(&tokens).unwrap())
    };
    assert_eq!(cut("abcdef", 6), None);
    assert_eq!(cut("abcdef", 5).as_deref(), Some("abef"));
    assert_eq!(cut("abcdef", 2).as_deref(), Some("af"));
    // Half a character becomes U+FFFD.
    assert_eq!(cut("éaaé", 2).as_deref(), Some("\u{fffd}\u{fffd}"));
    for most in [0, 1] {
        assert!(cut_middle(&tokenizer, &[1, 2, 3], most).is_err());
    }
}

#[test]
fn spaces_are_cleaned_up() {
    let text = "It is n't so , I 'm sure ; he 's ' here ' , they 've won ! Are n't we 're ? . .";
    let clean = "It isn't so, I'm sure ; he's'here ', they've won! Aren't we're?..";
    assert_eq!(clean_up_spaces(text), clean);
}
