//! The help text, rendered from the definition in [`crate::cli`] in the layout that RootlessKit has.
//! nerdctl looks for the literal `--detach-netns` in it.

use std::fmt::Write as _;

use clap::{Arg, ArgAction};

use crate::cli::{command, heading};

/// `--name value, -n value`, and how often.
fn synopsis(arg: &Arg) -> String {
    let long = arg.get_long().unwrap_or_default();
    let value = match arg.get_action() {
        ArgAction::SetTrue => "",
        ArgAction::Append => " value",
        _ if arg.get_default_values().iter().any(|v| v == "true") => "",
        _ => " value",
    };
    let mut text = format!("--{long}{value}");
    if let Some(short) = arg.get_short() {
        write!(text, ", -{short}{value}").unwrap_or_default();
    }
    if matches!(arg.get_action(), ArgAction::Append) {
        let all = text.clone();
        write!(text, " [ {all} ]").unwrap_or_default();
    }
    text
}

fn default(arg: &Arg) -> String {
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return match arg.get_id().as_str() {
            "help" | "version" => String::new(),
            _ => " (default: false)".to_owned(),
        };
    }
    let text = |v: &std::ffi::OsStr| match v.to_str() {
        Some(plain @ ("true" | "0")) => format!(" (default: {plain})"),
        Some(quoted) => format!(" (default: {quoted:?})"),
        None => String::new(),
    };
    arg.get_default_values().first().map(|v| text(v)).unwrap_or_default()
}

/// The whole help text, without a final newline.
pub(crate) fn text() -> String {
    let cmd = command();
    let args: Vec<&Arg> =
        cmd.get_arguments().filter(|a| a.get_long().is_some() && !a.is_hide_set()).collect();
    let width = args.iter().map(|a| synopsis(a).len()).max().unwrap_or(0);
    let mut out = format!(
        "NAME:\n   rootlesskit - {}\n\nUSAGE:\n   rootlesskit [global options] [arguments...]\n\nVERSION:\n   {}\n\n{DESCRIPTION}\n\nOPTIONS:",
        cmd.get_about().map(ToString::to_string).unwrap_or_default(),
        api::ROOTLESSKIT_VERSION,
    );
    for heading in heading::ALL {
        if !args.iter().any(|a| a.get_help_heading() == Some(heading)) {
            continue;
        }
        write!(out, "\n   {heading}\n").unwrap_or_default();
        for arg in args.iter().filter(|a| a.get_help_heading() == Some(heading)) {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            writeln!(out, "\n   {:width$}  {help}{}", synopsis(arg), default(arg))
                .unwrap_or_default();
        }
    }
    out.truncate(out.trim_end().len());
    out
}

const DESCRIPTION: &str = "\
DESCRIPTION:
   RootlessKit runs a command as root in its own user and mount namespaces, without root privileges.

   Your user needs entries in /etc/subuid and /etc/subgid, and the programs newuidmap and newgidmap:
   https://rootlesscontaine.rs/getting-started/common/

   With `--net=host`, the default, the command uses the host's network. Containers need a network of their
   own: choose another network driver with --net.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_visible_flag_is_in_the_text() {
        let text = text();
        for name in [
            "--detach-netns",
            "--state-dir value",
            "--publish value, -p value [ --publish value",
            "(default: \"rprivate\")",
        ] {
            assert!(text.contains(name), "{name} in {text}");
        }
        assert!(text.lines().all(|l| l.trim_end() == l), "no trailing space");
    }

    #[test]
    fn drivers_are_in_the_text_if_they_are_in_the_build() {
        let text = text();
        for (driver, here) in [
            ("vpnkit", cfg!(feature = "vpnkit")),
            ("lxc-user-nic", cfg!(feature = "lxc-user-nic")),
            ("slirp4netns", cfg!(feature = "slirp4netns")),
            ("pasta", cfg!(feature = "pasta")),
        ] {
            for part in [format!("Network [{driver}]\n"), format!("--{driver}-binary value")] {
                assert_eq!(text.contains(&part), here, "{part}");
            }
            let choice = text.lines().find(|line| line.contains("--net value")).unwrap();
            assert_eq!(choice.contains(driver), here, "{choice}");
        }
        // Launcher and set-up tool try the gateway if the word is anywhere in the text.
        assert_eq!(text.contains("gateway"), cfg!(feature = "gateway"), "{text}");
        assert_eq!(text.contains("gvisor-tap-vsock"), cfg!(feature = "gateway"), "{text}");
        for (name, here) in [
            ("gateway", cfg!(feature = "gateway")),
            ("slirp4netns", cfg!(feature = "slirp4netns")),
            ("pesto", cfg!(feature = "pasta")),
            ("builtin", true),
        ] {
            let choice = text.lines().find(|line| line.contains("--port-driver value")).unwrap();
            assert_eq!(choice.contains(name), here, "{choice}");
        }
    }
}
