//! The walk over the arguments.

use std::any::TypeId;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use clap::{Arg, ArgAction, Command};

use crate::error::FlagError;
use crate::value::{parse_bool, read_int};

/// A command line taken apart by Go's rules. Made by [`normalize`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Normalized {
    /// The flags in the order given, each under its canonical long name. The value of a boolean is `None` for true and
    /// `Some("false")` for false; every other flag has a value, which may be empty. Integers are in decimal.
    pub flags: Vec<(String, Option<OsString>)>,
    /// Everything from the first word that is no flag, verbatim; a `--` in front of it is dropped.
    pub rest: Vec<OsString>,
    kinds: BTreeMap<String, Kind>,
}

/// How a flag is read and passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Passed on as a bare `--name` when it ends up as this value.
    Switch {
        passed_when: bool,
    },
    /// Passed on as `--name=true` or `--name=false`.
    Bool,
    Int,
    Text,
    Slice,
}

impl Kind {
    fn of(arg: &Arg) -> Kind {
        match arg.get_action() {
            ArgAction::Append => Kind::Slice,
            ArgAction::SetFalse => Kind::Switch { passed_when: false },
            ArgAction::Set => Kind::of_value(arg),
            _ => Kind::Switch { passed_when: true },
        }
    }

    fn of_value(arg: &Arg) -> Kind {
        let value = arg.get_value_parser().type_id();
        if value == TypeId::of::<bool>() {
            Kind::Bool
        } else if value == TypeId::of::<i64>() {
            Kind::Int
        } else {
            Kind::Text
        }
    }
}

/// One flag of the definition with all its names, canonical name first.
struct Flag {
    names: Vec<String>,
    kind: Kind,
}

/// Takes a command line apart by the rules of Go's `flag` package.
///
/// `cmd` tells which flags exist: every option's long name, short name and aliases are names of that flag, with one or
/// two dashes alike. `args` comes without `argv[0]`. Sub-commands and positionals of `cmd` are ignored.
///
/// # Errors
///
/// The first error in the order of the arguments; a flag given under two names is reported when all else was fine.
pub fn normalize(
    cmd: &Command,
    args: impl IntoIterator<Item = OsString>,
) -> Result<Normalized, FlagError> {
    let known = flags_of(cmd);
    let mut out = Normalized::default();
    let mut typed = BTreeSet::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let Some((name, inline)) = split(&arg)? else {
            // "--" ends the flags and vanishes; any other word is the first one of the rest.
            if arg != "--" {
                out.rest.push(arg);
            }
            out.rest.extend(args);
            break;
        };
        let Some(flag) =
            known.iter().find(|flag| flag.names.iter().any(|n| n.as_bytes() == name.as_bytes()))
        else {
            return Err(match name.to_str() {
                Some("help" | "h") => FlagError::Help,
                _ => FlagError::Undefined(name.to_string_lossy().into_owned()),
            });
        };
        let name = name.to_string_lossy().into_owned();
        let value = match (flag.kind, inline) {
            (Kind::Switch { .. } | Kind::Bool, inline) => read_switch(&name, inline)?,
            (kind, Some(value)) => Some(read_value(kind, &name, value.to_owned())?),
            // The next word is the value even if it looks like a flag.
            (kind, None) => match args.next() {
                Some(value) => Some(read_value(kind, &name, value)?),
                None => return Err(FlagError::NeedsArgument(name)),
            },
        };
        out.kinds.insert(flag.names[0].clone(), flag.kind);
        out.flags.push((flag.names[0].clone(), value));
        typed.insert(name);
    }
    refuse_two_forms(&known, &typed)?;
    Ok(out)
}

