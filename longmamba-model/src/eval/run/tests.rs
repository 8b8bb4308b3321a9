use super::*;
use crate::builtin;
use crate::{CpuBackend, SessionOptions};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn model() -> Arc<Model> {
    builtin::find("mamba2-tiny").unwrap().model(CpuBackend::new(None).unwrap()).unwrap()
}

fn settings(model: &Model) -> Settings {
    Settings::new("test", model).with("seed", 7).with("share", 0.1f32)
}

/// Different for each sample, with what JSON has to escape.
fn sample(index: usize) -> Value {
    json!({ "pred": format!("{index}\n\"é\u{1}"), "score": (index as f64 + 0.1).sqrt() })
}

fn finished(folder: &Path, shard: &str, total: usize) -> Vec<Line<Value>> {
    let model = model();
    let run = Run::open(folder, &settings(&model), shard.parse().unwrap()).unwrap();
    run.part("a/b", total).unwrap().finish(&model, |i| Ok(sample(i))).unwrap()
}

/// Cut anywhere, as a killed process leaves it, the file ends as it would have.
#[test]
fn a_file_cut_anywhere_is_completed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b.jsonl");
    let all = finished(folder.path(), "0/1", 7);
    let whole = fs::read(&path).unwrap();
    assert_eq!(whole.iter().filter(|&&b| b == b'\n').count(), 7);
    for cut in 0..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let model = model();
        let run = Run::open(folder.path(), &settings(&model), Shard::WHOLE).unwrap();
        let part = run.part::<Value>("a/b", 7).unwrap();
        let lines = whole[..cut].iter().filter(|&&b| b == b'\n').count();
        assert_eq!((part.done().len(), part.left().len()), (lines, 7 - lines), "cut at {cut}");
        let done = AtomicUsize::new(0);
        let work = |i| {
            done.fetch_add(1, Ordering::Relaxed);
            Ok(sample(i))
        };
        assert_eq!(part.finish(&model, work).unwrap(), all, "cut at {cut}");
        assert_eq!(done.into_inner(), 7 - lines, "nothing is done twice");
        assert_eq!(fs::read(&path).unwrap(), whole, "cut at {cut}");
    }
}

/// However many are done at a time, and whatever a killed process had done.
#[test]
fn a_part_that_ends_early_ends_at_the_same_sample() {
    let model = model();
    for begun in 0..=9 {
        let folder = tempfile::tempdir().unwrap();
        let run = Run::open(folder.path(), &settings(&model), Shard::WHOLE).unwrap();
        let until = |count: usize| move |lines: &[Line<Value>]| lines.len() < count;
        let part = || run.part("a", 9).unwrap();
        if begun > 0 {
            let lines = part().finish_while(&model, |i| Ok(sample(i)), until(begun)).unwrap();
            assert_eq!(lines.len(), begun);
        }
        let lines = part().finish_while(&model, |i| Ok(sample(i)), until(4)).unwrap();
        let indices: Vec<usize> = lines.iter().map(|line| line.index).collect();
        assert_eq!(indices, [0, 1, 2, 3], "{begun} begun");
        // What was not needed is kept; nothing beyond is done.
        assert_eq!(part().done().len(), begun.max(4));
    }
}

/// In whatever order samples are finished, and whichever of them fails.
#[test]
fn lines_are_written_in_order_up_to_the_first_failure() {
    let folder = tempfile::tempdir().unwrap();
    let model = model();
    let run = Run::open(folder.path(), &settings(&model), Shard::WHOLE).unwrap();
    let slow_first = |i: usize| {
        std::thread::sleep(std::time::Duration::from_millis(if i.is_multiple_of(4) {
            20
        } else {
            1
        }));
        match i {
            9 | 11 => Err(Error::argument(format!("sample {i}"))),
            _ => Ok(sample(i)),
        }
    };
    let error = run.part("part", 20).unwrap().finish(&model, slow_first).unwrap_err();
    assert_eq!(error.to_string(), "sample 9");
    let lines = read_lines::<Value>(&folder.path().join("part.jsonl")).unwrap();
    let indices: Vec<usize> = lines.iter().map(|line| line.index).collect();
    assert_eq!(indices, (0..9).collect::<Vec<_>>());
    // What stands is kept.
    let part = run.part("part", 20).unwrap();
    let again = part.finish(&model, |i| if i < 9 { panic!("{i} is done") } else { Ok(sample(i)) });
    assert_eq!(again.unwrap().len(), 20);
}

