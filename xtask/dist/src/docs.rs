//! Man pages and completions, from the definitions that the programs themselves parse with.
//!
//! What a definition cannot say (files, exit status, examples) is in `packaging/man/*.tail` and appended.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use clap_complete::{Generator as _, Shell};
use xtask_support::cargo;

/// Writes all of them into the folder `made`.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn make(made: &Path) -> Result<()> {
    let tails = cargo::workspace()?.join("packaging/man");
    for (name, definition) in [
        ("rootlesskit", rootlesskit::definition()),
        ("rootlessctl", rootlesskit::ctl::definition()),
    ] {
        complete(&definition, name, made)?;
        clap_mangen::generate_to(definition, made)
            .with_context(|| format!("the man pages of {name}"))?;
        let tail = tails.join(name).with_extension("tail");
        let tail = fs::read(&tail).with_context(|| format!("reading {}", tail.display()))?;
        let page = made.join(name).with_extension("1");
        OpenOptions::new()
            .append(true)
            .open(&page)
            .and_then(|mut file| file.write_all(&tail))
            .with_context(|| format!("appending to {}", page.display()))?;
    }
    // Shells complete by the name that is typed.
    for name in ["dockerd-rootless-setuptool", "dockerd-rootless-setuptool.sh"] {
        complete(&setuptool::shown(), name, made)?;
    }
    Ok(())
}

/// Writes the completions of a program. They are made for a name without a dash and changed: with one, clap_complete
/// 4.6 names the cases of subcommands in two ways in bash, and finds none of them.
fn complete(definition: &clap::Command, name: &str, made: &Path) -> Result<()> {
    const PLAIN: &str = "PROGRAM";
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut definition.clone().name(PLAIN), PLAIN, &mut text);
        let text = String::from_utf8(text).context("completions that are no text")?;
        fs::write(made.join(shell.file_name(name)), text.replace(PLAIN, name))
            .with_context(|| format!("completions of {name} for {shell}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::process::Command;

    use super::*;
    use crate::manifest::{ROWS, Source};

    #[test]
    fn flags_of_drivers_that_are_left_out_are_in_no_page_and_no_completion() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path()).unwrap();
        for name in ["rootlesskit.1", "rootlesskit.bash", "_rootlesskit", "rootlesskit.fish"] {
            let text = fs::read_to_string(dir.path().join(name)).unwrap().replace('\\', "");
            for (flag, here) in [
                ("gateway-dual-stack", cfg!(feature = "gateway")),
                ("host-loopback-allow", cfg!(feature = "gateway")),
                ("egress-policy", cfg!(feature = "gateway")),
                ("vpnkit-binary", cfg!(feature = "vpnkit")),
            ] {
                assert_eq!(text.contains(flag), here, "{flag} in {name}");
            }
        }
    }

    /// What bash offers for the last word.
    fn offered(made: &Path, words: &[&str]) -> Vec<String> {
        let name = words[0];
        let script = "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
             f=$(complete -p \"$1\"); f=${f#*-F }; \
             \"${f%% *}\" \"$1\" \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"; \
             printf '%s\\n' \"${COMPREPLY[@]}\"";
        let file = made.join(format!("{name}.bash"));
        let output = Command::new("bash")
            .args(["--norc", "-c", script, "bash"])
            .arg(file)
            .args(words)
            .output()
            .unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn both_names_of_the_set_up_tool_are_completed() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path()).unwrap();
        for name in ["dockerd-rootless-setuptool", "dockerd-rootless-setuptool.sh"] {
            assert_eq!(offered(dir.path(), &[name, "un"]), ["uninstall"]);
            assert_eq!(offered(dir.path(), &[name, "uninstall", "--p"]), ["--purge"]);
            assert_eq!(offered(dir.path(), &[name, "check", "--j"]), ["--json"]);
            let options = offered(dir.path(), &[name, "install", "--"]);
            for option in ["--force", "--skip-iptables", "--socket", "--supervise", "--print"] {
                assert!(options.iter().any(|offer| offer == option), "{option} in {options:?}");
            }
            assert!(!options.iter().any(|offer| offer == "--purge"), "{options:?}");
            for file in [format!("_{name}"), format!("{name}.fish")] {
                let text = fs::read_to_string(dir.path().join(&file)).unwrap();
                let words = ["uninstall", "nsenter", "apparmor", "purge", "supervise", "openrc"];
                for word in words {
                    assert!(text.contains(word), "{word} in {file}");
                }
            }
        }
    }

    #[test]
    fn whatever_is_made_is_installed() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path()).unwrap();
        let made: BTreeSet<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let wanted: BTreeSet<_> = ROWS
            .iter()
            .filter_map(|(_, from)| match from {
                Source::Made(name) if *name != "THIRD-PARTY" => Some((*name).to_owned()),
                _ => None,
            })
            .collect();
        assert_eq!(made, wanted);
    }

    #[test]
    fn pages_have_flags_and_tails_and_no_hidden_flags() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path()).unwrap();
        let page = fs::read_to_string(dir.path().join("rootlesskit.1")).unwrap();
        for part in ["detach\\-netns", "SH \"EXIT STATUS\"", "SH EXAMPLES", "api.sock"] {
            let plain = part.replace('"', "");
            assert!(page.contains(part) || page.contains(&plain), "{part} in {page}");
        }
        let definition = rootlesskit::definition();
        for hidden in definition.get_arguments().filter(|arg| arg.is_hide_set()) {
            let Some(flag) = hidden.get_long() else { continue };
            let printed = format!("\\-\\-{}\\fR", flag.replace('-', "\\-"));
            assert!(!page.contains(&printed), "{printed} in {page}");
        }
        let bash = fs::read_to_string(dir.path().join("rootlessctl.bash")).unwrap();
        assert!(bash.contains("remove-ports"), "{bash}");
    }
}
