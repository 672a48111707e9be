//! Flags among the words of `DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS` (see [`crate::shellwords`]) or of a command line.
//!
//! rootlesskit gets the words of this variable behind the launcher's own flags, and there the last one wins. They are
//! read only to decide and to warn with the values that will be in force.

use std::ffi::OsString;

/// Whether a flag takes a value in a token of its own (`--net pasta`) or never (`--detach-netns`).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Value,
    Bool,
}

/// Every value of a Go-style flag: `-n v`, `--n v`, `-n=v`, `--n=v`. Ends where flags end.
fn values(args: &[OsString], name: &str, kind: Kind) -> Vec<String> {
    let mut found = Vec::new();
    let mut args = args.iter().map(|a| a.to_string_lossy());
    while let Some(arg) = args.next() {
        if arg == "--" {
            break;
        }
        let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else { continue };
        match flag.split_once('=') {
            Some((n, value)) if n == name => found.push(value.to_owned()),
            None if flag == name && kind == Kind::Bool => found.push("true".to_owned()),
            None if flag == name => found.extend(args.next().map(String::from)),
            _ => {}
        }
    }
    found
}

/// All values of a flag, for one that may be given several times.
///
/// ```
/// let words = ["--debug", "-p", "a", "--p=b"].map(std::ffi::OsString::from);
/// assert_eq!(hostenv::flags::all(&words, "p"), ["a", "b"]);
/// ```
pub fn all(args: &[OsString], name: &str) -> Vec<String> {
    values(args, name, Kind::Value)
}

/// The value of a flag that wins.
pub fn last(args: &[OsString], name: &str) -> Option<String> {
    all(args, name).pop()
}

/// The value of a boolean flag that wins; anything that does not mean false is true.
pub fn last_bool(args: &[OsString], name: &str) -> Option<bool> {
    let value = values(args, name, Kind::Bool).pop()?;
    Some(!matches!(value.as_str(), "false" | "False" | "FALSE" | "f" | "F" | "0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(s: &str) -> Vec<OsString> {
        s.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_last_flag_wins_in_every_spelling() {
        let flags = words("--net=slirp4netns -net pasta --vpnkit-binary=/x --net vpnkit --debug");
        assert_eq!(last(&flags, "net").as_deref(), Some("vpnkit"));
        assert_eq!(all(&flags, "net"), ["slirp4netns", "pasta", "vpnkit"]);
        assert_eq!(last(&flags, "port-driver"), None);
        assert_eq!(last(&words("--debug -- --net=pasta"), "net"), None);
        assert_eq!(last(&words("--net"), "net"), None);
    }

    #[test]
    fn booleans_need_no_value_and_take_none() {
        assert_eq!(last_bool(&words("--detach-netns=false"), "detach-netns"), Some(false));
        assert_eq!(
            last_bool(&words("-detach-netns=0 --detach-netns false"), "detach-netns"),
            Some(true)
        );
        assert_eq!(last_bool(&words("--debug"), "detach-netns"), None);
    }

    proptest! {
        #[test]
        fn no_argument_is_a_panic(args in "[-p=:/,\\[\\] 0-9a-z.]{0,60}") {
            let _ = (last(&words(&args), "net"), last_bool(&words(&args), "p"));
        }
    }
}
