//! `longbench` and `score`: predictions, shards of them, and their scores.

use crate::folder::{Folder, in_repository, json_of, longmamba};
use serde_json::{Value, json};
use std::fs;

/// A copy of LongBench in small, in words of our own.
fn copy() -> Folder {
    let folder = Folder::new();
    for inner in ["data", "config"] {
        fs::create_dir(folder.path(inner)).unwrap();
    }
    let prompts = json!({
        "qasper": "{context}\nSo: {input}", "samsum": "{context}\nIn short:", "trec": "{input}"
    });
    folder.write("config/dataset2prompt.json", prompts.to_string());
    folder.write("config/dataset2maxlen.json", r#"{"qasper": 6, "samsum": 5, "trec": 4}"#);
    let line = |i: usize, answer: &str, classes: Value| {
        let context = "The ferry came back over the water. ".repeat(i + 1);
        json!({
            "input": "The ferry came", "context": context, "answers": [answer],
            "length": 3999 * i, "dataset": "any", "all_classes": classes,
        })
    };
    let file = |name: &str, dataset: &str, count, classes: Value| {
        let lines = (0..count).map(|i| {
            let mut line = line(i, "back", classes.clone());
            line["dataset"] = json!(dataset);
            line.to_string() + "\n"
        });
        folder.write(name, lines.collect::<String>());
    };
    file("data/qasper_e.jsonl", "qasper", 5, Value::Null);
    file("data/samsum_e.jsonl", "samsum_e", 2, Value::Null);
    file("data/trec.jsonl", "trec", 1, json!(["back", "forth"]));
    folder
}

const MODEL: &str = "builtin:mamba2-tiny";

#[test]
fn shards_make_the_same_scores_as_the_whole() {
    let copy = copy();
    let out = Folder::new();
    let (whole, shards) = (out.path("whole"), out.path("shards"));
    let data = copy.path("");
    let args = |more: &[&str]| -> Vec<String> {
        let args = ["longbench", MODEL, "--data", &data, "--e", "--json"];
        args.iter().chain(more).map(|&arg| arg.to_owned()).collect()
    };
    let run = |more: &[&str]| json_of(&args(more).iter().map(|a| &**a).collect::<Vec<_>>());

    let report = run(&["--run", &whole]);
    assert_eq!(report["model"], MODEL);
    let rows = report["longbench"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|r| (&r["run"], &r["dataset"], &r["samples"])).collect();
    let expected = [
        ("longmamba", "qasper", 5),
        ("longmamba", "samsum", 2),
        ("vanilla", "qasper", 5),
        ("vanilla", "samsum", 2),
    ];
    assert_eq!(names.len(), 4);
    for (row, (run, dataset, samples)) in names.iter().zip(expected) {
        assert_eq!(*row, (&json!(run), &json!(dataset), &json!(samples)));
    }
    let path = |run: &str, name: &str| format!("{run}/longmamba/{name}.jsonl");
    let text = fs::read_to_string(path(&whole, "qasper_e")).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 5);
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(line["index"], index);
        assert_eq!((&line["answers"], &line["length"]), (&json!(["back"]), &json!(3999 * index)));
        assert_eq!(line["prompt_tokens"], 36 * (index + 1) + "\nSo: The ferry came".len());
        assert!(line["new_tokens"].as_u64().unwrap() <= 6);
    }

    // `score` gives the tables of the run, as does the run once more, without another answer.
    let scored = json_of(&["score", &whole, "--json"]);
    let kept = fs::read_to_string(format!("{whole}/result.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&kept).unwrap(), report);
    for table in ["longbench", "longbench_averages"] {
        assert_eq!(scored[table], report[table]);
    }
    assert_eq!(run(&["--run", &whole])["longbench"], report["longbench"]);
    assert_eq!(fs::read_to_string(path(&whole, "qasper_e")).unwrap(), text);
    assert_eq!(run(&[])["longbench"], report["longbench"], "kept nowhere");

    // A shard is missing, and then it is there.
    run(&["--run", &shards, "--shard", "0/2"]);
    out.refuses(
        &["score", &shards],
        &["qasper in longmamba: 2 samples are missing (index 1, 3)", "--partial"],
    );
    let partial = json_of(&["score", &shards, "--partial", "--json"]);
    assert_eq!(
        (&partial["longbench"][0]["samples"], &partial["longbench"][0]["missing"]),
        (&json!(3), &json!(2))
    );
    run(&["--run", &shards, "--shard", "1/2"]);
    assert_eq!(json_of(&["score", &shards, "--json"]), scored);
    let shard = path(&shards, "qasper.0-of-2").replace("qasper.", "qasper_e.");
    out.refuses(
        &["score", &shards, &shard],
        &["qasper_e.0-of-2.jsonl: line 1: index 0 is also in"],
    );

    // Other settings, and other questions, are another run.
    for more in [&["--samples", "1"][..], &["--clean-up-spaces"], &["--method", "vanilla"]] {
        let args = args(&[&["--run", &whole], more].concat());
        out.refuses(
            &args.iter().map(|a| &**a).collect::<Vec<_>>(),
            &["whole: this run was begun with"],
        );
    }
}

#[test]
fn answers_can_be_changed() {
    let copy = copy();
    let out = Folder::new();
    let preds = |name: &str, more: &[&str]| -> Vec<String> {
        let run = out.path(name);
        let data = copy.path("data");
        let args = [
            "longbench",
            MODEL,
            "--data",
            &data,
            "--e",
            "--run",
            &run,
            "--method",
            "vanilla",
            "--json",
        ];
        json_of(&[&args, more].concat());
        let text = fs::read_to_string(format!("{run}/vanilla/samsum_e.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|line| line["pred"].as_str().unwrap().to_owned()).collect()
    };
    let plain = preds("plain", &[]);
    // The prompts end with a colon and lack the space that follows it.
    assert!(plain.iter().all(|pred| pred.len() == 5), "{plain:?}");
    let ended = preds("ended", &["--samsum-newline"]);
    for (plain, ended) in plain.iter().zip(&ended) {
        assert!(!ended.is_empty() && !ended.contains('\n'), "{ended:?}");
        let line = plain.split('\n').next().unwrap();
        assert!(line.is_empty() || ended == line, "{plain:?} {ended:?}");
    }
    let cut = preds("cut", &["--max-prompt", "20"]);
    assert_eq!(cut.len(), 2);
    // The same beginning and end are left of both.
    assert_eq!(cut[0], cut[1]);
}

#[test]
fn golden_cases_are_compared() {
    let cases = in_repository("tests/metrics/by-hand.jsonl").display().to_string();
    let report = json_of(&["score", "--golden", &cases, "--json"]);
    assert_eq!(report["passed"], true);
    let text = fs::read_to_string(&cases).unwrap();
    let folder = Folder::new();
    let wrong = folder.write("wrong.jsonl", text.replace("\"score\": 0.8", "\"score\": 0.800001"));
    let output = longmamba(&["score", "--golden", &wrong]);
    assert_eq!(output.status.code(), Some(1));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("WRONG: hand-03 (qa_f1_score, by-hand): 0.8"), "{table}");
    assert!(output.stderr.is_empty());
    // What is excused is counted, and may be anything but wrong in another way.
    let recursion =
        text.replace("\"score\": 0.8,", "\"score\": 0.0, \"score_unlimited_recursion\": 0.8,");
    let excused = folder.write("excused.jsonl", recursion);
    let report = json_of(&["score", "--golden", &excused, "--json"]);
    assert_eq!(report["report"]["excused"], json!({ "recursion_limit": 2 }));
    let spaces = text.replace(
        "\"score\": 0.8, \"tag\": \"by-hand\"",
        "\"score\": 0, \"tag\": \"unicode-wordboundary\"",
    );
    let report = json_of(&["score", "--golden", &folder.write("spaces.jsonl", spaces), "--json"]);
    assert_eq!(report["report"]["excused"], json!({ "unicode-wordboundary": 2 }));

    for (text, cause) in [
        ("", "no case"),
        ("{\n", "bad.jsonl: line 1: column"),
        (r#"{"id": "1", "metric": "bleu", "tag": "", "prediction": "", "score": 0}"#, "\"bleu\""),
        (
            r#"{"id": "1", "metric": "qa_f1_score", "tag": "", "prediction": [], "score": 0}"#,
            "must be strings",
        ),
        (
            r#"{"id": "1", "metric": "scorer", "tag": "", "prediction": [], "reference": [], "score": 0}"#,
            "needs a dataset",
        ),
        (
            r#"{"id": "1", "metric": "string_match_all", "tag": "", "prediction": ["a"], "reference": [], "score": 0}"#,
            "as many lists",
        ),
    ] {
        let bad = folder.write("bad.jsonl", text);
        folder.refuses(&["score", "--golden", &bad], &["bad.jsonl", cause]);
    }
}

#[test]
fn tables_of_predictions() {
    let folder = Folder::new();
    let line =
        |index, pred: &str| json!({ "index": index, "pred": pred, "outputs": ["7"] }).to_string();
    let file = folder.write("vt.jsonl", line(9, "7") + "\n" + &line(9, "x"));
    folder.refuses(&["score", &file], &["vt.jsonl: line 2: index 9 is also in", "--unindexed"]);
    let output = longmamba(&["score", &file, "--unindexed"]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("average, 1 of 13 tasks"), "{table}");
    assert!(table.contains("50.00"), "{table}");

    folder.refuses(&["score"], &["RUN"]);
    folder.refuses(&["score", &folder.path("nothing")], &["nothing"]);
    folder.refuses(&["score", &file, "--golden", &file], &["--golden"]);
    folder.refuses(&["score", &file, "--similarity", "other"], &["--similarity"]);
}

#[test]
fn bad_copies_of_longbench() {
    let copy = copy();
    let data = copy.path("");
    let longbench = |more: &[&str], causes: &[&str]| {
        copy.refuses(&[&["longbench", MODEL, "--data", &data], more].concat(), causes);
    };
    longbench(&["--datasets", "squad"], &["--datasets", "\"squad\" is no data set"]);
    longbench(&["--datasets", "qasper"], &["qasper.jsonl is not here", "data.zip"]);
    longbench(&["--datasets", "lcc", "--e"], &["lcc has no prompt"]);
    longbench(&["--max-prompt", "1"], &["--max-prompt"]);
    longbench(&["--shard", "2/2", "--run", "x"], &["--shard"]);
    longbench(&["--config", &copy.path("data")], &["dataset2prompt.json", "--config"]);
    copy.refuses(&["longbench", MODEL, "--data", &copy.path("config")], &["--data", "no data set"]);
    copy.refuses(&["longbench", MODEL, "--data", &copy.path("nothing")], &["nothing"]);
    copy.refuses(&["longbench", MODEL], &["--data"]);
    copy.write("data/trec.jsonl", "{}");
    longbench(&["--datasets", "trec"], &["trec.jsonl: line 1: column 2: missing field"]);
}
