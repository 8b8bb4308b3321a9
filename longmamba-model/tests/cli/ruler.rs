//! `longmamba ruler`.

use crate::folder::{Folder, json_of, longmamba};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;

const MODEL: &str = "builtin:mamba2-tiny";

/// Two tasks at the least length for a model of bytes.
const SMALL: [&str; 8] =
    ["ruler", MODEL, "--lengths", "1k", "--tasks", "niah_single_1,fwe", "--samples", "4"];

fn with<'a>(args: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [args, more].concat()
}

#[test]
fn scores_of_a_run_that_is_killed_and_shared() {
    let folder = Folder::new();
    let (whole, killed, shared) =
        (folder.path("whole"), folder.path("killed"), folder.path("shared"));
    let run = |to: &str, more: &[&str]| {
        let args = with(&SMALL, &["--json", "--method", "vanilla", "--run", to]);
        json_of(&with(&args, more))
    };
    let result = run(&whole, &[]);
    assert_eq!((&result["standin"], &result["standins"]), (&json!(false), &json!([])));
    let rows = result["rows"].as_array().unwrap();
    let scores: Vec<f64> = rows.iter().map(|row| row["score"].as_f64().unwrap()).collect();
    assert!(rows.len() == 2 && scores.iter().all(|score| (0.0..=100.0).contains(score)));
    let average = result["averages"][0]["score"].as_f64().unwrap();
    assert!((average - (scores[0] + scores[1]) / 2.0).abs() < 0.006);

    let file = |run: &str, name: &str| Path::new(run).join("vanilla/1000").join(name);
    let lines = fs::read_to_string(file(&whole, "niah_single_1.jsonl")).unwrap();
    for (index, line) in lines.lines().enumerate() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&line["index"], line["outputs"].as_array().unwrap().len()), (&json!(index), 1));
        assert!(line["pred"].is_string() && line["prompt_tokens"].as_u64().unwrap() <= 1000 - 128);
    }

    run(&killed, &[]);
    fs::write(file(&killed, "niah_single_1.jsonl"), &lines[..lines.len() / 2]).unwrap();
    fs::remove_file(file(&killed, "fwe.jsonl")).unwrap();
    assert_eq!(run(&killed, &[])["rows"], result["rows"]);
    assert_eq!(fs::read_to_string(file(&killed, "niah_single_1.jsonl")).unwrap(), lines);

    let mut all = Vec::new();
    for shard in ["1/2", "0/2"] {
        let part = run(&shared, &["--shard", shard]);
        assert_eq!((&part["shard"], &part["rows"][0]["samples"]), (&json!(shard), &json!(2)));
        let name = format!("niah_single_1.{}-of-2.jsonl", &shard[..1]);
        all.extend(fs::read_to_string(file(&shared, &name)).unwrap().lines().map(str::to_owned));
    }
    all.sort();
    assert_eq!(all, lines.lines().collect::<Vec<_>>());

    // It is not continued as another.
    let other = with(&SMALL, &["--method", "vanilla", "--run", &whole, "--seed", "1"]);
    let output = longmamba(&other);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("with seed 42, and"));
}

