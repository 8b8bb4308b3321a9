//! F1 of bags of words.

use super::normalize::normalize_answer;
use super::python::split;
use std::collections::HashMap;

/// F1 of the words of two answers after [`normalize_answer`]; a word counts as often as both have it. 0
/// where they share none, so also for two empty answers.
pub fn qa_f1(prediction: &str, reference: &str) -> f64 {
    let (prediction, reference) = (normalize_answer(prediction), normalize_answer(reference));
    let words = |text| split(text).collect::<Vec<_>>();
    bag_f1(&words(&prediction), &words(&reference))
}

pub(super) fn bag_f1<S: AsRef<str>>(prediction: &[S], reference: &[S]) -> f64 {
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in reference {
        *left.entry(word.as_ref()).or_default() += 1;
    }
    let mut shared = 0;
    for word in prediction {
        if let Some(count) = left.get_mut(word.as_ref()).filter(|count| **count > 0) {
            *count -= 1;
            shared += 1;
        }
    }
    if shared == 0 {
        return 0.0;
    }
    let precision = f64::from(shared) / prediction.len() as f64;
    let recall = f64::from(shared) / reference.len() as f64;
    (2.0 * precision * recall) / (precision + recall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f1_by_hand() {
        // 2 of 3 and 2 of 2: 2 · 2/3 · 1 ÷ (5/3).
        assert!((qa_f1("The big red dog", "red, BIG") - 0.8).abs() < 1e-15);
        // `x` is shared twice, of 3 and of 2.
        assert!((qa_f1("x x x", "x x") - 0.8).abs() < 1e-15);
        assert_eq!(qa_f1("the", "a"), 0.0);
        assert_eq!(qa_f1("", ""), 0.0);
        assert_eq!(qa_f1("cat", "dog"), 0.0);
        assert_eq!(qa_f1("Cat.", "a cat"), 1.0);
    }
}
