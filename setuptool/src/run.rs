//! Starting programs whose output is the user's: systemctl and docker.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use hostenv::Env;
use hostenv::helper::{Helper, Output};
use hostenv::shellwords::quoted;
use nix::unistd::Pid;
use sys::pidfd::PidFd;

use crate::ui::Ui;

/// Why a verb ends without success: what to say, and the exit status.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) text: String,
    pub(crate) code: u8,
}

impl Failed {
    pub(crate) fn silent(code: u8) -> Self {
        Self { text: String::new(), code }
    }

    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 1 }
    }
}

/// An error with what was attempted: `cannot create /x: Permission denied`.
pub(crate) fn cannot<E: Display>(what: &str, path: &Path) -> impl FnOnce(E) -> Failed {
    move |error| Failed::new(format!("cannot {what} {}: {error}", path.display()))
}

/// Notes what could not be removed.
pub(crate) fn note(problems: &mut Vec<String>, path: &Path, result: std::io::Result<()>) {
    problems.extend(result.err().map(|error| cannot("remove", path)(error).text));
}

/// Removes a file, if it is there, or notes why that failed.
pub(crate) fn remove(problems: &mut Vec<String>, path: &Path) {
    note(problems, path, hostenv::file::remove_if_present(path).map(drop));
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self::new(format!("{error:#}"))
    }
}

/// The exit status as the shell has it.
pub(crate) fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(1));
    u8::try_from(code).unwrap_or(1)
}

/// Runs a program with our standard output (or none) and standard error, and waits at most `limit`.
pub(crate) fn shown(
    program: &Path,
    args: &[&OsStr],
    env: &Env,
    with_output: bool,
    limit: Duration,
) -> Result<ExitStatus, Failed> {
    let name = program.display();
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(env.iter()).stdin(Stdio::null());
    if !with_output {
        command.stdout(Stdio::null());
    }
    let mut child =
        command.spawn().map_err(|error| Failed::new(format!("cannot run {name}: {error}")))?;
    let ended = i32::try_from(child.id())
        .map_err(std::io::Error::other)
        .and_then(|pid| PidFd::open(Pid::from_raw(pid)))
        .and_then(|pidfd| pidfd.wait_ended(limit));
    if !matches!(ended, Ok(true)) {
        // Gone already, or killed now; wait() tells which.
        let _ = child.kill();
        let _ = child.wait();
        let seconds = limit.as_secs();
        return Err(Failed::new(format!(
            "{name} did not finish within {seconds} s and was killed"
        )));
    }
    child.wait().map_err(|error| Failed::new(format!("cannot wait for {name}: {error}")))
}

pub(crate) fn captured(
    program: &Path,
    args: &[&OsStr],
    env: &Env,
    limit: Duration,
) -> Result<Output, Failed> {
    Helper::start(program, args, env, limit)
        .and_then(Helper::finish)
        .map_err(|error| Failed::new(format!("{:#}", anyhow::Error::from(error))))
}

/// Shows a command of a service manager and runs it; whether it succeeded.
pub(crate) fn traced(
    ui: &mut Ui,
    program: Option<PathBuf>,
    (of, name): (&str, &str),
    args: &[&str],
    env: &Env,
    limit: Duration,
) -> Result<bool, Failed> {
    let program = program.ok_or_else(|| Failed::new(format!("{of}'s {name} is not in PATH")))?;
    let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
    ui.trace(&command_line(name, &args));
    Ok(shown(&program, &args, env, true, limit)?.success())
}

/// A command line as `set -x` shows it.
pub(crate) fn command_line(program: &str, args: &[&OsStr]) -> String {
    let words = [OsString::from(program)];
    let words = words.iter().map(OsString::as_os_str).chain(args.iter().copied());
    words.map(quoted).collect::<Vec<_>>().join(" ")
}
