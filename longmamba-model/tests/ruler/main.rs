//! RULER's samples: answerable from the prompt, as long as they may be, and built as the official ones are.

mod goldens;
mod solve;

use longmamba_model::eval::ruler::{Count, Generator, Sample, Sources, TASKS, Task, Templates};
use longmamba_model::{Error, Result};
use proptest::prelude::*;
use solve::solve;

/// A word is a token, or a byte is.
fn count(by_words: bool) -> Count<'static> {
    match by_words {
        true => &|text| Ok(text.split_whitespace().count()),
        false => &|text| Ok(text.len()),
    }
}

fn with<T>(
    (task, length, seed, by_words): (&'static Task, usize, u64, bool),
    work: impl FnOnce(Generator<'_>) -> Result<T>,
) -> Result<T> {
    let (templates, sources) = (Templates::own()?, Sources::default());
    work(Generator::new(task, length, seed, &templates, &sources, count(by_words))?)
}

/// What every sample must be.
fn check(sample: &Sample, task: &Task, length: usize, by_words: bool) {
    let prompt = sample.prompt();
    assert_eq!(sample.length, count(by_words)(&prompt).unwrap() + task.tokens_to_generate);
    assert!(sample.length <= length);
    assert_eq!(sample.length_w_model_temp, sample.length);
    assert_eq!(sample.token_position_answer.is_some(), task.name.starts_with("niah"));
    let mut told = solve(task, &prompt);
    let mut expected = sample.outputs.clone();
    // Nothing in the prompt says in what order these are expected.
    if matches!(task.name, "cwe" | "fwe" | "niah_multivalue") {
        told.sort();
        expected.sort();
    }
    assert_eq!(told, expected, "{}: {prompt}", task.name);
    assert!(!expected.is_empty() && !prompt.contains(['{', '}']), "{}", task.name);
    assert!(sample.outputs.iter().all(|output| sample.input.contains(output)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn samples_are_answerable_and_as_long_as_they_may_be(
        task in 0..TASKS.len(),
        length in (8.0f64..=17.0).prop_map(|power| power.exp2() as usize),
        seed: u64,
        index in 0usize..500,
        by_words: bool,
    ) {
        let task = &TASKS[task];
        match with((task, length, seed, by_words), |g| g.sample(index)) {
            Ok(sample) => {
                check(&sample, task, length, by_words);
                prop_assert_eq!(sample.index, index);
                // What a sample shrinks by, at most.
                let unit = if by_words { 600 } else { 4000 };
                // The official sizes of fwe are a thirty-second of the length apart in words, of five bytes each.
                let tenths = if task.name == "fwe" { 8 } else { 9 };
                let least = length * tenths / 10;
                prop_assert!(sample.length + unit > least, "{} of {length}", sample.length);
            }
            Err(Error::TaskLength { task: name, length: asked, smallest, .. }) => {
                prop_assert_eq!((name, asked), (task.name, length));
                prop_assert!(smallest > length && smallest < 8192, "{smallest}");
                let sample = with((task, smallest, seed, by_words), |g| g.sample(index)).unwrap();
                check(&sample, task, smallest, by_words);
            }
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
    }
}

#[test]
fn every_task_at_short_and_long_lengths() {
    for task in &TASKS {
        for (length, by_words) in [(1024, true), (4096, true), (131_072, true), (16_384, false)] {
            let sample = with((task, length, 1, by_words), |g| g.sample(3)).unwrap();
            check(&sample, task, length, by_words);
        }
    }
}

#[test]
fn a_sample_depends_on_its_number_and_the_seed_alone() {
    let samples = |task, seed, indexes: &[usize]| -> Vec<Sample> {
        with((task, 2048, seed, true), |g| indexes.iter().map(|&i| g.sample(i)).collect()).unwrap()
    };
    for task in &TASKS {
        let forward = samples(task, 5, &[0, 1, 2, 3]);
        let mut backward = samples(task, 5, &[3, 2, 1, 0]);
        backward.reverse();
        assert_eq!(forward, backward, "{}", task.name);
        assert_eq!(samples(task, 5, &[2])[0], forward[2]);
        for (a, b) in [(0, 1), (1, 2), (0, 3)] {
            assert_ne!(forward[a].input, forward[b].input, "{}", task.name);
            assert_ne!(forward[a].outputs, forward[b].outputs, "{}", task.name);
        }
        assert_ne!(samples(task, 6, &[0])[0].input, forward[0].input, "{}", task.name);
    }
}

/// Needles lie everywhere, about equally often.
#[test]
fn needles_lie_at_all_depths() {
    for name in ["niah_single_1", "niah_single_2", "niah_multikey_2", "niah_multivalue"] {
        let task = Task::find(name).unwrap();
        let mut tenths = [0usize; 10];
        with((task, 4096, 42, true), |generator| {
            for index in 0..400 {
                let sample = generator.sample(index)?;
                for output in &sample.outputs {
                    let place = sample.input.find(output).unwrap();
                    tenths[place * 10 / sample.input.len()] += 1;
                }
            }
            Ok(())
        })
        .unwrap();
        let each = tenths.iter().sum::<usize>() / 10;
        // Five standard deviations, and less at the ends, where the question is.
        let spread = 5.0 * (each as f64).sqrt();
        let near = |n: &usize| (*n as f64 - each as f64).abs() <= spread;
        assert!(tenths[1..9].iter().all(near), "{name}: {tenths:?}");
        assert!(tenths[0] > each / 2 && tenths[9] > each / 2, "{name}: {tenths:?}");
    }
}

#[test]
fn an_impossible_length_is_an_error_that_says_what_is_possible() {
    for task in &TASKS {
        for length in [0, 1, 64, task.tokens_to_generate, task.tokens_to_generate + 1] {
            let error = with((task, length, 42, false), |g| g.sample(0)).unwrap_err();
            let text = error.to_string();
            let Error::TaskLength { smallest, .. } = error else { panic!("{text}") };
            assert!(text.contains(task.name) && text.contains(&smallest.to_string()), "{text}");
            assert!(text.contains(&format!("does not fit {length} tokens")), "{text}");
            with((task, smallest, 42, false), |g| g.sample(0)).unwrap();
            // That is no overstatement.
            with((task, smallest * 9 / 10, 42, false), |g| g.sample(0)).unwrap_err();
        }
    }
    // What a length has no room for, though a smaller one has: words come more often from 4096 on.
    let cwe = Task::find("cwe").unwrap();
    with((cwe, 4095, 1, false), |g| g.sample(0)).unwrap();
    with((cwe, 4096, 1, false), |g| g.sample(0)).unwrap_err();
}

#[test]
fn errors_of_the_tokenizer_come_through() {
    let (templates, sources) = (Templates::own().unwrap(), Sources::default());
    let fails: Count = &|_| Err(Error::Tokenizer("broken".into()));
    for task in &TASKS {
        let error = Generator::new(task, 4096, 1, &templates, &sources, fails).unwrap_err();
        assert!(matches!(error, Error::Tokenizer(_)), "{error}");
    }
}
