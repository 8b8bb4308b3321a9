//! Characters to tokens.

use crate::error::LoadError;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    /// An identifier with everything that may be part of one: letters, digits, `_`, `$`, `%` and dots.
    Word(String),
    Int(i128),
    F32(u32),
    F64(u64),
    Text(String),
    Mark(char),
}

/// The tokens of a text, each with its line.
#[derive(Debug)]
pub(crate) struct Lexer {
    tokens: Vec<(Token, u32)>,
    at: usize,
}

impl Lexer {
    pub fn new(text: &str) -> Result<Self, LoadError> {
        let mut tokens = Vec::new();
        let mut line = 1;
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if c == '\n' {
                line += 1;
                rest = &rest[1..];
            } else if c.is_whitespace() {
                rest = &rest[c.len_utf8()..];
            } else if rest.starts_with("//") {
                rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
            } else if rest.starts_with("/*") {
                let end = rest.find("*/").map_or(rest.len(), |end| end + 2);
                line += rest[..end].matches('\n').count() as u32;
                rest = &rest[end..];
            } else if c == '"' {
                let end = rest[1..].find('"').ok_or_else(|| LoadError::Syntax {
                    line,
                    what: "a string without an end".into(),
                })?;
                tokens.push((Token::Text(rest[1..=end].into()), line));
                rest = &rest[end + 2..];
            } else if c.is_ascii_digit() {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
                tokens.push((number(&rest[..end], line)?, line));
                rest = &rest[end..];
            } else if is_word(c) {
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                tokens.push((Token::Word(rest[..end].into()), line));
                rest = &rest[end..];
            } else if c.is_ascii() {
                tokens.push((Token::Mark(c), line));
                rest = &rest[1..];
            } else {
                return Err(LoadError::Syntax { line, what: format!("unexpected {c:?}") });
            }
        }
        Ok(Self { tokens, at: 0 })
    }

    /// The line of the next token.
    pub fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(0, |(_, line)| *line)
    }

    pub fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    pub fn next(&mut self) -> Result<Token, LoadError> {
        let token = self.peek().cloned().ok_or_else(|| self.error("unexpected end of the text"))?;
        self.at += 1;
        Ok(token)
    }

    /// Takes the next token if it is `mark`.
    pub fn take(&mut self, mark: char) -> bool {
        let found = self.peek() == Some(&Token::Mark(mark));
        self.at += usize::from(found);
        found
    }

    pub fn expect(&mut self, mark: char) -> Result<(), LoadError> {
        if self.take(mark) {
            return Ok(());
        }
        Err(self.error(&format!("expected `{mark}`, found {:?}", self.peek())))
    }

    pub fn word(&mut self) -> Result<String, LoadError> {
        match self.next()? {
            Token::Word(word) => Ok(word),
            other => Err(self.error(&format!("expected a name, found {other:?}"))),
        }
    }

    /// An integer, perhaps with a sign.
    pub fn int(&mut self) -> Result<i128, LoadError> {
        let negative = self.take('-');
        match self.next()? {
            Token::Int(value) => Ok(if negative { -value } else { value }),
            other => Err(self.error(&format!("expected a number, found {other:?}"))),
        }
    }

    /// Whether the next token is this word; does not take it.
    pub fn at_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(found)) if found == word)
    }

    pub fn error(&self, what: &str) -> LoadError {
        let line = self.tokens.get(self.at.saturating_sub(1)).map_or(0, |(_, line)| *line);
        LoadError::Syntax { line, what: what.into() }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%' | '.')
}

fn number(text: &str, line: u32) -> Result<Token, LoadError> {
    let bad = || LoadError::Syntax { line, what: format!("`{text}` is no number") };
    let hex = |digits: &str| u64::from_str_radix(digits, 16).map_err(|_| bad());
    let plain = text.trim_end_matches(['U', 'u']);
    match text.get(..2) {
        Some("0f" | "0F") if text.len() == 10 => Ok(Token::F32(hex(&text[2..])? as u32)),
        Some("0d" | "0D") if text.len() == 18 => Ok(Token::F64(hex(&text[2..])?)),
        Some("0x" | "0X") => Ok(Token::Int(hex(&plain[2..])?.into())),
        Some("0b" | "0B") => {
            u64::from_str_radix(&plain[2..], 2).map(|v| Token::Int(v.into())).map_err(|_| bad())
        }
        _ if plain.len() > 1 && plain.starts_with('0') => {
            u64::from_str_radix(plain, 8).map(|v| Token::Int(v.into())).map_err(|_| bad())
        }
        _ => plain.parse::<u64>().map(|v| Token::Int(v.into())).map_err(|_| bad()),
    }
}