#[test]
fn samples_that_were_written_run_as_those_that_were_made() {
    let folder = Folder::new();
    let to = folder.path("samples");
    let written = json_of(&with(&SMALL, &["--write", &to, "--json"]));
    assert_eq!(written["samples"], 8);
    let names: Vec<&str> =
        written["files"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
    assert!(names[0].ends_with("1000/niah_single_1/validation.jsonl"), "{names:?}");
    let lines = fs::read_to_string(names[0]).unwrap();
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let fields: Vec<&str> = first.as_object().unwrap().keys().map(String::as_str).collect();
    let mut official = [
        "index",
        "input",
        "outputs",
        "length",
        "length_w_model_temp",
        "answer_prefix",
        "token_position_answer",
    ];
    official.sort_unstable();
    assert_eq!(fields, official);

    let run =
        |args: &[&str]| json_of(&with(args, &["--json", "--method", "vanilla"]))["rows"].clone();
    let made = run(&SMALL);
    assert_eq!(run(&["ruler", MODEL, "--data", &to]), made);
    let one = run(&["ruler", MODEL, "--data", &to, "--tasks", "fwe", "--samples", "4"]);
    assert_eq!(one[0], made[1]);

    // The words that were written are a template that makes the same.
    let again = folder.path("again");
    let template = format!("{to}/template.json");
    json_of(&with(&SMALL, &["--write", &again, "--template", &template, "--json"]));
    let path = |folder: &str| Path::new(folder).join("1000/niah_single_1/validation.jsonl");
    assert_eq!(fs::read(path(&again)).unwrap(), fs::read(path(&to)).unwrap());
}

#[test]
fn stand_ins_are_told_wherever_they_are_used() {
    let folder = Folder::new();
    let to = folder.path("samples");
    let args = ["ruler", MODEL, "--lengths", "4096", "--samples", "1", "--tasks"];
    let write = |tasks: &str, more: &[&str]| {
        json_of(&with(&args, &with(&[tasks, "--write", &to, "--json"], more)))
    };
    let written = write("niah_single_2,qa_2,niah_single_1", &[]);
    assert_eq!(
        (&written["standin"], &written["standins"]),
        (&json!(true), &json!(["essays", "hotpotqa"]))
    );
    // Also when they are run later.
    let run = ["ruler", MODEL, "--data", &to, "--method", "vanilla"];
    let result = json_of(&with(&run, &["--json"]));
    assert_eq!(
        (&result["standin"], &result["standins"]),
        (&json!(true), &json!(["essays", "hotpotqa"]))
    );
    let standins: Vec<_> =
        result["rows"].as_array().unwrap().iter().map(|r| &r["standin"]).collect();
    assert_eq!(standins, [&json!(false), &json!(true), &json!(true)]);
    let table = String::from_utf8(longmamba(&run).stdout).unwrap();
    assert!(
        table.contains("STAND-IN TEXTS were used for want of --essays and --hotpotqa"),
        "{table}"
    );

    let essays = folder.write("essays.json", json!({"text": "One two. Three!"}).to_string());
    let given = write("niah_single_2", &["--essays", &essays]);
    assert_eq!((&given["standin"], &given["standins"]), (&json!(false), &json!([])));
}

/// The official generators' samples are not part of the repository; without them the test says so.
#[test]
fn official_samples_run_as_they_are() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/goldens/ruler");
    if !folder.is_dir() {
        // Not `println!`: the harness hides that where a test passes, and a skip must be seen.
        let skipped = format!("SKIPPED: {} is not there\n", folder.display());
        std::io::stderr().write_all(skipped.as_bytes()).unwrap();
        return;
    }
    let data = folder.display().to_string();
    let run = ["ruler", MODEL, "--data", &data, "--samples", "1", "--method", "vanilla", "--json"];
    let result = json_of(&run);
    let rows = result["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 13);
    let tasks = |row: &Value| row["task"].as_str().unwrap().to_owned();
    assert!(rows.iter().any(|row| tasks(row) == "niah_multiquery" && row["samples"] == 1));
}

#[test]
fn bad_input() {
    let folder = Folder::new();
    let ruler =
        |args: &[&str], causes: &[&str]| folder.refuses(&with(&["ruler", MODEL], args), causes);
    let short = ["--lengths", "500", "--tasks"];
    ruler(
        &with(&short, &["niah_single_1"]),
        &["niah_single_1: sample 0 does not fit 500 tokens", "it needs"],
    );
    let write = folder.path("written");
    ruler(&with(&short, &["vt", "--write", &write]), &["vt: sample 0 does not fit 500"]);
    ruler(&[], &["--lengths"]);
    ruler(&["--lengths", "2k,1k"], &["strictly ascending"]);
    ruler(&with(&short, &["niah"]), &["\"niah\" is no task", "niah_single_1", "qa_2"]);
    ruler(&["--lengths", "4k", "--samples", "0"], &["--samples"]);
    ruler(&["--lengths", "4k", "--shard", "4/4"], &["--shard", "0/4"]);
    ruler(
        &["--lengths", "4k", "--tasks", "qa_1", "--samples", "2000"],
        &["--samples 2000", "qa_1 has 1000"],
    );
    for (flag, why) in [
        ("--essays", "an object with \"text\""),
        ("--squad", "not SQuAD"),
        ("--hotpotqa", "not HotpotQA"),
        ("--template", "no kind of task"),
        ("--data", "line 1: missing field"),
    ] {
        let file = folder.write("vt.jsonl", "{\"a\": 1}");
        let length = if flag == "--data" { vec![] } else { vec!["--lengths", "4k"] };
        ruler(&with(&length, &[flag, &file]), &["vt.jsonl", why]);
        ruler(&with(&length, &[flag, &folder.path("nothing")]), &["nothing"]);
    }
    let sample = json!({"index": 0, "input": "a", "outputs": ["b"], "length": 9}).to_string();
    let good = folder.write("vt.jsonl", &sample);
    ruler(&["--data", &good, "--lengths", "4k"], &["--data", "--lengths"]);
    ruler(&["--data", &good, "--tasks", "cwe"], &["no file (.jsonl) of the tasks"]);
    let other = folder.write("other.jsonl", &sample);
    ruler(&["--data", &other], &["other.jsonl", "name it after its task"]);
    folder.write("vt.more.jsonl", &sample);
    fs::remove_file(other).unwrap();
    ruler(&["--data", &folder.path("")], &["two files of vt at 9"]);
    assert!(!Path::new(&write).exists());
}
