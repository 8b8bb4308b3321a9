//! Beside samples that the official generators wrote, with their own words: those are taken out of the
//! samples, made a template, and what comes of it here must be built as they are. The samples are not part
//! of the repository; without them the tests say so.

use longmamba_model::eval::ruler::{
    Count, Essays, Generator, Kind, Niah, Questions, Sample, Sources, TASKS, Task, Templates, Word,
    read_samples,
};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A sample, and how it was made.
struct Golden {
    sample: Sample,
    length: usize,
    by_words: bool,
    number: usize,
}

/// The folder, or nothing and a line that says so.
fn folder() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/goldens/ruler");
    if folder.is_dir() {
        return Some(folder);
    }
    // Not `println!`: the harness hides that where a test passes, and a skip must be seen.
    let skipped = format!("SKIPPED: {} is not there\n", folder.display());
    std::io::stderr().write_all(skipped.as_bytes()).unwrap();
    None
}

fn file(folder: &Path, task: &Task) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let of_task = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.split('.').next() == Some(task.name) && name.ends_with(".jsonl")
    };
    files.into_iter().find(of_task).unwrap()
}

fn goldens(folder: &Path, task: &Task) -> Vec<Golden> {
    let path = file(folder, task);
    let text = fs::read_to_string(&path).unwrap();
    let samples = read_samples(&path).unwrap();
    assert_eq!(samples.len(), text.lines().count());
    let golden = |(sample, line): (Sample, &str)| {
        let meta = &serde_json::from_str::<Value>(line).unwrap()["_meta"];
        let number = |field: &str| meta[field].as_u64().unwrap() as usize;
        assert_eq!(number("tokens_to_generate"), task.tokens_to_generate);
        let by_words = meta["tokenizer"] == "ws";
        Golden { sample, length: number("max_seq_length"), by_words, number: number("sample") }
    };
    samples.into_iter().zip(text.lines()).map(golden).collect()
}

