use super::{Kind, Tokenizer, byte};
use crate::Result;

/// Turns tokens into text as they come. A character is given once its last byte is there; bytes that
/// can never become one are given as U+FFFD.
///
/// ```
/// # use longmamba_model::Tokenizer;
/// let tokenizer = Tokenizer::bytes();
/// let mut stream = tokenizer.stream();
/// assert_eq!(stream.push(195)?, "");
/// assert_eq!(stream.push(169)?, "é");
/// # Ok::<(), longmamba_model::Error>(())
/// ```
#[derive(Debug)]
pub struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    /// Bytes that are no character yet.
    bytes: Vec<u8>,
    /// Tokens that the next text depends on: `shown` of them have been given, the rest have not.
    tokens: Vec<u32>,
    shown: usize,
    text: String,
}

impl<'t> TextStream<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer) -> Self {
        let (bytes, tokens, text) = (Vec::new(), Vec::new(), String::new());
        TextStream { tokenizer, bytes, tokens, shown: 0, text }
    }

    /// Takes a token and returns the text that is complete with it; often one word, sometimes none.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) for an id that is no token.
    pub fn push(&mut self, token: u32) -> Result<&str> {
        self.text.clear();
        match &self.tokenizer.0 {
            Kind::Bytes => {
                self.bytes.push(byte(token)?);
                self.take_characters();
            }
            #[cfg(feature = "tokenizers")]
            Kind::File(_) => {
                self.tokens.push(token);
                self.take_tokens(false)?;
            }
        }
        Ok(&self.text)
    }

    /// The rest of the text: bytes that wait for a character that will not come.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn finish(&mut self) -> Result<&str> {
        self.text.clear();
        match &self.tokenizer.0 {
            Kind::Bytes => self.text.push_str(&String::from_utf8_lossy(&self.bytes)),
            #[cfg(feature = "tokenizers")]
            Kind::File(_) => self.take_tokens(true)?,
        }
        self.bytes.clear();
        self.tokens.clear();
        self.shown = 0;
        Ok(&self.text)
    }

    fn take_characters(&mut self) {
        let mut rest = &self.bytes[..];
        while let Some(chunk) = rest.utf8_chunks().next() {
            self.text.push_str(chunk.valid());
            rest = &rest[chunk.valid().len()..];
            match std::str::from_utf8(chunk.invalid()) {
                // Nothing invalid: only the end has that.
                Ok(_) => {}
                // Cut short: the next byte may complete it.
                Err(e) if e.error_len().is_none() && chunk.invalid().len() == rest.len() => break,
                Err(_) => {
                    self.text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[chunk.invalid().len()..];
                }
            }
        }
        let taken = self.bytes.len() - rest.len();
        self.bytes.drain(..taken);
    }

    /// A token's text can depend on the one before it (a space, a half character), so the tokens given
    /// last are decoded again with the new ones, and the difference is the new text.
    #[cfg(feature = "tokenizers")]
    fn take_tokens(&mut self, last: bool) -> Result<()> {
        let before = self.tokenizer.decode(&self.tokens[..self.shown])?;
        let now = self.tokenizer.decode(&self.tokens)?;
        if now.ends_with(char::REPLACEMENT_CHARACTER) && !last {
            return Ok(());
        }
        if let Some(new) = now.get(before.len()..).filter(|new| !new.is_empty()) {
            self.text.push_str(new);
            self.tokens.drain(..self.shown);
            self.shown = self.tokens.len();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::Tokenizer;

    #[test]
    fn half_characters_wait_and_broken_ones_are_replaced() {
        let tokenizer = Tokenizer::bytes();
        let mut stream = tokenizer.stream();
        let mut push = |b: u32| stream.push(b).unwrap().to_owned();
        assert_eq!(["é".as_bytes()[0], "é".as_bytes()[1]].map(|b| push(b.into())), ["", "é"]);
        // A lead byte that is not continued, then one that cannot be a lead byte, then a long wait.
        assert_eq!([0xe2, 0x41, 0xff, 0x42].map(&mut push), ["", "\u{fffd}A", "\u{fffd}", "B"]);
        assert_eq!([0xf0, 0x9f, 0x90].map(&mut push), ["", "", ""]);
        assert_eq!(stream.finish().unwrap(), "\u{fffd}");
        assert_eq!(stream.finish().unwrap(), "");
    }
}
