//! Runs in folders: killed, resumed, shared, reported.

use crate::folder::{Folder, json_of, longmamba, text};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// All files of samples below a folder, by name.
fn lines(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "jsonl") {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                found.insert(name, fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}

fn ppl<'a>(text: &'a str, run: &'a str) -> Vec<&'a str> {
    let ppl = ["ppl", "builtin:mamba2-tiny", "--text", text, "--lengths", "256,600"];
    [&ppl[..], &["--windows", "12", "--json", "--run", run]].concat()
}

/// With SIGKILL, so that nothing can be put in order.
#[test]
fn killed_fifty_times_a_run_ends_as_if_it_had_not_been() {
    let folder = Folder::new();
    let text = folder.write("text.txt", text(4000));
    let whole = folder.path("whole");
    let start = Instant::now();
    json_of(&ppl(&text, &whole));
    let undisturbed = start.elapsed();
    let expected = lines(Path::new(&whole));
    assert_eq!(expected.len(), 4, "two methods, two lengths");
    assert!(expected.values().all(|file| file.lines().count() >= 12));

    let seed = fastrand::u64(..);
    println!("undisturbed {undisturbed:?}, seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut kills, mut within, mut runs) = (0, 0, 0);
    while kills < 50 || runs == 0 {
        runs += 1;
        let run = folder.path(&format!("run-{runs}"));
        loop {
            let mut child = Command::new(env!("CARGO_BIN_EXE_longmamba"))
                .args(ppl(&text, &run))
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            if kills < 50 {
                std::thread::sleep(
                    undisturbed.mul_f64(0.6 * random.f64()) + Duration::from_millis(1),
                );
                child.kill().unwrap();
            }
            let output = child.wait_with_output().unwrap();
            if output.status.success() {
                break;
            }
            assert_eq!(output.status.code(), None, "{}", String::from_utf8_lossy(&output.stderr));
            kills += 1;
            within += usize::from(Path::new(&run).is_dir() && !lines(Path::new(&run)).is_empty());
        }
        assert_eq!(lines(Path::new(&run)), expected, "run {runs}, seed {seed}");
    }
    println!("{kills} kills, {within} of them with samples begun, in {runs} runs");
    assert!(within > 0);
}

#[test]
fn shards_have_all_samples_between_them() {
    let folder = Folder::new();
    let text = folder.write("text.txt", text(2000));
    let [whole, shared] = ["whole", "shared"].map(|name| folder.path(name));
    json_of(&ppl(&text, &whole));
    for shard in ["0/3", "1/3", "2/3"] {
        json_of(&[&ppl(&text, &shared)[..], &["--shard", shard]].concat());
    }
    let mut merged: Vec<String> =
        lines(Path::new(&shared)).values().flat_map(|f| f.lines()).map(str::to_owned).collect();
    let mut all: Vec<String> =
        lines(Path::new(&whole)).values().flat_map(|f| f.lines()).map(str::to_owned).collect();
    merged.sort();
    all.sort();
    assert_eq!(merged, all);
    folder.refuses(&[&ppl(&text, &shared)[..], &["--shard", "3/3"]].concat(), &["3/3", "no shard"]);
}

#[test]
fn a_finished_run_is_reported() {
    let folder = Folder::new();
    let text = folder.write("text.txt", text(2000));
    let [run, page] = ["run", "report.html"].map(|name| folder.path(name));
    let first = json_of(&ppl(&text, &run));
    let again = json_of(&ppl(&text, &run));
    let figures = |result: &Value| {
        let rows = result["rows"].as_array().unwrap().iter();
        rows.map(|row| (row["nll"].clone(), row["perplexity"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(figures(&first), figures(&again));
    folder
        .refuses(&[&ppl(&text, &run)[..], &["--labels", "50"]].concat(), &["labels", "100", "50"]);

    let passkey = ["passkey", "builtin:mamba2-tiny", "--text", &text, "--lengths", "256"];
    let found = folder.path("passkey");
    json_of(&[&passkey[..], &["--prompts", "2", "--json", "--run", &found]].concat());
    json_of(&["report", &run, &found, "--out", &page, "--json"]);
    let page = fs::read_to_string(&page).unwrap();
    assert_eq!((page.matches("<svg").count(), page.matches("<section>").count()), (2, 2));
    for text in ["perplexity", "longmamba", "share found", "digest", "</html>"] {
        assert!(page.contains(text), "{text}");
    }
    // Nothing is fetched.
    assert!(!page.contains("src=") && !page.contains("@import") && !page.contains("<link"));
    let settings: Value =
        serde_json::from_slice(&fs::read(Path::new(&run).join("settings.json")).unwrap()).unwrap();
    assert_eq!(settings["begun"]["command"][1], "ppl");
    let empty = folder.path("nothing");
    fs::create_dir(&empty).unwrap();
    folder.refuses(&["report", &empty, "--out", &folder.path("r.html")], &["no result.json"]);
    assert_eq!(longmamba(&["report", "--out", "x.html"]).status.code(), Some(2));
}

/// The files of a folder in order, and no others.
#[test]
fn a_folder_of_texts_is_its_texts() {
    let folder = Folder::new();
    let texts = folder.path("texts");
    fs::create_dir(&texts).unwrap();
    let files = ["b.txt", "a.txt"].map(|name| folder.write(&format!("texts/{name}"), text(900)));
    folder.write("texts/notes.md", "Not a text.");
    let ppl = |texts: &[&str]| {
        let ppl = [
            "ppl",
            "builtin:mamba2-tiny",
            "--lengths",
            "256",
            "--windows",
            "2",
            "--json",
            "--text",
        ];
        json_of(&[&ppl[..], texts].concat())["rows"][0]["nll"].clone()
    };
    assert_eq!(ppl(&[&texts]), ppl(&[&files[1], &files[0]]));
    let empty = folder.path("empty");
    fs::create_dir(&empty).unwrap();
    let ppl = ["ppl", "builtin:mamba2-tiny", "--lengths", "256", "--text", &empty];
    folder.refuses(&ppl, &["no .txt file"]);
}
