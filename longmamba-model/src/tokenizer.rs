//! Text to tokens and back.

mod stream;

pub use stream::TextStream;

use crate::config::{Config, TokenizerKind};
use crate::{Error, Result};
use std::ops::Range;
use std::path::Path;

/// Turns text into tokens and tokens into text.
///
/// ```
/// # use longmamba_model::Tokenizer;
/// let tokenizer = Tokenizer::bytes();
/// let tokens = tokenizer.encode("né".as_bytes())?;
/// assert_eq!(tokens, [110, 195, 169]);
/// assert_eq!(tokenizer.decode(&tokens)?, "né");
/// # Ok::<(), longmamba_model::Error>(())
/// ```
#[derive(Debug)]
pub struct Tokenizer(Kind);

#[derive(Debug)]
enum Kind {
    Bytes,
    #[cfg(feature = "tokenizers")]
    File(Box<tokenizers::Tokenizer>),
}

/// A text as tokens, and how many bytes they stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The tokens of the whole text, without special tokens.
    pub tokens: Vec<u32>,
    ends: Ends,
}

/// Where the bytes of a token end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ends {
    /// Token i is byte i.
    Bytes,
    /// Token i ends before byte `[i]` of the text.
    #[cfg(feature = "tokenizers")]
    At(Vec<usize>),
    Unknown,
}

impl Text {
    /// Tokens from elsewhere, of which nothing else is known.
    pub fn from_tokens(tokens: Vec<u32>) -> Self {
        Text { tokens, ends: Ends::Unknown }
    }

    /// The number of bytes that the tokens in `range` stand for; `None` where that is not known.
    pub fn bytes(&self, range: Range<usize>) -> Option<usize> {
        match &self.ends {
            Ends::Bytes => Some(range.len()),
            #[cfg(feature = "tokenizers")]
            Ends::At(ends) => {
                let end = |tokens: usize| tokens.checked_sub(1).map_or(Some(&0), |i| ends.get(i));
                Some(end(range.end)?.saturating_sub(*end(range.start)?))
            }
            Ends::Unknown => None,
        }
    }
}

