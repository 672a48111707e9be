//! What can be wrong with a command line, in Go's words.

use std::ffi::OsString;

use crate::value::quote;

/// An error of [`crate::normalize`]. Its text is the one Go's `flag` package or `urfave/cli` v2 prints, since scripts
/// and other projects' tests match it; names appear as typed, without their dashes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// No flag has this name.
    #[error("flag provided but not defined: -{0}")]
    Undefined(String),
    /// A flag that takes a value came last.
    #[error("flag needs an argument: -{0}")]
    NeedsArgument(String),
    /// The value does not fit the type of the flag.
    #[error("invalid value {} for flag -{name}: {reason}", quote(.value))]
    InvalidValue {
        /// Name as typed.
        name: String,
        /// The refused value.
        value: OsString,
        /// `parse error` or `value out of range`.
        reason: &'static str,
    },
    /// `--flag=value` of a boolean flag with a value that is no boolean.
    #[error("invalid boolean value {} for -{name}: parse error", quote(.value))]
    InvalidBool {
        /// Name as typed.
        name: String,
        /// The refused value.
        value: OsString,
    },
    /// `-h` or `--help` was given and the command defines no such flag itself.
    #[error("flag: help requested")]
    Help,
    /// One flag was given under two of its names.
    #[error("Cannot use two forms of the same flag: {second} {first}")]
    TwoForms {
        /// The name that the definition lists later.
        second: String,
        /// The name that the definition lists first.
        first: String,
    },
    /// Something like `---x` or `-=x`.
    #[error("bad flag syntax: {0}")]
    BadSyntax(String),
}
