use super::*;
use crate::eval::score::Order;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Writes the lines to a file of the folder.
fn write(folder: &Path, name: &str, lines: &[Value]) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let text: String = lines.iter().map(|line| line.to_string() + "\n").collect();
    fs::write(&path, text).unwrap();
    path
}

fn read(paths: &[PathBuf]) -> Predictions {
    Predictions::read(paths, Order::Index).unwrap()
}

fn refusal(paths: &[PathBuf]) -> String {
    let scored = Predictions::read(paths, Order::Index).and_then(|p| p.score(Similarity::Difflib));
    scored.unwrap_err().to_string()
}

fn answer(index: usize, pred: &str, answers: &[&str], length: u64) -> Value {
    json!({ "index": index, "pred": pred, "answers": answers, "all_classes": null, "length": length })
}

#[test]
fn shards_of_a_run_are_scored_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    // Scores 1, 0.8, 0, 1; lengths in two classes.
    write(
        &run,
        "vanilla/qasper.0-of-3.jsonl",
        &[answer(0, "Red.", &["blue", "red"], 10), answer(3, "the one", &["one"], 8000)],
    );
    write(&run, "vanilla/qasper.1-of-3.jsonl", &[answer(1, "big red dog", &["red big"], 3999)]);
    write(&run, "vanilla/qasper.2-of-3.jsonl", &[answer(2, "no", &["yes"], 9000)]);
    // A shard may be empty; another method's predictions are another run's.
    write(&run, "vanilla/qasper.3-of-4.jsonl", &[]);
    write(&run, "longmamba/qasper_e.jsonl", &[answer(0, "red", &["red"], 4000)]);
    fs::write(run.join("settings.json"), "{}").unwrap();

    let scores = read(&[run]).score(Similarity::Difflib).unwrap();
    assert!(scores.ruler.is_empty());
    let [longmamba, vanilla] = &scores.longbench[..] else { panic!("{scores:?}") };
    assert_eq!(
        (&*longmamba.run, longmamba.dataset, longmamba.metric),
        ("longmamba", "qasper", "F1")
    );
    assert_eq!((longmamba.samples, longmamba.score), (1, 100.0));
    assert_eq!((&*vanilla.run, vanilla.samples, vanilla.missing), ("vanilla", 4, 0));
    assert_eq!(vanilla.score, 70.0);
    assert_eq!(vanilla.by_length, [Some(90.0), None, Some(50.0)]);
}

#[test]
fn ruler_is_scored_by_task_and_length() {
    let folder = tempfile::tempdir().unwrap();
    let line = |index, pred: &str| json!({ "index": index, "pred": pred, "outputs": ["AB", "12"] });
    let at = |length, task: &str| format!("model/synthetic/{length}/pred/{task}.jsonl");
    write(folder.path(), &at(8192, "vt"), &[line(0, "\u{1}ab"), line(2, "ab 12"), line(1, "")]);
    write(folder.path(), &at(8192, "qa_1"), &[line(0, "ab"), line(1, "x")]);
    write(folder.path(), &at(4096, "vt"), &[line(0, "12"), line(4, "")]);
    let scores = read(&[folder.path().to_owned()]).score(Similarity::Difflib).unwrap();
    let rows: Vec<_> =
        scores.ruler.iter().map(|s| (s.length, &*s.task, s.score, s.missing)).collect();
    let expected =
        [(Some(4096), "vt", 25.0, 3), (Some(8192), "vt", 50.0, 0), (Some(8192), "qa_1", 50.0, 0)];
    assert_eq!(rows, expected);
    assert!(scores.ruler.iter().all(|s| s.run == "model"));

    // The fields of a line are asked before the names around it.
    let mut fields = line(0, "ab");
    fields["task"] = json!("qa_2");
    fields["max_seq_length"] = json!(99);
    let file = write(folder.path(), "any.jsonl", &[fields]);
    let scores = read(&[file]).score(Similarity::Difflib).unwrap();
    assert_eq!((scores.ruler[0].length, &*scores.ruler[0].task), (Some(99), "qa_2"));
}

