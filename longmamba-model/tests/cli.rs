//! The `longmamba` command from the outside: exit codes, messages, files, JSON.
#![cfg(feature = "cli")]

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const COMMANDS: [&str; 8] =
    ["demo", "inspect", "verify", "calibrate", "channels", "generate", "ppl", "passkey"];

fn longmamba(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_longmamba")).args(args).output().unwrap()
}

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn fixture(name: &str) -> String {
    in_repository("tests/fixtures").join(name).display().to_string()
}

fn plan(model: &str) -> String {
    in_repository("builtin").join(model).join("plan.safetensors").display().to_string()
}

/// A folder that a test may fill and spoil.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    /// With a model in it.
    fn of(fixture_name: &str) -> Self {
        let folder = Folder::new();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(Path::new(&fixture(fixture_name)).join(file), folder.0.path().join(file))
                .unwrap();
        }
        folder
    }

    fn path(&self, file: &str) -> String {
        self.0.path().join(file).display().to_string()
    }

    fn write(&self, file: &str, bytes: impl AsRef<[u8]>) -> String {
        fs::write(self.path(file), bytes).unwrap();
        self.path(file)
    }

    /// Names and sizes.
    fn listing(&self) -> BTreeMap<String, u64> {
        let entries = fs::read_dir(self.0.path()).unwrap().map(|e| e.unwrap());
        entries
            .map(|e| (e.file_name().display().to_string(), e.metadata().unwrap().len()))
            .collect()
    }

    /// Runs the command with bad input: exit code 2, a message that names the cause, nothing on stdout,
    /// nothing written.
    #[track_caller]
    fn refuses(&self, args: &[&str], causes: &[&str]) {
        let before = self.listing();
        let output = longmamba(args);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
        assert!(output.stdout.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
        assert!(message.starts_with("error: "), "{args:?}: {message}");
        for cause in causes {
            assert!(message.contains(cause), "{args:?}: no {cause:?} in: {message}");
        }
        assert_eq!(self.listing(), before, "{args:?} wrote something");
    }

    /// Rewrites the model's tensors.
    fn tensors(&self, change: impl FnOnce(&mut BTreeMap<String, Tensor>)) {
        let bytes = fs::read(self.path("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors: BTreeMap<String, Tensor> = file
            .iter()
            .map(|(name, view)| {
                let tensor = Tensor(view.dtype(), view.shape().to_vec(), view.data().to_vec());
                (name.to_owned(), tensor)
            })
            .collect();
        change(&mut tensors);
        let views = tensors
            .iter()
            .map(|(name, t)| (name, TensorView::new(t.0, t.1.clone(), &t.2).unwrap()));
        let bytes = safetensors::serialize(views, None).unwrap();
        self.write("model.safetensors", bytes);
    }

    /// A tokenizer whose tokens are characters: id 0 to 95, and `z` with the id given.
    fn tokenizer(&self, z: u32) {
        let mut vocab: BTreeMap<String, u32> =
            (b'!'..=b'~').zip(1..).map(|(byte, id)| (char::from(byte).to_string(), id)).collect();
        vocab.extend([("Ġ".to_owned(), 0), ("Ċ".to_owned(), 95), ("z".to_owned(), z)]);
        let byte_level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false
        });
        let tokenizer = json!({
            "version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null,
            "pre_tokenizer": byte_level, "decoder": byte_level,
            "model": { "type": "BPE", "vocab": vocab, "merges": [] }
        });
        self.write("tokenizer.json", tokenizer.to_string());
    }
}

struct Tensor(Dtype, Vec<usize>, Vec<u8>);

/// Plain text of at least `len` bytes.
fn text(len: usize) -> String {
    "The lamp was lit, and the ferry came back over the water. ".repeat(len / 58 + 1)
}

#[track_caller]
fn json_of(args: &[&str]) -> Value {
    let output = longmamba(args);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {message}");
    assert!(message.is_empty(), "notes are for terminals: {message}");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(value.is_object());
    value
}