/// The official words, taken out of the samples.
fn templates(folder: &Path) -> Templates {
    let first = |name: &str| goldens(folder, Task::find(name).unwrap()).remove(0).sample;
    let lines = |text: &str| text.split('\n').map(str::to_owned).collect::<Vec<_>>();

    let many = first("niah_multiquery");
    let all = lines(&many.input);
    let asked = between(&many.answer_prefix, "for ", " mentioned").to_owned();
    let general =
        |text: &str| text.replace(&asked, "{query}").replace("numbers", "{type_needle_v}");
    let noise = most_frequent_line(&first("niah_single_1").input).to_owned();
    let one = lines(&first("niah_multikey_2").input).swap_remove(1);
    let (key, value) = (between(&one, "for ", " is: "), between(&one, " is: ", "."));
    let needle =
        one.replace(key, "{key}").replace(value, "{value}").replace("numbers", "{type_needle_v}");
    let niah = json!({
        "template": general(&format!("{}\n{{context}}\n{}", all[0], all.last().unwrap())),
        "answer_prefix": general(&many.answer_prefix), "needle": needle, "noise": noise,
    });

    let vt = first("vt");
    let sample = last_part(&vt.input);
    let value = between(sample, "value ", " ").to_owned();
    let all = lines(sample);
    let sentence = |before: &str| {
        let line = all.iter().find(|line| line.contains(before)).unwrap();
        line.replace(&value, "{value}")
    };
    let variable = |index: usize| vt.outputs[index].as_str();
    let question = all.last().unwrap().replace(&value, "{query}");
    let variables = json!({
        "template": format!("{}\n\n{{context}}\n{question}", all[0]),
        "answer_prefix": vt.answer_prefix.replace(&value, "{query}").replace("5 ", "{num_v} "),
        "noise": most_frequent_line(&vt.input),
        "assign": sentence(&value).replace(variable(0), "{key}"),
        "copy": sentence(&format!(" {} = ", variable(1)))
            .replace(variable(1), "{key}").replace(variable(0), "{value}"),
    });

    let cwe = first("cwe");
    let all = lines(last_part(&cwe.input));
    let common = json!({
        "template": format!("{}\n{{context}}\n{}", all[0], all[2]), "answer_prefix": cwe.answer_prefix,
    });
    let fwe = first("fwe");
    let all = lines(&fwe.input);
    let frequent = json!({
        "template": format!("{} {{context}}\n{}", instruction(&all[0]), all[1]),
        "answer_prefix": fwe.answer_prefix,
    });

    let qa = first("qa_1");
    let (before, _) = qa.input.split_once("Document 1:").unwrap();
    let (question, asked) = last_part(&qa.input).split_once("Question: ").unwrap();
    assert!(!asked.contains('\n'));
    let questions = json!({
        "template": format!("{before}{{context}}\n\n{question}Question: {{query}}"),
        "answer_prefix": qa.answer_prefix, "document": "Document {key}:\n{value}",
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    let json = json!({
        "niah": niah, "variable_tracking": variables, "common_words_extraction": common,
        "freq_words_extraction": frequent, "qa": questions,
    });
    fs::write(file.path(), json.to_string()).unwrap();
    Templates::read(file.path()).unwrap()
}

/// From the last line on that is like the first.
fn last_part(text: &str) -> &str {
    &text[text.rfind(text.split('\n').next().unwrap()).unwrap()..]
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> &'t str {
    text.split_once(before).unwrap().1.split_once(after).unwrap().0
}

fn most_frequent_line(text: &str) -> &str {
    let mut times = HashMap::<&str, usize>::new();
    text.split('\n').for_each(|line| *times.entry(line).or_default() += 1);
    times.into_iter().max_by_key(|&(_, times)| times).unwrap().0
}

fn sources(folder: &Path) -> Sources {
    Sources {
        essays: Some(Essays::read(&folder.join("standin_haystack.json")).unwrap()),
        squad: Some(Questions::squad(&folder.join("standin_squad.json")).unwrap()),
        hotpotqa: Some(Questions::hotpotqa(&folder.join("standin_hotpotqa.json")).unwrap()),
    }
}

/// The prompt without what is drawn at random: what is left says how it is built.
fn skeleton(task: &Task, sample: &Sample) -> String {
    let prompt = sample.prompt();
    let mut lines: Vec<String> = prompt.split('\n').map(str::to_owned).collect();
    let drawn = |word: &str| {
        let bare = word.trim_matches(['.', ',', '?', ':']);
        match task.kind {
            Kind::Niah(_) => {
                bare.contains('-') || bare.len() == 7 && bare.bytes().all(|b| b.is_ascii_digit())
            }
            Kind::VariableTracking => {
                let capitals = (3..=5).contains(&bare.len()) && bare != "VAR";
                capitals && bare.bytes().all(|b| b.is_ascii_uppercase())
                    || bare.len() == 5 && bare.bytes().all(|b| b.is_ascii_digit())
            }
            _ => false,
        }
    };
    for line in &mut lines {
        let words = line.split(' ').map(|w| if drawn(w) { "#" } else { w });
        *line = words.collect::<Vec<_>>().join(" ");
    }
    // Where in a haystack of lines the needles are is drawn too.
    let end = lines.len() - 1;
    if end > 1 {
        lines[1..end].sort();
    }
    lines.join("\n")
}

#[test]
fn samples_are_built_as_the_official_ones() {
    let Some(folder) = folder() else { return };
    let (templates, sources) = (templates(&folder), sources(&folder));
    for task in &TASKS {
        for Golden { sample: golden, length, by_words, number } in goldens(&folder, task) {
            let words: Count = &|text| Ok(text.split_whitespace().count());
            let bytes: Count = &|text| Ok(text.len());
            let count = if by_words { words } else { bytes };
            let what = format!("{} {length} {by_words} {number}", task.name);
            // The official count is the same as ours.
            let tokens = count(&golden.prompt()).unwrap() + task.tokens_to_generate;
            assert_eq!(golden.length, tokens, "{what}");

            let ours = Generator::new(task, length, 42, &templates, &sources, count)
                .unwrap_or_else(|e| panic!("{what}: {e}"))
                .sample(number)
                .unwrap();
            let fields = |sample: &Sample| serde_json::to_value(sample).unwrap();
            let keys =
                |sample| fields(sample).as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(&ours), keys(&golden), "{what}");
            // The official code may shrink a list to fewer words than it asks for; ours does not.
            if task.name == "cwe" && golden.outputs.len() < 10 {
                assert_eq!(ours.outputs.len(), 10, "{what}");
                continue;
            }
            assert_eq!(ours.outputs.len(), golden.outputs.len(), "{what}");
            compare(task, &ours, &golden, by_words, &what);
        }
    }
}

fn compare(task: &Task, ours: &Sample, golden: &Sample, by_words: bool, what: &str) {
    let (mine, theirs) = (skeleton(task, ours), skeleton(task, golden));
    let lines = |sample: &Sample| sample.input.split('\n').count();
    let ends = |text: &str| (text.split('\n').next().unwrap().to_owned(), last_line(text));
    match task.kind {
        // One line is like another, so that there is no room for chance.
        Kind::VariableTracking => {
            assert_eq!((mine, ours.length), (theirs, golden.length), "{what}");
            let example =
                |sample: &Sample| lines(sample) - last_part(&sample.input).lines().count();
            assert_eq!(example(ours), example(golden), "{what}");
        }
        Kind::Niah(Niah { key: Word::Uuid, .. }) => {
            assert_eq!((mine, ours.length), (theirs, golden.length), "{what}");
        }
        _ if task.name == "niah_single_1" => {
            // A word more or less in a name with words; bytes of a name.
            let spare = if by_words { 0 } else { 1 };
            assert!(lines(ours).abs_diff(lines(golden)) <= spare, "{what}");
            assert!(
                ours.length.abs_diff(golden.length) <= if by_words { 2 } else { 120 },
                "{what}"
            );
            assert_eq!(ends(&mine), ends(&theirs), "{what}");
        }
        _ if task.name == "niah_multikey_2" => {
            // Samples that come out too long shrink by one unit; then there is room for chance.
            let unit = if ours.length < 3000 { 5 } else { 25 };
            assert!(lines(ours).abs_diff(lines(golden)) <= unit + 3, "{what}");
            assert_eq!(ends(&mine), ends(&theirs), "{what}");
        }
        Kind::Niah(_) => {
            // Essays, whose words are tokens: as many as fit, the same in the same order.
            assert_eq!((ours.length, lines(ours)), (golden.length, lines(golden)), "{what}");
            assert_eq!(ends(&mine), ends(&theirs), "{what}");
            assert_eq!(without_needles(ours), without_needles(golden), "{what}");
        }
        Kind::CommonWords => {
            let times = |sample: &Sample| {
                // Some words are two.
                let mut words: Vec<String> = Vec::new();
                for word in sample.input.split('\n').rev().nth(1).unwrap().split(' ') {
                    if word == format!("{}.", words.len() + 1) {
                        words.push(String::new());
                    } else {
                        words.last_mut().unwrap().push_str(word);
                    }
                }
                times(words.iter().map(String::as_str))
            };
            let (mine, theirs) = (times(ours), times(golden));
            let kinds =
                |times: &HashMap<String, usize>| times.values().copied().collect::<HashSet<_>>();
            assert_eq!(kinds(&mine), kinds(&theirs), "{what}");
            assert!(
                ours.outputs.iter().all(|word| mine[word] == mine.values().copied().max().unwrap())
            );
            if by_words {
                // Among the official words are some that are two.
                assert!(mine.len().abs_diff(theirs.len()) <= mine.len() / 25, "{what}");
                assert!(ours.length.abs_diff(golden.length) <= 30, "{what}");
            }
            assert_eq!(lines(ours), lines(golden), "{what}");
            let example =
                |sample: &Sample| sample.input.split('\n').nth(1).unwrap().split(' ').count();
            assert_eq!(example(ours), example(golden), "{what}");
        }
        Kind::FrequentWords => {
            assert_eq!(ours.length, golden.length, "{what}");
            let counts = |sample: &Sample| {
                let line = sample.input.split('\n').next().unwrap();
                let context = line[instruction(line).len()..].trim_start();
                let mut counts: Vec<usize> = times(context.split(' ')).into_values().collect();
                counts.sort_unstable();
                counts
            };
            assert_eq!(counts(ours), counts(golden), "{what}");
            assert_eq!(last_line(&mine), last_line(&theirs), "{what}");
        }
        Kind::Qa(_) => {
            assert_eq!(ours.outputs, golden.outputs, "{what}");
            assert_eq!(ends(&mine), ends(&theirs), "{what}");
            let documents = |sample: &Sample| sample.input.matches("\n\nDocument ").count();
            // A unit of ten, for samples that shrink; and what chance makes of them.
            assert!(documents(ours).abs_diff(documents(golden)) <= 12, "{what}");
            let theirs: HashSet<&str> = golden.input.split("\n\n").collect();
            let first = ours.input.split("\n\n").next().unwrap();
            assert!(theirs.contains(first));
        }
    }
}

/// What stands before the first coded word.
fn instruction(line: &str) -> &str {
    let before = &line[..line.find("...").unwrap()];
    &before[..before.rfind(". ").unwrap() + 1]
}

/// The words of the line that needles are in. A needle ends with its value.
fn without_needles(sample: &Sample) -> Vec<&str> {
    const NEEDLE: usize = 10;
    let mut words = Vec::new();
    for word in sample.input.split('\n').nth(1).unwrap().split(' ') {
        words.push(word);
        let value = word.strip_suffix('.').unwrap_or_default();
        if value.len() == 36 || value.len() == 7 && value.bytes().all(|b| b.is_ascii_digit()) {
            words.truncate(words.len() - NEEDLE);
        }
    }
    words
}

fn last_line(text: &str) -> String {
    text.split('\n').next_back().unwrap().to_owned()
}

fn times<'t>(words: impl Iterator<Item = &'t str>) -> HashMap<String, usize> {
    let mut times = HashMap::new();
    words.for_each(|word| *times.entry(word.to_owned()).or_default() += 1);
    times
}
