//! Characters as Python sees them, where Rust sees them otherwise.

/// What `str.split` and `str.strip` take for white space: Unicode's and four separators of ASCII.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// `str.split()`
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// `\w` of a regular expression. Python leaves out the vowel signs and letters in circles that Unicode
/// counts as alphabetic, which matters only next to an article.
pub(super) fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// The runs of `\d`, decimal digits of any script.
pub(super) fn numbers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_digit(c)).filter(|run| !run.is_empty())
}

/// The decimal digits of a script are ten characters in a row.
pub(super) fn is_digit(c: char) -> bool {
    let before = ZEROS.partition_point(|&zero| zero <= c);
    before > 0 && u32::from(c) - u32::from(ZEROS[before - 1]) < 10
}

/// The zeros among the characters of category Nd in Unicode 14, which Python 3.11 has.
#[rustfmt::skip]
const ZEROS: [char; 66] = [
    '0', '\u{660}', '\u{6f0}', '\u{7c0}', '\u{966}', '\u{9e6}', '\u{a66}', '\u{ae6}', '\u{b66}',
    '\u{be6}', '\u{c66}', '\u{ce6}', '\u{d66}', '\u{de6}', '\u{e50}', '\u{ed0}', '\u{f20}', '\u{1040}',
    '\u{1090}', '\u{17e0}', '\u{1810}', '\u{1946}', '\u{19d0}', '\u{1a80}', '\u{1a90}', '\u{1b50}',
    '\u{1bb0}', '\u{1c40}', '\u{1c50}', '\u{a620}', '\u{a8d0}', '\u{a900}', '\u{a9d0}', '\u{a9f0}',
    '\u{aa50}', '\u{abf0}', '\u{ff10}', '\u{104a0}', '\u{10d30}', '\u{11066}', '\u{110f0}', '\u{11136}',
    '\u{111d0}', '\u{112f0}', '\u{11450}', '\u{114d0}', '\u{11650}', '\u{116c0}', '\u{11730}',
    '\u{118e0}', '\u{11950}', '\u{11c50}', '\u{11d50}', '\u{11da0}', '\u{16a60}', '\u{16ac0}',
    '\u{16b50}', '\u{1d7ce}', '\u{1d7d8}', '\u{1d7e2}', '\u{1d7ec}', '\u{1d7f6}', '\u{1e140}',
    '\u{1e2f0}', '\u{1e950}', '\u{1fbf0}',
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_and_digits() {
        assert_eq!(split(" a\u{1c}b\u{a0}c\u{1f} \u{3000}").collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(split("\u{1f}").count(), 0);
        // A zero-width space is none.
        assert_eq!(split("a\u{200b}b").count(), 1);
        assert_eq!(numbers("p12, ٣٤x²5½").collect::<Vec<_>>(), ["12", "٣٤", "5"]);
        assert!(ZEROS.is_sorted());
        for zero in ZEROS {
            let ten: Vec<char> =
                (0..10).filter_map(|i| char::from_u32(u32::from(zero) + i)).collect();
            assert!(
                ten.len() == 10 && ten.iter().all(|&c| c.is_numeric() && is_digit(c)),
                "{zero:?}"
            );
        }
        assert!(!is_digit('/') && !is_digit(':') && !is_digit('Ⅳ') && !is_digit('四'));
    }
}
