/// Why a metric has no score.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// A reference of a retrieval task that does not name a paragraph.
    #[error("the reference {reference:?} has no {label:?} followed by a number")]
    NoTarget {
        /// What stands before the number.
        label: &'static str,
        /// The beginning of the reference.
        reference: String,
    },
    /// A sample of a classification task without its classes.
    #[error("all_classes is null, but a classification is scored among classes")]
    NoClasses,
    /// A sample of RULER with nothing to look for.
    #[error("the sample has no outputs to look for")]
    NoReferences,
    /// A mean over nothing.
    #[error("there are no predictions")]
    NoPredictions,
    /// The metric works on Chinese words, and nothing here finds them.
    #[error("{metric} needs a dictionary of Chinese words; build with the feature zh")]
    NoSegmentation {
        /// The metric's name.
        metric: &'static str,
    },
    /// Texts so long that the comparison would take minutes.
    #[error("{metric}: prediction and reference are too long, they take more than {limit} steps")]
    TooLong {
        /// The metric's name.
        metric: &'static str,
        /// The most steps that are taken.
        limit: u64,
    },
    /// No such data set.
    #[error("{name:?} is no data set of LongBench; there are {}", super::datasets::names())]
    UnknownDataset {
        /// What was asked for.
        name: String,
    },
}
