//! A method and its settings as a text: `name:key=value:key=value`.

use crate::{Error, Result};
use std::fmt::Display;
use std::str::FromStr;

/// The settings that a text gives; each is taken once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    method: String,
    values: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl Settings {
    /// Reads `name:key=value:key=value`.
    ///
    /// # Errors
    /// [`Error::Argument`] for a part that is no `key=value`, or a key that comes twice.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = text.split(':');
        let method = parts.next().unwrap_or("").to_owned();
        let mut values: Vec<(String, String)> = Vec::new();
        for part in parts {
            let Some((key, value)) = part.split_once('=') else {
                return Err(Error::argument(format!(
                    "method {text:?}: {part:?} is no setting; write key=value"
                )));
            };
            if values.iter().any(|(k, _)| k == key) {
                return Err(Error::argument(format!("method {text:?}: {key} is set twice")));
            }
            values.push((key.to_owned(), value.to_owned()));
        }
        Ok(Settings { method, values, known: Vec::new() })
    }

    /// The method's name.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The value of `key`, or `default` where there is none.
    ///
    /// # Errors
    /// [`Error::Argument`] for a value that cannot be read.
    pub fn take<T>(&mut self, key: &'static str, default: T) -> Result<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        let value = self.take_text(key);
        value.map_or(Ok(default), |value| self.read(key, &value))
    }

    /// The values of `key`, joined by `+`, or `default` where there are none.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn take_list<T>(&mut self, key: &'static str, default: Vec<T>) -> Result<Vec<T>>
    where
        T: FromStr,
        T::Err: Display,
    {
        let Some(values) = self.take_text(key) else { return Ok(default) };
        values.split('+').map(|value| self.read(key, value)).collect()
    }

    fn take_text(&mut self, key: &'static str) -> Option<String> {
        self.known.push(key);
        let at = self.values.iter().position(|(k, _)| k == key)?;
        Some(self.values.remove(at).1)
    }

    fn read<T>(&self, key: &str, value: &str) -> Result<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        let method = &self.method;
        value.parse().map_err(|e| Error::argument(format!("method {method}: {key}={value}: {e}")))
    }

    /// That every setting was taken.
    ///
    /// # Errors
    /// [`Error::Argument`] with the settings that there are.
    pub fn finish(self) -> Result<()> {
        let Settings { method, values, known } = self;
        let Some((key, _)) = values.first() else { return Ok(()) };
        let all = match known.is_empty() {
            true => "it has none".to_owned(),
            false => format!("it has {}", known.join(", ")),
        };
        Err(Error::argument(format!("method {method} has no setting {key:?}; {all}")))
    }
}
