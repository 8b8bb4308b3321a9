//! Answers read off a prompt in this library's own words, by nothing but what stands in it.

use longmamba_model::eval::ruler::{Kind, Niah, Source, Task, Word};
use std::collections::HashMap;

pub fn solve(task: &Task, prompt: &str) -> Vec<String> {
    match task.kind {
        Kind::Niah(niah) => needles(niah, prompt),
        Kind::VariableTracking => variables(prompt),
        Kind::CommonWords => {
            let (_, question) = prompt.rsplit_once("\nHere is a list").unwrap();
            let list = question.split('\n').nth(1).unwrap();
            let words: Vec<&str> = list.split(' ').skip(1).step_by(2).collect();
            let numbers = list.split(' ').step_by(2).enumerate();
            assert!(numbers.clone().all(|(i, n)| n == format!("{}.", i + 1)));
            assert_eq!(words.len(), numbers.count());
            most_frequent(&words, 10)
        }
        Kind::FrequentWords => {
            let text = prompt.split('\n').next().unwrap();
            let (_, text) = text.split_once("most often. ").unwrap();
            let words: Vec<&str> = text.split(' ').filter(|word| *word != "...").collect();
            most_frequent(&words, 3)
        }
        Kind::Qa(source) => {
            let numbers = prompt.matches("Document ").count();
            assert!((1..=numbers).all(|n| prompt.contains(&format!("\n\nDocument {n}:\n"))));
            let (_, question) = prompt.rsplit_once("\n\nQuestion: ").unwrap();
            let place = between(question, "ayor of ", [' ', '?']);
            let mayor = between(prompt, &format!("The mayor of {place} is "), ['.', '\n']);
            match source {
                Source::HotpotQa => {
                    vec![between(prompt, &format!("{mayor} was born in "), ['.', '\n']).into()]
                }
                _ => vec![mayor.into()],
            }
        }
    }
}

fn needles(niah: Niah, prompt: &str) -> Vec<String> {
    let kind = match niah.value {
        Word::Words => "words",
        Word::Number => "numbers",
        Word::Uuid => "uuids",
    };
    let (context, question) = prompt.rsplit_once("\nWhat ").unwrap();
    let (verb, noun) = match niah.values * niah.queries {
        1 => ("is the", kind.trim_end_matches('s')),
        _ => ("are all the", kind),
    };
    let question = question.strip_prefix(&format!("{verb} secret {noun} that ")).unwrap();
    let asked = between(question, "tells for ", ['?', '\n']);
    let keys: Vec<&str> = asked.split(", ").map(|k| k.trim_start_matches("and ")).collect();
    assert_eq!(keys.len(), niah.queries);
    let lines = context.matches(&format!("Among the secret {kind} for ")).count();
    assert!(lines >= niah.keys.max(niah.queries) * niah.values);
    keys.iter()
        .flat_map(|key| {
            let told = format!("Among the secret {kind} for {key} is this one: ");
            let values: Vec<String> =
                context.split(&told).skip(1).map(|v| v.split('.').next().unwrap().into()).collect();
            assert_eq!(values.len(), niah.values, "{key}");
            values
        })
        .collect()
}

fn variables(prompt: &str) -> Vec<String> {
    let (_, sample) = prompt.rsplit_once("The text below sets variables").unwrap();
    let (context, question) = sample.rsplit_once("\nQuestion: ").unwrap();
    let asked = between(question, "the value ", [' ', '?']);
    let mut values = HashMap::<&str, &str>::new();
    let mut order = Vec::new();
    for line in context.split('\n').filter_map(|line| line.strip_prefix("VAR ")) {
        let (name, value) = line.split_once(" = ").unwrap();
        let value = match value.strip_prefix("VAR ") {
            Some(other) => values[other.trim_end()],
            None => value,
        };
        assert!(values.insert(name, value).is_none());
        order.push(name);
    }
    order.into_iter().filter(|name| values[name] == asked).map(str::to_owned).collect()
}

/// The words that come most often, clearly more often than the next one.
fn most_frequent(words: &[&str], count: usize) -> Vec<String> {
    let mut times = HashMap::<&str, usize>::new();
    for word in words {
        *times.entry(word).or_default() += 1;
    }
    let mut order: Vec<(&str, usize)> = times.into_iter().collect();
    order.sort_by_key(|&(_, times)| std::cmp::Reverse(times));
    if let (Some(last), Some(next)) = (order.get(count - 1), order.get(count)) {
        assert!(last.1 > next.1, "{order:?}");
    }
    order.into_iter().take(count).map(|(word, _)| word.to_owned()).collect()
}

/// What stands after the first `before`, up to one of `ends`.
fn between<'t>(text: &'t str, before: &str, ends: [char; 2]) -> &'t str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no {before:?} in {text}"));
    rest.split(ends).next().unwrap()
}
