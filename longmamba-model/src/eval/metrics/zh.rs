//! Metrics of Chinese words.

use super::MetricError;
#[cfg(feature = "zh")]
use super::{f1::bag_f1, normalize::normalize_zh_answer, rouge::rouge_l};

/// Words as jieba finds them, unknown ones by its hidden Markov model.
#[cfg(feature = "zh")]
fn words(text: &str) -> impl Iterator<Item = &str> {
    use std::sync::LazyLock;
    // The dictionary takes a second to unpack, and never changes.
    static JIEBA: LazyLock<jieba_rs::Jieba> = LazyLock::new(jieba_rs::Jieba::new);
    JIEBA.cut(text, true).into_iter().map(|token| token.word)
}

/// F1 of the Chinese words of two answers, each after
/// [`normalize_zh_answer`](super::normalize_zh_answer).
///
/// # Errors
/// [`MetricError::NoSegmentation`] without the feature `zh`.
pub fn qa_f1_zh(prediction: &str, reference: &str) -> Result<f64, MetricError> {
    #[cfg(feature = "zh")]
    {
        let normal = |text| {
            let words = words(text).map(normalize_zh_answer);
            words.filter(|word| !word.is_empty()).collect::<Vec<_>>()
        };
        Ok(bag_f1(&normal(prediction), &normal(reference)))
    }
    #[cfg(not(feature = "zh"))]
    {
        let _ = (prediction, reference);
        Err(MetricError::NoSegmentation { metric: "qa_f1_zh" })
    }
}

/// [`rouge_l`](fn@super::rouge_l) of Chinese words.
///
/// # Errors
/// [`MetricError::NoSegmentation`] without the feature `zh`; as [`rouge_l`](fn@super::rouge_l).
pub fn rouge_l_zh(prediction: &str, reference: &str) -> Result<f64, MetricError> {
    #[cfg(feature = "zh")]
    {
        let spaced = |text| words(text).collect::<Vec<_>>().join(" ");
        rouge_l(&spaced(prediction), &spaced(reference))
    }
    #[cfg(not(feature = "zh"))]
    {
        let _ = (prediction, reference);
        Err(MetricError::NoSegmentation { metric: "rouge_l_zh" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "zh")]
    #[test]
    fn chinese_words_by_hand() {
        assert_eq!(words("我们在北京。").collect::<Vec<_>>(), ["我们", "在", "北京", "。"]);
        // 2 of 3 and 2 of 2; the full stop is no word.
        assert!((qa_f1_zh("我们在北京。", "我们，北京").unwrap() - 0.8).abs() < 1e-15);
        // 。 is no full stop of ASCII, but a word: 3 of 4 and 3 of 3.
        let f = 2.0 * 0.75 / (1.75 + 1e-8);
        assert!((rouge_l_zh("我们在北京。", "我们北京。").unwrap() - f).abs() < 1e-15);
    }

    #[cfg(not(feature = "zh"))]
    #[test]
    fn without_the_dictionary_there_is_no_score() {
        for result in [qa_f1_zh("北京", "北京"), rouge_l_zh("北京", "北京")] {
            assert!(result.unwrap_err().to_string().contains("the feature zh"));
        }
    }
}
