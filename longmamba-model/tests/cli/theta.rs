//! `tune --method longmamba`: which θ is chosen, what is recorded, what is refused.

use crate::folder::{Folder, json_of, longmamba, text};
use longmamba_model::policy::Gap;
use longmamba_model::write_plan;
use serde_json::Value;
use std::fs;
use std::path::Path;

const MODEL: &str = "builtin:mamba2-tiny";

fn tune<'a>(
    text: &'a str,
    out: &'a str,
    [labels, evaluations]: [&'a str; 2],
    more: &[&'a str],
) -> Vec<&'a str> {
    let tune = ["tune", MODEL, "--method", "longmamba", "--text", text, "--lengths", "300,600"];
    let short = ["--windows", "2", "--labels", labels, "--evaluations", evaluations];
    [&tune[..], &short, &["--out", out, "--json"], more].concat()
}

/// The rows of all θ that may be chosen, and nll.
fn candidates(result: &Value, allow_cliff: bool) -> Vec<(u64, f64)> {
    let rows = result["rows"].as_array().unwrap().iter();
    let may = rows.filter(|r| r["stopped"] == false && (allow_cliff || r["near_cliff"] == false));
    may.map(|r| (r["global"].as_u64().unwrap(), r["nll"].as_f64().unwrap())).collect()
}

