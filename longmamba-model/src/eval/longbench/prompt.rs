//! Prompts with places for the context and the question.

/// A prompt in which `{context}` and `{input}` are filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Context,
    Input,
}

/// Not a prompt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the prompt has {0:?}, and only {{context}} and {{input}} can be filled in")]
pub(super) struct BadTemplate(String);

impl Template {
    /// Two braces stand for one, as in Python's `str.format`.
    pub(super) fn parse(text: &str) -> Result<Self, BadTemplate> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            rest = &rest[at..];
            let (name, piece) = [
                ("{context}", Some(Piece::Context)),
                ("{input}", Some(Piece::Input)),
                ("{{", None),
                ("}}", None),
            ]
            .into_iter()
            .find(|(name, _)| rest.starts_with(name))
            .ok_or_else(|| BadTemplate(rest.chars().take(20).collect()))?;
            match piece {
                Some(piece) => {
                    pieces.extend([Piece::Text(std::mem::take(&mut literal)), piece]);
                }
                None => literal.push_str(&name[1..]),
            }
            rest = &rest[name.len()..];
        }
        pieces.push(Piece::Text(literal + rest));
        Ok(Template(pieces))
    }

    /// Braces in what is filled in stay as they are.
    pub(super) fn fill(&self, context: &str, input: &str) -> String {
        let mut prompt = String::new();
        for piece in &self.0 {
            prompt.push_str(match piece {
                Piece::Text(text) => text,
                Piece::Context => context,
                Piece::Input => input,
            });
        }
        prompt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_fields_are_filled() {
        let fill = |text| Template::parse(text).unwrap().fill("C {input}", "I}{");
        assert_eq!(fill("a {context}b{input}{input}"), "a C {input}bI}{I}{");
        assert_eq!(fill("plain "), "plain ");
        assert_eq!(fill(""), "");
        assert_eq!(fill("{{context}} {{{input}}}"), "{context} {I}{}");
        for bad in ["{other}", "{", "a } b", "{context", "{ context }", "{{}"] {
            let error = Template::parse(bad).unwrap_err().to_string();
            assert!(error.contains("only {context} and {input}"), "{error}");
        }
    }
}
