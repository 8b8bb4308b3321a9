//! JSON as Python writes it.

/// `text` with bare `NaN`, `Infinity` and `-Infinity` put in quotes: Python's `json` writes them,
/// the standard does not have them.
pub(crate) fn lenient(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let mut in_string = false;
    while let Some(c) = rest.chars().next() {
        if in_string && c == '\\' {
            let escaped = rest.chars().nth(1).map_or(0, char::len_utf8);
            out.push_str(&rest[..1 + escaped]);
            rest = &rest[1 + escaped..];
            continue;
        }
        if c == '"' {
            in_string = !in_string;
        }
        let bare = ["-Infinity", "Infinity", "NaN"]
            .into_iter()
            .find(|w| !in_string && rest.starts_with(w));
        if let Some(word) = bare {
            out.push('"');
            out.push_str(word);
            out.push('"');
            rest = &rest[word.len()..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_bare_words_are_quoted() {
        let text = r#"{"a": [-Infinity, NaN], "Infinity \" NaN": "NaN"}"#;
        assert_eq!(
            super::lenient(text),
            r#"{"a": ["-Infinity", "NaN"], "Infinity \" NaN": "NaN"}"#
        );
    }
}