#[test]
fn every_command_has_help_with_an_example() {
    let help = |args: &[&str]| {
        let output = longmamba(args);
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    let all = help(&["--help"]);
    for command in COMMANDS {
        assert!(all.contains(command));
        let help = help(&[command, "--help"]);
        assert!(help.contains(&format!("  longmamba {command}")), "{help}");
        for flag in ["--json", "--threads", "--quiet"] {
            assert!(help.contains(flag), "{command} {flag}");
        }
    }
}

#[test]
fn wrong_usage() {
    let folder = Folder::new();
    let text = folder.write("text.txt", text(3000));
    let model = "builtin:mamba2-tiny";
    let ppl = |lengths: &'static str| {
        ["ppl", model, "--text", &*text, "--lengths", lengths].map(str::to_owned)
    };
    for (lengths, cause) in [
        ("512,256", "strictly ascending, but 256 follows 512"),
        ("256,256", "strictly ascending"),
        ("", "no length"),
        ("12x", "no length"),
        ("0", "no length"),
        ("100", "100 labels"),
        ("256,1M", "the longest has 3"),
    ] {
        let args = ppl(lengths);
        folder.refuses(
            &args.each_ref().map(|a| &**a),
            &["lengths", cause][usize::from(lengths == "100")..],
        );
    }
    let with = |more: &[&'static str]| {
        let mut args = ppl("256").to_vec();
        args.extend(more.iter().map(|s| s.to_string()));
        args
    };
    for (more, cause) in [
        (&["--windows", "0"][..], "windows"),
        (&["--labels", "0"], "labels"),
        (&["--chunk", "0"], "chunk_len is 0"),
        (&["--scale", "nan"], "threshold_scale is NaN"),
        (&["--theta", "-1"], "--theta"),
        (&["--method", "other"], "--method"),
        (&["--threads", "0"], "--threads"),
        (&["--unknown-flag"], "--unknown-flag"),
    ] {
        let args = with(more);
        folder.refuses(&args.iter().map(|a| &**a).collect::<Vec<_>>(), &[cause]);
    }
    folder.refuses(&["unknown-command"], &["unknown-command"]);
    folder.refuses(&["inspect", "builtin:nothing"], &["builtin:nothing", "builtin:mamba2-tiny"]);
    folder.refuses(&["inspect", &folder.path("nothing")], &["nothing: no such folder"]);
    folder.refuses(&["verify", model], &["--golden"]);
    folder.refuses(&["verify", model, "--golden", &folder.path("nothing")], &["nothing"]);
    folder.refuses(&["channels", &folder.path("nothing")], &["nothing"]);
    folder.refuses(&["channels", &text], &["text.txt"]);
    folder.refuses(&["channels", "builtin:mamba2-tiny", "--theta", "inf"], &["--theta"]);
    folder.refuses(&["passkey", model, "--lengths", "50"], &["50 bytes is too short"]);
    folder
        .refuses(&["passkey", model, "--lengths", "4k", "--text", &text], &["3950 bytes of prose"]);
    folder.refuses(&["passkey", model, "--lengths", "1k,1k"], &["strictly ascending"]);
    folder.refuses(&["passkey", model, "--lengths", "1k", "--depths", "1.5"], &["1.5"]);
    folder.refuses(&["passkey", model, "--lengths", "1k", "--prompts", "0"], &["--prompts"]);
    folder.refuses(
        &["demo", "--plot", &folder.path("no/where.svg")],
        &["--plot", "where.svg", "no folder"],
    );
    folder.refuses(&["demo", "--plot", &folder.path("")], &["--plot", "is a folder"]);
}

