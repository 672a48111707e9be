//! What the user and the journal read: one line per message on standard error, with its level.

use std::fmt;
use std::io::Write;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// What was decided, for the journal.
    Info,
    /// Something is odd and was worked around, or will probably not do what was meant.
    Warn,
    /// The reason why the launcher ends.
    Error,
}

/// A message that is not (yet) printed: pure code collects them, the roles print them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) level: Level,
    pub(crate) text: String,
}

impl Note {
    pub(crate) fn info(text: impl Into<String>) -> Self {
        Self { level: Level::Info, text: text.into() }
    }

    pub(crate) fn warn(text: impl Into<String>) -> Self {
        Self { level: Level::Warn, text: text.into() }
    }

    /// Prints the note. A closed standard error is no reason to stop a daemon.
    pub(crate) fn print(&self) {
        let level = match self.level {
            Level::Info => "INFO",
            Level::Warn => "WARN",
            Level::Error => "ERROR",
        };
        // One write, so that lines of several processes on one terminal do not mix.
        let line = format!("{level}: {}\n", self.text);
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

/// The end of the launcher: what went wrong, how to cure it, and the exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    text: String,
    hint: Option<String>,
    code: u8,
}

impl Failure {
    /// A failure with exit status 1.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), hint: None, code: 1 }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    pub(crate) fn report(&self) -> u8 {
        Note { level: Level::Error, text: self.to_string() }.print();
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_hint_on_a_line_of_its_own() {
        let f = Failure::new("no rootlesskit").hint("install it").code(127);
        assert_eq!(f.to_string(), "no rootlesskit\nhint: install it");
        assert_eq!(f.report(), 127);
        assert_eq!(Failure::new("x").report(), 1);
    }
}
