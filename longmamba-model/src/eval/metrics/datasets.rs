//! The data sets of LongBench, and what each is scored with.

use super::{Metric, MetricError};

/// One data set of LongBench.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// As LongBench calls it, without `_e`.
    pub name: &'static str,
    /// What its predictions are scored with.
    pub metric: Metric,
    /// Only the prediction's first line counts, leading line feeds left out.
    pub first_line: bool,
    /// Whether LongBench-E has it.
    pub in_e: bool,
}

/// All of LongBench, in the order of its list of metrics.
#[rustfmt::skip]
pub static DATASETS: [Dataset; 21] = [
    dataset("narrativeqa", Metric::QaF1),
    dataset("qasper", Metric::QaF1).e(),
    dataset("multifieldqa_en", Metric::QaF1).e(),
    dataset("multifieldqa_zh", Metric::QaF1Zh),
    dataset("hotpotqa", Metric::QaF1).e(),
    dataset("2wikimqa", Metric::QaF1).e(),
    dataset("musique", Metric::QaF1),
    dataset("dureader", Metric::RougeLZh),
    dataset("gov_report", Metric::RougeL).e(),
    dataset("qmsum", Metric::RougeL),
    dataset("multi_news", Metric::RougeL).e(),
    dataset("vcsum", Metric::RougeLZh),
    dataset("trec", Metric::Classification).first_line().e(),
    dataset("triviaqa", Metric::QaF1).first_line().e(),
    dataset("samsum", Metric::RougeL).first_line().e(),
    dataset("lsht", Metric::Classification).first_line(),
    dataset("passage_retrieval_en", Metric::Retrieval).e(),
    dataset("passage_count", Metric::Count).e(),
    dataset("passage_retrieval_zh", Metric::RetrievalZh),
    dataset("lcc", Metric::CodeSim).e(),
    dataset("repobench-p", Metric::CodeSim).e(),
];

const fn dataset(name: &'static str, metric: Metric) -> Dataset {
    Dataset { name, metric, first_line: false, in_e: false }
}

impl Dataset {
    const fn first_line(self) -> Self {
        Dataset { first_line: true, ..self }
    }

    const fn e(self) -> Self {
        Dataset { in_e: true, ..self }
    }

    /// By its name, with or without `_e`.
    ///
    /// # Errors
    /// [`MetricError::UnknownDataset`].
    pub fn find(name: &str) -> Result<&'static Dataset, MetricError> {
        let bare = name.strip_suffix("_e").unwrap_or(name);
        let found = DATASETS.iter().find(|dataset| dataset.name == bare);
        found.ok_or_else(|| MetricError::UnknownDataset { name: name.to_owned() })
    }
}

pub(super) fn names() -> String {
    DATASETS.map(|dataset| dataset.name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_unknown_ones_listed() {
        assert_eq!(Dataset::find("trec_e").unwrap().name, "trec");
        assert!(Dataset::find("trec").unwrap().first_line);
        assert_eq!(DATASETS.iter().filter(|d| d.in_e).count(), 13);
        let error = Dataset::find("squad").unwrap_err().to_string();
        assert!(error.contains("\"squad\"") && error.contains("repobench-p"), "{error}");
    }
}
