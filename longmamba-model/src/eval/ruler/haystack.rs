//! Where needles are put.

use fastrand::Rng;

/// Needles among `lines`, in their order, each before another of the lines.
pub(super) fn among_lines(lines: &[String], needles: &[String], random: &mut Rng) -> String {
    let places = distinct(lines.len(), needles.len(), random);
    let mut all = Vec::with_capacity(lines.len() + needles.len());
    let mut needles = needles.iter().zip(places).peekable();
    for (index, line) in lines.iter().enumerate() {
        while let Some((needle, _)) = needles.next_if(|&(_, place)| place == index) {
            all.push(needle.as_str());
        }
        all.push(line);
    }
    // What found no line of its own.
    all.extend(needles.map(|(needle, _)| needle.as_str()));
    all.join("\n")
}

/// How many depths there are for a needle in sentences: from before the first to after the last.
const DEPTHS: usize = 40;

/// Needles among the sentences of `words`, in their order: at ⌊sentences · depth / 100⌋, for distinct
/// depths of 40 equally spaced and rounded to whole percents.
pub(super) fn among_sentences(words: &[&str], needles: &[String], random: &mut Rng) -> String {
    let ends = sentence_ends(words);
    let places = distinct(DEPTHS, needles.len(), random).into_iter().map(|depth| {
        let percent = (depth as f64 * 100.0 / (DEPTHS - 1) as f64).round() as usize;
        ends[ends.len().saturating_sub(1) * percent / 100]
    });
    let mut all: Vec<&str> = Vec::with_capacity(words.len() + needles.len());
    let mut from = 0;
    for (needle, place) in needles.iter().zip(places) {
        all.extend(&words[from..place]);
        all.push(needle);
        from = place;
    }
    all.extend(&words[from..]);
    all.join(" ")
}

/// 0, and the number of words up to the end of each sentence; the last may have been cut.
fn sentence_ends(words: &[&str]) -> Vec<usize> {
    let pairs = words.windows(2).enumerate();
    let ends = pairs.filter(|(_, pair)| ends_sentence(pair[0], pair[1])).map(|(i, _)| i + 1);
    [0].into_iter().chain(ends).chain((!words.is_empty()).then_some(words.len())).collect()
}

/// A plain rule: a full stop, a question or an exclamation mark, and then a word that may begin a
/// sentence. Initials and common titles end none.
fn ends_sentence(word: &str, next: &str) -> bool {
    const TITLES: [&str; 7] = ["Mr.", "Mrs.", "Ms.", "Dr.", "St.", "Prof.", "vs."];
    let closing = ['"', '\'', ')', ']', '”', '’'];
    let opening = ['"', '\'', '(', '[', '“', '‘'];
    let word = word.trim_start_matches(opening);
    let bare = word.trim_end_matches(closing);
    let initial = bare.strip_suffix('.').is_some_and(|w| w.chars().count() == 1);
    let begins = next.trim_start_matches(opening).chars().next();
    bare.ends_with(['.', '?', '!'])
        && !initial
        && !TITLES.contains(&bare)
        && begins.is_none_or(|c| !c.is_lowercase())
}

/// `count` distinct numbers below `below`, ascending; fewer where there are not as many.
fn distinct(below: usize, count: usize, random: &mut Rng) -> Vec<usize> {
    let mut chosen = random.choose_multiple(0..below, count);
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn strings(all: &[&str]) -> Vec<String> {
        all.iter().map(|s| s.to_string()).collect()
    }

    #[test]
    fn sentences_end_where_they_do() {
        let text =
            "Dr. J. Brown went home. \"Did he?\" she asked. 3 did! In the U.S. it rains… (Yes.) No";
        let words: Vec<&str> = text.split(' ').collect();
        let ends = sentence_ends(&words);
        let sentences: Vec<String> = ends.windows(2).map(|e| words[e[0]..e[1]].join(" ")).collect();
        assert_eq!(
            sentences,
            [
                "Dr. J. Brown went home.",
                "\"Did he?\" she asked.",
                "3 did!",
                "In the U.S. it rains… (Yes.)",
                "No"
            ]
        );
        assert_eq!(sentence_ends(&[]), [0]);
        assert_eq!(sentence_ends(&["a"]), [0, 1]);
    }

    #[test]
    fn needles_keep_their_order_and_text() {
        let mut random = Rng::with_seed(3);
        let (lines, needles) = (strings(&["l"; 9]), strings(&["x", "y", "z"]));
        let mut seen = BTreeMap::<usize, usize>::new();
        for _ in 0..2000 {
            let text = among_lines(&lines, &needles, &mut random);
            let all: Vec<&str> = text.split('\n').collect();
            assert_eq!(all.len(), 12);
            let places = ["x", "y", "z"].map(|n| all.iter().position(|l| *l == n).unwrap());
            assert!(places[0] < places[1] && places[1] < places[2]);
            assert!(places[1] - places[0] > 1 && places[2] - places[1] > 1, "a line each: {text}");
            *seen.entry(places[0]).or_default() += 1;
        }
        assert_eq!(seen.into_keys().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(among_lines(&lines[..1], &needles[..2], &mut random).matches('\n').count(), 1);
    }

    #[test]
    fn depths_reach_from_the_first_word_to_the_last() {
        let mut random = Rng::with_seed(3);
        let words = ["One", "two."].repeat(200);
        let needle = strings(&["needle"]);
        let mut seen = BTreeMap::<usize, usize>::new();
        for _ in 0..4000 {
            let text = among_sentences(&words, &needle, &mut random);
            let all: Vec<&str> = text.split(' ').collect();
            assert_eq!(all.len(), 401);
            *seen.entry(all.iter().position(|w| *w == "needle").unwrap()).or_default() += 1;
        }
        let expected: Vec<usize> =
            (0..40).map(|i| 4 * (f64::from(i) * 100.0 / 39.0).round() as usize).collect();
        assert_eq!(seen.keys().copied().collect::<Vec<_>>(), expected);
        assert!(seen.values().all(|&n| (50..150).contains(&n)), "{seen:?}");
        // No sentence, no word.
        assert_eq!(among_sentences(&[], &needle, &mut random), "needle");
        assert_eq!(among_sentences(&["a"], &needle[..0], &mut random), "a");
    }
}
