//! What the commands print where all is well.

use crate::folder::{Folder, fixture, json_of, longmamba, text};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const COMMANDS: &[&str] = &[
    "demo",
    "inspect",
    "verify",
    "calibrate",
    "channels",
    "attention",
    "decay",
    "generate",
    "methods",
    "tune",
    "ppl",
    "passkey",
    "longbench",
    "score",
    "latency",
    "plot",
    "report",
    "ruler",
    "convert",
    "import-plan",
];

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
fn every_method_at_growing_lengths() {
    let folder = Folder::new();
    let (text, model) = (folder.write("text.txt", text(4000)), "builtin:mamba2-tiny");
    let mut files = Vec::new();
    for method in ["mambaextend", "modulation"] {
        let out = folder.path(method);
        let tuned = json_of(&[
            "tune",
            model,
            "--method",
            method,
            "--text",
            &text,
            "--length",
            "300",
            "--windows",
            "1",
            "--steps",
            "2",
            "--out",
            &out,
            "--json",
        ]);
        assert_eq!(tuned["factors"].as_array().unwrap().len(), 4);
        assert_eq!(tuned["path"].as_array().unwrap().len(), 3);
        assert!(tuned["nll_after"].as_f64() <= tuned["nll_before"].as_f64());
        files.push(out);
    }
    let all = "vanilla,longmamba,decimamba,mambaextend,modulation,winsorize:low=20:high=80,lamb";
    let ppl = json_of(&[
        "ppl",
        model,
        "--text",
        &text,
        "--lengths",
        "256,1k",
        "--windows",
        "1",
        "--method",
        all,
        "--method-file",
        &files[0],
        &files[1],
        "--json",
    ]);
    let rows = ppl["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|r| r["method"].as_str().unwrap()).collect();
    assert_eq!(names, [all, all].join(",").split(',').collect::<Vec<_>>());
    let nll = |row: usize| rows[row]["nll"].as_f64().unwrap();
    // At the training length only what changes A or Δ changes anything; past it, all do.
    for row in [1, 2, 6] {
        assert_eq!(nll(row), nll(0), "{}", names[row]);
    }
    for (row, name) in names.iter().enumerate().skip(8) {
        assert!(nll(row) != nll(7) && (0.5..5.0).contains(&nll(row)), "{name}");
    }

    let generated = json_of(&[
        "generate",
        model,
        "--prompt-file",
        &text,
        "--method",
        "decimamba",
        "--max-new",
        "3",
        "--json",
    ]);
    assert_eq!((&generated["method"], &generated["new_tokens"]), (&json!("decimamba"), &json!(3)));
    assert_eq!(generated["prompt_tokens"], fs::metadata(&text).unwrap().len());

    let listed = json_of(&["methods", "--json"]);
    let listed = listed["methods"].as_array().unwrap();
    let listed: Vec<&str> = listed.iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert!(all.split(',').all(|m| listed.contains(&m.split(':').next().unwrap())));
    assert_eq!(listed.len(), 7);
}

#[test]
fn a_protocol_leaves_out_what_no_text_has() {
    let folder = Folder::new();
    let text = folder.write("text.txt", text(1100));
    // A length with windows, and one without.
    let run = |more: &[&str]| {
        let args = ["ppl", "builtin:mamba2-tiny", "--text", &text, "--json", "--method", "vanilla"];
        json_of(&[&args, more].concat())["rows"].as_array().unwrap().clone()
    };
    let (protocol, own) = (run(&["--protocol", "decimamba"]), run(&["--lengths", "1k"]));
    assert_eq!((protocol.len(), own.len()), (1, 1));
    assert_eq!(protocol[0]["length"], 1000);
    assert_eq!(protocol[0]["windows"], own[0]["windows"]);
    assert_eq!(protocol[0]["nll"], own[0]["nll"]);
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
fn latency_has_all_methods_and_lengths() {
    let folder = Folder::new();
    let text = folder.write("text.txt", text(700));
    let model = ["latency", "builtin:mamba2-tiny", "--text", &text, "--lengths", "100,600"];
    let latency = json_of(&[&model[..], &["--rounds", "3", "--json"]].concat());
    let rows = latency["rows"].as_array().unwrap();
    let shown: Vec<_> =
        rows.iter().map(|r| (r["method"].as_str().unwrap(), &r["length"])).collect();
    let [short, long] = [json!(100), json!(600)];
    let methods = ["vanilla", "longmamba"];
    assert_eq!(
        shown,
        [(methods[0], &short), (methods[1], &short), (methods[0], &long), (methods[1], &long)]
    );
    assert!(rows.iter().all(|row| row["seconds"].as_array().unwrap().len() == 3));
    assert_eq!(rows[2]["ratio"], 1.0);
    folder.refuses(&[&model[..4], &["--lengths", "800"]].concat(), &["800 tokens", "the text has"]);
}

/// Width, height, and how many different colours.
fn png(path: &str) -> (u32, u32, usize) {
    let decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(path).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    let colours: std::collections::BTreeSet<&[u8]> = pixels.chunks_exact(3).collect();
    (info.width, info.height, colours.len())
}

#[test]
fn pictures_of_the_other_commands() {
    let folder = Folder::new();
    let text = folder.write("text.txt", text(3000));
    let [svg, picture] = ["p.svg", "p.png"].map(|name| folder.path(name));
    let lengths = ["--text", &text, "--lengths", "256,512"];
    let model = "builtin:mamba2-tiny";
    for (command, shows) in [
        (&["channels", model][..], &["θ = 5e-2: 16 of 48 are global", "log10"][..]),
        (
            &[&["ppl", model, "--windows", "2"], &lengths[..]].concat(),
            &["longmamba", "512", "perplexity"],
        ),
        (
            &[&["passkey", model, "--prompts", "1"], &lengths[..]].concat(),
            &["vanilla", "256", "share found"],
        ),
        (
            &[&["passkey", model, "--prompts", "1", "--depths", "0,1"], &lengths[..]].concat(),
            &["vanilla", "256", "depth", "1.00"],
        ),
    ] {
        json_of(&[command, &["--json", "--plot", &svg]].concat());
        let drawn = fs::read_to_string(&svg).unwrap();
        for text in shows {
            assert!(drawn.contains(text), "{command:?}: {text}");
        }
        json_of(&[command, &["--json", "--plot", &picture]].concat());
        // The same, from what was printed.
        let printed = longmamba(&[command, &["--json"]].concat()).stdout;
        if command[0] != "channels" {
            let result = folder.write("result.json", String::from_utf8(printed).unwrap());
            json_of(&["plot", &result, "--out", &folder.path("again.svg"), "--json"]);
            assert_eq!(fs::read_to_string(folder.path("again.svg")).unwrap(), drawn);
        }
        let (width, height, colours) = png(&picture);
        assert!(
            width >= 400 && height >= 100 && colours > 10,
            "{command:?}: {width} x {height}, {colours}"
        );
        folder.refuses(&[command, &["--plot", &folder.path("p.gif")]].concat(), &[".svg or .png"]);
    }
}

#[test]
fn demo_takes_other_lengths() {
    let folder = Folder::new();
    let plot = folder.path("demo.svg");
    let demo = json_of(&["demo", "--json", "--samples", "1", "--lengths", "1,2", "--plot", &plot]);
    for model in demo["models"].as_array().unwrap() {
        let rows = model["rows"].as_array().unwrap().iter();
        let lengths: Vec<u64> = rows.map(|row| row["length"].as_u64().unwrap()).collect();
        assert_eq!(lengths, [256, 256, 512, 512]);
    }
    assert!(fs::read_to_string(&plot).unwrap().contains("512"));
    let output = longmamba(&["demo", "--samples", "1", "--lengths", "1", "--plot", &plot]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("At 1 × the training length, mamba2-tiny"), "{text}");
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
