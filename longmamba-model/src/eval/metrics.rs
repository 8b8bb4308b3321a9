//! The metrics of LongBench and RULER, as the official Python code computes them.
//!
//! Pure functions of strings. Each gives the official number bit for bit or within rounding, odd as it
//! may be; the documentation of each says what is odd. Three habits of Python's are not copied: a limit to
//! recursion, below which long answers score 0 in ROUGE-L; combining vowel signs at the boundary of a word;
//! and errors that are swallowed.
//!
//! The two metrics of Chinese words need the feature `zh`: the dictionary of jieba, some 5 MB, and the
//! crate `jieba-rs`. It gives the official score in all 152 golden cases of Chinese text, but cuts some texts
//! that mix other scripts, digits and control characters with it in another way than jieba 0.42.1: of 800
//! random mixtures 169 had another score.
//!
//! Long hostile texts end in [`MetricError::TooLong`] rather than in hours of work: in no metric does a
//! pair of texts take more than 2^30 steps beyond reading them.

mod classification;
mod code;
mod datasets;
mod difflib;
mod error;
mod f1;
mod normalize;
mod numbers;
mod python;
mod rouge;
mod round;
mod ruler;
mod scorer;
mod zh;

pub use classification::classification;
pub use code::{Similarity, code_sim};
pub use datasets::{DATASETS, Dataset};
pub use error::MetricError;
pub use f1::qa_f1;
pub use normalize::{normalize_answer, normalize_zh_answer};
pub use numbers::{count, retrieval, retrieval_zh};
pub use rouge::rouge_l;
pub use round::python_round;
pub use ruler::{StringMatch, ruler_postprocess, ruler_score};
pub use scorer::{LengthBucket, bucket_scores, dataset_score, sample_score};
pub use zh::{qa_f1_zh, rouge_l_zh};

/// A metric of LongBench: of a prediction and a reference, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// [`qa_f1`]
    QaF1,
    /// [`qa_f1_zh`]
    QaF1Zh,
    /// [`rouge_l`](fn@rouge_l)
    RougeL,
    /// [`rouge_l_zh`]
    RougeLZh,
    /// [`classification`](fn@classification)
    Classification,
    /// [`retrieval`]
    Retrieval,
    /// [`retrieval_zh`]
    RetrievalZh,
    /// [`count`]
    Count,
    /// [`code_sim`]
    CodeSim,
}

/// What some metrics look at besides the two texts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// Among which classes a classification is made.
    pub all_classes: Option<&'a [String]>,
    /// How lines of code are compared.
    pub similarity: Similarity,
}

impl Metric {
    /// The score, 0 to 1.
    ///
    /// # Errors
    /// [`MetricError::NoClasses`] for a classification among none; as the metric's own function.
    pub fn score(
        self,
        prediction: &str,
        reference: &str,
        context: Context<'_>,
    ) -> Result<f64, MetricError> {
        match self {
            Metric::QaF1 => Ok(qa_f1(prediction, reference)),
            Metric::QaF1Zh => qa_f1_zh(prediction, reference),
            Metric::RougeL => rouge_l(prediction, reference),
            Metric::RougeLZh => rouge_l_zh(prediction, reference),
            Metric::Classification => {
                let classes = context.all_classes.ok_or(MetricError::NoClasses)?;
                Ok(classification(prediction, reference, classes))
            }
            Metric::Retrieval => retrieval(prediction, reference),
            Metric::RetrievalZh => retrieval_zh(prediction, reference),
            Metric::Count => Ok(count(prediction, reference)),
            Metric::CodeSim => code_sim(prediction, reference, context.similarity),
        }
    }

    /// As it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Metric::QaF1 => "F1",
            Metric::QaF1Zh => "F1 (zh)",
            Metric::RougeL => "ROUGE-L",
            Metric::RougeLZh => "ROUGE-L (zh)",
            Metric::Classification => "classification",
            Metric::Retrieval => "retrieval",
            Metric::RetrievalZh => "retrieval (zh)",
            Metric::Count => "count",
            Metric::CodeSim => "edit similarity",
        }
    }
}
