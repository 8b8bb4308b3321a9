//! Which number was named.

use super::MetricError;
use super::python::{is_digit, numbers};

/// The share of the numbers in the prediction that are, digit by digit, the reference; 0 where it has
/// none.
pub fn count(prediction: &str, reference: &str) -> f64 {
    let (mut all, mut right) = (0usize, 0usize);
    for number in numbers(prediction) {
        all += 1;
        right += usize::from(number == reference);
    }
    if all == 0 { 0.0 } else { right as f64 / all as f64 }
}

/// [`count`] of the number after the first `Paragraph ` of the reference that has one.
///
/// # Errors
/// [`MetricError::NoTarget`] where there is none.
pub fn retrieval(prediction: &str, reference: &str) -> Result<f64, MetricError> {
    Ok(count(prediction, target("Paragraph ", reference)?))
}

/// [`retrieval`] with `段落`.
///
/// # Errors
/// [`MetricError::NoTarget`] where there is none.
pub fn retrieval_zh(prediction: &str, reference: &str) -> Result<f64, MetricError> {
    Ok(count(prediction, target("段落", reference)?))
}

fn target<'t>(label: &'static str, reference: &'t str) -> Result<&'t str, MetricError> {
    let after = reference.split(label).skip(1);
    let number = |text: &'t str| &text[..text.find(|c| !is_digit(c)).unwrap_or(text.len())];
    after.map(number).find(|number| !number.is_empty()).ok_or_else(|| MetricError::NoTarget {
        label,
        reference: reference.chars().take(60).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_by_hand() {
        assert_eq!(count("There are 7, not 17.", "7"), 0.5);
        assert_eq!(count("07", "7"), 0.0);
        assert_eq!(count("seven", "7"), 0.0);
        assert_eq!(count("7", "7 "), 0.0);
        assert_eq!(count("٣", "3"), 0.0);
        assert_eq!(retrieval("Paragraph 3 or 4", "Paragraph 3"), Ok(0.5));
        assert_eq!(retrieval("3.", "Paragraph x, Paragraph 3, Paragraph 4"), Ok(1.0));
        assert_eq!(retrieval_zh("是段落12。", "段落12"), Ok(1.0));
        assert_eq!(
            retrieval("3", "paragraph 3"),
            Err(MetricError::NoTarget { label: "Paragraph ", reference: "paragraph 3".into() })
        );
    }
}