#[test]
fn bad_prompts() {
    let folder = Folder::new();
    let model = "builtin:mamba2-tiny";
    let empty = folder.write("empty.txt", "");
    folder.refuses(&["generate", model], &["--prompt"]);
    folder.refuses(&["generate", model, "--prompt", "a", "--prompt-file", &empty], &["--prompt"]);
    folder.refuses(&["generate", model, "--prompt", ""], &["the prompt is empty"]);
    folder.refuses(
        &["generate", model, "--prompt-file", &empty],
        &["empty.txt", "the prompt is empty"],
    );
    folder.refuses(&["generate", model, "--prompt-file", &folder.path("nothing")], &["nothing"]);
    folder
        .refuses(&["generate", model, "--prompt-file", &folder.path("")], &["not a regular file"]);
    folder.refuses(
        &["ppl", model, "--lengths", "256", "--text", &empty],
        &["empty.txt", "the text is empty"],
    );
    for (flags, cause) in [
        (&["--temperature", "-1"][..], "temperature is -1"),
        (&["--temperature", "1", "--top-k", "0"], "top_k is 0"),
        (&["--temperature", "1", "--top-p", "0"], "top_p is 0"),
        (&["--temperature", "1", "--min-p", "2"], "min_p is 2"),
        (&["--top-k", "5"], "--temperature"),
        (&["--max-new", "-1"], "-1"),
    ] {
        folder.refuses(&[&["generate", model, "--prompt", "a"], flags].concat(), &[cause]);
    }

    let folder = Folder::of("mamba-hf");
    let generate = |prompt: &'static str| {
        ["generate".to_owned(), folder.path(""), "--prompt".into(), prompt.into()]
    };
    let refuses = |prompt, causes: &[&str]| {
        folder.refuses(&generate(prompt).each_ref().map(|a| &**a), causes)
    };
    refuses("a", &["tokenizer.json is missing; put"]);
    folder.write("tokenizer.json", "{}");
    refuses("a", &["tokenizer.json", "not a tokenizer"]);
    folder.tokenizer(500);
    refuses("a zebra", &["token id 500 at position 2", "vocabulary of 96"]);
    let latin = folder.write("latin.txt", b"a caf\xe9");
    folder.refuses(
        &["generate", &folder.path(""), "--prompt-file", &latin],
        &["latin.txt", "not UTF-8 at byte 5"],
    );
}

