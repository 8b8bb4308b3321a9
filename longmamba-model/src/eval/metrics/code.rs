//! How alike two lines of code are.

use super::{MetricError, difflib};

/// How alike two strings are, by whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Similarity {
    /// Python's `difflib`, as `fuzzywuzzy` uses it where it is installed alone: that is what LongBench's
    /// list of requirements does.
    #[default]
    Difflib,
    /// Insertions and deletions, as `fuzzywuzzy` counts them where `python-Levenshtein` is there too.
    Levenshtein,
}

/// The most cells of the table of insertions and deletions.
const MOST_CELLS: u64 = 1 << 30;

/// Compares the prediction's first line of code with the reference, 0 to 1 in hundredths.
///
/// That line is the first without a backquote, `#` or `//`, leading empty lines left out; where there is
/// none, it is empty. Equal strings give 1, an empty one and another 0.
///
/// # Errors
/// [`MetricError::TooLong`] where the comparison takes more than 2^30 steps: lines of tens of thousands
/// of characters.
pub fn code_sim(
    prediction: &str,
    reference: &str,
    similarity: Similarity,
) -> Result<f64, MetricError> {
    let prediction = first_code_line(prediction);
    if prediction == reference {
        return Ok(1.0);
    }
    if prediction.is_empty() || reference.is_empty() {
        return Ok(0.0);
    }
    let a: Vec<char> = prediction.chars().collect();
    let b: Vec<char> = reference.chars().collect();
    let ratio = match similarity {
        Similarity::Difflib => difflib::ratio(&a, &b)?,
        Similarity::Levenshtein => kept(&a, &b)?,
    };
    Ok((100.0 * ratio).round_ties_even() / 100.0)
}

fn first_code_line(text: &str) -> &str {
    let is_code = |line: &&str| !line.contains(['`', '#']) && !line.contains("//");
    text.trim_start_matches('\n').split('\n').find(is_code).unwrap_or("")
}

/// The share of all characters that need be neither deleted nor inserted to turn `a` into `b`.
fn kept(a: &[char], b: &[char]) -> Result<f64, MetricError> {
    if (a.len() as u64).saturating_mul(b.len() as u64) > MOST_CELLS {
        return Err(MetricError::TooLong { metric: "code_sim", limit: MOST_CELLS });
    }
    // Row by row, the length of the longest common subsequence.
    let mut row = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == y { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    let total = a.len() + b.len();
    Ok(f64::from(2 * row[b.len()]) / total as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_code() {
        for (text, line) in [
            ("\n\n x = 1\ny", " x = 1"),
            ("# no\n// no\nsee http://a\n`no`\nyes # no\nyes\r\nlater", "yes\r"),
            ("# no", ""),
            ("a\n\nb", "a"),
            (" \nb", " "),
            ("", ""),
        ] {
            assert_eq!(first_code_line(text), line);
        }
    }

    #[test]
    fn similarities_by_hand() {
        let both = |a, b| {
            [Similarity::Difflib, Similarity::Levenshtein].map(|s| code_sim(a, b, s).unwrap())
        };
        assert_eq!(both("x = 1\nmore", "x = 1"), [1.0, 1.0]);
        assert_eq!(both("# no", ""), [1.0, 1.0]);
        assert_eq!(both("x", ""), [0.0, 0.0]);
        assert_eq!(both("", "x"), [0.0, 0.0]);
        // One in 8 is 12.5 hundredths, three are 37.5: to the even hundredth.
        assert_eq!(both("qyyyyyyy", "qwwwwwww"), [0.12, 0.12]);
        assert_eq!(both("qqqyyyyy", "qqqwwwww"), [0.38, 0.38]);
        // difflib takes `t` and then nothing; `ie` or `de` could be kept of 8.
        assert_eq!(both("tide", "diet"), [0.25, 0.5]);
    }

    #[test]
    fn what_would_take_minutes_is_refused() {
        let (a, b) = ("x".repeat(1 << 16), "y".repeat(1 << 15));
        let error = code_sim(&a, &b, Similarity::Levenshtein).unwrap_err();
        assert_eq!(error, MetricError::TooLong { metric: "code_sim", limit: MOST_CELLS });
    }
}
