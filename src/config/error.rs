//! Where a value came from, and what is said when it is wrong: one sentence that names the flag, the value, the origin and
//! the remedy. Prints nothing and exits nowhere.

use std::fmt;
use std::path::PathBuf;

use super::values::shown;

/// Exit status when what was asked can't be understood, as Go's and most other command lines have it.
pub const EXIT_USAGE: i32 = 2;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody gave it.
    Default,
    /// The command line.
    CommandLine,
    /// This variable.
    Environment(String),
    /// This file, at this line, counted from 1.
    File(PathBuf, usize),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::CommandLine => f.write_str("command line"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            // Quoted only where it needs to be: most paths are plain.
            Self::File(path, line) => {
                let quoted = shown(path.as_os_str());
                let inner = quoted.trim_matches('\'');
                let path = if inner.contains([' ', '\\', ',']) { quoted.as_str() } else { inner };
                write!(f, "{path}, line {line}")
            }
        }
    }
}

/// What is wrong with what was asked. Its text is one sentence; where the command line was wrong, a second line says how to
/// get help. The process is to exit with [`EXIT_USAGE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    sentence: String,
    usage: bool,
}

impl Error {
    /// Of the command line.
    pub(super) fn usage(sentence: String) -> Self {
        Self { sentence, usage: true }
    }

    /// Of the configuration file, or of several values together.
    pub(super) fn other(sentence: String) -> Self {
        Self { sentence, usage: false }
    }

    /// Of a value: `spelling` is the flag as it was given.
    pub(super) fn value(spelling: &str, origin: &Origin, clause: &str) -> Self {
        Self { sentence: format!("{spelling} ({origin}): {clause}."), usage: *origin == Origin::CommandLine }
    }

    /// The sentence alone.
    pub fn sentence(&self) -> &str {
        &self.sentence
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)?;
        if self.usage {
            f.write_str("\nTry 'hoopsnake --help'.")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