#[test]
fn the_best_theta_is_in_the_new_plan() {
    let folder = Folder::new();
    let text = folder.write("text.txt", text(4000));
    let [out, run, svg] = ["new.plan", "run", "sweep.svg"].map(|name| folder.path(name));
    let command = tune(&text, &out, ["50", "6"], &["--run", &run, "--plot", &svg]);
    let result = json_of(&command);
    let rows = result["rows"].as_array().unwrap();
    assert!((2..=6).contains(&rows.len()));
    assert_eq!(rows[0]["global"], 16, "the plan's own θ is the first");
    let best = candidates(&result, false).into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let chosen = &result["chosen"];
    assert_eq!((chosen["global"].as_u64(), chosen["nll"].as_f64()), (Some(best.0), Some(best.1)));
    assert_eq!(rows.iter().filter(|row| row["chosen"] == true).count(), 1);

    // The file has that θ, and is otherwise the plan that it was.
    let [new, old] = [&*out, MODEL].map(|plan| json_of(&["channels", plan, "--json"]));
    assert_eq!((&new["theta"], &new["global"]), (&chosen["theta"], &chosen["global"]));
    assert_eq!(new["near_cliff"], false);
    assert_eq!(
        (&new["layers"][0]["log10_scores"], &new["lengths"]),
        (&old["layers"][0]["log10_scores"], &old["lengths"])
    );

    // It is what `ppl` measures with that θ.
    let ppl = ["ppl", MODEL, "--text", &text, "--lengths", "300,600", "--windows", "2", "--json"];
    let ppl =
        json_of(&[&ppl[..], &["--labels", "50", "--method", "longmamba", "--plan", &out]].concat());
    for (row, length) in ppl["rows"].as_array().unwrap().iter().zip(0..) {
        let (there, here) = (&row["nll"], &chosen["lengths"][length]["nll"]);
        assert!((there.as_f64().unwrap() - here.as_f64().unwrap()).abs() < 1e-12);
    }

    // A window's line lost, the run goes on to the same end.
    assert!(fs::read_to_string(&svg).unwrap().contains("chosen"));
    let lines = Path::new(&run).join("plan-0/global-16.jsonl");
    let whole = fs::read(&lines).unwrap();
    fs::write(&lines, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(json_of(&command)["rows"], result["rows"]);
    assert_eq!(fs::read(&lines).unwrap(), whole);
    assert!(Path::new(&run).join("result.json").is_file());
    folder.refuses(&tune(&text, &out, ["40", "6"], &["--run", &run]), &["labels", "40", "50"]);
}

#[test]
fn clamps_are_calibrated_and_tried() {
    let folder = Folder::new();
    let (held_out, other) = (folder.write("held-out.txt", text(3000)), text(9000));
    let calibrate = folder.write("calibrate.txt", &other[3000..]);
    let out = folder.path("new.plan");
    let clamps = ["--clamp", "5,20", "--calibrate-text", &calibrate];
    let result = json_of(&tune(&held_out, &out, ["50", "3"], &clamps));
    let rows = result["rows"].as_array().unwrap();
    for clamp in [5.0, 20.0] {
        let tried = rows.iter().filter(|row| row["clamp_percent"] == clamp).count();
        assert!((1..=3).contains(&tried), "{clamp}");
    }
    let new = json_of(&["channels", &out, "--json"]);
    assert_eq!(new["clamp_percent"], result["chosen"]["clamp_percent"]);
}

#[test]
fn a_theta_beside_a_cliff_is_taken_only_if_allowed() {
    let folder = Folder::new();
    let text = folder.write("text.txt", text(3000));
    let out = folder.path("new.plan");
    // One evaluation is that of the plan's θ: with one beside a cliff there is nothing to choose.
    let plan = longmamba_model::builtin::find("mamba2-tiny").unwrap().plan().unwrap();
    let scores = plan.layers().iter().flat_map(|layer| layer.log_scores.iter().copied());
    let narrow = Gap::all(scores).into_iter().find(Gap::near_cliff).unwrap();
    let file = folder.path("narrow.plan");
    write_plan(&plan.with_theta(narrow.theta()).unwrap(), Path::new(&file)).unwrap();
    let command = tune(&text, &out, ["50", "1"], &["--plan", &file]);
    let refused = longmamba(&command);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--allow-cliff"));
    assert!(!Path::new(&out).exists());
    let told: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!((&told["chosen"], &told["passed_over"]["near_cliff"]), (&Value::Null, &true.into()));
    assert!(told["why"].as_str().unwrap().contains("beside a cliff"));

    let allowed = json_of(&[&command[..], &["--allow-cliff"]].concat());
    assert_eq!(
        (&allowed["chosen"]["near_cliff"], &allowed["passed_over"]),
        (&true.into(), &Value::Null)
    );
    assert!(Path::new(&out).exists());
}

#[test]
fn what_cannot_be_searched_is_refused() {
    let folder = Folder::new();
    let text = folder.write("text.txt", text(2000));
    let out = folder.path("new.plan");
    let method = |method| ["tune", MODEL, "--text", &*text, "--out", &*out, "--method", method];
    let longmamba = method("longmamba");
    for (more, causes) in [
        (&[][..], &["--lengths"][..]),
        (&["--lengths", "150,256"], &["--lengths", "256", "filters nothing"]),
        (&["--lengths", "300,4k"], &["4000", "the longest has"]),
        (&["--lengths", "300", "--length", "300"], &["--length "]),
        (&["--lengths", "300", "--seed", "1"], &["--seed"]),
        (&["--lengths", "300", "--margin", "-1"], &["margin", "-1"]),
        (&["--lengths", "300", "--margin", "nan"], &["margin", "NaN"]),
        (&["--lengths", "300", "--clamp", "5"], &["--calibrate-text"]),
        (&["--lengths", "300", "--clamp", "0", "--calibrate-text", &text], &["--clamp"]),
        (&["--lengths", "300", "--evaluations", "0"], &["--evaluations"]),
        (&["--lengths", "300", "--plan", "nothing.plan"], &["nothing.plan"]),
        (&["--lengths", "300", "--plot", "sweep.txt"], &["--plot", ".svg"]),
    ] {
        folder.refuses(&[&longmamba[..], more].concat(), causes);
    }
    let modulation = method("modulation");
    folder.refuses(&modulation, &["--length is missing"]);
    folder.refuses(
        &[&modulation[..], &["--length", "300", "--allow-cliff"]].concat(),
        &["--allow-cliff"],
    );
}
