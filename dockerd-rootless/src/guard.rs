//! Words that were meant for another program.
//!
//! dockerd takes no words, only options, so a first argument without a dash is a mistake that would
//! otherwise surface after the namespaces were made.

use std::ffi::OsString;

use hostenv::shellwords::quoted;

use crate::report::Failure;

const SETUPTOOL: &str = "dockerd-rootless-setuptool.sh";

/// Refuses the commands of the set-up tool, and `help` and `version`.
pub(crate) fn check(args: &[OsString]) -> Result<(), Failure> {
    let meant = match args.first().and_then(|a| a.to_str()) {
        Some("check" | "install" | "uninstall" | "nsenter") => SETUPTOOL.to_owned() + &joined(args),
        Some(word @ ("help" | "version")) => format!("dockerd-rootless --{word}"),
        _ => return Ok(()),
    };
    Err(Failure::new(format!("dockerd has no command {:?}", args[0]))
        .hint(format!("did you mean: {meant}")))
}

/// Options that only make dockerd print something, which it does without namespaces and without privileges.
pub(crate) fn only_prints(args: &[OsString]) -> bool {
    matches!(args, [one] if ["--help", "-h", "--version", "-v"].iter().any(|option| one == option))
}

/// Whether the help is to be printed, which this program has a part of.
pub(crate) fn asks_for_help(args: &[OsString]) -> bool {
    matches!(args, [one] if one == "--help" || one == "-h")
}

fn joined(args: &[OsString]) -> String {
    args.iter().map(|a| format!(" {}", quoted(a))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(args: &[&str]) -> Vec<OsString> {
        args.iter().map(OsString::from).collect()
    }

    #[test]
    fn commands_of_the_set_up_tool_are_named() {
        for word in ["check", "install", "uninstall", "nsenter"] {
            let e = check(&words(&[word, "--force", "a b", ""])).unwrap_err().to_string();
            assert!(
                e.ends_with(&format!("dockerd-rootless-setuptool.sh {word} --force 'a b' ''")),
                "{e}"
            );
        }
        let e = check(&words(&["version"])).unwrap_err().to_string();
        assert!(e.ends_with("dockerd-rootless --version"), "{e}");
    }

    #[test]
    fn only_the_first_argument_counts() {
        for args in [&[][..], &["--debug", "install"], &["--install"], &["Install"], &[""]] {
            assert_eq!(check(&words(args)), Ok(()), "{args:?}");
        }
    }

    #[test]
    fn help_needs_no_namespaces() {
        assert!(only_prints(&words(&["--help"])) && only_prints(&words(&["-v"])));
        assert!(!only_prints(&words(&["--help", "--debug"])) && !only_prints(&[]));
        assert!(asks_for_help(&words(&["-h"])) && !asks_for_help(&words(&["--version"])));
    }
}
