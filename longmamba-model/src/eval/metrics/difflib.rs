//! How alike two strings are to Python's `difflib.SequenceMatcher`: the method of Ratcliff and
//! Obershelp.

use super::MetricError;
use std::collections::HashMap;

/// The most steps of all the searches for a longest match.
const MOST_STEPS: u64 = 1 << 28;

/// `SequenceMatcher(None, a, b).ratio()`: twice the characters in matching blocks, as a share of all; 1
/// for two empty strings. Not symmetric. In a `b` of 200 characters or more, those that are more than one
/// in a hundred begin no match ("autojunk"), except where both strings, or what is left of them, begin with
/// one.
///
/// The usual time grows with the square of the length, the worst with the cube.
///
/// # Errors
/// [`MetricError::TooLong`] after 2^28 steps, which strings of tens of thousands of characters may take.
pub(super) fn ratio(a: &[char], b: &[char]) -> Result<f64, MetricError> {
    let total = a.len() + b.len();
    if total == 0 {
        return Ok(1.0);
    }
    let mut matcher = Matcher::new(a, b);
    let mut matched = 0;
    let mut rest = vec![Part { a: (0, a.len()), b: (0, b.len()) }];
    while let Some(part) = rest.pop() {
        let Match { a, b, len } = matcher.longest(part)?;
        if len == 0 {
            continue;
        }
        matched += len;
        for part in [
            Part { a: (part.a.0, a), b: (part.b.0, b) },
            Part { a: (a + len, part.a.1), b: (b + len, part.b.1) },
        ] {
            if part.a.0 < part.a.1 && part.b.0 < part.b.1 {
                rest.push(part);
            }
        }
    }
    Ok(2.0 * matched as f64 / total as f64)
}

/// Characters from the first to before the second, of both strings.
#[derive(Clone, Copy)]
struct Part {
    a: (usize, usize),
    b: (usize, usize),
}

/// Equal characters from these places on.
struct Match {
    a: usize,
    b: usize,
    len: usize,
}

struct Matcher<'t> {
    a: &'t [char],
    b: &'t [char],
    /// Where in b a match may begin, for each character that may begin one.
    places: HashMap<char, Vec<usize>>,
    /// Of the last character of a that was looked at, and of the one before: how many characters that
    /// end at this place of b and there match.
    run: Vec<usize>,
    last_run: Vec<usize>,
    steps: u64,
}

impl<'t> Matcher<'t> {
    fn new(a: &'t [char], b: &'t [char]) -> Self {
        let mut places: HashMap<char, Vec<usize>> = HashMap::new();
        for (place, &c) in b.iter().enumerate() {
            places.entry(c).or_default().push(place);
        }
        if b.len() >= 200 {
            places.retain(|_, places| places.len() <= b.len() / 100 + 1);
        }
        let zeros = || vec![0; b.len()];
        Matcher { a, b, places, run: zeros(), last_run: zeros(), steps: 0 }
    }

    /// The longest match in a part; of several the first in a, then in b.
    fn longest(&mut self, part: Part) -> Result<Match, MetricError> {
        let Matcher { a, b, places, run, last_run, steps } = self;
        let mut best = Match { a: part.a.0, b: part.b.0, len: 0 };
        let inside = |c: &char| {
            let places = places.get(c).map_or(&[][..], Vec::as_slice);
            let from = places.partition_point(|&place| place < part.b.0);
            let to = places.partition_point(|&place| place < part.b.1);
            &places[from..to]
        };
        let mut last: &[usize] = &[];
        for i in part.a.0..part.a.1 {
            let places = inside(&a[i]);
            *steps += 1 + places.len() as u64;
            if *steps > MOST_STEPS {
                return Err(MetricError::TooLong { metric: "code_sim", limit: MOST_STEPS });
            }
            for &j in places {
                let len = if j > part.b.0 { last_run[j - 1] + 1 } else { 1 };
                run[j] = len;
                if len > best.len {
                    best = Match { a: i + 1 - len, b: j + 1 - len, len };
                }
            }
            // Both are all zeros but for what the last two characters left.
            last.iter().for_each(|&j| last_run[j] = 0);
            last = places;
            std::mem::swap(run, last_run);
        }
        last.iter().for_each(|&j| last_run[j] = 0);
        // Frequent characters lengthen a match, also the empty one at the beginning of both parts.
        while best.a > part.a.0 && best.b > part.b.0 && a[best.a - 1] == b[best.b - 1] {
            best = Match { a: best.a - 1, b: best.b - 1, len: best.len + 1 };
        }
        let Match { a: i, b: j, len } = best;
        let more = a[i + len..part.a.1].iter().zip(&b[j + len..part.b.1]);
        best.len += more.take_while(|(a, b)| a == b).count();
        Ok(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(a: &str, b: &str) -> f64 {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        ratio(&chars(a), &chars(b)).unwrap()
    }

    #[test]
    fn ratios_by_hand() {
        assert_eq!(of("", ""), 1.0);
        assert_eq!(of("", "a"), 0.0);
        // `bcd`, of 8.
        assert_eq!(of("abcd", "bcde"), 0.75);
        // `ab`, then after it `d`: 6 of 9. The other way it is the same; in the next it is not.
        assert_eq!(of("abcd", "abxxd"), 6.0 / 9.0);
        // The first `a` of the first string is matched with the last of the other: nothing else fits.
        assert_eq!(of("ab", "ba"), 0.5);
        assert_eq!(of("tide", "diet"), 0.25);
        assert_eq!(of("diet", "tide"), 0.5);
        assert_eq!(of("né", "ne"), 0.5);
    }

    #[test]
    fn frequent_characters_begin_no_match_in_long_strings() {
        let (a, b) = ("ba".repeat(50), "ab".repeat(100));
        assert_eq!(of(&a, &b), 0.0);
        // But where both strings begin with one, it goes on from there.
        assert_eq!(of(&b[..100], &b), 2.0 * 100.0 / 300.0);
        assert_eq!(of(&b[..198], &b[1..199]), 2.0 * 197.0 / 396.0);
        // A rare one between them begins one, and they lengthen it.
        assert_eq!(of("xab!aab", &format!("{b}!aab")), 2.0 * 6.0 / 211.0);
    }

    #[test]
    fn what_would_take_minutes_is_refused() {
        let b: Vec<char> = (0..100_000u32).map(|i| char::from(b' ' + (i % 90) as u8)).collect();
        let a: Vec<char> = b.iter().rev().flat_map(|&c| [c; 11]).collect();
        // Over 1 in a hundred: all are frequent, and nothing matches.
        assert_eq!(ratio(&a, &b), Ok(0.0));
        let b: Vec<char> =
            (0..100_000u32).filter_map(|i| char::from_u32(0x4e00 + i % 101)).collect();
        let a: Vec<char> = b.iter().rev().copied().collect();
        let limit = MOST_STEPS;
        assert_eq!(ratio(&a, &b), Err(MetricError::TooLong { metric: "code_sim", limit }));
    }

    proptest! {
        #[test]
        fn equal_strings_match_whole_and_the_ratio_is_a_share(
            a in "[a-d]{0,60}", b in "[a-d]{0,60}",
        ) {
            prop_assert_eq!(of(&a, &a), 1.0);
            prop_assert!((0.0..=1.0).contains(&of(&a, &b)));
        }
    }
}
