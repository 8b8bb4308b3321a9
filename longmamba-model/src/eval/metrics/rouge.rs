//! ROUGE-L as the Python package `rouge` 1.0.1 computes it, which is not what ROUGE-1.5.5 does.

use super::MetricError;
use super::python::split;
use std::collections::HashMap;

/// The most cells of the tables of longest common subsequences.
const MOST_CELLS: u64 = 1 << 30;

/// The F-measure of ROUGE-L.
///
/// A text is cut into sentences at every full stop, and they into words at white space; a sentence
/// of nothing but white space is one empty word. Of each pair of sentences one longest common
/// subsequence is taken, and all their words are put in one set. With s the size of this set, p the
/// number of distinct words of the prediction and r of the reference: P = s/p, R = s/r, and the result
/// is 2PR/(P + R + 1e-8), so never quite 1. 0 where either text has no sentence. Case matters.
///
/// The Python code walks the subsequence by recursion, and LongBench scores 0 where that goes more than
/// some thousand words deep. There is no such limit here.
///
/// Time is proportional to the product of the numbers of words, memory is a bit for each cell of that
/// product for the longest pair of sentences.
///
/// # Errors
/// [`MetricError::TooLong`] where the product of the numbers of words is over 2^30.
pub fn rouge_l(prediction: &str, reference: &str) -> Result<f64, MetricError> {
    let mut ids = HashMap::new();
    let reference = sentences(reference, &mut ids);
    // Ids are given out in order: those below are the reference's.
    let in_reference = ids.len();
    let prediction = sentences(prediction, &mut ids);
    let (words, other_words) = (count(&prediction), count(&reference));
    if words == 0 || other_words == 0 {
        return Ok(0.0);
    }
    if words.saturating_mul(other_words) > MOST_CELLS {
        return Err(MetricError::TooLong { metric: "rouge-l", limit: MOST_CELLS });
    }
    let mut common = vec![false; in_reference];
    let mut table = Table::default();
    for x in &reference {
        for y in &prediction {
            table.mark(x, y, &mut common);
        }
    }
    let common = common.iter().filter(|&&is| is).count() as f64;
    let recall = common / in_reference as f64;
    let precision = common / distinct(&prediction, ids.len()) as f64;
    Ok(2.0 * ((precision * recall) / (precision + recall + 1e-8)))
}

/// The words of each sentence by number, equal words having equal numbers.
fn sentences<'t>(text: &'t str, ids: &mut HashMap<&'t str, usize>) -> Vec<Vec<usize>> {
    let mut id = |word| {
        let next = ids.len();
        *ids.entry(word).or_insert(next)
    };
    let pieces = text.split('.').filter(|piece| !piece.is_empty());
    pieces
        .map(|piece| {
            let words: Vec<usize> = split(piece).map(&mut id).collect();
            if words.is_empty() { vec![id("")] } else { words }
        })
        .collect()
}

fn count(sentences: &[Vec<usize>]) -> u64 {
    sentences.iter().map(|words| words.len() as u64).sum()
}

fn distinct(sentences: &[Vec<usize>], ids: usize) -> usize {
    let mut seen = vec![false; ids];
    sentences.iter().flatten().filter(|&&word| !std::mem::replace(&mut seen[word], true)).count()
}

/// The table of the lengths of common subsequences, of which only the way back is kept.
#[derive(Default)]
struct Table {
    /// A bit for each cell of (1..=x.len()) × (1..=y.len()): whether the cell above is larger than the
    /// one to the left.
    up: Vec<u64>,
    above: Vec<u32>,
    row: Vec<u32>,
}