#[test]
fn bad_models() {
    const FILE: &str = "model.safetensors";
    const NORM: &str = "backbone.norm_f.weight";
    let inspect =
        |folder: &Folder, causes: &[&str]| folder.refuses(&["inspect", &folder.path("")], causes);
    let spoilt = |change: fn(&mut BTreeMap<String, Tensor>), causes: &[&str]| {
        let folder = Folder::of("mamba-hf");
        folder.tensors(change);
        inspect(&folder, &[&[FILE], causes].concat());
    };
    let folder = Folder::new();
    inspect(&folder, &["config.json"]);
    folder.write("config.json", "{");
    inspect(&folder, &["config.json", "not a model config"]);
    folder.write("config.json", r#"{"model_type": "mamba"}"#);
    inspect(&folder, &["config.json", "vocab_size"]);

    let folder = Folder::of("mamba-hf");
    fs::remove_file(folder.path(FILE)).unwrap();
    inspect(&folder, &[FILE]);

    let whole = fs::read(Path::new(&fixture("mamba-hf")).join(FILE)).unwrap();
    for len in [0, 4, 7, 100, whole.len() / 2, whole.len() - 1] {
        let folder = Folder::of("mamba-hf");
        folder.write(FILE, &whole[..len]);
        inspect(&folder, &[FILE]);
    }
    // A header that claims to be longer than the file, or tensors that lie outside it.
    let mut lies = whole.clone();
    lies[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    folder.write(FILE, &lies);
    inspect(&folder, &[FILE]);
    let header = usize::try_from(u64::from_le_bytes(whole[..8].try_into().unwrap())).unwrap();
    let mut json: Value = serde_json::from_slice(&whole[8..8 + header]).unwrap();
    json[NORM]["data_offsets"][1] = json!(1u64 << 40);
    let json = json.to_string();
    let mut lies = (json.len() as u64).to_le_bytes().to_vec();
    lies.extend(json.bytes());
    lies.extend(&whole[8 + header..]);
    folder.write(FILE, &lies);
    inspect(&folder, &[FILE]);

    spoilt(|t| drop(t.remove(NORM)), &[NORM, "missing"]);
    spoilt(
        |t| drop(t.insert("surplus.weight".into(), Tensor(Dtype::F32, vec![1], vec![0; 4]))),
        &["surplus.weight"],
    );
    spoilt(
        |t| drop(t.insert(NORM.into(), Tensor(Dtype::F32, vec![47], vec![0; 188]))),
        &[NORM, "[47]", "[48]"],
    );
    spoilt(|t| drop(t.insert(NORM.into(), Tensor(Dtype::I64, vec![48], vec![0; 384]))), &[NORM]);
    spoilt(
        |t| t.get_mut(NORM).unwrap().2[20..24].copy_from_slice(&f32::NAN.to_le_bytes()),
        &[NORM, "NaN", "element 5"],
    );
    spoilt(
        |t| {
            let table = &mut t.get_mut("backbone.embeddings.weight").unwrap().2;
            table[..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
        },
        &["backbone.embeddings.weight", "infinite"],
    );
}

#[test]
fn bad_plans_and_calibrations() {
    let folder = Folder::new();
    let text = folder.write("text.txt", text(2000));
    let other = plan("mamba1-tiny");
    let model = "builtin:mamba2-tiny";
    for args in [
        &["generate", model, "--prompt", "a", "--plan", &other][..],
        &["ppl", model, "--lengths", "256", "--text", &text, "--plan", &other],
        &["passkey", model, "--lengths", "256", "--text", &text, "--plan", &other],
    ] {
        folder.refuses(args, &["mamba1-tiny", "made from model mamba1", "model mamba2"]);
    }
    // The same shape, other weights.
    let good = fs::read(plan("mamba2-tiny")).unwrap();
    let half = folder.write("half.plan", &good[..good.len() / 2]);
    folder.refuses(&["channels", &half], &["half.plan"]);
    folder.refuses(&["generate", model, "--prompt", "a", "--plan", &half], &["half.plan"]);
    let hf = Folder::of("mamba2-hf");
    hf.tokenizer(90);
    hf.refuses(
        &["generate", &hf.path(""), "--prompt", "a", "--method", "longmamba"],
        &["--plan", "calibrate"],
    );
    hf.refuses(
        &["generate", &hf.path(""), "--prompt", "a", "--theta", "0.1"],
        &["--theta", "--plan"],
    );

    let calibrate = |more: &[&str], causes: &[&str]| {
        let out = folder.path("made.plan");
        let args = [&["calibrate", model, "--text", &*text, "--out", &*out], more].concat();
        folder.refuses(&args, causes);
    };
    calibrate(&["--train-len", "3k"], &["text.txt", "3000"]);
    calibrate(&["--clamp", "0"], &["clamp"]);
    calibrate(&["--clamp", "101"], &["clamp"]);
    calibrate(&["--windows", "0"], &["--windows"]);
    calibrate(&["--theta", "nan"], &["--theta"]);
    calibrate(&["--lengths", "2k,1k"], &["strictly ascending"]);
    calibrate(&["--aggregate", "median"], &["--aggregate"]);
    let out = folder.path("no/made.plan");
    folder.refuses(&["calibrate", model, "--text", &text, "--out", &out], &["--out", "no folder"]);
    let missing = folder.path("nothing.txt");
    let out = folder.path("made.plan");
    folder.refuses(&["calibrate", model, "--text", &missing, "--out", &out], &["nothing.txt"]);
    hf.refuses(&["calibrate", &hf.path(""), "--text", &text, "--out", &out], &["--train-len"]);
}

#[test]
fn verify_tells_right_from_wrong() {
    for name in ["mamba-hf", "mamba2-hf", "mamba2-hf-groups"] {
        let report = json_of(&["verify", &fixture(name), "--json"]);
        assert_eq!(report["passed"], true);
        assert!(report["report"]["cases"].as_array().unwrap().len() >= 5);
        assert_eq!(report["report"]["greedy"]["passed"], true);
    }
    let golden = Path::new(&fixture("mamba2-hf")).join("golden.safetensors");
    let output =
        longmamba(&["verify", &fixture("mamba2-hf-groups"), "--golden", golden.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("FAILED"));
    assert!(output.stderr.is_empty());
}

#[test]
fn calibrate_then_use_the_plan() {
    let folder = Folder::new();
    let text = folder.write("text.txt", text(4000));
    let out = folder.path("made.plan");
    let made = json_of(&[
        "calibrate",
        "builtin:mamba2-tiny",
        "--text",
        &text,
        "--windows",
        "3",
        "--aggregate",
        "avg",
        "--out",
        &out,
        "--json",
    ]);
    assert_eq!((&made["windows"], &made["channels"]), (&json!(3), &json!(48)));
    let channels = json_of(&["channels", &out, "--json"]);
    assert_eq!(channels["global"], made["global"]);
    let counted: usize = channels["histogram"]["counts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c.as_u64().unwrap() as usize)
        .sum();
    assert_eq!(counted as u64 + channels["histogram"]["below"].as_u64().unwrap(), 48);
    let none = json_of(&["channels", &out, "--theta", "1", "--json"]);
    assert_eq!(none["global"], 0);

    let ppl = json_of(&[
        "ppl",
        "builtin:mamba2-tiny",
        "--text",
        &text,
        "--lengths",
        "256,1k",
        "--windows",
        "2",
        "--plan",
        &out,
        "--json",
    ]);
    let rows = ppl["rows"].as_array().unwrap();
    let methods: Vec<&str> = rows.iter().map(|r| r["method"].as_str().unwrap()).collect();
    assert_eq!(methods, ["vanilla", "longmamba", "vanilla", "longmamba"]);
    // Up to the training length nothing is filtered.
    assert_eq!(rows[0]["nll"], rows[1]["nll"]);
    assert_ne!(rows[2]["nll"], rows[3]["nll"]);
    for row in rows {
        let bits = row["nll"].as_f64().unwrap() / std::f64::consts::LN_2;
        assert!((row["bits_per_byte"].as_f64().unwrap() - bits).abs() < 1e-9);
        assert!(
            (row["perplexity"].as_f64().unwrap() - row["nll"].as_f64().unwrap().exp()).abs() < 1e-9
        );
    }
}

#[test]
fn json_of_the_other_commands() {
    let folder = Folder::new();
    let text = folder.write("text.txt", text(3000));
    let inspect = json_of(&["inspect", "builtin:mamba1-tiny", "--json"]);
    assert_eq!((&inspect["family"], &inspect["train_len"]), (&json!("mamba1"), &json!(256)));

    let file = json_of(&[
        "generate",
        "builtin:mamba2-tiny",
        "--prompt-file",
        &text,
        "--max-new",
        "5",
        "--json",
    ]);
    assert_eq!(file["prompt_tokens"], fs::metadata(&text).unwrap().len());
    assert_eq!((&file["method"], &file["new_tokens"]), (&json!("longmamba"), &json!(5)));
    for number in ["prefill_tokens_per_second", "decode_tokens_per_second"] {
        assert!(file[number].as_f64().unwrap() > 0.0);
    }
    if cfg!(target_os = "linux") {
        assert!(file["peak_memory_bytes"].as_u64().unwrap() > 1 << 20);
    }
    // A prompt in blocks from a file, and whole from the command line, goes on the same way.
    let whole = fs::read_to_string(&text).unwrap();
    let argument = json_of(&[
        "generate",
        "builtin:mamba2-tiny",
        "--prompt",
        &whole,
        "--max-new",
        "5",
        "--json",
    ]);
    assert_eq!(file["text"], argument["text"]);

    let passkey = json_of(&[
        "passkey",
        "builtin:mamba1-tiny",
        "--lengths",
        "100,256",
        "--depths",
        "0,1",
        "--prompts",
        "2",
        "--json",
        "--method",
        "vanilla",
        "--threads",
        "1",
    ]);
    assert_eq!(passkey["task"], "recall");
    assert_eq!(passkey["rows"].as_array().unwrap().len(), 4);
}

#[test]
fn a_model_with_a_tokenizer_file() {
    let folder = Folder::of("mamba2-hf");
    folder.tokenizer(90);
    let model = folder.path("");
    let text = folder.write("text.txt", text(3000));
    let ppl = json_of(&["ppl", &model, "--text", &text, "--lengths", "300", "--json"]);
    let row = &ppl["rows"][0];
    // A token is a byte here too, which the tokenizer's offsets say.
    assert!(
        (row["bits_per_byte"].as_f64().unwrap()
            - row["nll"].as_f64().unwrap() / std::f64::consts::LN_2)
            .abs()
            < 1e-9
    );
    let passkey = json_of(&["passkey", &model, "--lengths", "300", "--prompts", "1", "--json"]);
    assert_eq!(passkey["task"], "number");
    assert_eq!(passkey["rows"].as_array().unwrap().len(), 5);
    let sampled = |seed: &str| {
        let args = [
            "generate",
            &*model,
            "--prompt",
            "A lamp",
            "--temperature",
            "1",
            "--seed",
            seed,
            "--json",
        ];
        json_of(&args)["text"].clone()
    };
    assert_eq!(sampled("1"), sampled("1"));
    assert_ne!(sampled("1"), sampled("2"));
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let folder = Folder::new();
    let text = folder.write("text.txt", text(3000));
    let nlls = |threads: &str| {
        let args = [
            "ppl",
            "builtin:mamba2-tiny",
            "--text",
            &*text,
            "--lengths",
            "512",
            "--threads",
            threads,
            "--json",
        ];
        let rows = json_of(&args)["rows"].clone();
        rows.as_array().unwrap().iter().map(|r| r["nll"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(nlls("1"), nlls("3"));
}

#[test]
fn demo_prints_its_json_and_draws() {
    let folder = Folder::new();
    let plot = folder.path("demo.svg");
    let demo = json_of(&["demo", "--json", "--samples", "1", "--plot", &plot]);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&demo), ["models"]);
    let models = demo["models"].as_array().unwrap();
    let names: Vec<&str> = models.iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["mamba2-tiny", "mamba1-tiny"]);
    for model in models {
        assert_eq!(keys(model), ["name", "rows", "train_len"]);
        let rows = model["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 12);
        assert!(
            rows.last().unwrap()["length"].as_u64() >= model["train_len"].as_u64().map(|l| 32 * l)
        );
        for row in rows {
            assert_eq!(
                keys(row),
                ["bits_per_byte", "length", "method", "passkey", "tokens_per_second"]
            );
            assert!((0.0..=1.0).contains(&row["passkey"].as_f64().unwrap()));
            assert!((0.5..8.0).contains(&row["bits_per_byte"].as_f64().unwrap()));
        }
    }
    let svg = fs::read_to_string(&plot).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    for text in
        ["mamba1-tiny, vanilla", "mamba2-tiny, LongMamba", "8192", "training length", "chance"]
    {
        assert!(svg.contains(text), "{text}");
    }
    assert_eq!(folder.listing().into_keys().collect::<Vec<_>>(), ["demo.svg"]);
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let spawn = |args: &[&str]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_longmamba"))
            .args(args.iter().map(OsStr::new))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    };
    spawn(&["generate", "builtin:mamba2-tiny", "--prompt", "The ", "--max-new", "300"]);
    spawn(&["channels", "builtin:mamba2-tiny"]);
    spawn(&["inspect", "builtin:mamba2-tiny", "--json"]);
    spawn(&["--help"]);
}