impl Normalized {
    /// The same command line in the strict form that clap reads: `bin`, then `--name=value` tokens, then `--` and the
    /// rest if there is one.
    ///
    /// Of a repeated scalar or boolean only the last occurrence stays; slices keep all of theirs. A boolean that has
    /// its resting value is left out.
    pub fn to_clap_args(&self, bin: &str) -> Vec<OsString> {
        let mut argv = vec![OsString::from(bin)];
        for (index, (name, value)) in self.flags.iter().enumerate() {
            let kind = self.kinds.get(name).copied().unwrap_or(Kind::Text);
            let repeated = self.flags[index + 1..].iter().any(|(later, _)| later == name);
            if repeated && kind != Kind::Slice {
                continue;
            }
            let truth = value.is_none();
            let value = match kind {
                Kind::Switch { passed_when } if passed_when != truth => continue,
                Kind::Switch { .. } => None,
                Kind::Bool => Some(OsString::from(if truth { "true" } else { "false" })),
                Kind::Int | Kind::Text | Kind::Slice => value.clone(),
            };
            argv.push(token(name, value.as_deref()));
        }
        if !self.rest.is_empty() {
            argv.push("--".into());
            argv.extend(self.rest.iter().cloned());
        }
        argv
    }
}

fn token(name: &str, value: Option<&OsStr>) -> OsString {
    let mut token = OsString::from(format!("--{name}"));
    if let Some(value) = value {
        token.push("=");
        token.push(value);
    }
    token
}

fn flags_of(cmd: &Command) -> Vec<Flag> {
    let options = cmd.get_arguments().filter(|arg| !arg.is_positional());
    options
        .map(|arg| {
            let mut names: Vec<String> = arg.get_long().into_iter().map(str::to_owned).collect();
            names.extend(arg.get_all_aliases().unwrap_or_default().into_iter().map(str::to_owned));
            names.extend(arg.get_short().map(String::from));
            names.extend(
                arg.get_all_short_aliases().unwrap_or_default().into_iter().map(String::from),
            );
            Flag { names, kind: Kind::of(arg) }
        })
        .collect()
}

/// A flag's name and, if there is a `=`, its value.
type NameAndValue<'a> = (&'a OsStr, Option<&'a OsStr>);

/// Splits `-name`, `--name`, `-name=value` and `--name=value`. `None`: not a flag, or the terminator `--`.
fn split(arg: &OsStr) -> Result<Option<NameAndValue<'_>>, FlagError> {
    let bytes = arg.as_bytes();
    let name = match bytes {
        b"--" => return Ok(None),
        [b'-', b'-', name @ ..] | [b'-', name @ ..] if !name.is_empty() => name,
        _ => return Ok(None),
    };
    if name.starts_with(b"-") || name.starts_with(b"=") {
        return Err(FlagError::BadSyntax(arg.to_string_lossy().into_owned()));
    }
    Ok(Some(match name.iter().position(|byte| *byte == b'=') {
        Some(at) => (OsStr::from_bytes(&name[..at]), Some(OsStr::from_bytes(&name[at + 1..]))),
        None => (OsStr::from_bytes(name), None),
    }))
}

fn read_switch(name: &str, inline: Option<&OsStr>) -> Result<Option<OsString>, FlagError> {
    let Some(value) = inline else { return Ok(None) };
    match value.to_str().and_then(parse_bool) {
        Some(true) => Ok(None),
        Some(false) => Ok(Some("false".into())),
        None => Err(FlagError::InvalidBool { name: name.to_owned(), value: value.to_owned() }),
    }
}

fn read_value(kind: Kind, name: &str, value: OsString) -> Result<OsString, FlagError> {
    if kind != Kind::Int {
        return Ok(value);
    }
    // Text that is no UTF-8 can be no number, and the replacement characters make sure that it is none.
    match read_int(&value.to_string_lossy()) {
        Ok(int) => Ok(int.to_string().into()),
        Err(error) => {
            Err(FlagError::InvalidValue { name: name.to_owned(), value, reason: error.reason() })
        }
    }
}

fn refuse_two_forms(known: &[Flag], typed: &BTreeSet<String>) -> Result<(), FlagError> {
    for flag in known {
        let mut used = flag.names.iter().filter(|name| typed.contains(*name));
        if let (Some(first), Some(second)) = (used.next(), used.next()) {
            return Err(FlagError::TwoForms { second: second.clone(), first: first.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