impl Table {
    /// Marks the words of a longest common subsequence of `x` and `y`: from the ends on, equal words are
    /// taken, else the larger table cell is followed, that with one word less of `y` where they are equal.
    fn mark(&mut self, x: &[usize], y: &[usize], common: &mut [bool]) {
        let Table { up, above, row } = self;
        up.clear();
        up.resize((x.len() * y.len()).div_ceil(64), 0);
        for line in [&mut *above, &mut *row] {
            line.clear();
            line.resize(y.len() + 1, 0);
        }
        for (i, &a) in x.iter().enumerate() {
            for (j, &b) in y.iter().enumerate() {
                let (over, left) = (above[j + 1], row[j]);
                row[j + 1] = if a == b { above[j] + 1 } else { over.max(left) };
                if over > left {
                    let bit = i * y.len() + j;
                    up[bit / 64] |= 1 << (bit % 64);
                }
            }
            std::mem::swap(above, row);
        }
        let (mut i, mut j) = (x.len(), y.len());
        while i > 0 && j > 0 {
            let bit = (i - 1) * y.len() + (j - 1);
            if x[i - 1] == y[j - 1] {
                common[x[i - 1]] = true;
                (i, j) = (i - 1, j - 1);
            } else if up[bit / 64] >> (bit % 64) & 1 == 1 {
                i -= 1;
            } else {
                j -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn rouge(prediction: &str, reference: &str) -> f64 {
        rouge_l(prediction, reference).unwrap()
    }

    fn f(common: f64, prediction: f64, reference: f64) -> f64 {
        let (p, r) = (common / prediction, common / reference);
        2.0 * (p * r) / (p + r + 1e-8)
    }

    #[test]
    fn scores_by_hand() {
        for (prediction, reference, expected) in [
            ("one two three", "one two three", f(3.0, 3.0, 3.0)),
            ("one three", "one two three four", f(2.0, 2.0, 4.0)),
            // Words count once: p is 2, r is 1, and the common subsequence of 2 words is a set of 1.
            ("one one two", "one one", f(1.0, 2.0, 1.0)),
            // Each pair of sentences has one word in common; together they are three.
            ("one two. three", "three. two one", f(2.0, 3.0, 3.0)),
            // Of two longest subsequences, (b) and (a), that which ends first in the prediction.
            ("b a", "a b. b", f(1.0, 2.0, 2.0)),
            // 3.5 is two sentences; sentences of blanks are an empty word.
            ("3.5", "3 5", f(2.0, 2.0, 2.0)),
            (". .", " . ", f(1.0, 1.0, 1.0)),
            ("One", "one", 0.0),
            ("", "one", 0.0),
            ("...", "...", 0.0),
        ] {
            let actual = rouge(prediction, reference);
            assert!((actual - expected).abs() < 1e-12, "{prediction:?} {reference:?}: {actual}");
        }
    }

    #[test]
    fn what_would_take_minutes_is_refused() {
        let long = "a b ".repeat(1 << 15);
        let error = rouge_l(&long, &long).unwrap_err();
        assert_eq!(error, MetricError::TooLong { metric: "rouge-l", limit: MOST_CELLS });
        // Long sentences are no trouble against short ones, nor is recursion.
        assert!(rouge(&long, "b a") > 0.99);
    }

    /// As the definition has it, with the whole table.
    fn subsequence(x: &[&str], y: &[&str]) -> BTreeSet<String> {
        let mut table = vec![vec![0; y.len() + 1]; x.len() + 1];
        for i in 1..=x.len() {
            for j in 1..=y.len() {
                table[i][j] = match x[i - 1] == y[j - 1] {
                    true => table[i - 1][j - 1] + 1,
                    false => table[i - 1][j].max(table[i][j - 1]),
                };
            }
        }
        let (mut i, mut j, mut words) = (x.len(), y.len(), BTreeSet::new());
        while i > 0 && j > 0 {
            if x[i - 1] == y[j - 1] {
                words.insert(x[i - 1].to_owned());
                (i, j) = (i - 1, j - 1);
            } else if table[i - 1][j] > table[i][j - 1] {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        words
    }

    proptest! {
        #[test]
        fn the_bits_lead_the_same_way_as_the_table(
            x in prop::collection::vec("[a-e]", 1..40),
            y in prop::collection::vec("[a-g]", 1..40),
        ) {
            let (x, y): (Vec<&str>, Vec<&str>) =
                (x.iter().map(|w| &**w).collect(), y.iter().map(|w| &**w).collect());
            let set = |words: &[&str]| words.iter().copied().collect::<BTreeSet<_>>().len() as f64;
            let common = subsequence(&x, &y).len() as f64;
            let expected = f(common, set(&y), set(&x));
            let expected = if common == 0.0 { 0.0 } else { expected };
            prop_assert!((rouge(&y.join(" "), &x.join(" ")) - expected).abs() < 1e-12);
        }
    }
}
