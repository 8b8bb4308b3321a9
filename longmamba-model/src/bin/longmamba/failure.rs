//! Why a command ends without being done.

use std::io;

pub type Outcome<T = ()> = Result<T, Failure>;

#[derive(Debug)]
pub enum Failure {
    /// Wrong usage or bad input; one sentence.
    Input(String),
    /// The comparison failed; what failed has been printed.
    Compared,
    /// Whoever read our output has stopped reading, as `head` does.
    Closed,
}

impl Failure {
    pub fn input(why: impl Into<String>) -> Self {
        Failure::Input(why.into())
    }

    /// An error of writing to stdout.
    pub fn stdout(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::Closed,
            _ => Failure::Input(format!("cannot write to standard output: {error}")),
        }
    }
}

impl From<longmamba_model::Error> for Failure {
    fn from(error: longmamba_model::Error) -> Self {
        Failure::Input(error.to_string())
    }
}

impl From<longmamba_core::Error> for Failure {
    fn from(error: longmamba_core::Error) -> Self {
        Failure::Input(error.to_string())
    }
}