#[test]
fn classes_are_those_of_the_last_line() {
    let folder = tempfile::tempdir().unwrap();
    let line = |pred: &str, classes: Value| json!({ "pred": pred, "answers": ["Red"], "all_classes": classes });
    let lines = [line("Red\nBlue", json!(["Blue"])), line("Red Blue", json!(["Red", "Blue"]))];
    let file = write(folder.path(), "trec.jsonl", &lines);
    let scores = read(&[file]).score(Similarity::Difflib).unwrap();
    // Only the first line counts, so 1 and 1/2; without lengths there are no classes of them.
    assert_eq!((scores.longbench[0].score, scores.longbench[0].by_length), (75.0, [None; 3]));

    let file = write(folder.path(), "trec.jsonl", &[lines[1].clone(), line("Red", Value::Null)]);
    let error = refusal(&[file]);
    assert!(error.contains("trec.jsonl: line 1: all_classes is null"), "{error}");
}

#[test]
fn the_similarity_of_code_can_be_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "lcc.jsonl", &[answer(0, "tide", &["diet"], 1)]);
    let predictions = read(&[file]);
    let score = |similarity| predictions.score(similarity).unwrap().longbench[0].score;
    assert_eq!(score(Similarity::Difflib), 25.0);
    assert_eq!(score(Similarity::Levenshtein), 50.0);
}

#[test]
fn bad_lines_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let good = answer(0, "1", &["Paragraph 1"], 1).to_string();
    let with = |change: fn(&mut Value)| {
        let mut line = answer(1, "1", &["Paragraph 1"], 1);
        change(&mut line);
        line.to_string()
    };
    for (second, cause) in [
        ("{".into(), "column 1: EOF"),
        ("[1, 2]".into(), "line 2: column"),
        (good.clone(), "index 0 is also in"),
        (with(|l| l["pred"] = json!(3)), "expected a string"),
        (with(|l| drop(l.as_object_mut().unwrap().remove("pred"))), "missing field `pred`"),
        (with(|l| l["answers"] = json!("one")), "expected a sequence"),
        (with(|l| l["answers"] = json!(["one"])), "has no \"Paragraph \""),
        (with(|l| l["length"] = json!(-1)), "invalid value"),
        (with(|l| l["answers"] = Value::Null), "neither answers"),
        (with(|l| l["outputs"] = json!(["1"])), "both answers"),
        (with(|l| l["dataset"] = json!("squad")), "\"squad\" is no data set"),
        (with(|l| drop(l.as_object_mut().unwrap().remove("index"))), "no index"),
        (r#"{"pred": "x", "outputs": ["1"], "task": "vs"}"#.into(), "\"vs\" is no task of RULER"),
    ] {
        let file = folder.path().join("passage_retrieval_en.jsonl");
        // A blank line is none, but it counts.
        fs::write(&file, format!("{good}\n{second}\n")).unwrap();
        let error = refusal(std::slice::from_ref(&file));
        assert!(error.contains("passage_retrieval_en.jsonl: line 2: "), "{second}: {error}");
        assert!(error.contains(cause), "{second}: {error}");
    }
    let file = write(folder.path(), "unknown.jsonl", &[answer(0, "", &[], 1)]);
    assert!(refusal(&[file]).contains("unknown.jsonl: line 1: \"unknown\" is no data set"));
    let file = write(folder.path(), "trec.jsonl", &[]);
    assert!(refusal(&[file]).contains("no prediction"));
    assert!(refusal(&[folder.path().join("nothing.jsonl")]).contains("nothing.jsonl"));
    let empty = tempfile::tempdir().unwrap();
    assert!(refusal(&[empty.path().to_owned()]).contains("no file of predictions"));
    let mut none = answer(0, "1", &[], 1);
    none["outputs"] = json!([]);
    none["answers"] = Value::Null;
    let file = write(folder.path(), "vt.jsonl", &[none]);
    assert!(refusal(&[file]).contains("vt.jsonl: line 1: the sample has no outputs"));
}
