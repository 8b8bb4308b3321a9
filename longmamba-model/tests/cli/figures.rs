//! The pictures that look into a model: hidden attention and cumulative decay.

use crate::folder::{Folder, json_of, longmamba, text};
use serde_json::{Value, json};
use std::fs;

fn rows<'a>(result: &'a Value, name: &str) -> &'a Vec<Value> {
    result[name].as_array().unwrap()
}

/// The picture of a command, which is also that of what it prints.
fn drawn(folder: &Folder, command: &[&str], result: &Value) -> String {
    let [svg, again, file] = ["p.svg", "again.svg", "result.json"].map(|name| folder.path(name));
    let printed = longmamba(&[command, &["--plot", &svg]].concat());
    assert_eq!(printed.status.code(), Some(0), "{}", String::from_utf8_lossy(&printed.stderr));
    folder.write("result.json", result.to_string());
    json_of(&["plot", &file, "--out", &again, "--json"]);
    let svg = fs::read_to_string(svg).unwrap();
    assert_eq!(fs::read_to_string(again).unwrap(), svg);
    svg
}

#[test]
fn attention_of_the_most_global_channel() {
    let folder = Folder::new();
    let text = folder.write("text.txt", text(2000));
    for model in ["builtin:mamba2-tiny", "builtin:mamba1-tiny"] {
        let command = ["attention", model, "--text", &text, "--lengths", "100,1k"];
        let result = json_of(&[&command[..], &["--json"]].concat());
        assert_eq!(result["global"], true);
        let channels = json_of(&["channels", model, "--json"]);
        let scores =
            rows(&channels, "layers").iter().map(|l| l["log10_scores"].as_array().unwrap());
        let scores: Vec<Vec<f64>> =
            scores.map(|l| l.iter().map(|s| s.as_f64().unwrap()).collect()).collect();
        let highest = scores.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
        let [layer, channel] =
            ["layer", "channel"].map(|name| result[name].as_u64().unwrap() as usize);
        assert_eq!(scores[layer][channel], highest);

        let maps = rows(&result, "maps");
        let shown: Vec<(&str, u64)> = maps
            .iter()
            .map(|m| (m["method"].as_str().unwrap(), m["length"].as_u64().unwrap()))
            .collect();
        let expected =
            [("vanilla", 100), ("longmamba", 100), ("vanilla", 1000), ("longmamba", 1000)];
        assert_eq!(shown, expected);
        // Up to the training length nothing is dropped, past it something is.
        assert_eq!(maps[0]["log10"], maps[1]["log10"]);
        assert_ne!(maps[2]["log10"], maps[3]["log10"]);
        for (map, row) in maps.iter().zip(rows(&result, "rows")) {
            let values = rows(map, "log10").iter().flat_map(|row| row.as_array().unwrap());
            let values: Vec<f64> = values.map(|v| v.as_f64().unwrap()).collect();
            assert!(values.iter().all(|v| (-3.0..=0.0).contains(v)) && values.contains(&0.0));
            assert_eq!(map["reach"].as_array().unwrap().last(), Some(&row["receptive_field"]));
        }

        let svg = drawn(&folder, &command, &result);
        let title = format!("{model}: hidden attention of layer {layer}, channel {channel}");
        for text in [
            &*title,
            "vanilla, 100 tokens",
            "longmamba, 1000 tokens",
            "token that attends",
            "log10 of",
        ] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(svg.len() < 4 << 20, "{} bytes", svg.len());
    }
}

#[test]
fn decay_goes_on_past_the_training_length_but_for_longmamba() {
    let folder = Folder::new();
    let text = folder.write("text.txt", text(2500));
    for model in ["builtin:mamba2-tiny", "builtin:mamba1-tiny"] {
        let command = ["decay", model, "--text", &text, "--lengths", "256,2k", "--channels", "3"];
        let result = json_of(&[&command[..], &["--json"]].concat());
        assert_eq!(result["train_len"], 256);
        let last = |method: &str, length: u64| -> Vec<f64> {
            let of = |r: &&Value| r["method"] == method && r["length"] == length;
            let found = rows(&result, "rows").iter().filter(of);
            found.map(|row| row["log10_decay"].as_f64().unwrap()).collect()
        };
        assert_eq!(last("vanilla", 256), last("longmamba", 256));
        assert_eq!(last("vanilla", 2000).len(), 3);
        for (plain, kept) in last("vanilla", 2000).into_iter().zip(last("longmamba", 2000)) {
            assert!(plain < kept && kept <= 0.0, "{plain} {kept}");
        }
        // The channels are global, and not of one layer.
        let channels = json_of(&["channels", model, "--json"]);
        let theta = channels["theta"].as_f64().unwrap().log10();
        let place = |row: &Value| ["layer", "channel"].map(|n| row[n].as_u64().unwrap() as usize);
        let mut places: Vec<[usize; 2]> = rows(&result, "rows").iter().map(place).collect();
        for [layer, channel] in &places {
            let score = &channels["layers"][*layer]["log10_scores"][*channel];
            assert!(score.as_f64().unwrap() > theta, "layer {layer}, channel {channel}");
        }
        places.sort_unstable();
        places.dedup();
        assert!(places.len() == 3 && places[0][0] < places[2][0], "{places:?}");
        let curve = &rows(&result, "curves")[0];
        assert_eq!(rows(curve, "tokens").len(), 256);
        assert_eq!(rows(curve, "log10").len(), 256);

        let svg = drawn(&folder, &command, &result);
        let shown =
            ["cumulative decay", "2000 tokens", "longmamba", "vanilla", "training length", "1e-1"];
        for text in shown {
            assert!(svg.contains(text), "{text}");
        }
    }
}

#[test]
fn looking_where_there_is_nothing() {
    let folder = Folder::new();
    let text = folder.write("text.txt", text(300));
    let [plot, model] = [&folder.path("p.svg"), "builtin:mamba2-tiny"];
    let refuses = |command: &str, more: &[&str], causes: &[&str]| {
        let common = [command, model, "--text", &text, "--plot", plot];
        folder.refuses(&[&common[..], more].concat(), causes);
    };
    refuses("attention", &["--lengths", "100,5k"], &["5000 tokens", "text.txt"]);
    refuses("decay", &["--lengths", "5k"], &["5000 tokens", "text.txt"]);
    refuses("attention", &["--lengths", "99", "--layer", "4"], &["--layer", "4 layers"]);
    let far = ["--lengths", "99", "--layer", "1", "--channel", "12"];
    refuses("attention", &far, &["no channel 12", "12 channels"]);
    refuses("decay", &["--lengths", "99", "--theta", "1"], &["no channel", "global"]);
    refuses("decay", &["--lengths", "99", "--layer", "9"], &["layer 9"]);
    // A picture of numbers that do not go together is drawn as far as they do.
    let odd = json!({
        "evaluation": "attention", "model": "m", "layer": 0, "channel": 0,
        "maps": [{ "method": "a", "length": 0, "queries": [usize::MAX, 1], "keys": [],
            "log10": [[], [5.0, -9.0, 0.0]], "reach": [usize::MAX, null] }]
    });
    let odd = folder.write("odd.json", odd.to_string());
    json_of(&["plot", &odd, "--out", plot, "--json"]);
}
