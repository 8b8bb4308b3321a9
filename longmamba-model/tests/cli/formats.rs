//! Checkpoints of all formats through the command, models by id, and what is wrong with them.

use crate::folder::{Folder, fixture, json_of, longmamba};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

fn error(args: &[&str]) -> String {
    let output = longmamba(args);
    assert_eq!(output.status.code(), Some(2), "{args:?}");
    assert!(output.stdout.is_empty(), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn every_format_is_inspected_and_verified() {
    for (name, format) in [
        ("mamba-original-bin", "Original"),
        ("mamba2-hf-sharded", "HuggingFace"),
        ("falcon-mamba-hf", "HuggingFace"),
        ("zamba2-hf-adapters", "Zamba2"),
        ("original-mamba2attn", "Original"),
    ] {
        let seen = json_of(&["inspect", &fixture(name), "--json"]);
        assert_eq!(seen["format"], format, "{name}");
        let attention = name.contains("zamba") || name.contains("attn");
        assert_eq!(seen["attention"] != Value::Null, attention, "{name}");
        let report = json_of(&["verify", &fixture(name), "--chunks", "1,7,64", "--json"]);
        assert_eq!(report["passed"], true, "{name}");
    }
    // One file of weights, with its config beside it.
    let file = Path::new(&fixture("mamba-original-bin")).join("pytorch_model.bin");
    let seen = json_of(&["inspect", file.to_str().unwrap(), "--json"]);
    assert_eq!((&seen["layers"], &seen["parameters"]), (&json!(3), &json!(63_840)));
}

/// The memory of attention is reported, and a window bounds it.
#[test]
fn attention_memory_is_reported_and_bounded() {
    let folder = Folder::new();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(Path::new(&fixture("zamba2-hf-adapters")).join(file), folder.path(file)).unwrap();
    }
    // The fixture has no tokenizer: one with a word for every id.
    let words: Vec<String> = (0..61).map(|i| format!("\"w{i}\":{i}")).collect();
    folder.write(
        "tokenizer.json",
        format!(
            r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
            "pre_tokenizer":{{"type":"Whitespace"}},"post_processor":null,"decoder":null,
            "model":{{"type":"WordLevel","vocab":{{{}}},"unk_token":"w0"}}}}"#,
            words.join(",")
        ),
    );
    let prompt = folder.write("prompt.txt", "w5 w7 w11 ".repeat(500));
    let run = |more: &[&str]| {
        let model = folder.path("");
        let mut args =
            vec!["generate", &model, "--prompt-file", &prompt, "--max-new", "2", "--json"];
        args.extend(more);
        json_of(&args)["state_bytes"]["attention"].as_u64().unwrap()
    };
    let (all, windowed) = (run(&[]), run(&["--window", "200"]));
    assert!(windowed > 0 && all >= 2 * windowed, "{all} {windowed}");
    assert!(
        error(&["generate", &folder.path(""), "--prompt", "w1", "--window", "0"])
            .contains("--window")
    );
}

/// The cache of the Hugging Face hub, as its documentation lays it out.
#[test]
fn a_model_is_found_by_its_id() {
    let cache = Folder::new();
    let model = Path::new(&cache.path("models--org--tiny")).to_owned();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let snapshot = model.join("snapshots").join(commit);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(model.join("refs")).unwrap();
    fs::write(model.join("refs/main"), commit).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(Path::new(&fixture("mamba-hf")).join(file), snapshot.join(file)).unwrap();
    }
    let run = |id: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longmamba"));
        command.args(["inspect", id, "--json"]).env("HF_HUB_CACHE", cache.path(""));
        command.output().unwrap()
    };
    let found = run("org/tiny");
    assert_eq!(found.status.code(), Some(0), "{}", String::from_utf8_lossy(&found.stderr));
    let missing = run("org/other");
    let why = String::from_utf8(missing.stderr).unwrap();
    assert_eq!(missing.status.code(), Some(2));
    assert!(why.contains("org/other") && why.contains("models--org--other"), "{why}");
}

#[test]
fn convert_writes_a_folder_that_works() {
    let out = Folder::new();
    let to = out.path("new");
    let done = json_of(&["convert", &fixture("mamba2-original-bin"), "--out", &to, "--json"]);
    assert_eq!(
        done["bytes"],
        4 * json_of(&["inspect", &to, "--json"])["parameters"].as_u64().unwrap()
    );
    // The golden file went along.
    assert_eq!(json_of(&["verify", &to, "--json"])["passed"], true);
    let again = error(&["convert", &fixture("mamba2-original-bin"), "--out", &to]);
    assert!(again.contains("has a model already"), "{again}");

    let half = out.path("half");
    json_of(&["convert", &to, "--dtype", "bf16", "--out", &half, "--json"]);
    let seen = json_of(&["inspect", &half, "--json"]);
    assert_eq!(seen["parameters_by_dtype"]["bf16"], seen["parameters"]);
}

#[test]
fn damaged_checkpoints_are_refused_by_name() {
    let folder = Folder::new();
    let spoil = |file: &str, bytes: &[u8]| {
        fs::write(folder.path(file), bytes).unwrap();
        let why = error(&["inspect", &folder.path("")]);
        fs::remove_file(folder.path(file)).unwrap();
        assert!(why.contains(file), "{why}");
        why
    };
    let config = fs::read(Path::new(&fixture("mamba2-original-bin")).join("config.json")).unwrap();
    folder.write("config.json", &config);
    assert!(error(&["inspect", &folder.path("")]).contains("no weights"));

    let good =
        fs::read(Path::new(&fixture("mamba2-original-bin")).join("pytorch_model.bin")).unwrap();
    for cut in [4, 100, good.len() / 2, good.len() - 1] {
        spoil("pytorch_model.bin", &good[..cut]);
    }
    // A pickle that would run a command, as `torch.load` would: protocol 2, global os.system.
    let why = spoil("pytorch_model.bin", b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.");
    assert!(!why.contains("uid="), "{why}");

    let index = "model.safetensors.index.json";
    assert!(spoil(index, b"{}").contains("not an index"));
    let outside = br#"{"weight_map":{"a":"../model.safetensors"}}"#;
    assert!(spoil(index, outside).contains("not the name of a file in this folder"));
    let absent = br#"{"weight_map":{"a":"model-00001-of-00001.safetensors"}}"#;
    fs::write(folder.path(index), absent).unwrap();
    assert!(error(&["inspect", &folder.path("")]).contains("model-00001-of-00001.safetensors"));
}

#[test]
fn a_folder_without_a_tokenizer_says_which_file_is_missing() {
    let folder = Folder::of("mamba-hf");
    let why = error(&["generate", &folder.path(""), "--prompt", "x"]);
    assert!(why.contains("tokenizer.json is missing"), "{why}");
}
