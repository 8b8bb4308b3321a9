//! RULER's: are the answers somewhere in the prediction?

use super::MetricError;
use super::python::is_space;
use super::round::python_round;

/// Which of a sample's answers must be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringMatch {
    /// The score is the share of them that are found.
    All,
    /// The score is 1 where any is found.
    Part,
}

impl StringMatch {
    /// The score of one sample, 0 to 1. Case does not matter. The prediction is taken as it is; see
    /// [`ruler_postprocess`].
    ///
    /// # Errors
    /// [`MetricError::NoReferences`].
    pub fn sample<S: AsRef<str>>(
        self,
        prediction: &str,
        references: &[S],
    ) -> Result<f64, MetricError> {
        if references.is_empty() {
            return Err(MetricError::NoReferences);
        }
        let prediction = prediction.to_lowercase();
        let found = |r: &&S| prediction.contains(&r.as_ref().to_lowercase());
        let found = references.iter().filter(found).count();
        Ok(match self {
            StringMatch::All => found as f64 / references.len() as f64,
            StringMatch::Part => f64::from(found > 0),
        })
    }
}

/// The score of a task from its samples': their mean in percent, rounded to two decimals.
///
/// # Errors
/// [`MetricError::NoPredictions`].
pub fn ruler_score(samples: &[f64]) -> Result<f64, MetricError> {
    if samples.is_empty() {
        return Err(MetricError::NoPredictions);
    }
    // Percent after the division, as RULER has it.
    let mean = samples.iter().sum::<f64>() / samples.len() as f64;
    Ok(python_round(mean * 100.0))
}

/// A prediction as RULER scores it: without white space at the ends, and with a line feed for each
/// control character below U+0020.
pub fn ruler_postprocess(prediction: &str) -> String {
    let replaced: String =
        prediction.trim_matches(is_space).chars().map(|c| if c < ' ' { '\n' } else { c }).collect();
    replaced.trim_matches(is_space).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_by_hand() {
        let both = |prediction, references: &[&str]| {
            [StringMatch::All, StringMatch::Part].map(|m| m.sample(prediction, references).unwrap())
        };
        assert_eq!(both("It is 12 and ABC.", &["abc", "12", "13", "4"]), [0.5, 1.0]);
        assert_eq!(both("nothing", &["abc"]), [0.0, 0.0]);
        assert_eq!(both("", &[""]), [1.0, 1.0]);
        let none: [&str; 0] = [];
        assert_eq!(StringMatch::All.sample("x", &none), Err(MetricError::NoReferences));
    }

    #[test]
    fn scores_are_percent_with_two_decimals() {
        assert_eq!(ruler_score(&[1.0, 0.0, 1.0]), Ok(66.67));
        assert_eq!(ruler_score(&[]), Err(MetricError::NoPredictions));
    }

    #[test]
    fn control_characters_become_line_feeds() {
        assert_eq!(ruler_postprocess("\u{a0} \u{1}a\tb\u{1b}[0m\u{7f}\u{2} "), "a\nb\n[0m\u{7f}");
        assert_eq!(ruler_postprocess(" \u{0} "), "");
    }
}
