//! Bad input: exit code 2, a message that names the cause, nothing on stdout, nothing written.

use crate::folder::{Folder, Tensor, fixture, longmamba, plan, text};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

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
        (&["--method", "winsorize:high"], "write key=value"),
        (&["--method", "winsorize:up=1"], "it has low, high"),
        (&["--method", "mambaextend"], "longmamba tune --method mambaextend"),
        (&["--method", "decimamba:last=50:base=9"], "sure to keep the last 50"),
        (&["--method", "decimamba:layers=4"], "there is no layer 4"),
        (&["--method-file", "nothing"], "nothing: "),
        (&["--protocol", "decimamba"], "--protocol"),
        (&["--threads", "0"], "--threads"),
        (&["--unknown-flag"], "--unknown-flag"),
    ] {
        let args = with(more);
        folder.refuses(&args.iter().map(|a| &**a).collect::<Vec<_>>(), &[cause]);
    }
    folder.refuses(&["unknown-command"], &["unknown-command"]);
    folder.refuses(&["inspect", "builtin:nothing"], &["builtin:nothing", "builtin:mamba2-tiny"]);
    folder.refuses(
        &["inspect", &folder.path("nothing")],
        &["nothing is not here", "no such file or folder"],
    );
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
    folder.refuses(&["demo", "--lengths", "2,1"], &["--lengths", "strictly ascending"]);
    folder.refuses(&["demo", "--lengths", "0"], &["--lengths", "is no length"]);
    folder.refuses(&["demo", "--lengths", "1,100k"], &["--lengths", "100000 is too long", "65536"]);
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
    // The same shape, one weight changed.
    let tiny = Folder::of_builtin("mamba2-tiny");
    let own = plan("mamba2-tiny");
    let check = ["generate", &*tiny.path(""), "--prompt", "a", "--max-new", "1", "--plan", &*own];
    assert_eq!(longmamba(&check).status.code(), Some(0));
    tiny.tensors(|t| t.get_mut("backbone.norm_f.weight").unwrap().2[0] ^= 1);
    tiny.refuses(&check, &["mamba2-tiny", "made from model mamba2"]);

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