impl Tokenizer {
    /// A token is a byte: ids 0 to 255.
    pub fn bytes() -> Self {
        Tokenizer(Kind::Bytes)
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Malformed`] where it is no tokenizer.
    #[cfg(feature = "tokenizers")]
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let tokenizer = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|e| Error::malformed(path, format!("not a tokenizer: {e}")))?;
        Ok(Tokenizer(Kind::File(Box::new(tokenizer))))
    }

    /// The tokenizer of a model: what its config says, or `tokenizer.json` in `folder`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] where the file is no tokenizer; [`Error::Tokenizer`] where the
    /// folder has no such file.
    pub fn for_model(config: &Config, folder: &Path) -> Result<Self> {
        if config.tokenizer == TokenizerKind::Bytes {
            return Ok(Self::bytes());
        }
        let path = folder.join("tokenizer.json");
        if !path.is_file() {
            return Err(Error::Tokenizer(format!(
                "{} is missing; put the file that belongs to this model there",
                path.display()
            )));
        }
        #[cfg(feature = "tokenizers")]
        return Self::read(&path);
        #[cfg(not(feature = "tokenizers"))]
        Err(Error::Tokenizer(format!(
            "{} cannot be read by this build; enable the feature `tokenizers`",
            path.display()
        )))
    }

    /// Whether a token is a byte.
    pub fn is_bytes(&self) -> bool {
        matches!(self.0, Kind::Bytes)
    }

    /// The tokens of `text`, without special tokens. Any bytes will do for a byte tokenizer, others
    /// want UTF-8.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u32>> {
        Ok(self.encode_text(text)?.tokens)
    }

    /// As [`Tokenizer::encode`], and remembers which bytes a token stands for.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn encode_text(&self, text: &[u8]) -> Result<Text> {
        match &self.0 {
            Kind::Bytes => {
                let tokens = text.iter().map(|&b| u32::from(b)).collect();
                Ok(Text { tokens, ends: Ends::Bytes })
            }
            #[cfg(feature = "tokenizers")]
            Kind::File(tokenizer) => {
                let text = std::str::from_utf8(text).map_err(|e| {
                    Error::Tokenizer(format!("the text is not UTF-8 at byte {}", e.valid_up_to()))
                })?;
                let encoding = tokenizer.encode(text, false).map_err(refused)?;
                let ends = encoding.get_offsets().iter().map(|&(_, end)| end).collect();
                Ok(Text { tokens: encoding.get_ids().to_vec(), ends: Ends::At(ends) })
            }
        }
    }

    /// The text of `tokens`; what is not UTF-8 becomes U+FFFD.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for an id that is no byte.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        match &self.0 {
            Kind::Bytes => Ok(String::from_utf8_lossy(&self.decode_bytes(tokens)?).into_owned()),
            #[cfg(feature = "tokenizers")]
            Kind::File(tokenizer) => tokenizer.decode(tokens, true).map_err(refused),
        }
    }

    /// The bytes of `tokens`. For a byte tokenizer they are what was encoded, whatever that was.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for an id that is no byte.
    pub fn decode_bytes(&self, tokens: &[u32]) -> Result<Vec<u8>> {
        match &self.0 {
            Kind::Bytes => tokens.iter().map(|&t| byte(t)).collect(),
            #[cfg(feature = "tokenizers")]
            Kind::File(_) => self.decode(tokens).map(String::into_bytes),
        }
    }

    /// Text as it comes, token by token.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream::new(self)
    }
}

fn byte(token: u32) -> Result<u8> {
    u8::try_from(token).map_err(|_| Error::Tokenizer(format!("token id {token} is no byte")))
}

#[cfg(feature = "tokenizers")]
fn refused(error: tokenizers::Error) -> Error {
    Error::Tokenizer(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_they_were() {
        let all: Vec<u8> = (0..=255).collect();
        let tokenizer = Tokenizer::bytes();
        let text = tokenizer.encode_text(&all).unwrap();
        assert_eq!(tokenizer.decode_bytes(&text.tokens).unwrap(), all);
        assert_eq!(text.bytes(3..10), Some(7));
        let error = tokenizer.decode(&[65, 256]).unwrap_err().to_string();
        assert!(error.contains("256"), "{error}");
    }

    #[cfg(feature = "tokenizers")]
    pub(super) fn words() -> Tokenizer {
        // Byte-level BPE over single bytes: what real models have, without the merges.
        let tokens = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        let mut tokens: Vec<char> = tokens.into_iter().collect();
        tokens.sort_unstable();
        let vocab: serde_json::Map<String, serde_json::Value> =
            tokens.iter().enumerate().map(|(i, c)| (c.to_string(), i.into())).collect();
        let byte_level = serde_json::json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false
        });
        let json = serde_json::json!({
            "version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null,
            "pre_tokenizer": byte_level, "decoder": byte_level,
            "model": { "type": "BPE", "vocab": vocab, "merges": [] }
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, json.to_string()).unwrap();
        Tokenizer::read(&path).unwrap()
    }

    #[cfg(feature = "tokenizers")]
    #[test]
    fn a_tokenizer_file_round_trips_and_counts_bytes() {
        let tokenizer = words();
        let text = tokenizer.encode_text("ab né".as_bytes()).unwrap();
        assert_eq!(text.tokens.len(), 6);
        assert_eq!(tokenizer.decode(&text.tokens).unwrap(), "ab né");
        assert_eq!(text.bytes(0..2), Some(2));
        assert_eq!(text.bytes(2..6), Some(4));
        assert_eq!(text.bytes(2..7), None);
        let error = tokenizer.encode(b"ab\xff").unwrap_err().to_string();
        assert!(error.contains("UTF-8 at byte 2"), "{error}");
    }

    #[cfg(feature = "tokenizers")]
    #[test]
    fn a_stream_of_a_tokenizer_file_holds_back_half_characters() {
        let tokenizer = words();
        let tokens = tokenizer.encode("aé…".as_bytes()).unwrap();
        let mut stream = tokenizer.stream();
        let pieces: Vec<String> =
            tokens.iter().map(|&t| stream.push(t).unwrap().to_owned()).collect();
        assert_eq!(pieces, ["a", "", "é", "", "", "…"]);
        assert_eq!(stream.finish().unwrap(), "");
    }

    #[cfg(feature = "tokenizers")]
    #[test]
    fn a_missing_or_broken_file_is_named() {
        let config = |tokenizer: &str| {
            let text = r#"{"model_type":"mamba2","vocab_size":256,"hidden_size":64,"num_hidden_layers":1,
                "state_size":8,"num_heads":8,"head_dim":16 TOKENIZER}"#;
            Config::parse(text.replace("TOKENIZER", tokenizer).as_bytes(), Path::new("c")).unwrap()
        };
        let folder = tempfile::tempdir().unwrap();
        let load = |tokenizer: &str| Tokenizer::for_model(&config(tokenizer), folder.path());
        assert!(load(r#","tokenizer":"bytes""#).unwrap().is_bytes());
        let error = load("").unwrap_err().to_string();
        assert!(error.contains("tokenizer.json is missing; put"), "{error}");
        std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
        let error = load("").unwrap_err().to_string();
        assert!(error.contains("tokenizer.json: not a tokenizer"), "{error}");
    }
}