#[test]
fn shards_share_a_folder_and_the_samples() {
    let folder = tempfile::tempdir().unwrap();
    let mut all: Vec<_> =
        ["0/3", "2/3", "1/3"].iter().flat_map(|s| finished(folder.path(), s, 8)).collect();
    all.sort_by_key(|line| line.index);
    let whole = tempfile::tempdir().unwrap();
    assert_eq!(all, finished(whole.path(), "0/1", 8));
    assert!(folder.path().join("a/b.2-of-3.jsonl").is_file());
    for bad in ["", "1", "1/1", "4/3", "-1/2", "0/0", "a/b", "0/2/3"] {
        assert!(bad.parse::<Shard>().is_err(), "{bad}");
    }
    // More shards than samples.
    assert!(finished(folder.path(), "8/9", 8).is_empty());
}

#[test]
fn a_run_is_not_continued_as_another() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, model) = (folder.path(), model());
    let open = |settings: &Settings| Run::open(folder, settings, Shard::WHOLE).map(drop);
    let first = settings(&model);
    open(&first).unwrap();
    open(&first.clone().noting("device", "another")).unwrap();
    let other = |settings: Settings, text: &str| {
        let error = open(&settings).unwrap_err();
        assert!(matches!(error, Error::OtherRun { .. }));
        assert!(error.to_string().contains(text), "{error}");
    };
    other(first.clone().with("seed", 8), "with seed 7, and 8");
    other(first.clone().with("more", "x"), "with more not set, and \"x\"");
    other(Settings::new("test", &model), "and not set");
    let options = SessionOptions {
        plan: Some(Arc::new(builtin::find("mamba2-tiny").unwrap().plan().unwrap())),
        ..Default::default()
    };
    assert_ne!(options.settings().unwrap(), SessionOptions::default().settings().unwrap());

    fs::write(folder.join("settings.json"), "{\"format\": 1, \"run\": 3").unwrap();
    assert!(matches!(open(&first), Err(Error::Malformed { .. })));
}

#[test]
fn one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let model = model();
    let first = Run::open(folder.path(), &settings(&model), Shard::WHOLE).unwrap();
    let second = Run::open(folder.path(), &settings(&model), Shard::WHOLE);
    assert!(matches!(second, Err(Error::RunInUse { .. })));
    Run::open(folder.path(), &settings(&model), "0/2".parse().unwrap()).unwrap();
    drop(first);
    Run::open(folder.path(), &settings(&model), Shard::WHOLE).unwrap();
}

#[test]
fn damaged_files_are_errors_that_name_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b.jsonl");
    finished(folder.path(), "0/1", 3);
    let whole = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let part = |text: String| {
        fs::write(&path, text).unwrap();
        let model = model();
        let run = Run::open(folder.path(), &settings(&model), Shard::WHOLE).unwrap();
        run.part::<Value>("a/b", 3).map(drop).unwrap_err().to_string()
    };
    assert!(
        part(format!("{}\n{}\n", lines[0], lines[2])).contains("line 2 is sample 2, and sample 1")
    );
    assert!(part(format!("{}\n{}\n", lines[0], lines[0])).contains("line 2 is sample 0"));
    assert!(part(whole.clone() + "{\"index\": 3, \"pred\": 1}\n").contains("and none was to come"));
    assert!(part(format!("{}\n{{\"index\": 1,\n", lines[0])).contains("line 2: "));
    assert!(part("\u{0}\n".into()).contains("line 1: "));

    let model = model();
    let run = Run::open(folder.path(), &settings(&model), Shard::WHOLE).unwrap();
    for name in ["", "../x", "/x", "a/../../x"] {
        assert!(matches!(run.part::<Value>(name, 1), Err(Error::Argument(_))), "{name}");
    }
}
