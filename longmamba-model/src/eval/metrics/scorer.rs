//! From predictions to the score of a data set.

use super::round::{numpy_round, numpy_sum, python_round};
use super::{Context, Dataset, MetricError};

/// The score of one prediction, 0 to 1: the best over the references, 0 where there are none.
///
/// # Errors
/// As [`Metric::score`](super::Metric::score).
pub fn sample_score<S: AsRef<str>>(
    dataset: &Dataset,
    prediction: &str,
    references: &[S],
    context: Context<'_>,
) -> Result<f64, MetricError> {
    let prediction = match dataset.first_line {
        true => prediction.trim_start_matches('\n').split('\n').next().unwrap_or(""),
        false => prediction,
    };
    references.iter().try_fold(0.0, |best: f64, reference| {
        Ok(best.max(dataset.metric.score(prediction, reference.as_ref(), context)?))
    })
}

/// The score of a data set from its samples': their mean in percent, rounded to two decimals as Python
/// does.
///
/// # Errors
/// [`MetricError::NoPredictions`].
pub fn dataset_score(samples: &[f64]) -> Result<f64, MetricError> {
    if samples.is_empty() {
        return Err(MetricError::NoPredictions);
    }
    // Percent before the division, as LongBench has it.
    let total = samples.iter().fold(0.0, |sum, s| sum + s);
    Ok(python_round(100.0 * total / samples.len() as f64))
}

/// LongBench-E's classes of length, by the `length` of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LengthBucket {
    /// Below 4000.
    Short,
    /// Below 8000.
    Middle,
    /// The rest.
    Long,
}

impl LengthBucket {
    /// All three, ascending.
    pub const ALL: [LengthBucket; 3] =
        [LengthBucket::Short, LengthBucket::Middle, LengthBucket::Long];

    /// That of a sample.
    pub fn of(length: u64) -> Self {
        match length {
            0..4000 => LengthBucket::Short,
            4000..8000 => LengthBucket::Middle,
            _ => LengthBucket::Long,
        }
    }

    /// As LongBench calls it.
    pub fn name(self) -> &'static str {
        match self {
            LengthBucket::Short => "0-4k",
            LengthBucket::Middle => "4-8k",
            LengthBucket::Long => "8k+",
        }
    }
}

/// The scores of LongBench-E: for each [`LengthBucket`] the mean of its samples in percent, rounded to two
/// decimals as numpy does; `None` for one without samples. A sample is its `length` and its score.
pub fn bucket_scores(samples: &[(u64, f64)]) -> [Option<f64>; 3] {
    LengthBucket::ALL.map(|bucket| {
        let inside = samples.iter().filter(|(length, _)| LengthBucket::of(*length) == bucket);
        let scores: Vec<f64> = inside.map(|(_, score)| *score).collect();
        let mean = || numpy_sum(&scores) / scores.len() as f64;
        (!scores.is_empty()).then(|| numpy_round(100.0 * mean()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(dataset: &str, prediction: &str, references: &[&str]) -> f64 {
        let dataset = Dataset::find(dataset).unwrap();
        sample_score(dataset, prediction, references, Context::default()).unwrap()
    }

    #[test]
    fn the_best_reference_counts() {
        assert_eq!(score("qasper", "red", &["blue", "red", "green"]), 1.0);
        assert_eq!(score("qasper", "red", &[]), 0.0);
    }

    #[test]
    fn of_some_data_sets_only_the_first_line_counts() {
        assert_eq!(score("triviaqa", "\n\nred\nand more", &["red"]), 1.0);
        assert!(score("qasper", "\n\nred\nand more", &["red"]) < 1.0);
        // Line feeds alone are taken off, so this line is empty.
        assert_eq!(score("triviaqa", " \nred", &["red"]), 0.0);
    }

    #[test]
    fn means_are_rounded_as_python_and_numpy_do() {
        // A mean of 0.02675: 2.675 is a little less, and is more again as numpy rounds it.
        let samples = [0.02675];
        assert_eq!(dataset_score(&samples), Ok(2.67));
        assert_eq!(bucket_scores(&[(3999, samples[0])]), [Some(2.68), None, None]);
        assert_eq!(
            bucket_scores(&[(4000, 0.5), (7999, 0.0), (8000, 1.0)]),
            [None, Some(25.0), Some(100.0)]
        );
        assert_eq!(dataset_score(&[]), Err(MetricError::NoPredictions));
    }
}
