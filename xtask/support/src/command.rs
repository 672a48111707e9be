//! Commands that must succeed, and how a tool itself ends.

use std::io::{self, ErrorKind, IsTerminal as _, Read as _, Write};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::stages;

/// How a program ends whose work has this result; says what went wrong.
pub fn exit_code(result: &Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// Runs a command and shows its output only if it fails.
pub fn quietly(command: &mut Command) -> Result<String> {
    let output =
        command.output().with_context(|| format!("running {:?}", command.get_program()))?;
    if !output.status.success() {
        let both = [output.stdout, output.stderr].concat();
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&both).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command that shows its own progress on standard error, line by line: cargo's bar would get in the way of other
/// lines, and stands still while a large crate is compiled.
pub fn visibly(command: &mut Command) -> Result<()> {
    if io::stderr().is_terminal() && std::env::var_os(COLOR).is_none() {
        command.env(COLOR, "always");
    }
    let status = pass_on(command, &mut io::stderr())
        .with_context(|| format!("running {:?}", command.get_program()))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// What tells cargo whether to use colors.
const COLOR: &str = "CARGO_TERM_COLOR";

/// Runs a command, writes its standard error to `to` as it comes, and notes when.
fn pass_on(command: &mut Command, to: &mut dyn Write) -> io::Result<ExitStatus> {
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let mut buffer = [0; 4096];
    while let Some(pipe) = child.stderr.as_mut() {
        match pipe.read(&mut buffer) {
            Ok(0) => break,
            // The command goes on if nobody reads any more.
            Ok(length) => drop(to.write_all(&buffer[..length])),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        stages::printed();
    }
    child.wait()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_says_is_passed_on_and_noted() {
        let mut said = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one >&2; echo two >&2; exit 7"]);
        let status = pass_on(&mut command, &mut said).unwrap();
        assert_eq!((status.code(), said.as_slice()), (Some(7), &b"one\ntwo\n"[..]));
    }
}
