//! Answers made comparable.

use super::python::{is_space, is_word, split};

/// Lower case; no ASCII punctuation, and nothing in its place; no word `a`, `an` or `the`; one space
/// between words.
pub fn normalize_answer(text: &str) -> String {
    let lower = text.to_lowercase();
    let bare: String = lower.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    split(&without_articles(&bare)).collect::<Vec<_>>().join(" ")
}

/// `\b(a|an|the)\b` becomes a space: runs of word characters that are articles.
fn without_articles(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let len = rest[start..].find(|c| !is_word(c)).unwrap_or(rest.len() - start);
        let word = &rest[start..start + len];
        out.push_str(&rest[..start]);
        out.push_str(if matches!(word, "a" | "an" | "the") { " " } else { word });
        rest = &rest[start + len..];
    }
    out + rest
}

/// Lower case; no punctuation, ASCII or Chinese; no white space at all.
pub fn normalize_zh_answer(text: &str) -> String {
    let lower = text.to_lowercase();
    lower.chars().filter(|&c| !is_zh_punctuation(c) && !is_space(c)).collect()
}

/// ASCII's, full-width forms of it, and the marks of Chinese typography that LongBench lists: not the
/// opening `《` and the full-width stop `．`.
fn is_zh_punctuation(c: char) -> bool {
    c.is_ascii_punctuation()
        || matches!(c, '–'..='—' | '‘'..='’' | '‛'..='‟' | '…'..='‧')
        || matches!(c, '、'..='〃' | '》'..='】' | '〔'..='〟' | '〰' | '〾'..='〿' | '﹏')
        || matches!(c, '！'..='－' | '／' | '：'..='＠' | '［'..='｀' | '｛'..='､')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_by_hand() {
        for (text, normal) in [
            ("  The  QUICK, quick fox! ", "quick quick fox"),
            ("A man, a plan; an end.", "man plan end"),
            // Punctuation leaves no gap, so that words and articles may grow together or appear.
            ("well-known the-end a.n ant", "wellknown theend ant"),
            ("anthem theatre Athe", "anthem theatre athe"),
            ("a", ""),
            ("", ""),
            ("!?", ""),
            ("a_b a\u{1c}an\u{a0}x", "ab x"),
            ("été à l'a", "été à la"),
            ("ΑΣ", "ας"),
            ("the—end", "—end"),
        ] {
            assert_eq!(normalize_answer(text), normal, "{text:?}");
        }
    }

    #[test]
    fn chinese_answers_by_hand() {
        assert_eq!(normalize_zh_answer("「红楼梦」， A-b 。\u{3000}12…"), "红楼梦ab12");
        assert_eq!(normalize_zh_answer("《红楼梦》．〈〒"), "《红楼梦．〈〒", "not in the list");
    }
}
