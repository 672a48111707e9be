//! Go-style command lines in front of a [`clap::Command`].
//!
//! # Theory of operation
//!
//! The programs this project replaces parse their flags with Go's `flag` package (through `urfave/cli` v2), and their
//! callers rely on its habits: `-net` equals `--net`, `--mtu 1500` equals `--mtu=1500`, a repeated scalar means "last
//! one wins", parsing stops at the first word that is no flag, integers may be written in hexadecimal. clap knows none
//! of that, yet help, man page and completions should come from one clap definition. So parsing has two steps:
//!
//! 1. [`normalize`] walks the arguments by Go's rules. The `clap::Command` tells which names exist, which of them are
//!    boolean and which hold integers. Errors carry Go's wording, because scripts match it.
//! 2. [`Normalized::to_clap_args`] prints the result in the one strict form that clap and Go agree on
//!    (`--name=value`, then `--`, then the rest), ready for `Command::get_matches_from`.
//!
//! What the definition says about an option decides how it is read:
//!
//! | clap definition | Go kind |
//! |---|---|
//! | `ArgAction::SetTrue`, `SetFalse`, `Count`, `Help*`, `Version` | boolean |
//! | `ArgAction::Set` with a `bool` value parser | boolean, passed on as `--name=true` or `--name=false` |
//! | `ArgAction::Set` with an `i64` value parser | integer, passed on in decimal |
//! | `ArgAction::Append` | slice: every occurrence is passed on; see [`split_slice`] |
//! | any other `ArgAction::Set` | string |
//!
//! A `SetFalse` option is a boolean that starts as true: it is passed on when the user switched it off.

mod error;
mod parse;
mod value;

pub use error::FlagError;
pub use parse::{Normalized, normalize};
pub use value::split_slice;
